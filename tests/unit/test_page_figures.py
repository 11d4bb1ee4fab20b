"""The search page with damaged logs, too many requests, and measured figures: what it shows, and what it promises."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pages_of_world import Pages, make_settings
from published_runs import ALIAS, World
from small_run import CORPUS

from tinytags_tasks.errors import MissingError
from tinytags_tasks.review.precision import Estimate
from tinytags_tasks.search import applying, corrections_api, measured
from tinytags_tasks.search.view import stated_precision
from tinytags_tasks.search.waiting import MOST_WAITING, BusyError
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Publication


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    return make_settings(tmp_path, monkeypatch)


@pytest.fixture
def pages(world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(world, settings, monkeypatch)
    yield found
    found.app.state.context.applier.stop()


def damage(pages: Pages, corpus: str, number: int = 1) -> None:
    path = layout.review_log_file(corpus, number)
    with suppress(MissingError):
        pages.world.storage.delete(path)
    pages.world.storage.write(path, b"nonsense")


def test_the_damaged_log_of_a_corpus_that_is_not_live_hides_nothing_of_others(pages: Pages) -> None:
    before = pages.seen()
    damage(pages, "others")
    pages.restart()
    assert pages.seen() == before
    fields = pages.form(pages.client("operator"), 0)
    assert pages.post("operator", "/takedowns", fields | {"reason": "asked to"}).status_code == 303
    assert 0 not in pages.seen()
    assert pages.client("reviewer").get("/corrections").status_code == 200


def test_the_damaged_log_of_the_live_corpus_shows_nothing(pages: Pages) -> None:
    damage(pages, CORPUS)
    pages.restart()
    for path in ("/", "/api/search"):
        refused = pages.client("reader").get(path)
        assert (refused.status_code, "may have been taken down" in refused.text) == (503, True)
    assert pages.asked == []


def test_words_on_a_corpus_that_is_not_live_or_of_an_older_version_promise_nothing(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = pages.world.storage
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    other = corpus.replaced(name="others")
    other.save(storage, layout.corpus_file("others"))
    append_words(other.replaced(digest="e" * 64), [Word(0, Verdict.NONE, is_public=True)], by="bob", storage=storage)
    append_words(other, [Word(1, Verdict.NONE, is_public=True)], by="bob", storage=storage)
    text = pages.client("reviewer").get("/corrections").text
    assert text.count("no run of this corpus is live") == 2
    assert "soon" not in text
    assert re.findall(r'name="said" value="([^"]*)"', text) == ["others:2"]


def test_with_too_many_waiting_a_request_is_recorded_and_answered_at_once(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def apply(corpus: str, *, patience_seconds: float) -> applying.Applied:
        asked.append(patience_seconds)
        return applying.Applied(False)

    context = pages.app.state.context
    monkeypatch.setattr(context.applier, "apply", apply)
    body = {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "none"}]}
    with ExitStack() as waiting:
        for _ in range(MOST_WAITING):
            waiting.enter_context(context.waiting.seconds(50.0))
        answer = pages.client("reviewer").post("/api/corrections", json=body)
        assert (answer.status_code, len(pages.words())) == (202, 1)
    pages.client("reviewer").post("/api/corrections", json=body)
    assert asked == [0.0, corrections_api.PATIENCE_SECONDS]


def test_asking_for_precision_makes_no_frame_and_few_runs_are_remembered(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pages.world.runs[0]
    frame = layout.frame_file(run.corpus, run.name)
    pages.world.storage.write(frame, b"of scored files that changed since")
    for number in range(measured.MOST_RUNS + 3):
        name = f"{CORPUS}-9{number}"
        run.replaced(name=name).save(pages.world.storage, layout.run_file(name))
        assert pages.client("reader").get(f"/api/precision?run={name}").json()["is_measured"] is False
    assert pages.client("reader").get(f"/api/precision?run={run.name}").json()["is_measured"] is False
    assert pages.world.storage.read(frame) == b"of scored files that changed since"
    assert len(pages.app.state.context.measured._kept) == measured.MOST_RUNS


def test_the_precision_of_another_corpus_is_not_stated() -> None:
    table: Any = SimpleNamespace(model="m", precision_of=lambda *_: Estimate(90.0, 80.0, 95.0))
    for corpus, is_stated in (("pets", True), ("others", False)):
        image: Any = SimpleNamespace(corpus=corpus, values={"model": "m", "tag": "cat", "confidence": 70})
        assert (stated_precision(image, {"pets": table}) is not None) is is_stated


def test_measured_precision_is_shown_and_filters(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pages.world.runs[0]

    class Table:
        corpus = run.corpus
        is_measured = True
        model = run.model
        curves = ("cat", "dog")

        def precision_of(self, tag: str, confidence: int) -> Estimate | None:
            return Estimate(float(confidence) - 5, 50.0, 100.0) if tag in self.curves else None

        def as_json(self) -> dict[str, str]:
            return {"run": run.name}

    figures = pages.app.state.context.measured
    assert pages.client("reader").get("/api/precision").json() == {
        "run": run.name,
        "is_measured": False,
        "message": "not measured on this corpus",
    }
    refused = pages.client("reader").get("/api/search?precision=80")
    assert refused.status_code == 400
    assert "not measured" in refused.json()["error"]
    monkeypatch.setattr(figures, "_wait_for", lambda run, patience_seconds: Table())
    images = pages.client("reader").get("/api/search?precision=80").json()["images"]
    assert pages.asked[-1].least == {run.corpus: {"cat": 85, "dog": 85}}
    assert next(image["precision"] for image in images if image["tag"] == "cat")["low"] == 50.0
    assert "precision 95 %" in pages.client("reader").get("/search").text
    assert pages.client("reader").get(f"/api/precision?run={run.name}").json() == {"run": run.name}
    for wrong in ("nowhere", "../x"):
        assert pages.client("reader").get("/api/precision", params={"run": wrong}).status_code in (400, 404)


def test_a_search_by_precision_waits_for_it_and_says_so_while_it_is_measured(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pages.world.runs[0]
    may_end = threading.Event()
    monkeypatch.setattr(measured, "stored_frame", lambda *_: may_end.wait(20) and None)
    monkeypatch.setattr(measured, "NEEDED_SECONDS", 0.05)
    figures = measured.MeasuredRuns(pages.app.state.context.runtime, pages.app.state.context.logs)
    assert figures.tables([run]) == {}
    with pytest.raises(BusyError, match="is being measured"):
        figures.tables([run], is_needed=True)
    may_end.set()
    monkeypatch.setattr(measured, "NEEDED_SECONDS", 20.0)
    assert figures.tables([run], is_needed=True) == {}


def test_readers_see_what_the_live_publication_shows(pages: Pages) -> None:
    latest = layout.publication_file(ALIAS, 1)
    publication = Publication.load(pages.world.storage, latest)
    pages.world.storage.delete(latest)
    publication.replaced(thresholds={"cat": 60}).save(pages.world.storage, latest)
    pages.seen()
    assert pages.asked[-1].least == {publication.corpus: {"cat": 60}}
