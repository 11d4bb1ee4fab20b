"""Answers searches with all that decides what is found: what is live, what is hidden, and what reviews measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from tinytags_tasks.document_fields import LOOK_FIELDS
from tinytags_tasks.errors import MissingError
from tinytags_tasks.search.chosen_runs import ChosenRuns
from tinytags_tasks.search.counts import Counts
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRun, LiveRuns, least_confidence_of
from tinytags_tasks.search.measured import Measured, confidence_ranges, least_confidence
from tinytags_tasks.search.query import Searched, SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.search.solr_filters import LACKING, make_filters, refuse_lacking
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.search.tag_names import match_tags
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.run_records import Run

T = TypeVar("T")


class Measures(Protocol):
    """Knows what was measured of runs."""

    def tables(self, runs: Iterable[Run], *, is_needed: bool = False) -> Measured:
        """Return what was measured, by corpus; a corpus that was not measured lacks.

        If it is needed, ``EngineDownError`` says that it is not known yet; otherwise that lacks, too.
        """


@dataclass(frozen=True)
class Prepared:
    """A request as it is searched, all of it by what was live at one moment.

    Attributes
    ----------
    request
        With tags as they are written in documents.
    hidden
        What it does not find.
    runs
        The runs that can be searched so.
    left_out
        Corpora that are asked for and cannot be searched so.
    """

    request: SearchRequest
    hidden: Hidden
    runs: Sequence[LiveRun]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Searches:
    """What pages, the API and commands search with."""

    settings: Settings
    live: LiveRuns = field(repr=False)
    logs: WordLogs = field(repr=False)
    measured: Measures = field(repr=False)
    chosen: ChosenRuns = field(repr=False)
    counts: Counts = field(repr=False, default_factory=Counts)

    def page(self, request: SearchRequest, *, fresh: bool = False) -> SearchPage:
        """Return one page of what a request finds; its images have no pixels but those of old documents.

        Parameters
        ----------
        request
            What is asked for.
        fresh
            Whether it is counted again, because somebody relies on the total.

        Raises
        ------
        TinyTagsError
            See :func:`~tinytags_tasks.search.query.search_images`; ``MissingError`` and ``BadInputError`` also if the
            chosen run cannot be searched.
        """
        return self.in_what_is_live(request, lambda: self._page(request, fresh))

    def in_what_is_live(self, request: SearchRequest, search: Callable[[], T]) -> T:
        """Return what a search finds; if something was missing, it searches once more in what is live by then."""
        try:
            return search()
        except MissingError:
            if request.run:
                self.chosen.look_again(request.run)  # it may have been pruned since: then that is what is said
                raise
            self.live.forget()  # a collection that was live some seconds ago may be gone
            return search()

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
        """Return what a request does not find, whatever its filters.

        Raises
        ------
        BadInputError, EngineDownError
            If it asks for a precision, and nothing was measured, or not yet.
        """
        return self._hidden(request, self._runs(request))

    def prepare(self, request: SearchRequest) -> Prepared:
        """Return a request as it is searched.

        Raises
        ------
        BadInputError
            If what is published lacks a field that is searched by.
        MissingError, EngineDownError
            As :meth:`page`.
        """
        if not request.run:
            self.logs.hidden()  # first, so that readers are told if it is why nothing is shown
        runs = self._runs(request)
        _refuse_unknown(request.corpora, runs)
        hidden = self._hidden(request, runs)
        able = _able(request, runs)
        if request.tags or request.without_tags:
            request = match_tags(request, self._known_tags(self._searched(able), hidden))
        left_out = tuple(live.run.corpus for live in runs if live not in able and is_asked_for(live, request))
        return Prepared(request, hidden, able, left_out)

    def _page(self, request: SearchRequest, fresh: bool) -> SearchPage:
        asked = self.prepare(request)
        searched = replace(self._searched(asked.runs), is_fresh=fresh)
        page = search_images(self.settings, asked.request, asked.hidden, searched, self.counts)
        return replace(page, left_out=asked.left_out, request=asked.request)

    def digests(self, run: str = "") -> Mapping[str, str]:
        """Return the digest of each corpus' version that is live, or that a chosen run is of."""
        return {live.run.corpus: live.run.corpus_digest for live in self._runs(SearchRequest(run=run))}

    def corpora(self, run: str = "") -> Mapping[str, Corpus]:
        """Return the corpora of what is live, or of a chosen run, if the store has that version of them."""
        runs = self._runs(SearchRequest(run=run))
        present = ((live.run, live.corpus) for live in runs)
        return {run.corpus: corpus for run, corpus in present if corpus and corpus.digest == run.corpus_digest}

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

    def _hidden(self, request: SearchRequest, runs: Sequence[LiveRun]) -> Hidden:
        if request.run:  # what was taken down of its version of the corpus, however old
            hidden = self.logs.hidden_of(runs[0].run.corpus, runs[0].run.corpus_digest)
        else:
            hidden = self.logs.hidden()
        hidden = hidden.at_least(least_confidence_of(runs))
        if not request.has_precision:
            return hidden
        searched = [live.run for live in runs if is_asked_for(live, request)]
        measured = self.measured.tables(searched, is_needed=True)
        corpora = [live.run.corpus for live in runs]
        low, high = request.min_precision, request.max_precision
        if high < 100:
            return replace(hidden, between=confidence_ranges(measured, corpora, low, high))
        return hidden.at_least(least_confidence(measured, corpora, low))


def is_asked_for(live: LiveRun, request: SearchRequest) -> bool:
    """Return whether a run is of a corpus that a request asks for."""
    return not request.corpora or live.run.corpus in request.corpora


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
    if request.keyword and any("keyword" in live.fields for live in runs):
        needed.add("keyword")  # where none has it, nothing is found, which is no error
    if request.is_one_of_alike:
        needed |= set(LOOK_FIELDS)
    able = [live for live in runs if not live.fields or needed <= live.fields]
    if runs and not able:
        for name in sorted(needed - runs[0].fields):
            refuse_lacking(name, frozenset(LACKING))
    return able
