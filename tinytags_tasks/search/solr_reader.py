"""Asks Solr as a reader: one answer within a short time, without retries, because a page waits for it."""

import re
from typing import Any
from urllib.parse import urlsplit

import pysolr
import requests

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError
from tinytags_tasks.settings import Settings
from tinytags_tasks.solr import unknown_user

TIMEOUT_SECONDS = 30

Parameters = dict[str, str | int | list[str]]
"""Of Solr's ``/select``."""


def ask_solr(settings: Settings, parameters: Parameters) -> dict[str, Any]:
    try:
        address = settings.address("solr_url")
        login = settings.solr_login("reader")
    except BadInputError as error:
        raise EngineDownError(str(error)) from error
    shown = re.sub(r"//[^/@]*@", "//", address) if "@" in urlsplit(address).netloc else address
    away = EngineDownError(
        f"Solr does not answer at {shown}: start the engines with `tinytags up`, or correct TINYTAGS_SOLR_URL"
    )
    # As bytes, because requests writes text in Latin-1.
    auth = tuple(part.encode() for part in login) if login else None
    solr = pysolr.Solr(f"{address}/{settings.alias}", timeout=TIMEOUT_SECONDS, auth=auth)
    try:
        answer = solr.search(**parameters).raw_response
    except pysolr.SolrError as error:
        status = re.search(r"\(HTTP (\d{3})\)", str(error))
        if not status:
            raise away from error
        if status[1] == "401":
            raise FinalError(unknown_user(shown, "reader", login)) from error
        if status[1] in ("403", "404"):  # whoever may only search is not told which of the two it is
            or_hidden = f", or none that {login[0]!r} may search" if login and status[1] == "403" else ""
            raise MissingError(
                f"nothing is published yet: run `tinytags run` (Solr at {shown} has no {settings.alias!r}{or_hidden})"
            ) from error
        if "cursorMark" in parameters and "cursorMark" in str(error):
            raise BadInputError("Solr does not know this cursor: start again with '*'") from error
        if status[1][0] == "5" or status[1] == "429":
            raise EngineDownError(
                f"Solr at {shown} cannot search {settings.alias!r} now (HTTP {status[1]}): try again, or look into "
                "its log"
            ) from error
        raise FinalError(f"Solr at {shown} refused the search: {str(error)[:300]}") from error
    except requests.RequestException as error:
        raise away from error
    except (ValueError, AttributeError) as error:
        raise EngineDownError(f"what answers at {shown} is not Solr: correct TINYTAGS_SOLR_URL") from error
    return dict(answer)
