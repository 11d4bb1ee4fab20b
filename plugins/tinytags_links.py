"""Adds the search page to Airflow's navigation."""

from airflow.plugins_manager import AirflowPlugin

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.settings import load_settings


def search_views() -> list[dict[str, str | bool]]:
    """Return the link to the search page in the format of Airflow's ``external_views``; empty if it has no address.

    The link has no ``url_route``, so that Airflow does not show the page in a frame, which the page refuses.
    """
    try:
        url = load_settings().search_url
    except TinyTagsError:
        return []  # invalid settings must not break Airflow's UI; every task reports what is wrong with them
    if not url or not url.startswith(("http://", "https://")):
        return []
    return [{"name": "TinyTags search", "href": url, "destination": "nav", "nav_top_level": True}]


class TinyTagsLinks(AirflowPlugin):  # type: ignore[misc]  # Airflow comes without types here
    """Links to TinyTags' own pages."""

    name = "tinytags_links"
    external_views = search_views()
