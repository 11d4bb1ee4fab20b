"""Each engine's process is given the secrets that it needs, whoever starts it, and no others."""

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from tinytags_tasks.services import airflow, hdfs, keeper_process, solr, systemd
from tinytags_tasks.services.control import GROUPS
from tinytags_tasks.services.engine import Context
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings

SECRETS = {
    "AWS_ACCESS_KEY_ID": "aws-id",
    "AWS_SECRET_ACCESS_KEY": "aws-secret",
    "FSSPEC_S3_KEY": "fsspec-key",
    "AIRFLOW_CONN_TINYTAGS_NOTIFY": "https://chat.example/secret-path",
    "AIRFLOW_CONN_MINE": "mine",
    "AIRFLOW_VAR_MINE": "mine",
    "HTTPS_PROXY": "http://me:proxy-password@proxy:3128",
    "GITHUB_TOKEN": "github",
    "PGPASSWORD": "database",
    "SLACK_WEBHOOK_URL": "https://hooks.example/secret",
    "SENTRY_DSN": "https://key@sentry.example/1",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "UV_INDEX_URL": "https://me:index-password@index.example/simple",
}

TASKS = {
    *("AIRFLOW_CONN_TINYTAGS_HDFS", "AIRFLOW_CONN_TINYTAGS_SOLR", "AIRFLOW_CONN_TINYTAGS_SPARK"),
    *("AIRFLOW_CONN_TINYTAGS_NOTIFY", "AIRFLOW_CONN_MINE"),
    *("TINYTAGS_SOLR_ADMIN_PASSWORD", "TINYTAGS_SOLR_WRITER_PASSWORD"),
}

NEEDED = {
    "namenode": set(),
    "datanode": set(),
    "solr": set(),
    "spark": {"SPARK_CONNECT_AUTHENTICATE_TOKEN"},
    "airflow-api-server": TASKS,
    "airflow-scheduler": TASKS
    | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FSSPEC_S3_KEY", "AIRFLOW_VAR_MINE", "HTTPS_PROXY"},
    "airflow-dag-processor": {"AIRFLOW_CONN_TINYTAGS_NOTIFY", "HTTPS_PROXY"},
    "airflow-triggerer": set(),
    "search": {
        *("TINYTAGS_SEARCH_PASSWORD", "TINYTAGS_SOLR_READER_PASSWORD", "TINYTAGS_SOLR_WRITER_PASSWORD"),
        "HTTPS_PROXY",
    },
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [
        name for name in os.environ if name.upper().startswith(("AWS_", "TINYTAGS_")) or "PROXY" in name.upper()
    ]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("UNRELATED", "1")
    passwords = ("solr_admin", "solr_writer", "solr_reader", "airflow", "search")
    return Settings(
        home=tmp_path,
        profile="normal",
        webhdfs_url="http://namenode:9870",
        hdfs_url="hdfs://namenode:8020",
        solr_url="https://solr:443/solr",
        spark_url="sc://spark:15002/;token=spark-token;use_ssl=true",
        spark_token=SecretStr("spark-token"),
        maven_repository="https://me:maven-password@mirror.example/maven",
        **{f"{name}_password": SecretStr(f"{name}-password") for name in passwords},
    )


@pytest.fixture
def launches(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, Launch]:
    """Return how every engine is started."""
    for module, name in ((hdfs, "fetch_jars"), (solr, "fetch_jars")):
        monkeypatch.setattr(module, name, lambda *_: Path("/jars"))
    monkeypatch.setattr("tinytags_tasks.services.engine.find_java", lambda settings: Path("/java"))
    engines = [engine for group in GROUPS for engine in group.engines]
    ports = {engine.name: {port.name: 1 for port in engine.ports} for engine in engines}
    context = Context(settings, ports)
    return {engine.name: engine.launch(context) for engine in engines}


def secret_names(environment: dict[str, str]) -> set[str]:
    """Return the variables that are or hold a secret, found in another way than by the code that is tested."""
    suspicious = re.compile(r"TINYTAGS_.*(?:PASSWORD|SECRET(?!_FILE)|TOKEN$)|^AWS_|AUTHENTICATE_TOKEN|^AIRFLOW_CONN_")
    values = {*SECRETS.values(), "spark-token"}
    passwords = re.compile(r"-password|spark-token")
    return {
        name
        for name, value in environment.items()
        if suspicious.search(name) or value in values or passwords.search(value)
    }


def test_each_engine_has_the_secrets_that_it_needs_and_no_others(launches: dict[str, Launch]) -> None:
    assert {name: secret_names(dict(launch.environment)) for name, launch in launches.items()} == NEEDED


def test_what_is_no_secret_is_there_as_before(launches: dict[str, Launch], settings: Settings) -> None:
    for launch in launches.values():
        assert launch.environment["UNRELATED"] == "1"
        assert launch.environment["PATH"]
        assert launch.environment["TINYTAGS_HOME"] == str(settings.home)
        assert launch.environment["TINYTAGS_SOLR_URL"] == settings.solr_url


def test_airflows_own_commands_have_no_secrets(settings: Settings) -> None:
    told = airflow.command_environment(Context(settings, {}), "db")
    assert secret_names(told) == set()


def test_the_keeper_has_what_the_engines_need_and_no_more(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_SEARCH_PASSWORD", "search-password")
    told = keeper_process.environment(settings)
    assert set(SECRETS) - set(told) == {
        *("GITHUB_TOKEN", "PGPASSWORD", "SLACK_WEBHOOK_URL", "SENTRY_DSN", "SSH_AUTH_SOCK", "UV_INDEX_URL")
    }
    assert told["TINYTAGS_SEARCH_PASSWORD"] == "search-password"
    written = systemd.environment_text(told)
    assert "aws-secret" in written
    assert "proxy-password" in written
    assert "index-password" not in written
