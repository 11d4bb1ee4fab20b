"""Answers searches with all that decides what is found: what is live, what is hidden, and what reviews measured."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.measured import Measured, MeasuredRuns, least_confidence
from tinytags_tasks.search.query import SearchPage, iterate_images, search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings


@dataclass(frozen=True)
class Searches:
    """What pages, the API and commands search with."""

    settings: Settings
    live: LiveRuns = field(repr=False)
    logs: WordLogs = field(repr=False)
    measured: MeasuredRuns = field(repr=False)

    def page(self, request: SearchRequest) -> SearchPage:
        """Return one page of what a request finds; its images have no pixels but those of old documents.

        Raises
        ------
        TinyTagsError
            See :func:`~tinytags_tasks.search.query.search_images`.
        """
        return search_images(self.settings, request, self.hidden(request))

    def images(self, request: SearchRequest, limit: int | None = None) -> Iterator[TaggedImage]:
        """Yield all images that a request finds, or the first ``limit``; raises as :meth:`page`."""
        return iterate_images(self.settings, request, limit, self.hidden(request))

    def tables(self) -> Measured:
        """Return what was measured of each corpus' live run."""
        return self.measured.tables(live.run for live in self.live.runs())

    def hidden(self, request: SearchRequest) -> Hidden:
        """Return what a request does not find, whatever its filters."""
        hidden = self.logs.hidden().at_least(self.live.least_confidence)
        if request.has_precision:
            corpora = [live.run.corpus for live in self.live.runs()]
            hidden = hidden.at_least(least_confidence(self.tables(), corpora, request.min_precision))
        return hidden
