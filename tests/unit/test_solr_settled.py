"""When a collection can be searched and written: each shard has a live leader, and no update log is replayed."""

import pytest
import recorded_solr

from tinytags_tasks.errors import EngineDownError, TransientError

solr, client = recorded_solr.solr, recorded_solr.client


def a_replica(state="active", name="n1", **more):
    return {"state": state, "core": f"run_shard1_replica_{name}", **more}


def of_shard(**replicas):
    return {"cluster": {"collections": {"run": {"shards": {"shard1": {"state": "active", "replicas": replicas}}}}}}


LEADER = a_replica(leader="true")


@pytest.mark.parametrize(
    "replicas",
    [
        {"core1": a_replica("recovering", leader="true")},
        {"core1": a_replica("down"), "core2": a_replica(name="n2")},  # nobody has been elected yet
        {},
    ],
)
def test_a_shard_without_a_live_leader_is_not_settled(solr, client, replicas):
    solr.will_answer((200, of_shard(**replicas)))
    with pytest.raises(EngineDownError, match=r"collection run: not ready .*: shard1 without a live leader") as raised:
        client.wait_until_settled("run", timeout_seconds=-1)
    assert ("shard1 core1 (" in str(raised.value)) == bool(replicas)


@pytest.mark.parametrize("state", ["down", "recovering", "recovery_failed"])
def test_a_live_leader_is_enough_whatever_the_other_replicas_do(solr, client, state):
    replays = {"solr.core.run.shard1.replica_n2": {"TLOG.state": 0}}
    resting = a_replica(state, "n2")
    solr.will_answer((200, of_shard(core1=LEADER, core2=resting)), (200, {"metrics": replays}))
    client.wait_until_settled("run", timeout_seconds=-1)


def test_no_shard_may_lack_its_leader(solr, client):
    shards = {"shard1": {"replicas": {"a": LEADER}}, "shard2": {"replicas": {"b": a_replica("down")}}}
    solr.will_answer((200, {"cluster": {"collections": {"run": {"shards": shards}}}}))
    with pytest.raises(EngineDownError, match="shard2 without a live leader"):
        client.wait_until_settled("run", timeout_seconds=-1)


@pytest.mark.parametrize(("state", "is_settled"), [(0, False), (1, False), (2, False), (3, True)])
def test_an_update_log_that_is_replayed_is_not_settled(solr, client, state, is_settled):
    metrics = {"solr.core.run.shard1.replica_n1": {"TLOG.state": state}, "solr.core.other.x": {"TLOG.state": 2}}
    solr.will_answer((200, of_shard(core1=LEADER)), (200, {"metrics": metrics}))
    if is_settled:
        client.wait_until_settled("run", timeout_seconds=-1)
    else:
        with pytest.raises(TransientError, match="is replaying its update log"):
            client.wait_until_settled("run", timeout_seconds=-1)


METRICS_OF_10 = """# HELP solr_core_update_log_state The current state of the update log
# TYPE solr_core_update_log_state gauge
solr_core_update_log_state{category="TLOG",collection="run",core="run_shard1_replica_n1",shard="shard1"} %d.0
solr_core_update_log_state{category="TLOG",collection="other",core="other_shard1_replica_n1",shard="shard1"} 0.0
solr_core_segments{collection="run",core="run_shard1_replica_n1",otel_scope_name="a}\\"b",shard="shard1"} 4.0
solr_core_segments{collection="run",core="run_shard1_replica_n2",shard="shard1"} 7.0
"""
NO_JSON = (400, {"error": {"msg": "Only Prometheus and OpenMetrics metric formats supported"}})


@pytest.mark.parametrize(("state", "is_settled"), [(0, False), (3, True)])
def test_a_solr_that_speaks_prometheus_is_asked_so(solr, client, state, is_settled):
    answer = (200, (METRICS_OF_10 % state).encode())
    solr.will_answer((200, of_shard(core1=LEADER)), NO_JSON, answer)
    if is_settled:
        client.wait_until_settled("run", timeout_seconds=-1)
    else:
        with pytest.raises(EngineDownError, match=r"solr\.core\.run\.shard1\.replica_n1 is replaying its update log"):
            client.wait_until_settled("run", timeout_seconds=-1)
    solr.will_answer(answer, (200, of_shard(core1=LEADER, core2=a_replica(name="n2"))))
    assert client.segments("run") == (4, 7)
    asked = [path.partition("?")[2] for _, path, _ in solr.asked if "metrics" in path]
    assert ["wt=prometheus" in query for query in asked] == [False, True, True]  # it is not asked for JSON again
