"""The pages of runs: which there are, what can be done with them, two side by side; and the page about all this."""

import html
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages_of_world import Pages, make_settings
from published_runs import World
from small_run import CORPUS, MODEL

from tinytags_tasks.publish.diff import DiffRequest, compare_runs
from tinytags_tasks.search import comparisons, run_pages
from tinytags_tasks.search.comparisons import some_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(made.copy(tmp_path / "copy"), make_settings(tmp_path, monkeypatch), monkeypatch)
    monkeypatch.setattr(run_pages, "find_documents", found.find_documents)
    yield found
    found.app.state.context.applier.stop()


def read(pages: Pages, path: str, role: str = "reader") -> str:
    answer = pages.client(role).get(path)
    assert answer.status_code == 200, answer.text
    return re.sub(r"\s+", " ", html.unescape(answer.text))


def test_runs_are_listed_with_what_can_be_done_with_each(pages: Pages) -> None:
    live, second, third = pages.world.runs
    record = read_ledger(pages.world.storage, third)[2]
    record.replaced(state=BlockState.FAILED).save(pages.world.storage, layout.ledger_file(third.name, 2))
    text = read(pages, "/runs")
    rows = dict(re.findall(r'<tr id="([^"]*)".*?>(.*?)</tr>', text))
    assert list(rows) == [live.name, third.name, second.name]
    assert '<b class="live">live</b>' in rows[live.name]
    assert f'href="/search?run={second.name}"' in rows[second.name]
    assert f'href="/runs/{live.name}/{second.name}"' in rows[second.name]
    assert '5 of 6 blocks <small class="failed">1 failed</small>' in rows[third.name]
    assert "Search it" not in rows[third.name]


def test_a_run_whose_documents_were_dropped_cannot_be_searched(pages: Pages) -> None:
    second = pages.world.runs[1]
    pages.world.solr.delete_collection(second.collection)
    second.replaced(pruned="2024-05-01").save(pages.world.storage, layout.run_file(second.name))
    text = read(pages, "/runs")
    assert "its documents were dropped" in text
    assert f"/search?run={second.name}" not in text


def test_two_runs_side_by_side_say_what_the_command_says(pages: Pages) -> None:
    old, new = pages.world.runs[0], pages.world.runs[2]
    found = compare_runs(DiffRequest(old.name, new.name), storage=pages.world.storage, report=lambda line: None)
    text = read(pages, f"/runs/{old.name}/{new.name}")
    sums = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert [sums[name] for name in ("Same tag", "Another tag", "Gained", "Lost")] == [
        str(count) for count in (found.same, found.changed, found.gained, found.lost)
    ]
    assert found.lost > 1
    lost = text.split('aria-label="Lost"')[1].split("</section>")[0]
    positions = [int(position) for position in re.findall(r'href="/pictures/pets/(\d+)\?run=', lost)]
    assert positions == [example.position for example in found.lost_examples]
    for source in re.findall(r'src="([^"]*)"', lost):
        assert pages.client("reader").get(source).headers["content-type"] == "image/png"
    assert "→ not kept" in lost
    rows = dict(re.findall(r'<th scope="row">(\w+)</th>.*?<td class="number">(\d+)</td>', text))
    assert rows == {tag: str(count) for tag, count in found.old_by_tag.items()}


def test_readers_see_examples_only_of_runs_that_can_be_searched(pages: Pages) -> None:
    old, new = pages.world.runs[0], pages.world.runs[2]
    pages.world.publish(new)
    record = read_ledger(pages.world.storage, old)[2]
    record.replaced(state=BlockState.FAILED).save(pages.world.storage, layout.ledger_file(old.name, 2))
    pages.app.state.context.live.forget()
    for role, is_shown in (("reader", False), ("reviewer", True)):
        lost = read(pages, f"/runs/{old.name}/{new.name}", role).split('aria-label="Lost"')[1].split("</section>")[0]
        assert ("<img" in lost) is is_shown


def test_a_comparison_that_takes_longer_says_so_and_goes_on(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = pages.world.runs[:2]
    is_done = threading.Event()

    def compare(*arguments: object, **more: object) -> object:
        is_done.wait(30)
        return compare_runs(*arguments, **more)

    monkeypatch.setattr(comparisons, "compare_runs", compare)
    monkeypatch.setattr(comparisons, "PATIENCE_SECONDS", 0.01)
    path = f"/runs/{old.name}/{new.name}"
    waiting = pages.client("reader").get(path)
    assert (waiting.status_code, waiting.headers["refresh"]) == (202, "2")
    is_done.set()
    monkeypatch.setattr(comparisons, "PATIENCE_SECONDS", 30)
    assert "What changes from" in read(pages, path)


def test_what_cannot_be_compared_is_said_in_one_clear_line(pages: Pages) -> None:
    old = pages.world.runs[0]
    pages.world.storage.delete(layout.scored_file(pages.world.runs[1].name, 0))
    client = pages.client("reader")
    for path, status, words in (
        (f"/runs/{old.name}/nowhere", 404, "there is no run nowhere"),
        (f"/runs/{old.name}/{old.name}", 400, "the same run"),
        (f"/runs/{old.name}/N!", 400, "cannot be the name of a run"),
        (f"/runs/{old.name}/{pages.world.runs[1].name}", 404, "blocks 0 are not scored"),
        (f"/runs?old={old.name}", 400, "choose two runs"),
    ):
        answer = client.get(path)
        assert (answer.status_code, words in html.unescape(answer.text)) == (status, True), path


def test_two_chosen_runs_lead_to_their_comparison(pages: Pages) -> None:
    old, new = pages.world.runs[:2]
    answer = pages.client("reader").get(f"/runs?old={old.name}&new={new.name}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{old.name}/{new.name}")


def test_a_page_compares_a_bounded_number_of_blocks_spread_evenly() -> None:
    assert some_blocks(200) is None
    blocks = some_blocks(4_000)
    assert blocks is not None
    assert (len(blocks), blocks[0], blocks[-1]) == (200, 0, 3_980)
    assert len(set(some_blocks(201) or ())) == 200


def test_about_says_where_pictures_come_from_and_warns_of_the_withdrawn_corpus(pages: Pages) -> None:
    text = read(pages, "/about")
    assert "withdrew the 80 Million Tiny Images in 2020" in text
    assert "A corpus here was read from the Tiny Images' file format." in text  # it was
    assert f'href="/models/{MODEL}/report"' in text
    corpus = Corpus.load(pages.world.storage, layout.corpus_file(CORPUS))
    assert f"<td>{corpus.source.path}</td>" in text
    assert "not measured on this corpus" in text
