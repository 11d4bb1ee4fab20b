"""Who may do what in Solr, and which part of TinyTags knows which password."""

import base64
import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services import search, solr
from tinytags_tasks.services.engine import Context
from tinytags_tasks.services.solr_security import ROLES, make_logins, security_json, stored_password
from tinytags_tasks.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TINYTAGS_{name.upper()}", raising=False)
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    return tmp_path


def embedded(home: Path, **changes: object) -> Settings:
    return Settings(home=home, solr_url="http://127.0.0.1:1/solr", solr_passwords="generated", **changes)


def test_a_password_is_stored_as_the_reference_guides_example_is() -> None:
    example = "IV0EHq1OnNrj6gvRCwvFwTrZ1+z1oBbnQdiVC3otuq0= Ndd7LKvVBAaZIF0QAVi1ekCfAJXr1GGfLtRUXhgrF8c="
    assert stored_password("SolrRocks", base64.b64decode(example.split()[1])) == example


def test_three_users_get_passwords_that_only_the_user_may_read(home: Path) -> None:
    settings = embedded(home)
    logins = make_logins(settings)
    assert [user for user, _ in logins.values()] == ["admin", "writer", "reader"]
    assert len({password for _, password in logins.values()}) == 3
    for role in ROLES:
        assert (home / "secrets" / f"solr_{role}_password").stat().st_mode & 0o777 == 0o600
        assert settings.solr_login(role) == logins[role]


def test_solr_lets_nobody_in_without_a_password(home: Path) -> None:
    security = json.loads(security_json(make_logins(embedded(home))))
    assert security["authentication"]["blockUnknown"] is True
    assert security["authorization"]["user-role"] == {"admin": "admin", "writer": "writer", "reader": "reader"}
    text = json.dumps(security)
    assert not any(password in text for _, password in make_logins(embedded(home)).values())


def test_what_no_rule_names_is_the_admins(home: Path) -> None:
    rules = json.loads(security_json(make_logins(embedded(home))))["authorization"]["permissions"]
    assert rules[-1] == {"name": "all", "role": "admin"}
    assert [rule["path"] for rule in rules if "reader" in rule["role"]] == ["/select"]


def test_a_password_that_is_set_is_the_embedded_solrs_too(home: Path) -> None:
    settings = embedded(home, solr_writer_password=SecretStr("mine"))
    assert make_logins(settings)["writer"] == settings.solr_login("writer") == ("writer", "mine")
    assert not (home / "secrets" / "solr_writer_password").exists()


def test_users_of_one_name_are_refused_in_the_embedded_solr(home: Path) -> None:
    with pytest.raises(BadInputError, match="TINYTAGS_SOLR_WRITER_USER"):
        make_logins(embedded(home, solr_writer_user="admin"))


def test_a_cluster_that_asks_nobody_is_asked_without_a_login(home: Path) -> None:
    make_logins(embedded(home))  # of the embedded Solr, which a cluster must not see
    settings = Settings(home=home, solr_url="http://cluster:8983/solr")
    assert [settings.solr_login(role) for role in ROLES] == [None] * 3


def test_a_clusters_users_are_those_that_are_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_SOLR_URL", "https://cluster/solr")
    monkeypatch.setenv("TINYTAGS_SOLR_ADMIN_USER", "tinytags")
    monkeypatch.setenv("TINYTAGS_SOLR_ADMIN_PASSWORD", "ä secret")
    settings = load_settings()
    assert settings.solr_login("admin") == ("tinytags", "ä secret")
    assert settings.solr_login("reader") is None
    assert "ä secret" not in repr(settings)


@pytest.mark.parametrize(("told", "expected"), [(None, True), ("http://cluster/solr", False)])
def test_generated_passwords_are_for_the_solr_that_was_recorded_with_them(
    home: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, expected: bool
) -> None:
    recorded = {"solr_url": "http://127.0.0.1:1/solr", "solr_passwords": "generated"}
    (home / "addresses.json").write_text(json.dumps(recorded))
    make_logins(embedded(home))
    if told:
        monkeypatch.setenv("TINYTAGS_SOLR_URL", told)
    assert (load_settings().solr_login("reader") is not None) is expected


def test_a_solr_recorded_before_it_had_users_is_asked_without_a_login(home: Path) -> None:
    (home / "addresses.json").write_text(json.dumps({"solr_url": "http://127.0.0.1:1/solr"}))
    assert load_settings().solr_login("admin") is None


def test_a_lost_password_is_named_with_the_remedy(home: Path) -> None:
    with pytest.raises(BadInputError, match=r"solr_admin_password cannot be read.*run `tinytags up`"):
        _ = Runtime(embedded(home)).solr


def test_the_search_page_is_not_told_the_admins_password(home: Path) -> None:
    passwords = {f"solr_{role}_password": SecretStr(f"of {role}") for role in ROLES}
    context = Context(embedded(home, **passwords), {"search": {"http": 1}}, lambda _: None)
    (engine,) = search.GROUP.engines
    told = engine.launch(context).environment
    assert told["TINYTAGS_SOLR_READER_PASSWORD"] == "of reader"
    assert told["TINYTAGS_SOLR_WRITER_PASSWORD"] == "of writer"  # it applies corrections
    assert "of admin" not in told.values()


def test_solr_is_started_with_its_users_and_no_password_on_its_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solr, "fetch_jars", lambda *_: home)
    context = Context(embedded(home), {"solr": {"http": 8983}}, lambda _: None)
    solr.GROUP.prepare(context)
    (engine,) = solr.GROUP.engines
    launch = engine.launch(context)
    stored = home / "services" / "solr" / "conf" / "security.json"
    assert f"-Dsolr.security={stored}" in launch.command
    assert stored.stat().st_mode & 0o777 == 0o600
    words = " ".join((*launch.command, *launch.environment.values()))
    assert not any(password in words for _, password in make_logins(context.settings).values())


@pytest.fixture
def solr_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Set Airflow's connection to Solr."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    monkeypatch.setenv("AIRFLOW_CONN_TINYTAGS_HDFS", '{"conn_type": "http", "host": "namenode", "port": 9870}')
    monkeypatch.setenv("AIRFLOW_CONN_TINYTAGS_SPARK", '{"conn_type": "spark_connect", "host": "sc://spark"}')
    monkeypatch.setenv("TINYTAGS_SOLR_URL", "http://127.0.0.1:8983/solr")
    monkeypatch.setenv("TINYTAGS_SOLR_PASSWORDS", "generated")

    def say(**parts: object) -> Settings:
        from tinytags_airflow import runtime

        monkeypatch.setenv("AIRFLOW_CONN_TINYTAGS_SOLR", json.dumps({"conn_type": "http", **parts}))
        return runtime().settings

    return say


def test_dags_take_the_login_of_airflows_connection(solr_connection) -> None:
    settings = solr_connection(schema="https", host="cluster", port=443, login="tinytags", password="hidden")
    assert settings.address("solr_url") == "https://cluster:443/solr"
    assert settings.solr_login("admin") == settings.solr_login("writer") == ("tinytags", "hidden")
    assert settings.solr_login("reader") is None


def test_dags_take_the_settings_logins_where_the_connection_has_none(home: Path, solr_connection) -> None:
    logins = make_logins(embedded(home))
    settings = solr_connection(host="127.0.0.1", port=8983)
    assert settings.solr_login("writer") == logins["writer"]


def test_dags_show_the_embedded_solrs_passwords_to_no_other(home: Path, solr_connection) -> None:
    make_logins(embedded(home))
    assert solr_connection(host="cluster", port=8983).solr_login("writer") is None
