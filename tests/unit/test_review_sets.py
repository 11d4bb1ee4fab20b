"""Pictures that somebody sends to review: who looks at them, what their looks count for, and what a restart keeps."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pages_of_world import Pages, make_settings
from published_runs import World, add_corpus
from small_run import CORPUS, quiet

from tinytags_tasks.review.frame import load_frame
from tinytags_tasks.review.looks import read_looks
from tinytags_tasks.review.precision import measure
from tinytags_tasks.search import review_set_pages, wanted
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_log import read_words

SENT = "/review-sets"


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(made.copy(tmp_path / "copy"), make_settings(tmp_path, monkeypatch), monkeypatch)
    monkeypatch.setattr(wanted, "find_documents", found.find_documents)
    yield found
    found.app.state.context.applier.stop()


def token_of(pages: Pages, role: str = "reviewer") -> str:
    return pages.form(pages.client(role), min(pages.seen()))["token"]


def send(pages: Pages, positions: list[int], role: str = "reviewer", **more: str) -> httpx.Response:
    """Send ticked pictures to review as the form of the results does."""
    seen = pages.seen()
    fields = [("token", token_of(pages, role)), ("back", "/search"), *more.items()]
    fields += [("picture", f"{CORPUS}:{position}:70:{seen[position]}") for position in positions]
    answer: httpx.Response = pages.post(role, SENT, fields)
    return answer


def open_set(pages: Pages, answer: httpx.Response, role: str = "reviewer") -> httpx.Response:
    """Follow the answer to the page with the first picture."""
    assert answer.status_code == 303, answer.text
    found: httpx.Response = pages.client(role).get(answer.headers["location"])
    assert found.status_code == 200, found.text
    return found


def look_fields(page: httpx.Response) -> dict[str, str]:
    (text,) = re.findall(r'<form id="look".*?</form>', page.text, re.S)
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)
    return {name: html.unescape(value) for name, value in hidden}


def look(pages: Pages, page: httpx.Response, answer: str = "right", role: str = "reviewer") -> httpx.Response:
    """Answer the picture that a page shows; return the next page."""
    run = pages.world.runs[0].name
    found: Any = pages.post(role, f"/review/{run}/look", look_fields(page) | {"answer": answer})
    return open_set(pages, found, role)


def test_a_reviewer_looks_at_exactly_the_chosen_pictures_and_they_teach(pages: Pages) -> None:
    chosen = sorted(pages.seen())[:3]
    page = open_set(pages, send(pages, chosen))
    assert "0 of 3 looks" in page.text
    assert "A selection that reviewer sent to review" in page.text
    looked = []
    for _ in chosen:
        looked.append(int(look_fields(page)["position"]))
        page = look(pages, page)
    assert looked == chosen
    assert "All 3 were looked at" in page.text
    assert {(word["position"], word["why"], word["run"]) for word in pages.words()} == {
        (position, "teach", pages.world.runs[0].name) for position in chosen
    }


def test_looks_at_chosen_pictures_are_in_no_estimate_even_if_a_form_says_that_they_measure(pages: Pages) -> None:
    storage, run = pages.world.storage, pages.world.runs[0]
    page = open_set(pages, send(pages, sorted(pages.seen())))
    for _ in range(len(pages.seen())):
        forged = look_fields(page) | {"why": "measure", "answer": "wrong"}
        page = open_set(pages, pages.post("reviewer", f"/review/{run.name}/look", forged))
    frame = load_frame(run, storage, quiet)
    words = read_words(load_corpus(CORPUS, storage), storage)
    assert len(words) == len(pages.seen())
    assert not len(read_looks(frame, words).rows)
    table = measure(frame, words)
    assert (table.looks, table.curves) == (0, {})


def test_two_people_at_the_same_selection_never_see_the_same_picture(pages: Pages) -> None:
    chosen = sorted(pages.seen())[:2]
    sent = send(pages, chosen)
    assert send(pages, chosen[::-1], "operator").headers["location"] == sent.headers["location"]
    first = open_set(pages, sent)
    second = open_set(pages, sent, "operator")
    assert {int(look_fields(first)["position"])} == {chosen[0]}
    assert "Others look at the rest" in second.text  # one page has the next pictures ready


def test_a_chosen_picture_is_not_drawn_for_others_and_a_drawn_one_is_not_in_a_selection(pages: Pages) -> None:
    run = pages.world.runs[0].name
    drawn = pages.client("operator").get(f"/review/{run}/one")
    kept = {int(position) for position in re.findall(r"&#34;position&#34;: (\d+)", drawn.text)}
    assert kept
    page = open_set(pages, send(pages, sorted(pages.seen())))
    own = {int(position) for position in re.findall(r"&#34;position&#34;: (\d+)", page.text)}
    assert own.isdisjoint(kept)


def test_a_restart_forgets_nothing_and_a_look_can_be_taken_back(pages: Pages) -> None:
    chosen = sorted(pages.seen())[:2]
    sent = send(pages, chosen)
    look(pages, open_set(pages, sent))
    pages.app.state.context.applier.stop()
    pages.restart()
    page = open_set(pages, sent)
    assert "1 of 2 looks" in page.text
    assert int(look_fields(page)["position"]) == chosen[1]
    number = str(pages.words()[-1]["number"])
    fields = look_fields(page) | {"number": number}
    undone = pages.post("reviewer", f"/review/{pages.world.runs[0].name}/undo", fields)
    again = open_set(pages, undone)
    assert "0 of 2 looks" in again.text
    assert int(look_fields(again)["position"]) == chosen[0]


def test_pictures_that_people_spoke_of_are_left_out_and_counted(pages: Pages) -> None:
    first, second, third = sorted(pages.seen())[:3]
    fields = pages.form(pages.client("reviewer"), first)
    pages.post("reviewer", "/corrections", fields | {"say": "tag", "tag": "wombat"})
    page = open_set(pages, send(pages, [first, second, third]))
    assert "0 of 2 looks" in page.text
    assert "1 more was chosen" in page.text
    nothing = send(pages, [first])
    assert nothing.status_code == 400
    assert "people have already said what these pictures show" in nothing.text


def test_all_that_is_found_is_offered_first_and_no_more_than_a_selection_holds(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_set_pages, "MOST_CHOSEN", 2)
    asked = pages.client("reviewer").get(f"{SENT}?confidence=40&cursor=x")
    assert "Send 2 images to review" in asked.text
    assert f"{len(pages.seen())} were found, and at most 2 are sent" in asked.text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    page = open_set(pages, pages.post("reviewer", SENT, fields))
    assert "0 of 2 looks" in page.text


def test_what_is_not_found_any_more_as_it_was_counted_is_offered_again(pages: Pages) -> None:
    asked = pages.client("reviewer").get(SENT)
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    card = pages.form(pages.client("reviewer"), min(pages.seen()))
    pages.post("reviewer", "/corrections", card | {"say": "none"})
    refused = pages.post("reviewer", SENT, fields)
    assert (refused.status_code, "Nothing was sent to review" in refused.text) == (409, True)
    assert f"Send {len(pages.seen())} images to review" in refused.text
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', refused.text))
    page = open_set(pages, pages.post("reviewer", SENT, fields))
    assert f"0 of {len(pages.seen())} looks" in page.text


def test_what_makes_no_selection_is_refused(pages: Pages) -> None:
    run = pages.world.runs[0].name
    (birds,) = add_corpus(pages.world, "birds", 40)
    pages.world.publish(birds)
    pages.restart()
    token = token_of(pages)
    both = [("token", token), ("picture", f"{CORPUS}:0:70:cat"), ("picture", "birds:0:70:cat")]
    refused = pages.post("reviewer", SENT, both)
    assert refused.status_code == 400
    assert "of several corpora" in refused.text
    assert pages.post("reviewer", SENT, {"token": token}).status_code == 400
    assert pages.post("reviewer", SENT, {"picture": f"{CORPUS}:0:70:cat"}).status_code == 403
    found = pages.client("reader").get("/export").text
    (own,) = set(re.findall(r'name="token" value="(\w+)"', found))
    assert pages.post("reader", SENT, [*both[1:2], ("token", own)]).status_code == 403
    assert pages.client("reader").get(SENT).status_code == 403
    for name, status in (("x", 400), ("0" * 16, 404), ("../../x", 400)):
        answer = pages.client("reviewer").get(f"/review/{run}/one", params={"set": name})
        assert answer.status_code == status, answer.text
    sent = send(pages, [min(pages.seen())])
    other = sent.headers["location"].replace(run, birds.name)
    assert pages.client("reviewer").get(other).status_code == 404
