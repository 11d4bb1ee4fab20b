"""Adds the search page to Airflow's navigation."""

from airflow.plugins_manager import AirflowPlugin

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.settings import load_settings


def search_views() -> list[dict[str, str | bool]]:
    """Return the link to the search page as Airflow's ``external_views`` wants it; empty while there is no address.

    It has no ``url_route``, so that Airflow opens the page by itself: it refuses to be shown in a frame.
    """
    try:
        url = load_settings().search_url
    except TinyTagsError:
        return []  # Airflow stays usable when TinyTags' settings are not; every task says what is wrong with them.
    if not url or not url.startswith(("http://", "https://")):
        return []
    return [{"name": "TinyTags search", "href": url, "destination": "nav", "nav_top_level": True}]


class TinyTagsLinks(AirflowPlugin):  # type: ignore[misc]  # Airflow comes without types here
    """The links to TinyTags' own pages."""

    name = "tinytags_links"
    external_views = search_views()
