"""`tinytags doctor`: a line for each check, with the remedy; exit code 1 if something would fail later."""

import json
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from recorded_solr import RecordedSolr
from typer.testing import CliRunner
from workers_here import Session

from tinytags_tasks import cli
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.doctor import examination, hdfs, machine, solr, spark
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError
from tinytags_tasks.services.engine import RefusedError
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import StoreAddress


def verdicts(findings):
    return {(finding.subject, finding.verdict) for finding in findings}


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("warning", 0), ("fails", 1)])
def test_only_what_would_fail_later_is_an_exit_code(monkeypatch, verdict, code):
    found = Finding("solr", "replicas", verdict, "what was found", "what to do")
    monkeypatch.setattr(examination, "_AREAS", {"solr": lambda runtime: [found]})
    ended = CliRunner().invoke(cli.app, ["doctor"])
    assert ended.exit_code == code
    assert ended.stdout.split() == f"{verdict} solr replicas what was found: what to do".split()
    assert json.loads(CliRunner().invoke(cli.app, ["doctor", "--json"]).stdout)[0]["remedy"] == "what to do"


def test_an_engine_that_is_away_is_a_finding_and_the_others_are_still_examined(monkeypatch):
    def away(runtime):
        raise EngineDownError("nothing answers at http://solr")

    well = Finding("hdfs", "rights", "ok", "fine")
    monkeypatch.setattr(examination, "_AREAS", {"solr": away, "hdfs": lambda runtime: [well]})
    first, second = examination.examine(SimpleNamespace())
    assert (first.verdict, first.text, second) == ("fails", "nothing answers at http://solr", well)


def test_an_unknown_area_is_refused_with_those_that_exist():
    with pytest.raises(BadInputError, match="no such area: sorl; there are machine, hdfs"):
        list(examination.examine(SimpleNamespace(), ["sorl"]))


@pytest.mark.parametrize(("ahead", "verdict"), [(0, "ok"), (-20, "ok"), (3600, "warning"), (-3600, "warning")])
def test_clocks_that_differ_are_told(ahead, verdict):
    finding = Area("hdfs").clock(time.time() + ahead, time.time())
    assert finding.verdict == verdict
    assert ("ahead of" if ahead > 0 else "behind") in finding.text or verdict == "ok"


STATE = {"tag.HAState": "active", "NumLiveDataNodes": 2, "NumDeadDataNodes": 0, "MissingBlocks": 0}
INFO = {"SoftwareVersion": "3.5.0", "Safemode": ""}
LOST = {"MissingBlocks": 3}


@pytest.mark.parametrize(
    ("info", "state", "expected"),
    [
        ({}, {}, ("DataNodes", "ok")),
        ({"Safemode": "Safe mode is ON. It was turned on manually."}, {}, ("safe mode", "fails")),
        ({"SoftwareVersion": "2.7.1"}, {}, ("version", "warning")),
        ({}, LOST, ("blocks", "warning")),
        ({"CorruptFiles": "N/A"}, LOST, ("blocks", "warning")),
        ({"CorruptFiles": r'["blk_1\t3\t/theirs/a", "blk_2\t3\t/tinytags2/a"]'}, LOST, ("blocks", "warning")),
        ({"CorruptFiles": r'["blk_1\t3\t/theirs/a", "blk_2\t3\t/tinytags/runs/a"]'}, LOST, ("blocks", "fails")),
        ({"CorruptFiles": r'["blk_1\t/tinytags/runs/a"]'}, LOST, ("blocks", "fails")),
        ({}, {"UnderReplicatedBlocks": 3}, ("blocks", "warning")),
        ({}, {"NumLiveDataNodes": 0}, ("DataNodes", "fails")),
        ({}, {"NumDeadDataNodes": 1}, ("DataNodes", "warning")),
        ({}, {}, ("NameNode", "ok")),
        ({"Safemode": "on"}, {"tag.HAState": "standby"}, ("NameNode", "fails")),
    ],
)
def test_what_the_name_node_says_is_judged(monkeypatch, info, state, expected):
    beans = {"NameNodeInfo": INFO | info, "FSNamesystem": STATE | state}
    monkeypatch.setattr(hdfs, "get_json", lambda url, qry, **_: {"beans": [beans[qry.rpartition("=")[2]]]})
    findings = list(hdfs._name_nodes(["http://namenode:9870"], store="/tinytags"))
    assert expected in verdicts(findings)
    assert all(finding.remedy for finding in findings if finding.verdict != "ok")


def answering(monkeypatch, answers):
    """Let each host answer: a NameNode by its role, a gateway by nothing, or with an error."""

    def answer(url: str, qry: str, **_: object) -> dict[str, object]:
        said = answers[url.split("/")[2]]
        if isinstance(said, Exception):
            raise said
        bean = {"NameNodeInfo": INFO, "FSNamesystem": STATE | {"tag.HAState": said}}[qry.rpartition("=")[2]]
        return {"beans": [bean] if said else []}

    monkeypatch.setattr(hdfs, "get_json", answer)


AWAY = EngineDownError("nothing answers at http://b/jmx")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"a": "active"}, ["ok: a answers"]),
        ({"a": "standby"}, ["ok: a is standby", "fails: none is active: a is standby"]),
        ({"b": AWAY}, ["warning: nothing answers at http://b/jmx"]),
        ({"a": "active", "b": "standby"}, ["ok: a is active", "ok: b is standby"]),
        ({"a": "active", "b": AWAY}, ["ok: a is active", "warning: nothing answers at http://b/jmx"]),
        (
            {"a": "standby", "b": AWAY},
            ["ok: a is standby", "fails: none is active: a is standby", "warning: nothing answers at http://b/jmx"],
        ),
        (
            {"a": "standby", "b": "standby"},
            ["ok: a is standby", "ok: b is standby", "fails: none is active: a is standby, b is standby"],
        ),
        ({"httpfs": ""}, ["ok: httpfs does not say what HDFS runs, as a gateway does; `rights` says if it works"]),
        (
            {"knox": RefusedError("https://knox/gateway/default/jmx answered 404")},
            ["ok: knox does not say what HDFS runs, as a gateway does; `rights` says if it works"],
        ),
    ],
)
def test_one_name_node_a_pair_and_a_gateway_are_each_called_so(monkeypatch, answers, expected):
    answering(monkeypatch, answers)
    found = [each for each in hdfs._name_nodes([f"http://{host}" for host in answers]) if each.subject == "NameNode"]
    assert [f"{finding.verdict}: {finding.text}" for finding in found] == expected
    assert all(finding.remedy for finding in found if finding.verdict != "ok")
    assert not any("gateway" in finding.remedy for finding in found)


def test_the_store_is_written_read_and_left_as_it_was(tmp_path):
    findings = list(hdfs._write_and_read(LocalStorage(str(tmp_path))))
    assert verdicts(findings) == {("rights", "ok"), ("clock", "ok")}
    assert list(tmp_path.iterdir()) == []


def probed(folder):
    """Return what is found where this process is Spark's only worker."""
    return list(Area("spark").each("store", lambda: spark._store_of_workers(Session(), StoreAddress(str(folder)))))


def test_spark_s_workers_use_the_store_and_leave_it_as_it_was(tmp_path):
    (finding,) = probed(tmp_path)
    assert (finding.subject, finding.verdict) == ("store", "ok")
    assert f"executors on {socket.gethostname()} wrote, read and deleted files of the store" in finding.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "read"])
@pytest.mark.parametrize("error", [EngineDownError("the DataNode b:9864 does not answer"), FinalError("no right")])
def test_a_worker_that_cannot_use_the_store_is_told_with_its_host_and_leaves_nothing(
    monkeypatch, tmp_path, call, error
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(LocalStorage, call, fail)
    (finding,) = probed(tmp_path)
    assert (finding.subject, finding.verdict) == ("store", "fails")
    assert finding.text == f"an executor on {socket.gethostname()} cannot use the store: {error}"
    assert "resolve and reach the HTTP ports of the NameNode and of every DataNode" in finding.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_workers_need_and_cannot_get_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "gssapi", None)
    address = StoreAddress("/store", webhdfs_url="http://127.0.0.1:1", kerberos=True)
    session = Session()
    (finding,) = Area("spark").each("store", lambda: spark._store_of_workers(session, address))
    assert (finding.subject, finding.verdict, session.jobs) == ("store", "fails", 0)
    assert "pip install 'tinytags[kerberos]'" in finding.text


def test_a_job_that_does_not_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(spark, "JOB_SECONDS", 0.01)
    ended = threading.Event()
    try:
        with pytest.raises(EngineDownError, match="no end within 0 s of writing"):
            spark._in_time(Session(), "writing", ended.wait)
    finally:
        ended.set()


@pytest.mark.parametrize("sends", [False, True])
def test_executors_that_never_come_are_not_waited_for(monkeypatch, sends):
    class Waiting(Session):
        version = spark.CLIENT

        def _run(self, work, rows):
            ended.wait()

        def stop(self):
            pass

    ended = threading.Event()
    monkeypatch.setattr(spark, "JOB_SECONDS", 0.01)
    monkeypatch.setattr(spark, "open_session", lambda address, token: Waiting())
    runtime = SimpleNamespace(settings=Settings(spark_url="sc://yarn", spark_send_code=sends))
    try:
        *_, finding = spark.examine_spark(runtime)
    finally:
        ended.set()
    assert (finding.subject, finding.verdict) == ("session", "fails")
    assert "no end within 0 s of " in finding.text


def cluster(state: str, leader: str, name: str = "tinytags-run"):
    replica = {"state": state, "leader": leader, "core": "run_shard1_replica_n1"}
    other = {"state": "active", "core": "run_shard1_replica_n2"}
    shard = {"state": "active", "replicas": {"one": replica, "two": other}}
    return {"cluster": {"live_nodes": ["a"], "collections": {name: {"shards": {"shard1": shard}}}}}


@pytest.mark.parametrize(
    ("state", "leader", "replicas", "expected"),
    [
        ("active", "true", 1, ("replicas", "ok")),
        ("down", "true", 1, ("replicas", "fails")),
        ("active", "true", 2, ("replicas", "warning")),
    ],
)
def test_what_solr_says_of_its_replicas_is_judged(state, leader, replicas, expected):
    with RecordedSolr() as server:
        server.will_answer((200, cluster(state, leader)))
        settings = Settings(solr_replicas=replicas)
        runtime = SimpleNamespace(settings=settings, solr=SolrClient(server.url, pauses_seconds=()))
        assert expected in verdicts(solr._replicas(runtime))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("tinytags-animals-0123456789ab", "fails"),
        ("published-by-hand", "fails"),
        ("theirs", "warning"),
        ("tinytags", "warning"),
        ("their-tinytags-run", "warning"),
    ],
)
def test_a_leader_that_is_lost_to_somebody_else_stops_no_run(name, verdict):
    with RecordedSolr() as server:
        server.will_answer((200, cluster("down", "true", name)))
        server.will_answer((200, {"aliases": {"tinytags": "tinytags-other,published-by-hand", "more": "theirs"}}))
        runtime = SimpleNamespace(settings=Settings(), solr=SolrClient(server.url, pauses_seconds=()))
        [found] = [each for each in solr._replicas(runtime) if "no live leader" in each.text]
    assert (found.verdict, f"{name}/shard1" in found.text, bool(found.remedy)) == (verdict, True, True)


def test_a_solr_without_zookeeper_is_of_no_use():
    with RecordedSolr() as server:
        server.will_answer((200, {"mode": "std", "lucene": {"solr-spec-version": "9.10.1"}}))
        runtime = SimpleNamespace(solr=SolrClient(server.url, pauses_seconds=()))
        assert verdicts(solr._server(runtime)) == {("server", "fails")}


@pytest.mark.parametrize(
    ("present", "external", "verdicts_of_rights"),
    [(("hdfs",), False, ["fails"]), (("hdfs", "solr"), False, []), ((), True, [])],
)
def test_the_cache_is_written_only_where_jars_of_own_engines_are_missing(
    monkeypatch, tmp_path, present, external, verdicts_of_rights
):
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    cache.mkdir()
    settings = Settings(home=home, cache=cache)
    for engine in present:
        machine.jars_folder(settings, engine).mkdir(parents=True)
    monkeypatch.setattr(machine, "is_external", lambda group, addresses: external)
    monkeypatch.setattr(machine.os, "access", lambda path, mode: path == home)
    found = [finding.verdict for finding in machine.examine_machine(settings) if finding.subject == "rights"]
    assert found == verdicts_of_rights
