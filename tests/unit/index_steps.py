"""Indexing the small run, for tests: the step, and which pictures Solr has then."""

from small_run import BLOCKS, UNREADABLE, VOTES, make_run, quiet, score_all

from tinytags_tasks.index.step import IndexRequest, index_blocks

ALL = tuple(range(BLOCKS))
KEPT = [position for position, votes in enumerate(VOTES) if max(votes) >= 4 and position not in UNREADABLE]


def index(storage, planned, solr, blocks=ALL):
    return index_blocks(IndexRequest(planned.name, tuple(blocks)), storage=storage, solr=solr, report=quiet)


def positions(solr, planned):
    return sorted(document["position"] for document in solr.documents(planned.collection).values())


def scored_run(storage):
    """Return a run whose blocks are all scored."""
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    return planned
