"""Indexing the small run, for tests: the step, and which pictures Solr has then."""

import pytest
from small_run import BLOCKS, UNREADABLE, VOTES, SolrHere, copy_run, make_run, quiet, score_all

from tinytags_tasks.index.step import IndexRequest, index_blocks
from tinytags_tasks.store.local import LocalStorage

ALL = tuple(range(BLOCKS))
KEPT = [position for position, votes in enumerate(VOTES) if max(votes) >= 4 and position not in UNREADABLE]


def index(storage, planned, solr, blocks=ALL):
    return index_blocks(IndexRequest(planned.name, tuple(blocks)), storage=storage, solr=solr, report=quiet)


def positions(solr, planned):
    return sorted(document["position"] for document in solr.documents(planned.collection).values())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    storage = LocalStorage(tmp_path_factory.mktemp("made") / "store")
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    return storage, SolrHere(), planned


@pytest.fixture
def scored(made, storage, solr):
    """A run whose blocks are all scored."""
    return copy_run(made, storage, solr)
