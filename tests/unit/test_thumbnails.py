"""Where a run's images are is part of the run: in its documents, or only in the store."""

import pytest
from small_run import CORPUS, MODEL, SolrHere, make_run, quiet, score_all

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.index.step import IndexRequest, index_blocks
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import Run


def planned(storage: LocalStorage, thumbnails: str) -> Run:
    name = plan_run(PlanRequest(CORPUS, MODEL, thumbnails=thumbnails), storage=storage).run
    return Run.load(storage, layout.run_file(name))


def documents(storage: LocalStorage, run: Run) -> dict[str, dict]:
    solr = SolrHere()
    score_all(storage, run)
    index_blocks(IndexRequest(run.name, tuple(range(run.blocks))), storage=storage, solr=solr, report=quiet)
    return solr.documents(run.collection)


def test_each_choice_is_a_run_and_a_collection_of_its_own(storage: LocalStorage) -> None:
    in_solr = make_run(storage)
    in_store = planned(storage, "store")
    assert (in_solr.thumbnails, in_store.thumbnails) == ("solr", "store")
    assert in_store.name != in_solr.name
    assert in_store.collection != in_solr.collection
    assert planned(storage, "solr") == in_solr


def test_documents_are_the_same_but_for_the_image(storage: LocalStorage) -> None:
    with_images = documents(storage, make_run(storage))
    without = documents(storage, planned(storage, "store"))
    assert all(document.pop("data") for document in with_images.values())
    assert without == with_images


def test_the_setting_decides_unless_a_plan_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PlanRequest(CORPUS, MODEL).thumbnails == "solr"
    monkeypatch.setenv("TINYTAGS_THUMBNAILS", "store")
    assert PlanRequest(CORPUS, MODEL).thumbnails == "store"
    assert PlanRequest(CORPUS, MODEL, thumbnails="solr").thumbnails == "solr"


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_THUMBNAILS", "none")
    with pytest.raises(BadInputError, match=r"TINYTAGS_THUMBNAILS: .*'solr' or 'store'"):
        load_settings()


def test_a_run_from_before_the_choice_has_its_images_in_solr(storage: LocalStorage) -> None:
    run = make_run(storage)
    older = run.model_dump_json(exclude={"thumbnails"}).encode()
    storage.write(layout.run_file(run.name), older)
    assert Run.load(storage, layout.run_file(run.name)).thumbnails == "solr"
