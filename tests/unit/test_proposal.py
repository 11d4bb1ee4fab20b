"""What a person reads before they approve a publication."""

import pytest
from small_run import CORPUS, SolrHere, index_all, make_another_run, make_run, quiet, score_all

from tinytags_tasks.publish import proposal
from tinytags_tasks.publish.proposal import describe_publication
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import Run


@pytest.fixture
def live(storage: LocalStorage, solr: SolrHere) -> Run:
    run = make_run(storage)
    score_all(storage, run)
    solr.alias_of["tinytags"] = run.collection
    return run


@pytest.fixture
def new(storage: LocalStorage, solr: SolrHere, live: Run) -> Run:
    run = make_another_run(storage, 50)
    score_all(storage, run)
    index_all(storage, run, solr)
    return run


def describe(run: Run, storage: LocalStorage, solr: SolrHere, **options: str) -> str:
    return describe_publication(run.name, "tinytags", storage=storage, solr=solr, report=quiet, **options)


def test_a_person_reads_what_changes_by_tag_and_where_the_pictures_are(storage, solr, live, new) -> None:
    said = describe(new, storage, solr, search_url="http://127.0.0.1:8765/")
    assert f"Run **{new.name}** tags 11 images of corpus pets" in said
    assert "5 documents: 6 images are below the threshold of 50 %" in said
    assert f"replace **{live.name}**" in said
    assert "5 images keep their tag, 0 change it, 0 are gained, 6 lost" in said
    rows = [line for line in said.splitlines() if line.startswith("|")][2:]
    assert rows == ["| cat | 5 | 2 | -3 |", "| dog | 4 | 2 | -2 |", "| emu | 2 | 1 | -1 |"]
    assert f"(http://127.0.0.1:8765/runs/{live.name}/{new.name})" in said
    assert f"`tinytags diff {live.name} {new.name} --sheet diff.png`" in describe(new, storage, solr)


def test_only_tags_that_change_most_are_listed(storage, solr, new, monkeypatch) -> None:
    monkeypatch.setattr(proposal, "MOST_TAGS", 1)
    said = describe(new, storage, solr)
    assert "| cat |" in said
    assert "| dog |" not in said
    assert "2 more tags change less" in said


def test_a_first_publication_shows_all_that_is_new(storage, solr, new) -> None:
    solr.alias_of.clear()
    said = describe(new, storage, solr)
    assert "Nothing of the corpus is live under `tinytags`" in said
    assert "| cat | 0 | 2 | +2 |" in said


def test_runs_that_cannot_be_compared_image_by_image_are_compared_by_count(storage, solr, live, new) -> None:
    for block in range(live.blocks):
        storage.delete(layout.scored_file(live.name, block))
    said = describe(new, storage, solr)
    assert "cannot be compared" in said
    assert "| cat | 5 | 2 | -3 |" in said
    assert CORPUS in said


def test_a_run_that_is_live_says_so(storage, solr, live) -> None:
    assert describe(live, storage, solr).endswith("It is live under `tinytags` already.\n")
