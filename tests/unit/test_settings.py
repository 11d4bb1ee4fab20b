"""Settings: the environment first, then what `tinytags up` recorded; and messages about bad values."""

import json
from types import SimpleNamespace

import pytest

from tinytags_tasks import cli
from tinytags_tasks.cli.accounts import passwords
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.settings import ADDRESSES, Settings, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An environment without settings but the state's folder."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TINYTAGS_{name.upper()}", raising=False)
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def recorded(home):
    def record(content: str) -> None:
        (home / "addresses.json").write_text(content)

    return record


def test_recorded_addresses_are_taken(recorded):
    recorded(json.dumps({"solr_url": "http://127.0.0.1:1/solr", "spark_url": "sc://127.0.0.1:2"}))
    settings = load_settings()
    assert settings.address("solr_url") == "http://127.0.0.1:1/solr"
    assert settings.address("spark_url") == "sc://127.0.0.1:2"


def test_the_environment_beats_what_is_recorded(recorded, monkeypatch):
    recorded(json.dumps({"solr_url": "http://127.0.0.1:1/solr", "spark_url": "sc://127.0.0.1:2"}))
    monkeypatch.setenv("TINYTAGS_SOLR_URL", "http://cluster:8983/solr/")
    settings = load_settings()
    assert settings.address("solr_url") == "http://cluster:8983/solr"
    assert settings.address("spark_url") == "sc://127.0.0.1:2"


def test_only_addresses_are_taken_from_what_is_recorded(recorded):
    recorded(json.dumps({"alias": "another", "unknown": 5}))
    assert load_settings().alias == "tinytags"


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_missing_address_has_a_remedy(name):
    variable = f"TINYTAGS_{name.upper()}"
    with pytest.raises(BadInputError, match=f"start the engines with `tinytags up`, or set {variable}"):
        load_settings().address(name)


def test_an_address_set_to_nothing_is_missing(monkeypatch):
    monkeypatch.setenv("TINYTAGS_SOLR_URL", "")
    with pytest.raises(BadInputError, match="TINYTAGS_SOLR_URL"):
        load_settings().address("solr_url")


@pytest.mark.parametrize("content", ["", "{", "5", "null"])
def test_damaged_addresses_are_named_with_the_remedy(recorded, content):
    recorded(content)
    with pytest.raises(BadInputError, match=r"addresses\.json is damaged .* run `tinytags up` again"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TINYTAGS_SOLR_SHARDS", "0"), ("TINYTAGS_SOLR_REPLICAS", "many"), ("TINYTAGS_ALIAS", "Not/An alias")],
)
def test_a_bad_value_is_named_by_its_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadInputError, match=rf"{variable}: .*\(got '{value}'\)"):
        load_settings()


def test_passwords_are_not_shown(monkeypatch):
    monkeypatch.setenv("TINYTAGS_SEARCH_PASSWORD", "hidden words")
    settings = load_settings()
    assert "hidden words" not in repr(settings)
    assert settings.search_password.get_secret_value() == "hidden words"


def test_folders_are_absolute_whatever_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYTAGS_HOME", "state")
    monkeypatch.setenv("TINYTAGS_CACHE", "~/cache")
    monkeypatch.setenv("TINYTAGS_SPARK_ARCHIVE", "executors.tar.gz")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    settings = load_settings()
    assert settings.home == tmp_path / "state"
    assert settings.cache == tmp_path / "me" / "cache"
    assert settings.spark_archive == tmp_path / "executors.tar.gz"
    assert settings.addresses_file == tmp_path / "state" / "addresses.json"


def test_a_variable_that_does_not_exist_is_warned_about_with_the_nearest_name():
    assert unknown_variables(["TINYTAGS_ALIAS", "TINYTAGS_POOLS", "tinytags_store", "PATH"]) == []
    assert unknown_variables(["TINYTAGS_SOLR_ULR", "TINYTAGS_X"]) == [
        "TINYTAGS_SOLR_ULR is not a setting, and has no effect: do you mean TINYTAGS_SOLR_URL?",
        "TINYTAGS_X is not a setting, and has no effect",
    ]


def test_a_command_warns_once_and_goes_on(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    monkeypatch.setenv("TINYTAGS_ALAIS", "live")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "search_password").write_text("hidden\n")
    monkeypatch.setattr("sys.argv", ["tinytags", "passwords"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.err.count("TINYTAGS_ALAIS is not a setting, and has no effect: do you mean TINYTAGS_ALIAS?") == 1
    assert "hidden" in said.out


@pytest.mark.parametrize(
    ("what", "asked", "unseen", "opened"),
    [
        ("airflow", "http://airflow-api-server:8080", "airflow-api-server", "http://127.0.0.1:9090"),
        ("search", "http://search:8765", "search:8765", "https://pictures.example/tags"),
    ],
)
def test_people_are_told_the_address_at_which_they_open_it(what, asked, unseen, opened, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    monkeypatch.setenv(f"TINYTAGS_{what.upper()}_URL", f"{asked}/")
    monkeypatch.setenv(f"TINYTAGS_{what.upper()}_PASSWORD", "hidden")
    assert getattr(load_settings(), f"{what}_page") == asked
    monkeypatch.setenv(f"TINYTAGS_{what.upper()}_PUBLIC_URL", f"{opened}/")
    passwords()
    shown = capsys.readouterr().out
    assert f"{opened} " in shown
    assert unseen not in shown
    assert load_settings().address(f"{what}_url") == asked, "where it is asked"


def test_passwords_that_do_not_exist_are_no_empty_table(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match=r"no passwords are set or in .*: run `tinytags up`"):
        passwords()


def connection(**parts):
    given = {"conn_id": "c", "schema": None, "host": None, "port": None, "login": None, "password": None}
    return SimpleNamespace(**given | {"extra_dejson": {}} | parts)


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({"host": "solr", "port": 8983}, "http://solr:8983/solr"),
        ({"host": "solr"}, "http://solr/solr"),
        ({"host": "solr", "schema": "https"}, "https://solr/solr"),
        ({"host": "solr", "extra_dejson": {"path": "/search"}}, "http://solr/search"),
        ({"host": "https://solr/a/solr/"}, "https://solr/a/solr"),
        ({"host": "https://solr", "port": 8443}, "https://solr:8443/solr"),
        ({"host": "::1", "port": 8983}, "http://[::1]:8983/solr"),
        ({"host": "old", "port": 1, "extra_dejson": {"url": "https://new/solr"}}, "https://new/solr"),
    ],
)
def test_any_form_of_an_airflow_connection_is_an_address(parts, url):
    assert Settings().with_connections(None, connection(**parts)).address("solr_url") == url


def test_a_pair_of_name_nodes_without_ports_is_one_address():
    pair = "https://one/gateway/hdfs;https://two/gateway/hdfs"
    hdfs = connection(extra_dejson={"url": pair, "rpc": "hdfs://cluster"})
    used = Settings().with_connections(hdfs, None)
    assert (used.address("webhdfs_url"), used.address("hdfs_url")) == (pair, "hdfs://cluster")


def test_an_hdfs_without_its_rpc_address_says_what_to_set():
    hdfs = connection(host="namenode", port=9870)
    with pytest.raises(BadInputError, match="set TINYTAGS_HDFS_URL or, in Airflow, the extra `rpc` of the connection"):
        Settings().with_connections(hdfs, None).address("hdfs_url")
    used = Settings(hdfs_url="hdfs://namenode:8020").with_connections(hdfs, None)
    assert used.address("hdfs_url") == "hdfs://namenode:8020"


def test_a_connection_without_a_host_says_what_to_set():
    with pytest.raises(BadInputError, match="connection c has no host: set it, or the extra `url`"):
        Settings().with_connections(None, connection(port=8983))


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("solr_url", "solr:8983/solr"),
        ("solr_url", "http://"),
        ("solr_url", "http://solr:port/solr"),
        ("webhdfs_url", "hdfs://namenode:8020"),
        ("webhdfs_url", "http://one:9870;two:9870"),
        ("airflow_url", "airflow"),
    ],
)
def test_what_is_no_web_address_is_refused_with_an_example(name, url):
    with pytest.raises(BadInputError, match=rf"is not a web address: write TINYTAGS_{name.upper()} as http://host:\d+"):
        Settings(**{name: url}).address(name)


def test_a_refused_address_does_not_show_its_password():
    with pytest.raises(BadInputError) as raised:
        Settings(solr_url="ftp://me:secret@solr").address("solr_url")
    assert "secret" not in str(raised.value)


def test_a_solr_without_a_path_is_below_the_usual_one():
    assert Settings(solr_url="https://solr").address("solr_url") == "https://solr/solr"
    assert Settings(solr_url="https://solr/").address("solr_url") == "https://solr"
