"""What is searched, and what is hidden: of what is live, of a run that is chosen by name, of older collections."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_run import SolrHere, index_all, make_run, score_all

from tinytags_tasks.cli.searching import _as_written
from tinytags_tasks.document_fields import LATER_FIELDS
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search import searches as module
from tinytags_tasks.search.chosen_runs import ChosenRuns
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.live import LiveRun
from tinytags_tasks.search.query import Searched, SearchPage
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import SCHEMA

PAGE = SearchPage(1, (), {}, {}, (), (), None, 0.0)


@dataclass
class Fakes:
    """Stands in for what is live, the logs and Solr; remembers what was searched."""

    live: tuple[LiveRun, ...]
    forgotten: int = 0
    asked: list[tuple[SearchRequest, Searched]] = field(default_factory=list)
    gone: tuple[str, ...] = ()

    def runs(self) -> tuple[LiveRun, ...]:
        return self.live

    @property
    def least_confidence(self) -> dict[str, dict[str, int]]:
        return {}

    def forget(self) -> None:
        self.forgotten += 1
        self.gone = ()

    def hidden(self) -> Hidden:
        return Hidden({"pets": np.array([3])})

    def of(self, corpus: str) -> SimpleNamespace:
        return SimpleNamespace(last_public=5, words=pa.Table.from_pylist([], schema=SCHEMA))

    def applied(self, corpus: str) -> int:
        return 5

    def search(self, _: Settings, request: SearchRequest, __: Hidden, searched: Searched, *___: object) -> SearchPage:
        if set(searched.collections) & set(self.gone):
            raise MissingError("gone")
        self.asked.append((request, searched))
        return PAGE

    def ask(self, *_: object) -> dict[str, Any]:
        return {"facets": {"tags": {"buckets": [{"val": "Cat", "count": 3}, {"val": "dog", "count": 2}]}}}


def run_of(corpus: str, **values: Any) -> LiveRun:
    run: Any = SimpleNamespace(corpus=corpus, collection=f"tinytags-{corpus}", name=f"{corpus}-1", corpus_digest="d")
    return replace(LiveRun(run, None, None, frozenset({"id", *LATER_FIELDS})), **values)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes((run_of("pets"), run_of("birds", fields=frozenset({"id"}))))
    monkeypatch.setattr(module, "search_images", fakes.search)
    monkeypatch.setattr(module, "ask_solr", fakes.ask)
    return fakes


@pytest.fixture
def searches(fakes: Fakes) -> Searches:
    either: Any = fakes
    return Searches(Settings(), either, either, either, either)


def test_tags_are_searched_as_documents_have_them(searches: Searches, fakes: Fakes) -> None:
    found = searches.page(SearchRequest(tags=("CAT", "unicorn"), without_tags=("Dog",)))
    assert found.request == SearchRequest(tags=("Cat", "unicorn"), without_tags=("dog",))
    assert fakes.asked[0][1].collections == ("tinytags-pets", "tinytags-birds")


@pytest.mark.parametrize(
    "request_", [SearchRequest(words=("tab*",)), SearchRequest(sort=Sort.RANDOM), SearchRequest(is_one_of_alike=True)]
)
def test_an_older_corpus_is_left_out_and_named(searches: Searches, fakes: Fakes, request_: SearchRequest) -> None:
    assert searches.page(request_).left_out == ("birds",)
    assert fakes.asked[0][1].collections == ("tinytags-pets",)
    fakes.live = fakes.live[1:]
    with pytest.raises(BadInputError, match="`tinytags run`"):
        searches.page(request_)


def test_by_a_keyword_an_older_corpus_is_left_out_unless_all_are_older(searches: Searches, fakes: Fakes) -> None:
    assert searches.page(SearchRequest(keyword="tabby")).left_out == ("birds",)
    assert fakes.asked[0][1].collections == ("tinytags-pets",)
    assert searches.page(SearchRequest(keyword="tabby", corpora=("pets",))).left_out == ()
    fakes.live = fakes.live[1:]
    assert searches.page(SearchRequest(keyword="tabby")).left_out == ()


def test_what_is_live_is_looked_at_once_for_a_search(
    searches: Searches, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(fakes, "runs", lambda: looks.append(1) or fakes.live)
    searches.page(SearchRequest(tags=("cat",)))
    assert len(looks) == 1


def test_a_collection_that_has_just_gone_is_looked_for_once_more(searches: Searches, fakes: Fakes) -> None:
    fakes.gone = ("tinytags-pets",)
    assert searches.page(SearchRequest()).total == 1
    assert fakes.forgotten == 1


def test_an_unknown_corpus_is_missing_and_the_known_ones_are_named(searches: Searches, fakes: Fakes) -> None:
    with pytest.raises(MissingError, match="no corpus fish here: choose of birds, pets"):
        searches.page(SearchRequest(corpora=("pets", "fish")))
    assert searches.page(SearchRequest(corpora=("pets",))).total == 1


def test_only_verified_runs_can_be_chosen(tmp_path: Any) -> None:
    storage, solr = LocalStorage(tmp_path / "store"), SolrHere()
    runtime: Any = SimpleNamespace(storage=storage, solr=solr)
    with pytest.raises(MissingError, match="no run pets-0123456789ab"):
        ChosenRuns(Settings(), runtime).get("pets-0123456789ab")
    run = make_run(storage)
    score_all(storage, run)
    with pytest.raises(BadInputError, match="not verified"):
        ChosenRuns(Settings(), runtime).get(run.name)
    index_all(storage, run, solr)
    chosen = ChosenRuns(Settings(), runtime)
    assert chosen.get(run.name).run.collection == run.collection
    run.replaced(pruned="2026-01-01T00:00:00+00:00").save(storage, layout.run_file(run.name))
    with pytest.raises(MissingError, match="was pruned"):
        ChosenRuns(Settings(), runtime).get(run.name)
    assert not chosen.get(run.name).run.pruned  # known for a while, until its collection is missed
    with pytest.raises(MissingError, match="was pruned"):
        chosen.look_again(run.name)
    for wrong in ("../pets", "", "a/b", "x" * 300):
        with pytest.raises(BadInputError):
            ChosenRuns(Settings(), runtime).get(wrong)


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("cat", "cat"),
        ("-truck", "-truck"),
        ("hot dog", '"hot dog"'),
        ("-hot dog", '-"hot dog"'),
        ("keyword:tabby cat", 'keyword:"tabby cat"'),
        ('keyword:"tabby cat" dog', 'keyword:"tabby cat" dog'),
    ],
)
def test_an_argument_of_the_command_is_read_as_in_the_search_box(argument: str, written: str) -> None:
    assert _as_written(argument) == written


def test_a_misspelt_option_is_no_tag() -> None:
    with pytest.raises(BadInputError, match="no option --min-konfidence"):
        _as_written("--min-konfidence")
