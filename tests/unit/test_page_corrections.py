"""Correcting and taking down on the search page and through its API: who may, what readers see, what a kill leaves."""

import base64
import html
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from faulty_storage import FaultyStorage, Killed, Mode
from published_runs import ALIAS, World, make_world
from small_run import CORPUS

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.publish.corrections import pending_blocks
from tinytags_tasks.review.precision import Estimate
from tinytags_tasks.search import account_file, applying, corrections
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.account_file import AccountFile
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import read_document
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.review_log import ReviewLog, append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import BlockState, Publication

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[0])
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(account_file, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    settings = Settings(home=tmp_path, search_password="pässword", alias=ALIAS)
    accounts = AccountFile(settings)
    for role in Role:
        accounts.add(role.label, role, PASSWORD)
    return settings


class Pages:
    """The page over a world; each account is a client of its own."""

    def __init__(self, world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.settings = settings
        self.asked: list[Hidden] = []
        self.storage: Any = world.storage
        monkeypatch.setattr(
            page_module, "Runtime", lambda settings, as_writer: SimpleNamespace(storage=self.storage, solr=world.solr)
        )
        monkeypatch.setattr(page_module, "search_images", self.search)
        monkeypatch.setattr(corrections, "PATIENCE_SECONDS", 20.0)
        self.restart()

    def restart(self) -> None:
        """Start another process of the page; the first one was killed."""
        self.app = create_app(self.settings)

    def client(self, role: str) -> TestClient:
        token = base64.b64encode(f"{role}:{PASSWORD}".encode()).decode()
        return TestClient(self.app, headers={"Authorization": f"Basic {token}"})

    def search(self, settings: Settings, request: SearchRequest, hidden: Hidden) -> SearchPage:
        self.asked.append(hidden)
        documents = sorted(self.documents.values(), key=lambda document: document["position"])
        documents = [document for document in documents if document["id"] not in hidden.pending_ids]
        images = hidden.leave_out(read_document(self.as_json(document), request.with_pixels) for document in documents)
        return SearchPage(len(documents), images, {"cat": 1, "dog": 1}, {40: 1}, ("m",), (CORPUS,), None, 0.0)

    def as_json(self, document: dict[str, Any]) -> dict[str, Any]:
        return document | {"data": base64.b64encode(document["data"]).decode()}

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        return self.world.solr.documents(self.world.live())

    def seen(self, role: str = "reader") -> dict[int, str]:
        """Return what readers see: the tag of each position."""
        found = self.client(role).get("/api/search").json()["images"]
        return {image["position"]: image["tag"] for image in found}

    def form(self, client: TestClient, position: int) -> dict[str, str]:
        """Return the hidden fields of a card's form."""
        text = client.get("/?rows=100").text
        card = next(card for card in text.split('<li class="card">')[1:] if f'"{CORPUS}:{position}:' in card)
        return {
            name: html.unescape(value)
            for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', card)
        }

    def post(self, role: str, path: str, fields: list[tuple[str, str]] | dict[str, str], **headers: str) -> Any:
        """Send a form as a browser would, and do not follow what it answers."""
        return self.client(role).post(
            path,
            content=urlencode(fields),
            headers={"Content-Type": "application/x-www-form-urlencoded", **headers},
            follow_redirects=False,
        )

    def words(self) -> list[dict[str, Any]]:
        return ReviewLog(CORPUS, self.world.storage).read().to_pylist()


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


def test_a_reader_has_no_buttons_and_is_refused(pages: Pages) -> None:
    text = pages.client("reader").get("/").text
    assert not re.findall(r"<form method=.post|<script|type=.checkbox", text)
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
    for path in ("/", "/api/search"):
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
    text = client.get("/?tag=cat&confidence=40&said=pets:1").text
    back = html.unescape(re.findall(r'name="back" value="([^"]*)"', text)[0])
    assert back == "/?tag=cat&confidence=40"


def test_measured_precision_is_shown_and_filters(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pages.world.runs[0]

    class Table:
        model = run.model
        curves = ("cat", "dog")

        def precision_of(self, tag: str, confidence: int) -> Estimate | None:
            return Estimate(float(confidence) - 5, 50.0, 100.0) if tag in self.curves else None

        def as_json(self) -> dict[str, str]:
            return {"run": run.name}

    measured = pages.app.state.context.measured
    assert pages.client("reader").get("/api/precision").json() == {
        "run": run.name,
        "is_measured": False,
        "message": "not measured on this corpus",
    }
    refused = pages.client("reader").get("/api/search?precision=80")
    assert refused.status_code == 400
    assert "not measured" in refused.json()["error"]
    monkeypatch.setattr(measured, "table", lambda run, patience_seconds=0: Table())
    images = pages.client("reader").get("/api/search?precision=80").json()["images"]
    assert pages.asked[-1].least == {"cat": 85, "dog": 85}
    assert next(image["precision"] for image in images if image["tag"] == "cat")["low"] == 50.0
    assert "precision 95 %" in pages.client("reader").get("/").text
    assert pages.client("reader").get(f"/api/precision?run={run.name}").json() == {"run": run.name}
    for wrong in ("nowhere", "../x"):
        assert pages.client("reader").get("/api/precision", params={"run": wrong}).status_code in (400, 404)


def test_readers_see_what_the_live_publication_shows(pages: Pages) -> None:
    latest = layout.publication_file(ALIAS, 1)
    publication = Publication.load(pages.world.storage, latest)
    pages.world.storage.delete(latest)
    publication.replaced(thresholds={"cat": 60}).save(pages.world.storage, latest)
    pages.seen()
    assert pages.asked[-1].least == {"cat": 60}


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
