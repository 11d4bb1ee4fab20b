"""The review pages' routes: as plain forms, as the script uses them, and what they refuse."""

import base64
import html
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from review_world import CORPUS, RUN, make_reviewed_run, tag_of
from small_run import SolrHere

from tinytags_tasks.search import account_file, present, review_sessions
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.page import create_app
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import counting_words, read_words
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

ROLES = {"ann": Role.REVIEWER, "bob": Role.REVIEWER, "ray": Role.READER, "oli": Role.OPERATOR}
PAGE = f"/review/{RUN}"
PASSWORD = "correct horse battery"


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    return make_reviewed_run(tmp_path, monkeypatch)


@pytest.fixture
def start(
    tmp_path: Path, storage: LocalStorage, solr: SolrHere, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Callable[[str], TestClient]]:
    """Start the search page; the returned function opens it as somebody."""

    monkeypatch.setattr(page_module, "Runtime", lambda settings, **_: SimpleNamespace(storage=storage, solr=solr))
    settings = Settings(home=tmp_path, search_password="pass")
    monkeypatch.setattr(account_file, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    accounts = account_file.AccountFile(settings)
    for name, role in ROLES.items():
        accounts.add(name, role, PASSWORD)

    def start() -> Callable[[str], TestClient]:
        app = create_app(settings)

        def open_as(name: str) -> TestClient:
            credentials = base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()
            return TestClient(app, headers={"Authorization": f"Basic {credentials}"})

        return open_as

    return start


@pytest.fixture
def open_as(start: Callable[[], Callable[[str], TestClient]]) -> Callable[[str], TestClient]:
    return start()


@pytest.fixture
def ann(open_as: Callable[[str], TestClient]) -> TestClient:
    return open_as("ann")


def form_of(page: httpx.Response, form: str = "look") -> dict[str, str]:
    """Return the hidden fields of a page's form."""
    (text,) = re.findall(rf'<form id="{form}".*?</form>', page.text, re.S)
    return dict(
        (html.unescape(name), html.unescape(value))
        for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', text)
    )


def shown(page: httpx.Response) -> int:
    """Return the position of the picture that a page shows."""
    return int(form_of(page)["position"])


def answer(client: TestClient, page: httpx.Response, **fields: str) -> httpx.Response:
    """Answer as a browser without scripts does; return the next page."""
    response = client.post(f"{PAGE}/look", data={**form_of(page), **fields})
    assert response.status_code == 200, response.text
    return response


def words(storage: LocalStorage) -> list[dict[str, Any]]:
    """Return the words that count, by position."""
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    return counting_words(read_words(corpus, storage)).to_pylist()


def test_the_overview_says_that_nothing_is_measured_and_what_looks_will_buy(ann: TestClient) -> None:
    page = ann.get("/review")
    assert page.url.path == PAGE
    assert "Not measured on this corpus" in page.text
    assert re.search(r"250 looks measure the precision of each tag to about ±\d+ points", page.text)
    assert f'href="{PAGE}/one"' in page.text
    assert f'href="{PAGE}/wall?tag=cat"' in page.text


def test_the_overview_shows_what_was_measured_with_its_interval(ann: TestClient) -> None:
    page = ann.get(f"{PAGE}/one")
    for _ in range(8):
        page = answer(ann, page, answer="right")
    page = ann.get(PAGE)
    assert "100 % (90–100)" in page.text  # noqa: RUF001
    assert re.search(
        r"250 more looks narrow the 95 % interval of a tag's precision from about ±\d+ to ±\d+",
        html.unescape(page.text),
    )
    assert "8 pictures of this run" in page.text


def test_the_live_run_comes_first_and_otherwise_the_newest(
    start: Callable[[], Callable[[str], TestClient]], storage: LocalStorage, solr: SolrHere
) -> None:
    later = Run.load(storage, layout.run_file(RUN)).replaced(name="pets-2", created="2026-02-01T00:00:00+00:00")
    later.save(storage, layout.run_file("pets-2"))
    assert start()("ann").get("/review", follow_redirects=False).headers["location"] == "/review/pets-2"
    solr.alias_of[Settings().alias] = layout.collection_name(RUN)
    ann = start()("ann")
    assert ann.get("/review", follow_redirects=False).headers["location"] == PAGE
    assert re.search(rf'<option value="{RUN}" selected>{RUN} \(live\)', ann.get(PAGE).text)
    assert ann.get("/review?run=pets-2", follow_redirects=False).headers["location"] == "/review/pets-2"


def test_each_answer_becomes_its_word_at_once(ann: TestClient, storage: LocalStorage) -> None:
    answers = [
        {"answer": "right"},
        {"answer": "wrong"},
        {"tag": "cat"},
        {"answer": "none"},
        {"answer": "unclear"},
        {"answer": "tag", "tag": " EMU "},
        {"answer": "tag", "tag": "guinea pig"},
    ]
    page, said = ann.get(f"{PAGE}/one"), []
    for fields in answers:
        said.append(shown(page))
        page = answer(ann, page, **fields)
    found = {row["position"]: (row["verdict"], row["tag"]) for row in words(storage)}
    assert [found[position] for position in said] == [
        ("tag", tag_of(said[0])),
        ("wrong", tag_of(said[1])),
        ("tag", "cat"),
        ("none", ""),
        ("unclear", ""),
        ("tag", "Emu"),
        ("tag", "guinea pig"),
    ]
    row = words(storage)[0]
    assert (row["by"], row["run"], row["why"], row["shown_tag"], row["shown_confidence"], row["is_public"]) == (
        ("ann", RUN, "measure", "cat", 70, False)
    )
    assert "7 of 250 looks" in page.text


def test_of_a_dropped_picture_right_says_none_and_wrong_asks_for_a_tag(ann: TestClient, storage: LocalStorage) -> None:
    page = ann.get(f"{PAGE}/one")
    for _ in range(3):
        page = answer(ann, page, answer="unclear")
    assert (tag_of(shown(page)), "no tag" in page.text) == ("", True)
    assert 'value="wrong"' not in page.text
    refused = ann.post(f"{PAGE}/look", data={**form_of(page), "answer": "wrong"})
    assert refused.status_code == 400
    assert "say which tag" in refused.text
    answer(ann, page, answer="right")
    assert words(storage)[-1]["verdict"] == "none"


def test_a_hidden_tag_is_not_on_the_page_and_not_in_the_word(ann: TestClient, storage: LocalStorage) -> None:
    page = ann.get(f"{PAGE}/one?hide=1")
    assert "What does it show?" in page.text
    assert "70 %" not in re.sub(r'data-state="[^"]*"', "", page.text)
    assert 'value="right"' not in page.text
    page = answer(ann, page, tag="cat")
    assert "What does it show?" in page.text
    assert (words(storage)[0]["shown_tag"], words(storage)[0]["shown_confidence"]) == ("", -1)


def test_only_corrections_are_public_and_only_if_wished(ann: TestClient, storage: LocalStorage) -> None:
    page = ann.get(f"{PAGE}/one?public=1")
    for fields in (
        {"answer": "right"},
        {"answer": "wrong"},
        {"tag": "cat"},
        {"answer": "right"},
        {"answer": "unclear"},
    ):
        page = answer(ann, page, **fields)
    assert [row["is_public"] for row in words(storage)] == [False, True, True, False, False]


def test_the_last_look_can_be_taken_back_again_and_again(ann: TestClient, storage: LocalStorage) -> None:
    first = ann.get(f"{PAGE}/one")
    second = answer(ann, first, answer="right")
    third = answer(ann, second, answer="right")
    page = ann.post(f"{PAGE}/undo", data=form_of(third, "undo"))
    assert (shown(page), "1 of 250 looks" in page.text) == (shown(second), True)
    page = ann.post(f"{PAGE}/undo", data=form_of(page, "undo"))
    assert (shown(page), "0 of 250 looks" in page.text) == (shown(first), True)
    assert words(storage) == []
    assert re.search(r'<form id="undo"[^>]* hidden>', page.text)


def test_at_the_goal_the_page_says_so(ann: TestClient) -> None:
    page = ann.get(f"{PAGE}/one?from=0&to=2")
    page = answer(ann, answer(ann, page, answer="right"), answer="right")
    assert "2 looks are done" in page.text
    assert 'id="look"' not in page.text


def test_two_people_see_different_pictures_and_each_keeps_theirs_when_the_page_is_loaded_again(
    open_as: Callable[[str], TestClient],
) -> None:
    ann, bob = open_as("ann"), open_as("bob")
    hers, his = ann.get(f"{PAGE}/one"), bob.get(f"{PAGE}/one")
    assert shown(hers) != shown(his)
    assert shown(ann.get(hers.url)) == shown(hers)
    assert shown(bob.get(hers.url)) != shown(hers)  # a seat is its account's alone


def test_a_form_from_before_a_restart_is_still_good_for_its_picture(
    start: Callable[[], Callable[[str], TestClient]], storage: LocalStorage
) -> None:
    before = start()("ann")
    page = answer(before, before.get(f"{PAGE}/one"), answer="right")
    position = shown(page)
    after = start()("ann")
    token = after.get(f"/api{PAGE}/token").json()["token"]
    page = after.post(f"{PAGE}/look", data={**form_of(page), "token": token, "answer": "right"})
    assert {row["position"] for row in words(storage)} == {0, position}
    assert "2 of 250 looks" in page.text


def test_the_wall_saves_all_in_one_request(ann: TestClient, storage: LocalStorage) -> None:
    page = ann.get(f"{PAGE}/wall?tag=dog")
    fields = re.findall(r'name="picture" value="(\d+:\w+)"', page.text)
    assert len(fields) == 50
    assert all(tag_of(int(field.split(":")[0])) == "dog" for field in fields)
    out = [field.split(":")[0] for field in fields[:3]]
    hidden = dict(re.findall(r'<input type="hidden" name="(token|seat|from|to|tag)" value="([^"]*)">', page.text))
    saved = ann.post(f"{PAGE}/wall", data={**hidden, "picture": fields, "out": out})
    assert "Saved: 47 right, 3 struck out." in saved.text
    found = words(storage)
    assert len({row["number"] for row in found}) == 1
    assert [row["verdict"] for row in found].count("wrong") == 3
    assert {row["tag"] for row in found} == {"dog"}
    undo = dict(re.findall(r'name="(number|tag)" value="([^"]*)"', saved.text.partition('class="undo"')[2]))
    again = ann.post(f"{PAGE}/undo", data={**hidden, **undo})
    assert words(storage) == []
    assert re.findall(r'name="picture" value="(\d+:\w+)"', again.text) == fields


def test_the_script_gets_the_next_pictures_with_each_answer(ann: TestClient, storage: LocalStorage) -> None:
    page = ann.get(f"{PAGE}/one")
    state = json.loads(html.unescape(re.findall(r'data-state="([^"]*)"', page.text)[0]))
    first, second = state["pictures"][:2]
    assert first["source"].startswith(f"/pictures/{CORPUS}/{first['position']}.png?version=")
    assert ann.get(first["source"]).status_code == 200
    common = {name: form_of(page)[name] for name in ("token", "seat", "from", "to")}
    look = {**common, "position": str(first["position"]), "why": first["why"], "answer": "right"}
    saved = ann.post(f"/api{PAGE}/look", data=look).json()
    assert (saved["looks"], saved["pictures"][0]) == (1, second)
    assert len(saved["pictures"]) == len(state["pictures"])
    undone = ann.post(f"/api{PAGE}/undo", data={**common, "number": str(saved["number"])}).json()
    assert (undone["looks"], undone["again"], undone["pictures"][0], undone["last"]) == (0, [first], first, 0)
    assert ann.post(f"/api{PAGE}/more", data=common).json()["pictures"][0] == first


def test_pages_and_their_script_need_nothing_from_elsewhere(ann: TestClient) -> None:
    page = ann.get(f"{PAGE}/one")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in page.text
    assert not re.search(r"<script(?![^>]* src=)", page.text)
    for address in re.findall(r'(?:src|href)="(/scripts/[^"]+)"', page.text):
        assert ann.get(address).status_code == 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position": "200"}, "position 200 is not in corpus pets, which has 200 images"),
        ({"position": ""}, "position -1 is not in corpus"),
        ({"position": "x"}, "position must be a whole number"),
        ({"position": "9" * 30}, "position must be a whole number"),
        ({"answer": "maybe"}, "is no answer"),
        ({"answer": "tag"}, "say which tag"),
        ({"answer": "tag", "tag": "x" * 101}, "a tag has 1 to 100 printable characters"),
        ({"answer": "tag", "tag": "a\nb"}, "is not a tag"),
        ({"seat": ""}, "has no seat"),
        ({"seat": "../x"}, "is no seat"),
        ({"to": "-1"}, "to must be a whole number"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_clear_line(
    ann: TestClient, storage: LocalStorage, fields: dict[str, str], message: str
) -> None:
    form = {**form_of(ann.get(f"{PAGE}/one")), "answer": "right", **fields}
    page, api = ann.post(f"{PAGE}/look", data=form), ann.post(f"/api{PAGE}/look", data=form)
    assert page.status_code == api.status_code == 400
    assert message in html.unescape(page.text)
    assert message in api.json()["error"]
    assert words(storage) == []


def test_a_position_that_was_never_drawn_is_refused(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ann.get(f"{PAGE}/one")
    hidden = form_of(page)
    wall = {**hidden, "tag": "dog"}
    for fields, message in (
        ({"picture": "1:measure", "out": "5"}, "position 5 is not on this wall"),
        ({"picture": "2:measure"}, "is not on a wall of the tag"),
        ({"picture": "x"}, "is no position"),
        ({}, "a wall has 1 to 200 pictures"),
        ({"picture": "300:measure"}, "is not in corpus"),
    ):
        refused = ann.post(f"{PAGE}/wall", data={**wall, **fields})
        assert (refused.status_code, message in html.unescape(refused.text)) == (400, True), message


@pytest.mark.parametrize("path", ["look", "undo", "wall"])
def test_a_form_with_a_foreign_token_or_from_another_site_is_refused(ann: TestClient, path: str) -> None:
    form = form_of(ann.get(f"{PAGE}/one"))
    assert ann.post(f"{PAGE}/{path}", data={**form, "token": "f" * 64}).status_code == 403
    assert ann.post(f"{PAGE}/{path}", data=form, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_reader_is_told_that_reviewing_needs_a_role(
    open_as: Callable[[str], TestClient], storage: LocalStorage
) -> None:
    form = form_of(open_as("ann").get(f"{PAGE}/one"))
    reader = open_as("ray")
    token = reader.get(f"/api{PAGE}/token")
    assert token.status_code == 403
    for path in ("/review", PAGE, f"{PAGE}/one", f"{PAGE}/wall?tag=cat"):
        refused = reader.get(path)
        assert (refused.status_code, "needs the role reviewer" in refused.text) == (403, True)
    assert reader.post(f"{PAGE}/look", data={**form, "answer": "right"}).status_code == 403
    assert words(storage) == []
    assert reader.get(f"/pictures/{CORPUS}/1.png").status_code == 404  # no live run shows it
    assert open_as("oli").get(PAGE).status_code == 200


@pytest.mark.parametrize(("run", "status"), [("nowhere", 404), ("A!", 400), ("x" * 200, 400), ("..%2f..", 404)])
def test_a_run_that_is_not_there_is_said_so(ann: TestClient, run: str, status: int) -> None:
    for path in (f"/review/{run}", f"/review/{run}/one", f"/review/{run}/wall?tag=cat"):
        assert ann.get(path).status_code == status


def test_a_run_that_is_not_verified_cannot_be_reviewed_yet_and_can_later(
    ann: TestClient, storage: LocalStorage
) -> None:
    record = BlockRecord.load(storage, layout.ledger_file(RUN, 1))
    record.replaced(state=BlockState.SCORED).save(storage, layout.ledger_file(RUN, 1))
    refused = ann.get(PAGE)
    assert refused.status_code == 400
    assert "1 of its 6 blocks are not verified" in refused.text
    record.save(storage, layout.ledger_file(RUN, 1))
    assert ann.get(PAGE).status_code == 200


def test_without_runs_the_page_says_how_to_make_one(ann: TestClient, storage: LocalStorage) -> None:
    storage.delete(layout.run_folder(RUN))
    page = ann.get("/review")
    assert page.status_code == 404
    assert "tinytags run" in page.text


def test_while_a_review_is_prepared_the_page_says_so_and_goes_on_by_itself(
    ann: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = review_sessions.load_frame
    is_ready = threading.Event()

    def load_slowly(run: Run, storage: LocalStorage, report: Callable[[str], None], **options: Any) -> Any:
        report("3 of 6 blocks")
        is_ready.wait(60)
        return make(run, storage, report, **options)

    monkeypatch.setattr(review_sessions, "load_frame", load_slowly)
    monkeypatch.setattr(review_sessions, "PATIENCE_SECONDS", 0.1)
    page = ann.get(f"{PAGE}/one")
    assert page.status_code == 202
    assert page.headers["refresh"] == "2"
    assert "3 of 6 blocks" in page.text
    is_ready.set()
    monkeypatch.setattr(review_sessions, "PATIENCE_SECONDS", 10)
    assert ann.get(f"{PAGE}/one").status_code == 200


def test_after_the_corpus_was_replaced_nothing_of_the_old_run_is_shown_or_saved(
    start: Callable[[], Callable[[str], TestClient]], storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(present, "KNOWN_SECONDS", 0.0)
    ann = start()("ann")
    page = ann.get(f"{PAGE}/one")
    source = html.unescape(re.findall(r'src="(/pictures/[^"]*)"', page.text)[0])
    path = layout.corpus_file(CORPUS)
    corpus = Corpus.load(storage, path)
    storage.delete(path)
    corpus.replaced(digest="e" * 64).save(storage, path)
    with monkeypatch.context() as patched:  # as in the seconds in which the page does not know yet
        patched.setattr(review_sessions, "_refuse_another_version", lambda *_: None)
        refused = ann.post(f"{PAGE}/look", data={**form_of(page), "answer": "right"})
    assert (refused.status_code, "another version" in refused.text) == (400, True)
    for path in (PAGE, f"{PAGE}/one", f"{PAGE}/wall?tag=cat"):
        refused = ann.get(path)
        assert (refused.status_code, "review a later run" in refused.text) == (400, True)
    assert ann.get(source).status_code == 404
    assert words(storage) == []


def test_opening_other_runs_closes_no_review_at_which_somebody_is(
    ann: TestClient, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_sessions, "MOST_SESSIONS", 2)
    loaded = []
    make = review_sessions.load_frame
    monkeypatch.setattr(review_sessions, "load_frame", lambda run, *more: loaded.append(run.name) or make(run, *more))
    run = Run.load(storage, layout.run_file(RUN))
    for name in ("pets-2", "pets-3", "pets-4"):
        run.replaced(name=name).save(storage, layout.run_file(name))
        for block in range(run.blocks):
            record = BlockRecord(run=name, block=block, state=BlockState.VERIFIED)
            record.save(storage, layout.ledger_file(name, block))
    ann.get(f"{PAGE}/one")
    for name in ("pets-2", "nowhere", "pets-3", "gone", "lost"):
        ann.get(f"/review/{name}")
    assert ann.get(f"{PAGE}/one").status_code == 200
    assert loaded == [RUN, "pets-2", "pets-3"]
    ann.get("/review/pets-3/one")
    full = ann.get("/review/pets-4")
    assert (full.status_code, "somebody is at each" in full.text) == (503, True)


def test_the_address_of_a_sitting_has_all_that_it_needs(ann: TestClient) -> None:
    page = ann.get(f"{PAGE}/one?hide=1&public=1&from=5&to=9")
    fields = dict(parse_qsl(urlsplit(str(page.url)).query)) | {"seat": ""}
    assert fields == {"seat": "", "from": "5", "to": "9", "hide": "1", "public": "1"}
