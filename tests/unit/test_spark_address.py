"""The address of Spark Connect: read in one place, whether from the settings or from Airflow's connection."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services.airflow_config import connections
from tinytags_tasks.settings import Settings


@pytest.mark.parametrize(
    ("url", "target", "parameters", "written"),
    [
        ("sc://a", "a:15002", {}, "sc://a:15002"),
        ("sc://a:1/", "a:1", {}, "sc://a:1"),
        ("sc://a:1/;", "a:1", {}, "sc://a:1"),
        ("sc://[::1]:1", "[::1]:1", {}, "sc://[::1]:1"),
        ("sc://a:1/;token=x%2By;use_ssl=true", "a:1", {"token": "x+y", "use_ssl": "true"}, None),
        ("sc://a:1/;token=a==", "a:1", {"token": "a=="}, "sc://a:1/;token=a%3D%3D"),
    ],
)
def test_an_address_is_read_and_written(url: str, target: str, parameters: dict[str, str], written: str | None) -> None:
    address = SparkAddress.parse(url)
    assert (address.target, address.parameters) == (target, parameters)
    assert str(address) == (written or url)
    assert SparkAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "url", ["sc://a:b/;token=hidden", "sc://a:0", "sc://a:1/path", "http://a", "sc://[::1/;token=hidden"]
)
def test_what_is_no_address_is_refused_without_its_token(url: str) -> None:
    with pytest.raises(BadInputError, match="is not a Spark Connect address: write sc://host:15002") as refused:
        SparkAddress.parse(url)
    assert "hidden" not in str(refused.value)


def test_a_token_goes_into_the_address_unless_it_has_one() -> None:
    assert str(SparkAddress.parse("sc://a:1").with_default("token", "a/b")) == "sc://a:1/;token=a/b"
    assert str(SparkAddress.parse("sc://a:1/;token=x").with_default("token", "y")) == "sc://a:1/;token=x"
    assert str(SparkAddress.parse("sc://a:1").with_default("token", "")) == "sc://a:1"


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("sc://spark:15002/;use_ssl=False;token=a%2Bb", {"use_ssl": "False", "authorization": "Bearer a+b"}),
        ("sc://spark:15002/;use_ssl=false", {"use_ssl": "false"}),
        ("sc://spark:15002/;token=a", {"token": "a"}),
    ],
)
def test_a_token_goes_without_tls_only_where_that_is_said(address: str, sent: dict[str, str]) -> None:
    assert SparkAddress.parse(address).with_plain_token().parameters == sent


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a connection, whose variable a test sets."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    return "our_spark"


@pytest.mark.parametrize(
    "told",
    [
        {"host": "sc://spark", "port": 15002},
        {"host": "spark", "login": "me", "password": "a/b c", "extra": {"use_ssl": True}},
        {"host": "spark", "password": "abc", "extra": {"use_ssl": False}},
    ],
)
def test_a_connection_to_spark_is_read_as_airflows_own_hook_reads_it(
    told: dict[str, object], connected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import BaseHook
    from tinytags_airflow import spark_address

    hook = pytest.importorskip("airflow.providers.apache.spark.hooks.spark_connect").SparkConnectHook
    monkeypatch.setenv("AIRFLOW_CONN_OUR_SPARK", json.dumps({"conn_type": "spark_connect", **told}))
    theirs = SparkAddress.parse(hook(connected).get_connection_url())
    assert SparkAddress.parse(spark_address(BaseHook.get_connection(connected))) == theirs


@pytest.mark.parametrize(
    "url", ["sc://spark:15002/;use_ssl=false", "sc://[::1]:7/;x-cluster=a%20b;user_id=me", "sc://gateway"]
)
def test_dags_use_the_spark_of_the_settings_whatever_its_address_has(
    url: str, connected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.sdk import BaseHook
    from tinytags_airflow import spark_address

    addresses = {"webhdfs_url": "http://a", "hdfs_url": "hdfs://a", "solr_url": "http://a/solr", "spark_url": url}
    settings = Settings(home=tmp_path, spark_token=SecretStr("a/b c"), **addresses)
    monkeypatch.setenv("AIRFLOW_CONN_OUR_SPARK", connections(settings)["AIRFLOW_CONN_TINYTAGS_SPARK"])
    used = spark_address(BaseHook.get_connection(connected))
    assert SparkAddress.parse(used) == SparkAddress.parse(url).with_default("token", "a/b c")


def test_dags_of_an_airflow_without_connections_use_the_settings(
    connected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tinytags_airflow import runtime

    told = {"webhdfs_url": "http://a", "hdfs_url": "hdfs://a", "solr_url": "http://a/solr", "spark_url": "sc://a"}
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    for name, url in told.items():
        monkeypatch.setenv(f"TINYTAGS_{name.upper()}", url)
    used = runtime().settings
    assert {name: used.address(name) for name in told} == told
    monkeypatch.setenv("AIRFLOW_CONN_TINYTAGS_SPARK", json.dumps({"conn_type": "spark_connect", "host": "sc://b"}))
    assert runtime().settings.address("spark_url") == "sc://b:15002"
