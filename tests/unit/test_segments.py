"""Runs with vectors are merged into few segments before they are published; nothing else is."""

import pytest
from recorded_solr import RecordedSolr
from small_nets import embed, make_net_run
from small_run import index_all, make_run, quiet, score_all

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.publish import segments
from tinytags_tasks.publish.segments import SEGMENTS, merge_for_similar
from tinytags_tasks.publish.step import PublishRequest, publish_run

REPLICAS = {"replica_n1": {"state": "active"}, "replica_n2": {"state": "active"}}
CLUSTER = {"cluster": {"collections": {"run": {"shards": {"shard1": {"replicas": REPLICAS}}}}}}


@pytest.fixture
def run(storage, solr):
    """Return an indexed run whose documents have vectors, in many segments."""
    planned = make_net_run(storage)
    embed(storage)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    solr.segments_of[planned.collection] = 60
    return planned


def test_publishing_a_run_with_vectors_merges_its_segments_and_says_so(storage, solr, run) -> None:
    told: list[str] = []
    publish_run(PublishRequest(run.name), storage=storage, solr=solr, report=told.append)
    assert solr.segments(run.collection) == (SEGMENTS,)
    assert sum("merging 60 segments into 8 at most" in line for line in told) == 1


def test_a_run_that_solr_cannot_merge_now_is_not_published(storage, solr, run, monkeypatch) -> None:
    def away(collection: str, most: int) -> None:
        raise EngineDownError("Solr does not answer", "Solr")

    monkeypatch.setattr(solr, "merge_segments", away)
    with pytest.raises(EngineDownError):
        publish_run(PublishRequest(run.name), storage=storage, solr=solr, report=quiet)
    assert solr.aliases() == {}


def test_few_segments_are_left_as_they_are(solr, run) -> None:
    solr.segments_of[run.collection] = SEGMENTS - 1
    told: list[str] = []
    merge_for_similar(run, solr, told.append)
    assert (solr.segments(run.collection), told) == ((SEGMENTS - 1,), [])


def test_a_run_without_vectors_is_left_as_it_is(storage, solr) -> None:
    run = make_run(storage)
    solr.segments_of[run.collection] = 60
    merge_for_similar(run, solr, quiet)
    assert solr.segments(run.collection) == (60,)


def test_a_large_collection_may_have_more_segments(solr, run, monkeypatch) -> None:
    monkeypatch.setattr(segments, "_SMALL", 2)
    monkeypatch.setattr(segments, "_DOCUMENTS", 1)
    merge_for_similar(run, solr, quiet)
    assert solr.segments(run.collection) == (SEGMENTS + solr.count(run.collection) - 2,)


def test_the_shards_of_a_collection_share_its_segments(solr, run, monkeypatch) -> None:
    monkeypatch.setattr(solr, "export_cores", lambda collection: ("one", "two", "three"))
    merge_for_similar(run, solr, quiet)
    assert solr.segments(run.collection) == (3,)


def test_segments_are_those_of_the_collections_replicas() -> None:
    of_run = {f"solr.core.run.shard1.{replica}": {"INDEX.segments": 3 + at} for at, replica in enumerate(REPLICAS)}
    other = {"solr.core.run2.shard1.replica_n1": {"INDEX.segments": 9}}
    with RecordedSolr() as solr:
        solr.will_answer(
            (200, {"metrics": {**of_run, **other}}), (200, CLUSTER), (200, {"metrics": other}), (200, CLUSTER)
        )
        client = SolrClient(solr.url)
        assert client.segments("run") == (3, 4)
        assert client.segments("run") == ()  # its replicas are on other nodes


def test_a_merge_is_asked_for_once() -> None:
    with RecordedSolr() as solr:
        solr.will_answer((200, {}), (503, {"error": {"msg": "busy"}}), (200, {}))
        client = SolrClient(solr.url, pauses_seconds=(0, 0))
        client.merge_segments("run", 8)
        ((method, path, _),) = solr.asked
        assert (method, path.partition("?")[0]) == ("GET", "/solr/run/update")
        assert {"optimize=true", "maxSegments=8"} <= set(path.partition("?")[2].split("&"))
        with pytest.raises(EngineDownError):
            client.merge_segments("run", 8)
        assert len(solr.asked) == 2
