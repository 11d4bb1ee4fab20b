"""Correcting and taking down all that a search finds: what is counted is what is changed, and once only."""

import html
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_storage import FaultyStorage, Killed, Mode
from pages_of_world import Pages, make_settings
from published_runs import ALIAS, World, add_corpus
from small_run import CORPUS

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.search import applying, correct_all, searches
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import Settings

ALL = "/corrections/all"
DOWN = "/takedowns/all"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = make_settings(tmp_path, monkeypatch)
    settings.secrets_folder.mkdir(exist_ok=True)
    (settings.secrets_folder / "search_form_key").write_text("forms outlive a restart")
    return settings


@pytest.fixture
def pages(made: World, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(made.copy(tmp_path / "copy"), settings, monkeypatch)
    yield found
    found.app.state.context.applier.stop()


def ask(pages: Pages, role: str = "reviewer", query: str = "") -> httpx.Response:
    """Open the page that asks to confirm."""
    found: httpx.Response = pages.client(role).get(ALL + query)
    assert found.status_code == 200, found.text
    return found


def fields(page: httpx.Response) -> dict[str, str]:
    """Return the hidden fields of the page's first form; both forms have the same."""
    (text, *_) = re.findall(r'<form method="post" action="/corrections/all".*?</form>', page.text, re.S)
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)
    return {name: html.unescape(value) for name, value in hidden}


def correct(pages: Pages, form: dict[str, str], role: str = "reviewer", **more: str) -> httpx.Response:
    found: httpx.Response = pages.post(role, ALL, form | {"say": "tag", "tag": "Wombat"} | more)
    return found


def test_a_person_sees_how_many_there_are_and_readers_then_see_all_of_them_corrected(pages: Pages) -> None:
    before = pages.seen()
    link = re.findall(r'href="(/corrections/all[^"]*)"', pages.client("reviewer").get("/search?confidence=40").text)
    assert link == [f"{ALL}?confidence=40"]
    page = ask(pages, query="?confidence=40&cursor=x&rows=60")
    assert f"Correct {len(before)} images at once" in page.text
    assert f"Save this tag for {len(before)} images" in page.text
    for tag in set(before.values()):
        rows = re.findall(rf'<th scope="row">{tag}</th><td>(\d+)</td>', page.text)
        assert rows == [str(list(before.values()).count(tag))]
    answer = correct(pages, fields(page))
    assert (answer.status_code, answer.headers["location"]) == (303, "/search?confidence=40&said=pets%3A1")
    assert pages.seen() == dict.fromkeys(before, "Wombat")
    shown = pages.client("reviewer").get(answer.headers["location"]).text
    assert f"{len(before)} pictures tagged Wombat. Readers see it now." in shown
    assert {(word["number"], word["shown_tag"], word["run"]) for word in pages.words()} == {
        (1, tag, pages.world.runs[0].name) for tag in before.values()
    }


def test_each_is_not_what_its_own_tag_says_and_one_step_undoes_it(pages: Pages) -> None:
    before = pages.seen()
    form = fields(ask(pages))
    answer = correct(pages, form, say="wrong", tag="")
    assert answer.status_code == 303, answer.text
    assert pages.seen() == {}
    assert {word["position"]: word["tag"] for word in pages.words()} == before
    assert "There is nothing to correct" in ask(pages).text
    said = answer.headers["location"].partition("said=")[2].replace("%3A", ":")
    assert pages.post("reviewer", "/undo", {"token": form["token"], "said": said}).status_code == 303
    assert pages.seen() == before


def test_an_operator_takes_all_down_with_a_reason_and_undoes_it(pages: Pages) -> None:
    before = pages.seen()
    form = fields(ask(pages, "operator"))
    assert "Take down" not in ask(pages, "reviewer").text
    refused = pages.post("operator", DOWN, form)
    assert (refused.status_code, "needs a reason" in refused.text) == (400, True)
    answer = pages.post("operator", DOWN, form | {"reason": "asked to"})
    assert answer.status_code == 303, answer.text
    assert pages.seen() == {}
    assert pages.documents == {}
    undone = pages.post("operator", "/undo", {"token": form["token"], "said": f"{CORPUS}:1"})
    assert undone.status_code == 303
    assert pages.seen() == before


def test_a_form_that_is_sent_again_records_nothing_more(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise EngineDownError("Solr is away")

    form = fields(ask(pages))
    with monkeypatch.context() as patched:
        patched.setattr(applying, "correct_live", away)  # the index does not show it yet
        first = correct(pages, form)
        assert correct(pages, form).headers["location"] == first.headers["location"]
    again = correct(pages, form)  # now it does
    assert again.headers["location"] == first.headers["location"]
    assert {word["number"] for word in pages.words()} == {1}
    assert set(pages.seen().values()) == {"Wombat"}
    other = correct(pages, form, say="none")  # another word is another request, on pictures that are not the same
    assert (other.status_code, "Nothing was corrected" in other.text) == (409, True)


def test_two_who_send_one_form_at_once_record_it_once(pages: Pages) -> None:
    form = fields(ask(pages))
    answers: list[httpx.Response] = []
    both = [threading.Thread(target=lambda: answers.append(correct(pages, form))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [answer.headers["location"] for answer in answers] == ["/search?said=pets%3A1"] * 2
    assert {word["number"] for word in pages.words()} == {1}


@pytest.mark.parametrize("mode", ["before", "after"])
def test_killed_anywhere_a_form_that_is_sent_again_is_recorded_once(
    made: World, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(applying, "correct_live", lambda *_, **__: [])  # what a kill leaves of that is tested elsewhere
    recorded = []
    for fail_at in range(1, 100):
        pages = Pages(made.copy(tmp_path / f"at-{fail_at}"), settings, monkeypatch)
        form = fields(ask(pages))
        pages.storage = faulty = FaultyStorage(pages.world.storage, fail_at, mode, Killed)
        pages.restart()
        with suppress(Killed, BaseExceptionGroup):
            correct(pages, form)
        is_over = faulty.calls < fail_at
        recorded.append(bool(pages.words()))
        pages.app.state.context.applier.stop()
        pages.storage = pages.world.storage
        pages.restart()
        answer = correct(pages, form)
        assert answer.status_code == 303, answer.text
        assert {word["number"] for word in pages.words()} == {1}
        pages.app.state.context.applier.stop()
        if is_over:
            break
    assert recorded[0] is (mode == "after")


def test_what_was_published_or_said_meanwhile_changes_nothing_until_it_is_confirmed(pages: Pages) -> None:
    form = fields(ask(pages))
    before = pages.seen()
    one = pages.form(pages.client("operator"), min(before))
    pages.post("operator", "/corrections", one | {"say": "tag", "tag": "dog"})  # as many are found as before
    refused = correct(pages, form)
    assert refused.status_code == 409
    assert "Nothing was corrected" in refused.text
    assert "Of 1 of them, people have already said what they show" in refused.text
    form = fields(refused)

    pages.world.publish(pages.world.runs[1])
    pages.app.state.context.live.forget()
    refused = correct(pages, form)
    assert refused.status_code == 409
    assert f"Correct {len(pages.seen())} images at once" in refused.text
    assert {word["number"] for word in pages.words()} == {1}

    confirmed = correct(pages, fields(refused))
    assert confirmed.status_code == 303
    assert {word["run"] for word in pages.words() if word["number"] == 2} == {pages.world.runs[1].name}


def test_what_is_published_while_pictures_are_read_is_what_is_counted(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pages.seen()
    asked: list[str | None] = []

    def search(settings: Settings, request: SearchRequest, *more: Any) -> SearchPage:
        page = pages.search(settings, request, *more)
        asked.append(request.cursor)
        if asked[-2:] == [None, "next"] and asked.count("next") == 1:
            return replace(page, moved=True)
        return replace(page, images=page.images[1:] if request.cursor else page.images[:1], next_cursor="next")

    monkeypatch.setattr(searches, "search_images", search)
    assert f"Correct {len(before)} images at once" in ask(pages).text
    assert asked.count("next") > 1


def test_the_same_pictures_of_another_run_are_not_what_was_counted(pages: Pages) -> None:
    form = fields(ask(pages))
    pages.world.publish(pages.world.runs[1])
    pages.world.solr.set_alias(ALIAS, pages.world.runs[1].collection)
    for name, document in list(pages.world.solr.documents(pages.world.runs[0].collection).items()):
        pages.world.solr.documents(pages.world.runs[1].collection)[name] = document
    pages.app.state.context.live.forget()
    assert correct(pages, form).status_code == 409
    assert pages.words() == []


def test_more_than_one_request_holds_is_cut_off_and_said_so(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct_all, "WORDS_AT_ONCE", 2)
    before = pages.seen()
    page = ask(pages)
    assert "Correct 2 images at once" in page.text
    assert f"{len(before)} were found, and at most 2 are corrected at once" in page.text
    assert correct(pages, fields(page)).status_code == 303
    assert [tag for tag in pages.seen().values() if tag == "Wombat"] == ["Wombat"] * 2


def test_pictures_of_several_corpora_are_not_corrected_at_once(pages: Pages) -> None:
    form = fields(ask(pages))
    (birds,) = add_corpus(pages.world, "birds", 40)
    pages.world.publish(birds)
    pages.restart()
    page = ask(pages)
    assert "of several corpora (birds, pets)" in page.text
    assert "<form" not in page.text.partition("<main")[2]
    assert correct(pages, form).status_code == 409
    assert pages.words() == []


def test_only_those_who_may_and_only_from_our_own_page(pages: Pages) -> None:
    assert pages.client("reader").get(ALL).status_code == 403
    assert "/corrections/all" not in pages.client("reader").get("/search").text
    form = fields(ask(pages, "operator")) | {"say": "none", "reason": "x"}
    own = fields(ask(pages)) | {"reason": "x"}
    for path in (ALL, DOWN):
        assert pages.post("reader", path, form).status_code == 403
        assert pages.post("operator", path, form, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert pages.post("operator", path, form, Origin="https://elsewhere.example").status_code == 403
        assert pages.post("operator", path, form | {"token": ""}).status_code == 403
    refused = pages.post("reviewer", DOWN, own)
    assert (refused.status_code, "needs the role operator" in refused.text) == (403, True)
    assert pages.words() == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"seen": ""}, 409),
        ({"seen": "0" * 32}, 409),
        ({"seen": "\x00" * 99}, 409),
        ({"after": "x"}, 400),
        ({"after": "../x:1"}, 400),
        ({"after": "nowhere:9", "seen": ""}, 409),
        ({"found": "color=red"}, 400),
        ({"found": "confidence=500"}, 400),
        ({"found": "cursor=x"}, 400),
        ({"found": "&".join(f"tag={number}" for number in range(900))}, 400),
        ({"found": "&" * 3000}, 400),
        ({"say": "praise"}, 400),
        ({"tag": ""}, 400),
        ({"tag": "x" * 101}, 400),
        ({"tag": "a\nb"}, 400),
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(pages: Pages, changes: dict[str, str], status: int) -> None:
    answer = correct(pages, fields(ask(pages)), **changes)
    assert answer.status_code == status, answer.text
    assert pages.words() == []
