"""Correcting and taking down on the search page and through its API: who may, what readers see, what a kill leaves."""

import html
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from faulty_storage import FaultyStorage, Killed, Mode
from pages_of_world import Pages, make_settings
from published_runs import ALIAS, World, add_corpus
from small_run import CORPUS

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.publish.corrections import pending_blocks
from tinytags_tasks.review.words import say
from tinytags_tasks.search import applying, corrections
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import BlockState


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


def test_a_reviewer_corrects_and_readers_see_it_at_once(pages: Pages) -> None:
    before = pages.seen()
    position = next(position for position, tag in before.items() if tag == "cat")
    fields = pages.form(pages.client("reviewer"), position)
    answer = pages.post("reviewer", "/corrections", fields | {"say": "tag", "tag": "Wombat"})
    assert answer.status_code == 303
    assert pages.seen() == before | {position: "Wombat"}
    (word,) = pages.words()
    assert (word["by"], word["verdict"], word["tag"], word["is_public"]) == ("reviewer", "tag", "Wombat", True)
    assert (word["shown_tag"], word["run"]) == ("cat", pages.world.runs[0].name)
    shown = pages.client("reviewer").get(answer.headers["Location"]).text
    assert "1 picture tagged Wombat. Readers see it now." in shown


def test_pictures_of_each_corpus_on_a_page_are_corrected(pages: Pages) -> None:
    (birds,) = add_corpus(pages.world, "birds", 40)
    pages.world.publish(birds)
    for corpus, run in ((CORPUS, pages.world.runs[0]), ("birds", birds)):
        fields = pages.form(pages.client("reviewer"), 0, corpus)
        answer = pages.post("reviewer", "/corrections", fields | {"say": "tag", "tag": "wombat"})
        assert answer.status_code == 303, answer.text
        assert pages.world.solr.documents(run.collection)[f"{corpus}:0"]["tag"] == "wombat"


def test_what_a_picture_does_not_show_is_gone_and_comes_back_when_undone(pages: Pages) -> None:
    before = pages.seen()
    positions = list(before)[:2]
    client = pages.client("reviewer")
    fields = pages.form(client, positions[0])
    other = pages.form(client, positions[1])
    several = [(name, value) for name, value in fields.items()] + [("picture", other["picture"])]
    answer = pages.post("reviewer", "/corrections", [*several, ("say", "wrong")])
    assert set(before) - set(pages.seen()) == set(positions)
    said = answer.headers["Location"].partition("said=")[2]
    undone = pages.post("reviewer", "/undo", {"token": fields["token"], "said": said.replace("%3A", ":")})
    assert undone.status_code == 303
    assert pages.seen() == before


def test_what_was_said_is_listed_and_can_be_undone_from_there(pages: Pages) -> None:
    before = pages.seen()
    fields = pages.form(pages.client("operator"), 0)
    pages.post("operator", "/corrections", fields | {"say": "none"})
    other = pages.form(pages.client("operator"), list(before)[1])
    pages.post("operator", "/takedowns", other | {"reason": "asked to"})
    assert pages.client("reader").get("/corrections").status_code == 403
    text = pages.client("reviewer").get("/corrections").text
    assert "1 picture marked as showing none of the tags" in text
    assert "1 picture taken down" in text
    assert re.findall(r'name="said" value="([^"]*)"', text) == [f"{CORPUS}:1"]  # restoring is for operators
    assert len(re.findall(r'name="said"', pages.client("operator").get("/corrections").text)) == 2
    undone = pages.post("operator", "/undo", {"token": fields["token"], "said": f"{CORPUS}:1", "back": "/corrections"})
    assert undone.headers["Location"] == "/corrections?said=pets%3A3"
    assert set(before) - set(pages.seen()) == {list(before)[1]}


def test_none_of_the_tags_hides_a_picture(pages: Pages) -> None:
    position = next(iter(pages.seen()))
    fields = pages.form(pages.client("reviewer"), position)
    assert pages.post("reviewer", "/corrections", fields | {"say": "none"}).status_code == 303
    assert position not in pages.seen()


def test_only_an_operator_takes_down_and_undoes_it(pages: Pages) -> None:
    before = pages.seen()
    position = next(iter(before))
    fields = pages.form(pages.client("reviewer"), position)
    refused = pages.post("reviewer", "/takedowns", fields | {"reason": "asked to"})
    assert refused.status_code == 403
    assert "needs the role operator" in refused.text
    assert pages.words() == []
    fields = pages.form(pages.client("operator"), position)
    without = pages.post("operator", "/takedowns", fields)
    assert without.status_code == 400
    assert "needs a reason" in without.text
    assert pages.post("operator", "/takedowns", fields | {"reason": "asked to"}).status_code == 303
    assert set(before) - set(pages.seen()) == {position}
    own = pages.form(pages.client("reviewer"), list(before)[1])
    assert pages.post("reviewer", "/undo", {"token": own["token"], "said": f"{CORPUS}:1"}).status_code == 403
    assert pages.post("operator", "/undo", {"token": fields["token"], "said": f"{CORPUS}:1"}).status_code == 303
    assert pages.seen() == before


def test_a_take_down_that_the_page_did_not_see_yet_is_not_undone_by_a_reviewer(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    position = next(iter(pages.seen()))
    monkeypatch.setattr(pages.app.state.context.logs, "forget", lambda: None)
    corpus = Corpus.load(pages.world.storage, layout.corpus_file(CORPUS))
    say(corpus, [Word(position, Verdict.TAKEDOWN, reason="asked")], by="oli", storage=pages.world.storage)
    body = {"corpus": CORPUS, "corrections": [{"position": position, "verdict": "undo", "undoes": 1}]}
    refused = pages.client("reviewer").post("/api/corrections", json=body)
    assert (refused.status_code, len(pages.words())) == (403, 1)
    assert "needs the role operator" in refused.json()["error"]


def test_a_look_that_readers_do_not_see_is_undone_by_who_said_it_or_an_operator(pages: Pages) -> None:
    corpus = Corpus.load(pages.world.storage, layout.corpus_file(CORPUS))
    for position, by in ((0, "bob"), (1, "bob"), (2, "reviewer")):
        say(corpus, [Word(position, Verdict.NONE)], by=by, storage=pages.world.storage)
    for role, position, status in (("reviewer", 0, 403), ("operator", 1, 200), ("reviewer", 2, 200)):
        undo = {"position": position, "verdict": "undo", "undoes": position + 1}
        answer = pages.client(role).post("/api/corrections", json={"corpus": CORPUS, "corrections": [undo]})
        assert answer.status_code == status, answer.text


def test_undoing_a_wall_of_another_leaves_the_looks_that_readers_do_not_see(pages: Pages) -> None:
    first, second = list(pages.seen())[:2]
    corpus = Corpus.load(pages.world.storage, layout.corpus_file(CORPUS))
    wall = [Word(first, Verdict.NONE, is_public=True), Word(second, Verdict.NONE)]
    say(corpus, wall, by="bob", storage=pages.world.storage)
    token = pages.form(pages.client("reviewer"), second)["token"]
    assert pages.post("reviewer", "/undo", {"token": token, "said": f"{CORPUS}:1"}).status_code == 303
    assert [word["position"] for word in pages.words() if word["verdict"] == "undo"] == [first]


def test_a_reader_has_no_buttons_and_is_refused(pages: Pages) -> None:
    text = pages.client("reader").get("/search").text
    assert not re.findall(r"action=./(?:corrections|takedowns|undo)", text)
    fields = pages.form(pages.client("reviewer"), 0)
    for path in ("/corrections", "/takedowns", "/undo"):
        # The token of another account does not help, nor does one's own.
        assert pages.post("reader", path, fields | {"say": "none"}).status_code == 403
    for path in ("/api/corrections", "/api/takedowns"):
        assert pages.client("reader").post(path, json={}).status_code == 403
    assert pages.words() == []


def test_another_sites_form_changes_nothing(pages: Pages) -> None:
    fields = pages.form(pages.client("operator"), 0) | {"say": "none", "reason": "x"}
    for path in ("/corrections", "/takedowns", "/undo"):
        assert pages.post("operator", path, fields, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert pages.post("operator", path, fields, Origin="https://elsewhere.example").status_code == 403
        assert pages.post("operator", path, fields | {"token": ""}).status_code == 403
    for path in ("/api/corrections", "/api/takedowns"):
        plain = pages.client("operator").post(path, content="{}", headers={"Content-Type": "text/plain"})
        assert plain.status_code == 400
        cross = pages.client("operator").post(path, json={}, headers={"Sec-Fetch-Site": "cross-site"})
        assert cross.status_code == 403
    assert pages.words() == []


def test_a_script_gets_an_answer_instead_of_a_page(pages: Pages) -> None:
    fields = pages.form(pages.client("reviewer"), 0) | {"say": "none"}
    answer = pages.post("reviewer", "/corrections", fields, Accept="application/json")
    assert answer.json() == {
        "said": f"{CORPUS}:1",
        "message": "Recorded for 1 picture. Readers see it now.",
        "is_shown": True,
    }


def test_a_word_that_cannot_be_applied_is_safe_and_applied_later(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise EngineDownError("Solr is away")

    before = pages.seen()
    fields = pages.form(pages.client("operator"), 0)
    with monkeypatch.context() as patched:
        patched.setattr(applying, "correct_live", away)
        answer = pages.post("operator", "/takedowns", fields | {"reason": "asked to"}, Accept="application/json")
        assert answer.status_code == 200
        assert "Readers will see it soon (Solr is away)" in answer.json()["message"]
        assert f"{CORPUS}:0" in pages.documents  # Solr has it still
        assert pages.seen() == {position: tag for position, tag in before.items() if position != 0}
        assert list(pages.asked[-1].pending_ids) == [f"{CORPUS}:0"]
        pages.restart()  # killed before Solr came back
        assert 0 not in pages.seen()
        text = pages.client("operator").get(f"/?said={CORPUS}:1").text
        assert "readers will see it soon" in text
    with TestClient(pages.app):  # the next start completes it
        deadline = time.monotonic() + 20
        while pending_blocks(pages.world.runs[0], pages.world.storage) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert f"{CORPUS}:0" not in pages.documents
    assert 0 not in pages.seen()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the killed thread
@pytest.mark.parametrize("mode", ["before", "after"])
def test_killed_anywhere_a_take_down_that_was_recorded_is_never_shown(
    made: World, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: Mode
) -> None:
    recorded = 0
    for fail_at in range(1, 100):
        pages = Pages(made.copy(tmp_path / f"{mode}-{fail_at}"), settings, monkeypatch)
        monkeypatch.setattr(corrections, "PATIENCE_SECONDS", 0.5)
        fields = pages.form(pages.client("operator"), 0)
        pages.storage = FaultyStorage(pages.world.storage, fail_at, mode, Killed)
        pages.restart()
        fields["token"] = pages.form(pages.client("operator"), 0)["token"]
        with suppress(Killed, BaseExceptionGroup):
            pages.post("operator", "/takedowns", fields | {"reason": "asked to"})
        is_over = pages.storage.calls < fail_at
        pages.storage = pages.world.storage
        pages.restart()
        recorded += bool(pages.words())
        assert (0 in pages.seen()) is not bool(pages.words())
        if is_over:
            break
    assert 1 < recorded < fail_at or mode == "after"
    assert f"{CORPUS}:0" not in pages.documents


def test_nothing_is_shown_while_it_cannot_be_known_what_was_taken_down(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            raise EngineDownError("HDFS does not answer")

    real, pages.storage = pages.storage, Away()
    pages.restart()
    for path in ("/", "/search", "/api/search"):
        refused = pages.client("reader").get(path)
        assert refused.status_code == 503
        assert "may have been taken down" in refused.text
    assert pages.asked == []
    pages.storage = real
    pages.restart()
    fields = pages.form(pages.client("operator"), 0)
    pages.post("operator", "/takedowns", fields | {"reason": "asked to"})
    pages.storage = Away()
    monkeypatch.setattr("tinytags_tasks.search.kept.time", SimpleNamespace(monotonic=lambda: 1e9))
    seen = pages.seen()  # the last known state counts
    assert seen
    assert 0 not in seen


def test_the_api_takes_many_words_and_says_what_became_of_them(pages: Pages) -> None:
    before = pages.seen()
    first, second, third = list(before)[:3]
    answer = pages.client("reviewer").post(
        "/api/corrections",
        json={
            "corpus": CORPUS,
            "corrections": [
                {"position": first, "verdict": "tag", "tag": "Wombat"},
                {"position": second, "verdict": "wrong", "tag": before[second]},
                {"position": third, "verdict": "none"},
            ],
        },
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["number"], found["words"], found["is_shown"]) == (1, 3, True)
    assert found["applied"][0]["run"] == pages.world.runs[0].name
    assert pages.seen() == {
        position: "Wombat" if position == first else tag
        for position, tag in before.items()
        if position not in (second, third)
    }
    undone = pages.client("reviewer").post(
        "/api/corrections",
        json={"corpus": CORPUS, "corrections": [{"position": third, "verdict": "undo", "undoes": 1}]},
    )
    assert undone.status_code == 200, undone.text
    assert third in pages.seen()


def test_the_api_takes_down_and_restores(pages: Pages) -> None:
    before = pages.seen()
    positions = list(before)[:4]
    body = {"corpus": CORPUS, "positions": positions, "reason": "asked to"}
    assert pages.client("reviewer").post("/api/takedowns", json=body).status_code == 403
    assert pages.client("operator").post("/api/takedowns", json=body).status_code == 200
    assert set(before) - set(pages.seen()) == set(positions)
    assert pages.client("operator").post("/api/takedowns", json=body | {"restore": True}).status_code == 200
    assert pages.seen() == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"corpus": CORPUS, "corrections": []},
        {"corpus": "nowhere", "corrections": [{"position": 0, "verdict": "none"}]},
        {"corpus": "../x", "corrections": [{"position": 0, "verdict": "none"}]},
        {"corpus": CORPUS, "corrections": [{"position": 10**9, "verdict": "none"}]},
        {"corpus": CORPUS, "corrections": [{"position": -1, "verdict": "none"}]},
        {"corpus": CORPUS, "corrections": [{"position": True, "verdict": "none"}]},
        {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "takedown"}]},
        {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "tag"}]},
        {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "tag", "tag": "a\nb"}]},
        {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "undo", "undoes": 9}]},
        {
            "corpus": CORPUS,
            "corrections": [{"position": 0, "verdict": "none"}, {"position": 0, "verdict": "tag", "tag": "x"}],
        },
        {"corpus": CORPUS, "corrections": [{"position": 0, "verdict": "none"}] * 10_001},
        {"corpus": CORPUS, "run": "nowhere", "corrections": [{"position": 0, "verdict": "none"}]},
    ],
)
def test_what_the_api_cannot_take_is_refused_whole(pages: Pages, body: object) -> None:
    answer = pages.client("operator").post("/api/corrections", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]
    assert pages.words() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"say": "none"},
        {"say": "none", "picture": "x"},
        {"say": "none", "picture": f"{CORPUS}:x:70:cat"},
        {"say": "none", "picture": f"{CORPUS}:99999:70:cat"},
        {"say": "none", "picture": "../x:0:70:cat"},
        {"say": "praise", "picture": f"{CORPUS}:0:70:cat"},
        {"say": "tag", "tag": "", "picture": f"{CORPUS}:0:70:cat"},
        {"say": "tag", "tag": "x" * 101, "picture": f"{CORPUS}:0:70:cat"},
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(pages: Pages, fields: dict[str, str]) -> None:
    token = pages.form(pages.client("reviewer"), 0)["token"]
    answer = pages.post("reviewer", "/corrections", fields | {"token": token})
    assert answer.status_code in (400, 404)
    assert pages.words() == []


@pytest.mark.parametrize(
    "back", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "/review"]
)
def test_a_form_never_leads_elsewhere(pages: Pages, back: str) -> None:
    fields = pages.form(pages.client("reviewer"), 0)
    answer = pages.post("reviewer", "/corrections", fields | {"say": "none", "back": back})
    assert re.fullmatch(r"/\?said=pets%3A\d+", answer.headers["Location"])


def test_a_form_leads_back_to_the_search(pages: Pages) -> None:
    client = pages.client("reviewer")
    text = client.get("/search?confidence=40&block=0&said=pets:1").text
    back = html.unescape(re.findall(r'name="back" value="([^"]*)"', text)[0])
    assert back == "/search?confidence=40&block=0"


def test_only_take_downs_of_the_version_that_readers_see_are_hidden(pages: Pages) -> None:
    """A position is another picture in another version."""
    before = set(pages.seen())
    mine, others = sorted(before)[:2]
    storage = pages.world.storage
    present = Corpus.load(storage, layout.corpus_file(CORPUS))
    append_words(present, [Word(mine, Verdict.TAKEDOWN, reason="asked", is_public=True)], by="ann", storage=storage)
    other = present.replaced(digest="another")
    other.save(storage, layout.corpus_file(CORPUS))
    append_words(other, [Word(others, Verdict.TAKEDOWN, reason="asked", is_public=True)], by="ann", storage=storage)
    pages.restart()
    assert before - set(pages.seen()) == {mine}


def test_a_word_on_a_block_that_is_being_redone_is_called_shown_once_it_is(pages: Pages) -> None:
    world, run = pages.world, pages.world.runs[0]
    position = max(pages.seen())
    block = pages.documents[f"{CORPUS}:{position}"]["block"]
    fields = pages.form(pages.client("reviewer"), position)
    (record,) = read_ledger(world.storage, run, [block])
    record.replaced(state=BlockState.SCORED).save(world.storage, layout.ledger_file(run.name, block))
    answer = pages.post("reviewer", "/corrections", fields | {"say": "none"}, Accept="application/json")
    assert "Readers will see it soon (its blocks are being redone)" in answer.json()["message"]
    assert "readers will see it soon" in pages.client("reviewer").get(f"/?said={CORPUS}:1").text
    record.save(world.storage, layout.ledger_file(run.name, block))
    again = pages.form(pages.client("reviewer"), min(pages.seen()))
    answer = pages.post("reviewer", "/corrections", again | {"say": "none"}, Accept="application/json")
    assert "Readers see it now" in answer.json()["message"]
    assert not pending_blocks(run, world.storage)


def test_what_one_run_follows_another_need_not(pages: Pages) -> None:
    first, second = pages.world.runs[:2]
    fields = pages.form(pages.client("reviewer"), min(pages.seen()))
    pages.post("reviewer", "/corrections", fields | {"say": "none"})
    context = pages.app.state.context
    assert context.logs.applied(CORPUS) == 1
    pages.world.solr.set_alias(ALIAS, second.collection)
    context.live.forget()
    assert [live.run for live in context.live.runs()] != [first]
    assert context.logs.applied(CORPUS) == 0


def test_positions_of_a_version_that_readers_do_not_see_are_refused(pages: Pages) -> None:
    storage = pages.world.storage
    present = Corpus.load(storage, layout.corpus_file(CORPUS))
    present.replaced(digest="another").save(storage, layout.corpus_file(CORPUS))
    client = pages.client("operator")
    down = client.post("/api/takedowns", json={"corpus": CORPUS, "positions": [3], "reason": "asked"})
    said = {"position": 3, "verdict": "none"}
    corrected = client.post("/api/corrections", json={"corpus": CORPUS, "corrections": [said]})
    assert (down.status_code, corrected.status_code, pages.words()) == (400, 400, [])
    assert "shows another version of corpus pets" in down.text
