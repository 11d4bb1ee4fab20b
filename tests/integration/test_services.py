"""The real embedded engines: ready means usable, data survives a kill, nothing listens on other interfaces."""

import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from configset_upgrades import upload
from hdfs import InsecureClient

from tinytags_tasks.clients.spark import connect_spark
from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services import control, status, up
from tinytags_tasks.services.airflow_config import connections
from tinytags_tasks.services.processes import family, read_record
from tinytags_tasks.services.solr import solr_is_ready
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.configsets import current_configset

pytestmark = pytest.mark.integration

GROUPS = tuple(group.name for group in control.GROUPS)


@pytest.fixture(scope="module")
def settings(airflow: Settings) -> Settings:
    """All engines."""
    return airflow


def kill(settings: Settings, engine: str) -> None:
    record = read_record(settings.home / "services" / engine)
    assert record is not None
    process = psutil.Process(record.pid)
    process.kill()
    process.wait(30)


def restart(settings: Settings) -> None:
    up(settings, engines=GROUPS, standard_ports=False, die_with_parent=True)


def states(settings: Settings) -> dict[str, str]:
    return {engine.name: engine.state for engine in status(settings)}


def test_every_engine_runs(settings: Settings) -> None:
    assert set(states(settings).values()) == {"running"}


def test_no_password_lies_in_the_open(settings: Settings) -> None:
    passwords = [login[1] for role in ("admin", "writer", "reader") if (login := settings.solr_login(role))]
    assert len(passwords) == 3
    for path in settings.secrets_folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    records = [record for folder in (settings.home / "services").iterdir() if (record := read_record(folder))]
    assert len(records) == 9
    for process in (process for record in records for process in family(record)):
        words = " ".join((*process.cmdline(), *process.environ().values()))
        assert not any(password in words for password in passwords)
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0
    logs = [path for path in (settings.home / "services").rglob("*") if path.is_file() and ".log" in path.name]
    assert logs
    for path in (*logs, settings.home / "services" / "solr" / "conf" / "security.json", settings.addresses_file):
        assert not any(password in path.read_text(errors="replace") for password in passwords)


def test_no_engine_listens_beyond_loopback(settings: Settings) -> None:
    listening: dict[str, set[str]] = {}
    for folder in (settings.home / "services").iterdir():
        record = read_record(folder)
        for process in family(record) if record else ():
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    listening.setdefault(folder.name, set()).add(connection.laddr[0])
    assert {"namenode", "datanode", "solr", "spark"} <= set(listening)
    assert {address for addresses in listening.values() for address in addresses} == {"127.0.0.1"}


def test_the_home_is_the_users_alone(settings: Settings) -> None:
    assert settings.home.stat().st_mode & 0o077 == 0
    for secret in settings.secrets_folder.iterdir():
        assert secret.stat().st_mode & 0o077 == 0
    assert (settings.home / "airflow" / "airflow.cfg").stat().st_mode & 0o077 == 0


def test_a_file_in_hdfs_outlives_the_kill_of_both_nodes(settings: Settings) -> None:
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    client.write("/services/kept", io.BytesIO(b"kept" * 100_000))
    kill(settings, "namenode")
    kill(settings, "datanode")
    assert states(settings)["namenode"] == states(settings)["datanode"] == "dead"
    restart(settings)
    with client.read("/services/kept") as reader:
        assert reader.read() == b"kept" * 100_000


def test_solr_is_ready_only_when_what_it_acknowledged_is_found_again(settings: Settings) -> None:
    url = settings.address("solr_url")
    solr = Runtime(settings).solr
    solr.ensure_collection("kept", upload(solr, current_configset()))
    fields = {"tag": "cat", "corpus": "c", "model": "m", "accuracy": 50, "block": 0, "votes": 5, "shard": 0}
    documents = [{"id": f"c:{position}", "position": position} | fields for position in range(20_000)]
    solr.request("kept/update", body=json.dumps(documents).encode(), mime="application/json")
    kill(settings, "solr")
    restart(settings)
    assert solr_is_ready(url, settings.solr_login("admin")) is None
    solr.request("kept/update", {"commit": "true"})
    assert solr.request("kept/select", {"q": "*:*", "rows": 0})["response"]["numFound"] == 20_000
    solr.delete_collection("kept")


def test_spark_runs_our_code_and_survives_a_killed_worker(settings: Settings, tmp_path: Path) -> None:
    address = SparkAddress.parse(settings.address("spark_url")).with_default("token", settings.spark_connect_token())
    code = f"""
import os, sys
from pathlib import Path
import pyarrow as pa
from pyspark.sql import SparkSession
spark = SparkSession.builder.remote({str(address)!r}).getOrCreate()
def work(batches):
    import tinytags_tasks.blocks
    first = Path({str(tmp_path / "killed")!r})
    if not first.exists():
        first.touch()
        os.kill(os.getpid(), 9)
    yield from batches
frame = spark.range(0, 1000, 1, 2).mapInArrow(work, "id long")
frame.write.mode("overwrite").parquet("/services/spark")
print(spark.read.parquet("/services/spark").count(), sys.executable)
"""
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["1000", sys.executable], done.stderr[-2000:]
    assert (tmp_path / "killed").exists()
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    assert "_SUCCESS" in client.list("/services/spark")
    assert client.status("/services/spark")["owner"] == settings.hdfs_user


@pytest.mark.parametrize("token", ["", "another"])
def test_spark_lets_nobody_in_without_its_token(settings: Settings, token: str) -> None:
    with pytest.raises(BadInputError, match="Spark rejects the token: correct TINYTAGS_SPARK_TOKEN"):
        connect_spark(settings.address("spark_url"), token)


def test_airflows_spark_hook_finds_our_server(settings: Settings) -> None:
    code = (
        "from airflow.providers.apache.spark.hooks.spark_connect import SparkConnectHook;"
        "print(SparkConnectHook('tinytags_spark').get_connection_url())"
    )
    environment = os.environ | connections(settings) | {"AIRFLOW_HOME": str(settings.home / "airflow")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split()[-1].startswith(settings.address("spark_url") + "/"), done.stderr[-2000:]


def test_airflow_lets_its_user_in_and_nobody_else(settings: Settings) -> None:
    url = f"{settings.address('airflow_url')}/auth/token"
    answered = []
    for password in ((settings.secrets_folder / "airflow_password").read_text().strip(), "wrong"):
        body = json.dumps({"username": settings.airflow_user, "password": password}).encode()
        request = urllib.request.Request(url, body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answered.append(answer.status)
        except urllib.error.HTTPError as error:
            answered.append(error.code)
    assert answered == [201, 401]


def test_every_engine_comes_back_after_a_kill(settings: Settings) -> None:
    ports = settings.home / "services" / "ports.json"
    before = ports.read_text()
    names = list(states(settings))
    for engine in names:
        kill(settings, engine)
    assert set(states(settings).values()) == {"dead"}
    restart(settings)
    assert set(states(settings).values()) == {"running"}
    assert ports.read_text() == before
