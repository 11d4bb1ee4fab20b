"""Adds the search page and the review to Airflow's navigation."""

from airflow.plugins_manager import AirflowPlugin

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.settings import load_settings


def search_views() -> list[dict[str, str | bool]]:
    """Return the links to our own pages in the format of Airflow's ``external_views``; empty if these have no address.

    A link has no ``url_route``, so that Airflow does not show the page in a frame, which the page refuses.
    """
    try:
        url = load_settings().search_page or ""
    except TinyTagsError:
        return []  # invalid settings must not break Airflow's UI; every task reports what is wrong with them
    if not url.startswith(("http://", "https://")):
        return []
    pages = {"TinyTags search": url, "TinyTags review": f"{url}/review"}
    return [{"name": name, "href": href, "destination": "nav", "nav_top_level": True} for name, href in pages.items()]


class TinyTagsLinks(AirflowPlugin):  # type: ignore[misc]  # Airflow comes without types here
    """Links to our own pages."""

    name = "tinytags_links"
    external_views = search_views()
