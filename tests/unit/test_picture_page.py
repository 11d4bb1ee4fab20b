"""The page of a picture: all that is known of it, its neighbours, and what can be done with it."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages_of_world import Pages, make_settings
from published_runs import World
from small_run import CORPUS, MODEL, TAGS, TREES, VOTES

from tinytags_tasks.search import all_votes, kept
from tinytags_tasks.store import layout


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    settings = make_settings(tmp_path, monkeypatch).model_copy(update={"airflow_url": "http://airflow.example:8080"})
    found = Pages(made.copy(tmp_path / "copy"), settings, monkeypatch)
    monkeypatch.setattr(kept, "PATIENCE_SECONDS", 20.0)  # however slow the machine is
    monkeypatch.setattr(all_votes, "PATIENCE_SECONDS", 20.0)
    yield found
    found.app.state.context.applier.stop()


def shown(pages: Pages, role: str, position: int = 4) -> str:
    answer = pages.client(role).get(f"/pictures/{CORPUS}/{position}")
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", html.unescape(answer.text))


def test_the_page_says_where_a_picture_comes_from(pages: Pages) -> None:
    text = shown(pages, "reader", 8)
    run = pages.world.runs[0]
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd[^>]*>(?:<a [^>]*>)?(.*?)(?:</a>)?</dd>", text))
    assert facts["Corpus"] == CORPUS
    assert facts["Position"] == "8 of 11"
    assert facts["Shard"] == "1"
    assert (facts["Block"], facts["Run"], facts["Model"]) == ("4", run.name, MODEL)
    assert facts["File"] == "pets.bin, image 8 of 11 (from 0)"
    assert facts["Source"].endswith("pets.bin")
    assert f'href="http://airflow.example:8080/tinytags/?run={run.name}&block=4"' in text
    assert f'href="/models/{MODEL}/report"' in text


def test_the_api_says_where_a_picture_comes_from(pages: Pages) -> None:
    found = pages.client("reader").get(f"/api/v1/images/{CORPUS}:8").json()
    source = found["file"].pop("source")
    assert source.endswith("pets.bin")
    assert found["file"] == {"path": "pets.bin", "member": None, "number": 8}


def bars_of(text: str) -> list[tuple[str, str, str]]:
    """Return the name, the length and the number of each bar of votes."""
    return re.findall(r'scope="row">([^<]*)</th> <td><svg.*?<rect width="([^"]*)".*?class="number">([^<]*)<', text)


def test_the_votes_of_all_tags_are_shown(pages: Pages) -> None:
    text = shown(pages, "reader", 1)
    assert bars_of(text) == [("dog", "60.0", "6 of 10"), ("emu", "40.0", "4 of 10"), ("cat", "0.0", "0 of 10")]
    assert "not shown" not in text
    assert "That was not measured on this corpus yet." in text


def test_every_pictures_votes_agree_with_its_tag_and_confidence(pages: Pages) -> None:
    for position, tag in pages.seen().items():
        bars = bars_of(shown(pages, "reader", position))
        votes = [int(number.partition(" of ")[0]) for _, _, number in bars]
        assert (bars[0][0], sum(votes)) == (tag, TREES)
        assert dict(zip((name for name, _, _ in bars), votes, strict=True)) == dict(
            zip(TAGS, VOTES[position], strict=True)
        )
        assert f"<h1>{tag} <small>{10 * votes[0]} %" in shown(pages, "reader", position)


def test_without_the_model_the_page_shows_what_the_run_stored_and_says_why(pages: Pages) -> None:
    pages.world.storage.delete(layout.model_file(MODEL))
    text = shown(pages, "reader", 1)
    assert bars_of(text) == [("dog", "60.0", "6 of 10"), ("all other tags together", "40.0", "4 of 10")]
    assert "The votes of each other tag are not shown: the model is not in the store any more." in text


def test_the_picture_is_shown_large_and_can_be_taken_along(pages: Pages) -> None:
    text = shown(pages, "reader")
    digest = pages.world.runs[0].corpus_digest[:16]
    assert re.search(rf'class="enlarged" src="/pictures/pets/4.png\?version={digest}" width="512" height="512"', text)
    for path in re.findall(r'<a class="button"[^>]* href="([^"]*)"', text):
        assert pages.client("reader").get(path).status_code == 200
    assert {"/pictures/pets/4", f"/pictures/pets/4.bin?version={digest}"} <= set(re.findall(r'href="([^"]*)"', text))
    assert "data:image" not in text


def test_neighbours_are_those_that_readers_can_find(pages: Pages) -> None:
    pages.world.solr.delete_ids(pages.world.live(), [f"{CORPUS}:5"])
    pages.world.solr.commit(pages.world.live())
    text = shown(pages, "reader")
    links = re.findall(r'<a href="/pictures/pets/(\d+)"( rel="\w+")?>', text)
    assert links == [
        ("0", ""),
        ("1", ""),
        ("2", ""),
        ("3", ' rel="prev"'),
        ("6", ' rel="next"'),
        ("7", ""),
        ("8", ""),
        ("9", ""),
        ("10", ""),
    ]


def test_what_people_said_is_shown_and_reviews_only_to_reviewers(pages: Pages) -> None:
    fields = pages.form(pages.client("reviewer"), 4)
    said = pages.post(
        "reviewer", "/corrections", fields | {"say": "tag", "tag": "Wombat", "back": f"/pictures/{CORPUS}/4"}
    )
    assert said.headers["Location"].startswith(f"/pictures/{CORPUS}/4?said=")
    text = re.sub(r"\s+", " ", pages.client("reviewer").get(said.headers["Location"]).text)
    assert "1 picture tagged Wombat" in text
    assert "<h1>Wombat <small>by the word of a person</small></h1>" in text
    assert '<b>it is Wombat</b> <span class="quiet">reviewer, ' in text
    assert "Undo the correction" in text
    assert "it is Wombat" in shown(pages, "reader")
    assert "Votes" not in shown(pages, "reader")


def test_each_role_sees_what_it_may_do(pages: Pages) -> None:
    menus = {
        role: {name for name in ("None of the tags", "Take down") if name in shown(pages, role)}
        for role in ("reader", "reviewer", "operator")
    }
    assert menus == {"reader": set(), "reviewer": {"None of the tags"}, "operator": {"None of the tags", "Take down"}}


def test_a_picture_that_readers_cannot_find_has_a_page_for_reviewers_only(pages: Pages) -> None:
    pages.world.solr.delete_ids(pages.world.live(), [f"{CORPUS}:4"])
    pages.world.solr.commit(pages.world.live())
    assert pages.client("reader").get(f"/pictures/{CORPUS}/4").status_code == 404
    text = shown(pages, "reviewer")
    assert "readers cannot find it" in text
    assert "pets.bin, image 4 of 11" in text
    for path, status in ((f"{CORPUS}/11", 404), (f"{CORPUS}/x", 400), ("nowhere/1", 404), ("N!/1", 400)):
        assert pages.client("reviewer").get(f"/pictures/{path}").status_code == status


def test_one_that_was_taken_down_has_no_page(pages: Pages) -> None:
    fields = pages.form(pages.client("operator"), 4)
    assert pages.post("operator", "/takedowns", fields | {"reason": "asked"}).status_code == 303
    for role in ("reader", "reviewer", "operator"):
        gone = pages.client(role).get(f"/pictures/{CORPUS}/4")
        assert (gone.status_code, "taken down" in gone.text) == (404, True)


def test_a_picture_of_a_run_that_was_chosen_has_its_page_and_stays_in_that_run(pages: Pages) -> None:
    live, chosen = pages.world.runs[0], pages.world.runs[1]
    pages.world.solr.delete_ids(live.collection, [f"{CORPUS}:4"])
    pages.world.solr.commit(live.collection)
    reader = pages.client("reader")
    assert reader.get(f"/pictures/{CORPUS}/0?run={live.name}").status_code == 200
    assert reader.get(f"/pictures/{CORPUS}/0").status_code == 200
    shown_in_chosen = pages.world.solr.documents(chosen.collection)
    position = int(next(iter(shown_in_chosen)).split(":")[1])
    text = re.sub(r"\s+", " ", html.unescape(reader.get(f"/pictures/{CORPUS}/{position}?run={chosen.name}").text))
    assert f">{chosen.name}</a>" in text
    paths = re.findall(r'(?:href|src)="(/pictures/[^"]*)"', text)
    assert len(paths) > 5
    for path in paths:
        assert f"run={chosen.name}" in path
        assert reader.get(path).status_code == 200
    lacking = next(number for number in range(11) if f"{CORPUS}:{number}" not in shown_in_chosen)
    gone = reader.get(f"/pictures/{CORPUS}/{lacking}.png?run={chosen.name}")
    assert (gone.status_code, f"run {chosen.name} does not show it" in gone.text) == (404, True)
    assert reader.get(f"/pictures/{CORPUS}/0.png?run=nowhere").status_code == 404
