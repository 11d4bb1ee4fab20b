"""Asks Solr as a reader: one attempt within a bounded time, because a page waits for the answer."""

import logging
from functools import lru_cache
from typing import Any

import pysolr

from tinytags_tasks.clients.solr_http import ForbiddenError, NotSolrError, SolrHttp, UndefinedFieldError
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError, TransientError
from tinytags_tasks.settings import Login, Settings

TIMEOUT_SECONDS = 20
ALLOWED_SECONDS = 15
"""How long Solr may search for; it gives up by itself, so that searches that nobody waits for do not pile up."""

CONNECTIONS = 16
"""Searches that may be under way at once; others wait for their turn."""

TURN_SECONDS = 5.0
"""How long they wait: while Solr hangs, pages then say so, instead of holding all of the server's threads."""

_log = logging.getLogger(__name__)

Parameters = dict[str, str | int | list[str]]
"""Of Solr's ``/select``."""


class _Decoded:
    """Stands in for a JSON decoder: answers come decoded already."""

    def decode(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer


class _SolrReader(pysolr.Solr):  # type: ignore[misc] # pysolr has no types
    """pysolr's searches of one collection, sent as all requests to Solr are, so that errors are mapped in one place."""

    def __init__(self, http: SolrHttp, collection: str) -> None:
        super().__init__(f"{http.url}/{collection}", decoder=_Decoded())
        self._http = http
        self._collection = collection

    def _select(self, params: Parameters, handler: str | None = None) -> dict[str, Any]:
        return self._http.select(self._collection, params)


@lru_cache(maxsize=4)
def _connect(address: str, login: Login | None) -> SolrHttp:
    """Return the connections of a reader, which all pages share."""
    return SolrHttp(
        address,
        "reader",
        login,
        pauses_seconds=(),
        timeout_seconds=TIMEOUT_SECONDS,
        connections=CONNECTIONS,
        turn_seconds=TURN_SECONDS,
    )


def ask_solr(settings: Settings, parameters: Parameters) -> dict[str, Any]:
    """Search what is published, and return Solr's answer.

    Parameters
    ----------
    settings
        Of Solr and the alias.
    parameters
        As Solr takes them. ``collection`` names the collections that are searched instead of the alias: Solr itself
        would search those that the alias points at as well.

    Raises
    ------
    EngineDownError
        If Solr does not answer in time, or cannot search now.
    MissingError
        If nothing is published, or the collections are gone.
    BadInputError
        If Solr does not know the cursor.
    UndefinedFieldError
        If what is published lacks a field that is searched by.
    FinalError
        If Solr refuses the reader's password or the search.
    """
    try:
        login = settings.solr_login("reader")
        http = _connect(settings.address("solr_url"), login)
    except BadInputError as error:
        raise EngineDownError(str(error)) from error
    asked = {"timeAllowed": ALLOWED_SECONDS * 1_000, **parameters}
    searched = str(asked.pop("collection", settings.alias))
    try:
        answer = dict(_SolrReader(http, searched).search(**asked).raw_response)
        if answer.get("responseHeader", {}).get("partialResults"):
            raise EngineDownError(f"the search took longer than {ALLOWED_SECONDS} s: ask for less, or try again later")
        return answer
    except EngineDownError:
        raise
    except (TransientError, NotSolrError) as error:
        raise EngineDownError(f"{settings.alias!r} cannot be searched right now: {error}") from error
    except (MissingError, ForbiddenError) as error:  # Solr does not tell a reader which of the two it is
        or_hidden = f", or none that {login[0]!r} may search" if login and isinstance(error, ForbiddenError) else ""
        _log.warning("Solr at %s has no %r%s", http.url, searched, or_hidden)  # whoever searches need not know where
        raise MissingError(
            f"nothing is published yet: run `tinytags run` (Solr has no {settings.alias!r}{or_hidden})"
        ) from error
    except BadInputError as error:  # Solr's password is the operator's business, not bad input of who searches
        raise FinalError(str(error)) from error
    except UndefinedFieldError as error:
        message = f"what is published under {settings.alias!r} has no field {error.field}: {error}"
        raise UndefinedFieldError(message, error.field) from error
    except FinalError as error:
        if "cursorMark" in parameters and "cursorMark" in str(error):
            raise BadInputError("Solr does not know this cursor: start again with '*'") from error
        raise FinalError(f"Solr refused the search: {error}") from error
