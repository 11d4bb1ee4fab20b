"""How each engine is configured, and how its responses are read."""

import configparser
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError
from tinytags_tasks.services import airflow, airflow_config, airflow_database, hdfs, processes, solr, spark
from tinytags_tasks.services.engine import Context, environment
from tinytags_tasks.services.engine_secrets import Secrets
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.services.wanted import add_wanted
from tinytags_tasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path,
        profile="normal",
        webhdfs_url="http://namenode:9870",
        hdfs_url="hdfs://namenode:8020",
        spark_url="sc://spark:15002/;user_id=me;token=abc;use_ssl=true",
        solr_url="https://solr:443/solr",
    )


def test_a_secret_is_made_once_and_only_the_user_may_read_it(settings: Settings) -> None:
    made = secret(settings, "search_password")
    assert len(made) >= 32
    assert secret(settings, "search_password") == made
    assert (settings.secrets_folder / "search_password").stat().st_mode & 0o077 == 0
    assert [path.name for path in settings.secrets_folder.iterdir()] == ["search_password"]


def test_a_password_that_was_set_wins(settings: Settings) -> None:
    told = settings.model_copy(update={"airflow_password": SecretStr("mine")})
    assert secret(told, "airflow_password") == "mine"


def test_an_engine_is_not_configured_behind_our_back(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_REMOTE", "sc://elsewhere")
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")
    monkeypatch.setenv("AIRFLOW_CONN_MINE", "http://mine")
    monkeypatch.setenv("TINYTAGS_STORE", "/elsewhere")
    told = environment(Context(settings, {}), Secrets(variables=("AIRFLOW_CONN_",)), EXTRA="1")
    assert not {"SPARK_REMOTE", "AIRFLOW__API__HOST"} & set(told)
    assert told["AIRFLOW_CONN_MINE"] == "http://mine"
    assert (told["TINYTAGS_STORE"], told["TINYTAGS_HOME"], told["EXTRA"]) == ("/tinytags", str(settings.home), "1")


def test_airflow_is_configured_for_loopback_and_sqlite(settings: Settings) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(airflow_config.configuration(settings, 8081))
    assert parser["api"]["host"] == "127.0.0.1"
    assert parser["core"]["execution_api_server_url"] == "http://127.0.0.1:8081/execution/"
    assert parser["database"]["sql_alchemy_conn"].endswith("airflow.db?timeout=60")
    assert parser["core"]["parallelism"] == "4"
    assert len(parser["api_auth"]["jwt_secret"]) >= 64, "Airflow warns of a shorter key"
    assert airflow_config.configuration(settings, 8081) == airflow_config.configuration(settings, 8081), (
        "keys must be kept"
    )


def test_airflow_writes_links_that_lead_where_people_open_it(settings: Settings) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(airflow_config.configuration(settings, 8081))
    assert parser["api"]["base_url"] == "http://127.0.0.1:8081"
    settings = settings.model_copy(update={"airflow_public_url": "https://airflow.example/"})
    parser.read_string(airflow_config.configuration(settings, 8081))
    assert parser["api"]["base_url"] == "https://airflow.example"
    assert parser["core"]["execution_api_server_url"] == "http://127.0.0.1:8081/execution/"


def test_airflow_redirects_nobody_to_an_address_with_a_login(settings: Settings) -> None:
    settings = settings.model_copy(update={"airflow_public_url": "https://ada:hidden@airflow.example/"})
    assert "base_url = https://airflow.example\n" in airflow_config.configuration(settings, 8081)


@pytest.mark.parametrize(
    "address",
    [
        *("https://pictures.example/airflow", "airflow.example", "ftp://airflow.example"),
        *("http://[::1", "http://airflow.example:port", "https://ada:hidden@"),
    ],
)
def test_airflow_is_served_below_no_path(settings: Settings, address: str) -> None:
    settings = settings.model_copy(update={"airflow_public_url": address})
    with pytest.raises(BadInputError, match=r"TINYTAGS_AIRFLOW_PUBLIC_URL is .*: write it as https://.*without a path"):
        airflow_config.configuration(settings, 8081)


def test_airflow_uses_the_postgresql_that_it_is_told_and_runs_more_tasks_at_once(settings: Settings) -> None:
    address = "postgresql+psycopg2://airflow:p%40ss@db.example/airflow"
    settings = settings.model_copy(update={"airflow_database": SecretStr(address)})
    if airflow_database.missing_drivers():
        pytest.skip("the extra postgresql is not installed")
    parser = configparser.ConfigParser()
    parser.read_string(airflow_config.configuration(settings, 8081))
    assert parser["database"]["sql_alchemy_conn"] == address
    assert parser["core"]["parallelism"] == parser["core"]["max_active_tasks_per_dag"] == "16"
    assert address not in str(airflow.command_environment(Context(settings, {}), "scheduler")), (
        "only airflow.cfg has it"
    )
    small = settings.model_copy(update={"profile": "small"})
    assert "parallelism = 2\n" in airflow_config.configuration(small, 8081)


@pytest.mark.parametrize(
    "address",
    [
        "mysql://user:hidden@db/airflow",
        "postgres://user:hidden@db/a",
        "postgresql://db",
        "postgresql://a:hidden@[::1/b",
    ],
)
def test_another_database_is_refused_without_telling_its_password(settings: Settings, address: str) -> None:
    settings = settings.model_copy(update={"airflow_database": SecretStr(address)})
    with pytest.raises(BadInputError, match="TINYTAGS_AIRFLOW_DATABASE must be postgresql") as refused:
        airflow_database.database_of(settings)
    assert "hidden" not in str(refused.value)


def test_what_python_lacks_for_postgresql_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_database, "missing_drivers", lambda: ["asyncpg"])
    settings = settings.model_copy(update={"airflow_database": SecretStr("postgresql://user@db/airflow")})
    remedy = r"no asyncpg: install them with TinyTags' extra `postgresql` \(docs/dags\.md\)"
    with pytest.raises(BadInputError, match=remedy):
        airflow_database.database_of(settings)


def test_a_database_that_is_away_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(EngineDownError, match=r"127.0.0.1:1/airflow: .*refused.*start PostgreSQL") as away:
        airflow_database.airflow_has_tables("postgresql+psycopg2://airflow:hidden@127.0.0.1:1/airflow")
    assert "hidden" not in str(away.value)


@pytest.fixture
def on_postgresql(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Context:
    """What is known of an Airflow whose airflow.cfg names PostgreSQL."""
    monkeypatch.setattr(airflow_database, "missing_drivers", list)
    address = SecretStr("postgresql+psycopg2://airflow:p%40ss@db.example/airflow")
    ports = {"airflow-api-server": {"http": 8081}}
    context = Context(settings.model_copy(update={"airflow_database": address}), ports, lambda text: None)
    airflow.write_configuration(context)
    return context


def run_api_server(context: Context) -> None:
    processes.record_this(context.folder("airflow-api-server"))


def want_airflow(context: Context) -> None:
    add_wanted(context.settings, ["airflow"])


@pytest.mark.parametrize("start", [run_api_server, want_airflow])
def test_no_part_of_airflow_is_started_on_another_database_than_the_others(
    settings: Settings, on_postgresql: Context, start: Callable[[Context], None]
) -> None:
    start(on_postgresql)
    file = airflow_config.airflow_home(settings) / "airflow.cfg"
    before = file.read_text()
    with pytest.raises(
        FinalError, match=r"TINYTAGS_AIRFLOW_DATABASE, which is not set: .*`tinytags down airflow`"
    ) as refused:
        airflow.GROUP.prepare(replace(on_postgresql, settings=settings))
    assert file.read_text() == before
    assert "p@ss" not in str(refused.value)


def test_an_airflow_that_was_stopped_may_be_given_another_database(
    settings: Settings, on_postgresql: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = airflow_config.airflow_home(settings)
    monkeypatch.setattr(airflow, "prepare_database", lambda context: (home / "airflow.db").touch())
    prepare_sqlite = replace(on_postgresql, settings=settings)
    airflow.GROUP.prepare(prepare_sqlite)
    assert airflow_config.configured_database(settings) == ""
    run_api_server(prepare_sqlite)
    airflow.GROUP.prepare(prepare_sqlite)
    with pytest.raises(FinalError, match="another database"):
        airflow.GROUP.prepare(on_postgresql)


def test_a_running_airflow_may_be_given_another_login_for_its_database(
    on_postgresql: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow, "airflow_has_tables", lambda address: True)
    monkeypatch.setattr(airflow, "prepare_database", lambda context: None)
    run_api_server(on_postgresql)
    address = "postgresql://tags:changed@DB.example:5432/airflow"
    told = on_postgresql.settings.model_copy(update={"airflow_database": SecretStr(address)})
    airflow.GROUP.prepare(replace(on_postgresql, settings=told))
    assert airflow_config.configured_database(told) == address


@pytest.mark.parametrize(
    "address",
    [
        *("postgresql://a:b@other/airflow", "postgresql://a:b@db:5433/airflow", "postgresql://a:b@db/other"),
        *("postgresql://a:b@db/airflow?host=/run/other", ""),
    ],
)
def test_another_server_or_name_is_another_database(address: str) -> None:
    assert airflow_database.identity(address) != airflow_database.identity(
        "postgresql://a:b@db/airflow?sslmode=require"
    )


def test_airflow_has_a_viewer_and_an_operator_beside_the_admin(settings: Settings) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(airflow_config.configuration(settings, 8081))
    assert parser["core"]["simple_auth_manager_users"] == "viewer:viewer,operator:op,admin:admin"


def test_dags_learn_the_token_that_spark_will_ask_for_before_spark_has_made_it(settings: Settings) -> None:
    settings = settings.model_copy(update={"spark_url": "sc://localhost:15002", "spark_tokens": "generated"})
    told = json.loads(airflow_config.connections(settings)["AIRFLOW_CONN_TINYTAGS_SPARK"])["password"]
    assert told == secret(settings, "spark_token") == settings.spark_connect_token()


def test_dags_learn_the_engines_addresses_from_connections(settings: Settings) -> None:
    told = {name: json.loads(text) for name, text in airflow_config.connections(settings).items()}
    assert told["AIRFLOW_CONN_TINYTAGS_HDFS"] == {
        "conn_type": "http",
        "schema": "http",
        "host": "namenode",
        "port": 9870,
        "login": "tinytags",
        "extra": {"url": "http://namenode:9870", "rpc": "hdfs://namenode:8020"},
    }
    assert told["AIRFLOW_CONN_TINYTAGS_SOLR"]["extra"] == {"url": "https://solr:443/solr"}
    assert told["AIRFLOW_CONN_TINYTAGS_SPARK"] == {
        "conn_type": "spark_connect",
        "host": "sc://spark",
        "port": 15002,
        "login": "me",
        "password": "abc",
        "extra": {"url": "sc://spark:15002/;user_id=me;use_ssl=true", "use_ssl": True},
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://namenode:9870",
        "https://knox:8443/gateway/default",
        "https://knox/gateway/default",
        "http://one:9870;http://two:9870",
        "https://knox:8443/gateway/default;https://other:8443/gateway/default",
    ],
)
def test_dags_use_the_hdfs_of_the_settings_with_a_gateways_path_and_all_name_nodes(
    settings: Settings, url: str
) -> None:
    settings = settings.model_copy(update={"webhdfs_url": url})
    described = json.loads(airflow_config.connections(settings)["AIRFLOW_CONN_TINYTAGS_HDFS"])
    described["extra_dejson"] = described.pop("extra")
    described.setdefault("port", None)
    assert Settings(home=settings.home).with_connections(SimpleNamespace(**described), None).webhdfs_url == url


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("http://solr:8983/solr", None),
        ("https://solr/solr", None),
        ("https://gateway/search/solr", None),
        ("http://[::1]:8983/solr", None),
        ("https://me:a%20b@solr/solr", ("me", "a b")),
    ],
)
def test_dags_use_the_solr_of_the_settings_whatever_its_address_has(
    settings: Settings, url: str, login: tuple[str, str] | None
) -> None:
    settings = settings.model_copy(update={"solr_url": url})
    described = json.loads(airflow_config.connections(settings)["AIRFLOW_CONN_TINYTAGS_SOLR"])
    described["extra_dejson"] = described.pop("extra")
    connection = SimpleNamespace(**{"port": None, "login": None, "password": None} | described)
    used = Settings(home=settings.home).with_connections(None, connection)
    assert used.address("solr_url") == url.replace("me:a%20b@", "")
    assert used.solr_login("writer") == login


@pytest.mark.parametrize(
    ("heartbeat", "since", "problem"),
    [
        ("2026-01-01T00:00:10+00:00", 1767225605, None),
        ("2026-01-01T00:00:10+00:00", 1767225615, "no heartbeat of the scheduler yet"),
    ],
)
def test_a_heartbeat_of_a_dead_predecessor_is_not_taken_for_life(
    heartbeat: str, since: float, problem: str | None
) -> None:
    health: dict[str, dict[str, str | None]] = {
        "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": heartbeat}
    }
    assert airflow.health_problem(health, "scheduler", since) == problem


def test_a_part_of_airflow_that_is_not_reported_is_not_healthy() -> None:
    assert airflow.health_problem({}, "triggerer") == "Airflow reports its triggerer as unknown"


CLUSTER = {
    "live_nodes": ["127.0.0.1:8983_solr"],
    "collections": {
        "run-1": {
            "shards": {
                "shard1": {
                    "replicas": {
                        "core_node1": {"node_name": "127.0.0.1:8983_solr", "state": "recovering", "core": "one"},
                        "core_node2": {"node_name": "other:8983_solr", "state": "down", "core": "two"},
                        "core_node3": {"node_name": "127.0.0.1:8983_solr", "state": "active", "core": "three"},
                    }
                }
            }
        }
    },
}


def test_only_a_nodes_own_replicas_hold_it_back() -> None:
    loaded = ["one", "three"]
    assert solr.inactive_replicas(CLUSTER, "127.0.0.1:8983_solr", loaded) == ["run-1/core_node1 (recovering)"]
    assert "not among the live nodes" in solr.inactive_replicas(CLUSTER, "gone:8983_solr", loaded)[0]


def test_a_replica_called_active_from_before_the_kill_holds_back_until_it_is_loaded() -> None:
    assert "run-1/core_node3 (active)" in solr.inactive_replicas(CLUSTER, "127.0.0.1:8983_solr", ["one"])


def answers_of_solr(state: int) -> dict[str, Any]:
    return {
        "admin/info/system": {"mode": "solrcloud", "node": "n:1_solr"},
        "admin/cores": {"initFailures": {}, "status": {}},
        "admin/collections": {"cluster": {"live_nodes": ["n:1_solr"], "collections": {}}},
        "admin/metrics": {"metrics": {"solr.core.one": {"TLOG.state": state}, "solr.core.two": {}}},
    }


@pytest.mark.parametrize(("state", "reason"), [(3, None), (0, "logs that are being replayed: solr.core.one")])
def test_solr_is_not_ready_while_it_replays_its_log(
    state: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = answers_of_solr(state)
    monkeypatch.setattr(solr, "SECOND_CHECK_SECONDS", 0)
    monkeypatch.setattr(SolrClient, "request", lambda self, path, parameters=None: answers[path])
    assert solr.solr_is_ready("http://solr") == reason


def test_cores_that_did_not_load_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_of_solr(3) | {"admin/cores": {"initFailures": {"run-1_shard1": "locked"}}}
    monkeypatch.setattr(SolrClient, "request", lambda self, path, parameters=None: answers[path])
    assert solr.solr_is_ready("http://solr") == "cores that did not load: run-1_shard1"


@pytest.mark.parametrize(("live", "is_problem"), [("theirs", True), ("", False)])
def test_a_collection_of_others_without_a_leader_keeps_nobody_from_an_external_solr(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, live: str, is_problem: bool
) -> None:
    shard = {"replicas": {"one": {"state": "down"}}}
    answers = {
        "STATUS": {"mode": "solrcloud"},
        "CLUSTERSTATUS": {"cluster": {"collections": {"theirs": {"shards": {"shard1": shard}}}}},
        "LISTALIASES": {"aliases": {settings.alias: live}},
    }
    monkeypatch.setattr(
        SolrClient, "request", lambda self, path, parameters=None: answers[(parameters or {}).get("action", "STATUS")]
    )
    assert solr.GROUP.unreachable(settings) == ("shards without a live leader: theirs/shard1" if is_problem else None)


def test_a_server_that_is_not_there_is_a_reason_not_an_error() -> None:
    assert "does not answer" in (solr.solr_is_ready("http://127.0.0.1:1/solr") or "")
    assert "no Spark Connect server answers" in (spark.spark_unready("sc://127.0.0.1:1") or "")


class Killed(BaseException):
    """The process that formats is killed."""


@pytest.fixture
def namenode(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(hdfs, "fetch_jars", lambda *_: settings.home)
    ports = {"namenode": {"rpc": 8020, "http": 9870}, "datanode": {"data": 1, "http": 2, "ipc": 3}}
    return Context(settings, ports, lambda text: None)


def format_folder(monkeypatch: pytest.MonkeyPatch, *files: str, dies: bool = False) -> None:
    """Let formatting write these files, and then be killed, as Hadoop does in this order."""

    def run(context: Context, folder: Path) -> None:
        for name in files:
            (folder / "current").mkdir(parents=True, exist_ok=True)
            (folder / "current" / name).touch()
        if dies:
            raise Killed

    monkeypatch.setattr(hdfs, "_format", run)


@pytest.mark.parametrize("written", [(), ("VERSION",), ("VERSION", "seen_txid", "fsimage.ckpt_0000000000000000000")])
def test_a_namenode_whose_formatting_was_killed_is_formatted_at_the_next_start(
    namenode: Context, monkeypatch: pytest.MonkeyPatch, written: tuple[str, ...]
) -> None:
    data = namenode.folder("namenode") / "data"
    format_folder(monkeypatch, *written, dies=True)
    with pytest.raises(Killed):
        hdfs.prepare(namenode, "namenode")
    format_folder(monkeypatch, "VERSION", "seen_txid", "fsimage_0000000000000000000")
    hdfs.prepare(namenode, "namenode")
    assert [path.name for path in data.iterdir()] == ["current"]
    assert sorted(path.name for path in (data / "current").iterdir()) == [
        "VERSION",
        "fsimage_0000000000000000000",
        "seen_txid",
    ]


def test_a_folder_that_an_orphan_of_a_killed_formatting_writes_again_is_no_namenode(
    namenode: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = namenode.folder("namenode") / "data"
    (data / "formatting-orphan").mkdir(parents=True)
    monkeypatch.setattr(hdfs.shutil, "rmtree", lambda *_, **__: None)  # Java wrote it again
    format_folder(monkeypatch, "VERSION")
    hdfs.prepare(namenode, "namenode")
    assert (data / "current" / "VERSION").exists()


@pytest.mark.parametrize("name", ["current/VERSION", "current/edits_inprogress_0000000000000000001", "lost+found/#1"])
def test_a_folder_in_which_anything_is_is_never_formatted(
    namenode: Context, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = namenode.folder("namenode") / "data" / name
    file.parent.mkdir(parents=True)
    file.write_text("kept")
    (file.parents[1] / "formatting-1").mkdir()  # it was killed when the folder had been formatted
    format_folder(monkeypatch, dies=True)
    hdfs.prepare(namenode, "namenode")
    assert file.read_text() == "kept"
    assert not (file.parents[1] / "formatting-1").exists()


def test_hadoops_values_are_escaped() -> None:
    assert "<value>a&lt;b&amp;c</value>" in hdfs.hadoop_xml({"name": "a<b&c"})


@pytest.mark.parametrize("command", ["scheduler", "dag-processor"])
def test_only_airflows_scheduler_imports_ahead_what_tasks_need(command: str) -> None:
    code = (
        f"import sys; sys.argv = ['airflow', {command!r}]\n{airflow.POLICY.read_text()}\nprint(*sys.modules, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    is_there = "tinytags_tasks.score.step" in done.stdout.split()
    assert is_there == (command == "scheduler")


def test_the_first_groups_of_a_run_go_before_the_last_ones_of_another() -> None:
    settings: dict[str, Any] = {}
    exec(airflow.POLICY.read_text(), settings)
    task = SimpleNamespace(priority_weight=2_000_000)
    weights = []
    for dag, map_index in (("tinytags", -1), ("tinytags", 0), ("tinytags_backfill", 1), ("tinytags", 399), ("mine", 7)):
        instance = SimpleNamespace(dag_id=dag, map_index=map_index, task=task, priority_weight=2_000_000)
        for known in (task, task, None):  # it asks more than once, and of stored ones without their task
            instance.task = known
            settings["task_instance_mutation_hook"](instance)
        weights.append(instance.priority_weight)
    assert weights == [2_000_000, 2_000_000, 1_999_999, 1_999_601, 2_000_000]


def test_airflows_pools_are_those_that_it_can_import() -> None:
    assert all(pool["slots"] >= 1 and pool["description"] for pool in json.loads(airflow_config.pools()).values())
