"""Whether searches can be answered: Solr answers, and something is published under the alias."""

import time

from tinytags_tasks.errors import MissingError, TransientError
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches

PATIENCE_SECONDS = 2.0
KEPT_SECONDS = 1.0
LONGEST_SECONDS = 10.0
"""How long ago Solr may have answered last."""


class Readiness:
    """Asks Solr at most once at a time, so that probes never wait long, nor pile up while it hangs."""

    def __init__(self, searches: Searches) -> None:
        self._searches = searches
        self._answered = Kept("whether Solr answers", self._ask, KEPT_SECONDS, PATIENCE_SECONDS)

    def check(self) -> None:
        """Return if searches can be answered now.

        Raises
        ------
        MissingError
            If nothing is published.
        TransientError
            If Solr does not answer.
        """
        state = self._answered.get()
        if isinstance(state, MissingError):
            raise state
        if time.monotonic() - state > LONGEST_SECONDS:
            raise TransientError(f"Solr has not answered for {LONGEST_SECONDS:g} s")

    def _ask(self) -> float | MissingError:
        """Return when Solr answered, or that it has nothing to search."""
        try:
            self._searches.page(SearchRequest(rows=1))
        except MissingError as error:
            return error
        return time.monotonic()
