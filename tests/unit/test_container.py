"""One engine in a container: the same configuration as on one machine, with other hosts."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tinytags_tasks.services import container, hdfs, solr, spark
from tinytags_tasks.services.engine import Context, Network
from tinytags_tasks.settings import PROJECT_ROOT


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TINYTAGS_HDFS_URL", "hdfs://namenode:8020")
    monkeypatch.setattr(container.socket, "gethostname", lambda: "here")
    for module in (hdfs, solr):
        monkeypatch.setattr(module, "fetch_jars", lambda *_: tmp_path / "jars")
    return container.container_context("datanode")


def properties(context: Context, engine: str, file: str) -> str:
    return (context.folder(engine) / "conf" / file).read_text()


def test_a_datanode_knows_the_namenode_and_tells_its_own_name(context: Context) -> None:
    hdfs.prepare(context, "datanode")
    assert "<value>hdfs://namenode:8020</value>" in properties(context, "datanode", "core-site.xml")
    site = properties(context, "datanode", "hdfs-site.xml")
    assert "<name>dfs.datanode.hostname</name><value>here</value>" in site
    assert "<name>dfs.datanode.address</name><value>0.0.0.0:9866</value>" in site
    assert "127.0.0.1" not in site


def test_a_datanode_formats_no_namenode(context: Context) -> None:
    hdfs.prepare(context, "datanode")
    assert not context.folder("namenode").exists()


def test_one_machine_listens_on_loopback_only(tmp_path: Path, context: Context) -> None:
    alone = replace(context, network=Network())
    hdfs.prepare(alone, "datanode")
    assert "0.0.0.0" not in properties(alone, "datanode", "hdfs-site.xml")
    solr.GROUP.prepare(alone)
    assert "SolrZkServer" in properties(alone, "solr", "jetty.xml")


def test_solr_starts_no_zookeeper_of_its_own_beside_another(context: Context) -> None:
    solr.GROUP.prepare(context)
    assert "SolrZkServer" not in properties(context, "solr", "jetty.xml")
    assert "/security.json" in properties(context, "solr", "jetty.xml")
    assert solr.zookeeper(context) == "zookeeper:2181"


def test_spark_works_on_the_cluster_that_is_set_and_proves_who_it_is(context: Context) -> None:
    settings = context.settings.model_copy(update={"spark_master": "spark://spark-master:7077", "hdfs_replication": 2})
    spark.GROUP.prepare(replace(context, settings=settings))
    written = properties(context, "spark", "spark-defaults.conf")
    assert "spark.master spark://spark-master:7077\n" in written
    assert "spark.authenticate true\n" in written
    assert "spark.hadoop.dfs.replication 2\n" in written


@pytest.mark.parametrize(("master", "asked"), [("spark://spark-master:7077", "6g"), (None, None)])
def test_executors_get_the_memory_that_is_set_where_there_are_any(
    context: Context, monkeypatch: pytest.MonkeyPatch, master: str | None, asked: str | None
) -> None:
    monkeypatch.setenv("SPARK_EXECUTOR_MEMORY", "6g")
    spark.GROUP.prepare(replace(context, settings=context.settings.model_copy(update={"spark_master": master})))
    written = properties(context, "spark", "spark-defaults.conf")
    assert re.findall(r"^spark\.executor\.memory (.*)$", written, re.MULTILINE) == ([asked] if asked else [])


def test_an_unknown_role_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SystemExit, match=r"namenode, datanode.*search"):
        container.main(["nonesuch"])


def test_airflow_gets_its_database_and_address_from_the_containers(context: Context) -> None:
    told = container._with_database(context)
    variables = told.network.variables
    assert told.settings.password("airflow_database").endswith("@postgres:5432/airflow")
    assert not any("postgres" in value for value in variables.values()), "only airflow.cfg has the password"
    assert variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-api-server:8080/execution/"
    assert variables["AIRFLOW__EDGE__API_ENABLED"] == "False"


def test_an_airflow_worker_takes_as_many_tasks_as_are_set(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__EDGE__WORKER_CONCURRENCY", "5")
    addresses = {
        "webhdfs_url": "http://namenode:9870",
        "spark_url": "sc://spark:15002",
        "solr_url": "http://solr1:8983/solr",
    }
    launch = container.ROLES["airflow-worker"](replace(context, settings=context.settings.model_copy(update=addresses)))
    assert launch is not None
    assert launch.environment["AIRFLOW__EDGE__WORKER_CONCURRENCY"] == "5"
    assert not {"-c", "--concurrency"} & set(launch.command), "it would win"


def test_a_database_that_is_set_is_used_in_place_of_the_containers(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYTAGS_AIRFLOW_DATABASE", "postgresql://user@db.example/airflow")
    told = container._with_database(container.container_context("airflow-scheduler"))
    assert told.settings.password("airflow_database") == "postgresql://user@db.example/airflow"


@pytest.mark.parametrize(("copies", "written"), [(None, "1"), (2, "2")])
def test_copies_of_a_block_are_as_many_as_set(context: Context, copies: int | None, written: str) -> None:
    told = replace(context, settings=context.settings.model_copy(update={"hdfs_replication": copies}))
    hdfs.prepare(told, "datanode")
    spark.GROUP.prepare(told)
    assert f"<name>dfs.replication</name><value>{written}</value>" in properties(told, "datanode", "hdfs-site.xml")
    assert f"spark.hadoop.dfs.replication {written}\n" in properties(told, "spark", "spark-defaults.conf")


def test_copies_in_an_hdfs_of_ones_own_are_not_told_to_spark_unless_set(context: Context) -> None:
    ports = {name: of_engine for name, of_engine in context.ports.items() if name != "namenode"}
    spark.GROUP.prepare(replace(context, ports=ports))
    assert "dfs.replication" not in properties(context, "spark", "spark-defaults.conf")


def test_the_image_is_given_all_that_fetches_its_jars(tmp_path: Path) -> None:
    """The Dockerfile names the files, so that other changes do not fetch them again; one was missing once."""
    stage = (PROJECT_ROOT / "Dockerfile").read_text().partition(" AS jars\n")[2].partition("\nFROM ")[0]
    for copied in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = copied.split()
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        (tmp_path / target / "__init__.py").touch()  # so that this one is imported, not the checkout's
        for source in sources:
            shutil.copy(PROJECT_ROOT / source, tmp_path / target)
    command = "from tinytags_tasks.services.jars import Settings, fetch_jars; print(fetch_jars.__module__)"
    environment = {"PYTHONPATH": str(tmp_path), "TINYTAGS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "tinytags_tasks.services.jars\n", done.stderr
