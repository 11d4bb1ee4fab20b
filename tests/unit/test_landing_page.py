"""The first page: what can be searched, examples of each tag, and what is so if there is nothing."""

import html
import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import made_searches
import pytest
from fastapi.testclient import TestClient
from made_searches import IMAGE, PAGE, Answer, with_values
from small_run import make_run

from tinytags_tasks.errors import EngineDownError, MissingError
from tinytags_tasks.review.precision import Estimate
from tinytags_tasks.search import landing
from tinytags_tasks.search.live import LiveRun
from tinytags_tasks.search.page import PageContext
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Run
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockRecord, BlockState

answer = made_searches.answer
reader = made_searches.reader
settings = made_searches.settings
store = made_searches.store
stranger = made_searches.stranger


def context_of(reader: TestClient) -> PageContext:
    app: Any = reader.app
    return app.state.context


def go_live(reader: TestClient, store: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Make a run of the store live."""
    run = make_run(store)
    corpus = Corpus.load(store, layout.corpus_file(run.corpus))
    monkeypatch.setattr(context_of(reader).live, "runs", lambda: (LiveRun(run, corpus, None),))
    return run


def test_a_kept_address_leads_to_its_results(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    answered = reader.get("/?tag=cat&accuracy=60&page=2", follow_redirects=False)
    assert answered.headers["Location"] == "/search?tag=cat&accuracy=60&page=2"
    assert reader.get("/?tag=cat&accuracy=60").status_code == 200


def test_each_tag_is_shown_with_its_count_and_examples(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, tag_counts={"cat": 4, "hot dog": 250}))
    text = html.unescape(reader.get("/").text)
    plates = re.findall(
        r'<li class="plate">\s*<a href="([^"]+)">.*?<b>([^<]+)</b>.*?class="count">([\d,]+)<', text, re.S
    )
    assert plates == [("/search?tag=hot+dog", "hot dog", "250"), ("/search?tag=cat", "cat", "4")]
    assert text.count('loading="lazy" decoding="async" src="/pictures/demo/1234.png"') == 2
    assert [request.tags for request in asked] == [(), ("hot dog",), ("cat",)]
    reader.get("/")
    assert [request.tags for request in asked[3:]] == [()]  # examples are kept
    again = answer(replace(PAGE, tag_counts={"cat": 300, "hot dog": 250}))
    reader.get("/")
    assert [request.tags for request in again] == [()]  # in whichever order


def test_examples_that_are_taken_down_are_left_out_at_once(
    reader: TestClient, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(replace(PAGE, images=(IMAGE, with_values(id="demo:7", position=7))))
    assert "/pictures/demo/7.png" in reader.get("/").text
    hidden = SimpleNamespace(shows=lambda image: image.position != 7)
    monkeypatch.setattr(PageContext, "hidden", lambda context: hidden)
    text = reader.get("/").text
    assert "/pictures/demo/7.png" not in text
    assert "/pictures/demo/1234.png" in text


def test_without_examples_in_time_the_tags_are_there(reader: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(_: Searches, request: SearchRequest) -> SearchPage:
        if request.tags:
            raise EngineDownError("Solr does not answer")
        return PAGE

    monkeypatch.setattr(Searches, "page", search)
    text = reader.get("/").text
    assert "<b>cat</b>" in text
    assert "/pictures/" not in text


def test_only_the_most_frequent_tags_have_examples(
    reader: TestClient, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "MOST_PLATES", 1)
    answer(PAGE)
    text = reader.get("/").text
    assert text.count('<li class="plate">') == 1
    assert "1 more tags" not in text
    assert "1 more tag" in text
    assert re.search(r'<a class="chip" href="/search\?tag=dog">dog', text)


def test_the_live_run_and_what_was_measured_of_its_tags_are_shown(
    reader: TestClient, store: LocalStorage, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go_live(reader, store, monkeypatch)
    answer(PAGE)
    assert "was not measured on this corpus" in reader.get("/").text
    tags = (
        SimpleNamespace(tag="cat", precision=Estimate(93.2, 90.1, 95.4)),
        SimpleNamespace(tag="dog", precision=None),
    )
    monkeypatch.setattr(context_of(reader).measured, "tables", lambda runs: {run.corpus: SimpleNamespace(tags=tags)})
    text = reader.get("/").text
    assert "93 % right (90 to 95 %)" in text
    assert text.count("% right (") == 1
    assert f'href="/models/{run.model}/report"' in text
    for part in (run.name, run.corpus, f"{run.images:,}", "32 by 32 pixels"):
        assert part in text


def test_before_anything_is_published_the_page_says_so_and_how_far_runs_are(
    reader: TestClient, store: LocalStorage, answer: Answer
) -> None:
    answer(MissingError("Solr at http://there has no 'tinytags'"))
    response = reader.get("/")
    assert response.status_code == 404
    assert "Nothing is published yet" in response.text
    assert "<code>tinytags run</code>" in response.text
    run = make_run(store)
    app: Any = reader.app
    app.state.runs = type(app.state.runs)(app.state.context)  # as some seconds later
    for path in ("/", "/search"):
        text = reader.get(path).text
        assert f"0 of {run.blocks} blocks verified" in text
        assert f"tinytags ledger {run.name}" in text


def test_a_live_run_without_images_is_explained(
    reader: TestClient, store: LocalStorage, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(replace(PAGE, total=0, images=(), tag_counts={}))
    for path in ("/", "/search"):
        response = reader.get(path)
        assert (response.status_code, "No image is published" in response.text) == (200, True)
    run = go_live(reader, store, monkeypatch)
    monkeypatch.setattr(type(context_of(reader).live), "known", (LiveRun(run, None, None),))
    app: Any = reader.app
    app.state.runs = type(app.state.runs)(app.state.context)
    text = reader.get("/search").text
    assert "The index is being built again" in text
    assert f"0 of {run.blocks} blocks verified" in text


def test_while_some_blocks_are_indexed_again_pages_say_that_not_all_is_found(
    reader: TestClient, store: LocalStorage, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(PAGE)
    run = go_live(reader, store, monkeypatch)
    monkeypatch.setattr(type(context_of(reader).live), "known", (LiveRun(run, None, None),))
    for block in range(run.blocks):
        state = BlockState.SCORED if block in (1, 2) else BlockState.VERIFIED
        BlockRecord(run=run.name, block=block, state=state).save(store, layout.ledger_file(run.name, block))
    app: Any = reader.app
    app.state.runs = type(app.state.runs)(app.state.context)
    said = f"Not all of {run.corpus} can be found right now: 2 of its {run.blocks} blocks are being indexed again."
    deadline = time.monotonic() + 20
    while said not in reader.get("/search").text:  # no page waits for it
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert said in reader.get("/").text


def test_while_solr_is_away_the_first_page_says_what_to_do(reader: TestClient, answer: Answer) -> None:
    answer(EngineDownError("Solr does not answer at http://there"))
    response = reader.get("/")
    assert response.status_code == 503
    assert "Search is unavailable right now" in response.text
    assert "tinytags up" in response.text
