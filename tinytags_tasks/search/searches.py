"""Answers searches with all that decides what is found: what is live, what is hidden, and what reviews measured."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tinytags_tasks.document_fields import LOOK_FIELDS
from tinytags_tasks.errors import MissingError
from tinytags_tasks.search.chosen_runs import ChosenRuns
from tinytags_tasks.search.counts import Counts
from tinytags_tasks.search.hidden import MOST_FILTERED, Hidden
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRun, LiveRuns
from tinytags_tasks.search.measured import Measured, confidence_ranges, least_confidence
from tinytags_tasks.search.query import Searched, SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.search.solr_filters import LACKING, make_filters, refuse_lacking
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.search.tag_names import match_tags
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.review_log import of_version, positions_taken_down
from tinytags_tasks.store.run_records import Run


class Measures(Protocol):
    """Knows what was measured of runs."""

    def tables(self, runs: Iterable[Run]) -> Measured:
        """Return what was measured, by corpus; a corpus that was not measured lacks."""


@dataclass(frozen=True)
class Searches:
    """What pages, the API and commands search with."""

    settings: Settings
    live: LiveRuns = field(repr=False)
    logs: WordLogs = field(repr=False)
    measured: Measures = field(repr=False)
    chosen: ChosenRuns = field(repr=False)
    counts: Counts = field(repr=False, default_factory=Counts)

    def page(self, request: SearchRequest) -> SearchPage:
        """Return one page of what a request finds; its images have no pixels but those of old documents.

        Raises
        ------
        TinyTagsError
            See :func:`~tinytags_tasks.search.query.search_images`; ``MissingError`` and ``BadInputError`` also if the
            chosen run cannot be searched.
        """
        try:
            return self._page(request)
        except MissingError:
            if request.run:
                self.chosen.look_again(request.run)  # it may have been pruned since: then that is what is said
                raise
            self.live.forget()  # a collection that was live some seconds ago may be gone
            return self._page(request)

    def images(self, request: SearchRequest, limit: int | None = None) -> Iterator[TaggedImage]:
        """Yield all images that a request finds, or the first ``limit``; raises as :meth:`page`, at any page."""
        request = replace(request, start=0, cursor=None)
        left = limit
        while left is None or left > 0:
            page = self.page(request)
            yield from page.images[:left]
            left = None if left is None else left - len(page.images)
            if page.next_cursor is None:
                return
            request = replace(request, cursor=page.next_cursor)

    def tables(self, request: SearchRequest | None = None) -> Measured:
        """Return what was measured of each corpus' live run, or of the run that a request chooses."""
        return self.measured.tables(live.run for live in self._runs(request or SearchRequest()))

    def hidden(self, request: SearchRequest) -> Hidden:
        """Return what a request does not find, whatever its filters."""
        hidden = self._hidden_in(self.chosen.get(request.run)) if request.run else self._hidden_live()
        if request.has_precision:
            corpora = [live.run.corpus for live in self._runs(request)]
            low, high = request.min_precision, request.max_precision
            if high < 100:
                return replace(hidden, between=confidence_ranges(self.tables(request), corpora, low, high))
            return hidden.at_least(least_confidence(self.tables(request), corpora, low))
        return hidden

    def prepare(self, request: SearchRequest) -> tuple[SearchRequest, Hidden, Sequence[LiveRun]]:
        """Return a request with tags as they are written, what it does not find, and the runs that can be searched so.

        Raises
        ------
        BadInputError
            If what is published lacks a field that is searched by.
        MissingError, EngineDownError
            As :meth:`page`.
        """
        hidden = self.hidden(request)
        runs = self._runs(request)
        _refuse_unknown(request.corpora, runs)
        able = _able(request, runs)
        if request.tags or request.without_tags:
            request = match_tags(request, self._known_tags(self._searched(able), hidden))
        return request, hidden, able

    def _page(self, request: SearchRequest) -> SearchPage:
        request, hidden, able = self.prepare(request)
        runs = self._runs(request)
        page = search_images(self.settings, request, hidden, self._searched(able), self.counts)
        left_out = tuple(live.run.corpus for live in runs if live not in able)
        return replace(page, left_out=left_out, request=request)

    def _runs(self, request: SearchRequest) -> Sequence[LiveRun]:
        return (self.chosen.get(request.run),) if request.run else self.live.runs()

    def _searched(self, runs: Sequence[LiveRun]) -> Searched:
        """Return the collections of runs, and what tells whether their documents may have changed."""
        corpora = [live.run.corpus for live in runs]
        changes = tuple((self.logs.of(corpus).last_public, self.logs.applied(corpus)) for corpus in corpora)
        return Searched(tuple(live.run.collection for live in runs), changes)

    def _known_tags(self, searched: Searched, hidden: Hidden) -> Iterator[str]:
        """Return the tags of all documents that are searched."""
        names = searched.collections or (self.settings.alias,)

        def ask(parameters: Parameters) -> dict[str, Any]:
            return ask_solr(self.settings, {**parameters, "collection": ",".join(names)})

        counted = self.counts.get((names, searched.changes), make_filters(SearchRequest(), hidden), ask, ("tags",))
        return (str(tag) for tag, _ in counted["tags"])

    def _hidden_live(self) -> Hidden:
        return self.logs.hidden().at_least(self.live.least_confidence)

    def _hidden_in(self, chosen: LiveRun) -> Hidden:
        """Return what readers do not see of a run: what was taken down of its version of the corpus, however old."""
        run = chosen.run
        down = positions_taken_down(of_version(self.logs.of(run.corpus).words, run.corpus_digest))
        pending = tuple(layout.document_id(run.corpus, int(position)) for position in down[:MOST_FILTERED])
        least = chosen.publication.thresholds if chosen.publication else None
        return Hidden({run.corpus: down}, pending, {} if least is None else {run.corpus: least})


def _refuse_unknown(corpora: Sequence[str], runs: Sequence[LiveRun]) -> None:
    """Refuse a corpus that none of the runs is of, instead of finding nothing in it.

    Raises
    ------
    MissingError
        If there is one.
    """
    known = [live.run.corpus for live in runs]
    for corpus in corpora:
        if known and corpus not in known:
            raise MissingError(f"there is no corpus {corpus[:100]} here: choose of {', '.join(sorted(known))}")


def _able(request: SearchRequest, runs: Sequence[LiveRun]) -> Sequence[LiveRun]:
    """Return the runs whose collections have all fields that a request needs.

    Raises
    ------
    BadInputError
        If none of them has.
    """
    needed = set()
    if request.words or request.without_words:
        needed.add("word")
    if request.sort is Sort.RANDOM:
        needed.add("shuffle")
    if request.is_one_of_alike:
        needed |= set(LOOK_FIELDS)
    able = [live for live in runs if not live.fields or needed <= live.fields]
    if runs and not able:
        for name in sorted(needed - runs[0].fields):
            refuse_lacking(name, frozenset(LACKING))
    return able
