"""Similar pictures and near-duplicates in a real Solr: indexed, verified, found, corrected, and damage noticed."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from small_nets import embed, make_net_run
from small_run import CORPUS, TREES, pictures, quiet, score_all
from small_words import tag

from tinytags_tasks import services
from tinytags_tasks.cli.searching import make_searches
from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.look import looks
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.publish.segments import SEGMENTS
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.review.words import say
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.live import LiveRun
from tinytags_tasks.search.query import search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.similar import similar_to
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage

ALIAS = "similar"


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, tmp_path_factory: pytest.TempPathFactory):
    started = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    return started.model_copy(update={"alias": ALIAS})


@pytest.fixture(scope="module")
def solr(settings):
    return Runtime(settings).solr


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return LocalStorage(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def live(storage, solr):
    """A published run whose documents have vectors."""
    run = make_net_run(storage)
    embed(storage)
    score_all(storage, run)
    prepare_collection(run.name, storage=storage, solr=solr)
    index_blocks(IndexRequest(run.name, tuple(range(run.blocks))), storage=storage, solr=solr, report=quiet)
    publish_run(PublishRequest(run.name, ALIAS), storage=storage, solr=solr, report=quiet)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    return LiveRun(run, corpus, None, solr.field_names(run.collection))


@pytest.fixture(scope="module")
def context(settings, solr, storage, live):
    runtime = SimpleNamespace(settings=settings, solr=solr, storage=storage)
    return SimpleNamespace(settings=settings, searches=make_searches(runtime))


def directions() -> np.ndarray:
    """Return the embeddings of all pictures, each of length 1."""
    embeddings = (pictures().reshape(len(pictures()), -1)[:, :TREES] // 2).astype(np.float64)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)


def test_the_nearest_pictures_are_found_in_their_order_and_by_tag(context, live, settings) -> None:
    black, *every = sorted(search_images(settings, SearchRequest(rows=100)).images, key=lambda image: image.position)
    assert similar_to(context, SearchRequest(similar_to=black.id)).images == ()  # all zeros have no direction
    likeness = directions() @ directions().T
    for image in every:
        page = similar_to(context, SearchRequest(similar_to=image.id, rows=100))
        found = [likeness[image.position, one.position] for one in page.images]
        assert len(found) == len(every) - 1
        np.testing.assert_allclose(found, sorted(found, reverse=True), atol=1e-5)
        tagged = similar_to(context, SearchRequest(similar_to=image.id, tags=("dog",), rows=100)).images
        others = {one.id for one in every if one.values["tag"] == "dog"} - {image.id}
        assert {one.id for one in tagged} == others


def test_a_published_run_has_few_segments_and_can_be_merged_further(live, solr) -> None:
    collection, before = live.run.collection, solr.count(live.run.collection)
    assert max(solr.segments(collection)) <= SEGMENTS
    solr.merge_segments(collection, 1)
    assert (solr.segments(collection), solr.count(collection)) == ((1,), before)


def test_one_of_each_group_of_alike_pictures_is_found(live, settings) -> None:
    every = [image.position for image in search_images(settings, SearchRequest(rows=100)).images]
    found = looks(pictures()[every].reshape(len(every), -1), 32)
    groups = len(np.unique(found[:, 0]))
    page = search_images(settings, SearchRequest(rows=100, is_one_of_alike=True))
    assert len(page.images) <= groups
    left = looks(pictures()[[image.position for image in page.images]].reshape(len(page.images), -1), 32)
    assert all(len(set(left[:, column].tolist())) == len(left) for column in (0, 1))


def test_a_correction_keeps_the_vector_and_a_changed_vector_is_noticed(live, storage, solr, settings) -> None:
    run, corpus = live.run, live.corpus
    records = read_ledger(storage, run)
    image = next(image for image in search_images(settings, SearchRequest(rows=100)).images)
    other = "dog" if image.values["tag"] == "cat" else "cat"
    say(corpus, (tag(image.position, other),), by="ann", storage=storage, report=quiet)
    apply_corrections(run, storage=storage, solr=solr, report=quiet)
    comparison = PictureComparison(run, corpus, storage, solr)
    assert comparison.sample(read_ledger(storage, run), 1_000) == {}
    update = [{"id": image.id, "vector": {"set": [1] * 256}}]
    solr.request(f"{run.collection}/update?wt=json", body=json.dumps(update).encode(), mime="application/json")
    solr.commit(run.collection)
    problem = f"document {image.id} has another vector than the picture's embedding"
    assert comparison.sample(records, 1_000) == {image.block: problem}
