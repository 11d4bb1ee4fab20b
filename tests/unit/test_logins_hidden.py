"""A login in an engine's address is used, and never shown."""

from types import SimpleNamespace

import pytest
from certificates import make_certificate, speak_tls
from name_nodes import DONE, FILE, name_node, refusal

from tinytags_tasks.cli import follow
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.doctor import hdfs as doctor
from tinytags_tasks.errors import BadInputError, EngineDownError, TinyTagsError
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.services.engine import answers, get_json
from tinytags_tasks.services.hdfs import webhdfs_unready
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.protocol import StoreAddress

REFUSED = "http://u:hidden@127.0.0.1:1"
PAIR = f"{REFUSED};http://v:hidden@127.0.0.1:2/gateway/default"


def with_login(server):
    return server.url.replace("//", "//u:hidden@")


def store(url):
    return HdfsStorage(StoreAddress("/store", webhdfs_url=url, user="me"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@knox:8443/gateway/default", "https://knox:8443/gateway/default"),
        ("https://u:p@knox", "https://knox"),
        ("http://a:9870;http://u:p@b/c;https://v:q@d", "http://a:9870;http://b/c;https://d"),
        ("https://u:p;@x@knox/gateway", "https://knox/gateway"),
        ("http://token@[::1]:9870", "http://[::1]:9870"),
        ("u:p@knox:8443", "knox:8443"),
        ("https://knox/a@b/c", "https://knox/a@b/c"),
        ("sc://spark:15002/;token=p;use_ssl=true", "sc://spark:15002"),
        ("hdfs://namenode:8020", "hdfs://namenode:8020"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_logins(url, shown):
    assert without_password(url) == shown


@pytest.mark.parametrize("url", [REFUSED, PAIR])
def test_a_store_that_does_not_answer_is_named_without_its_login(url):
    refused = store(url)
    with pytest.raises(EngineDownError, match=r"^http://127\.0\.0\.1:1.*/store/a: HDFS does not answer") as raised:
        refused.exists("a")
    assert "hidden" not in f"{raised.value} {refused!r} {refused.address!r}"


@pytest.mark.parametrize(
    "answer",
    [
        (401, b"<html>"),
        (502, b"<html>"),
        (500, b"<html>"),
        refusal(403, "AccessControlException"),
        refusal(404, "FileNotFoundException"),
        refusal(403, "StandbyException"),
    ],
)
def test_what_a_store_answers_is_told_without_its_login(answer):
    with name_node(GETFILESTATUS=answer, OPEN=answer, CREATE=answer, DELETE=DONE) as server:
        for attempt in (lambda at: at.size_bytes("a"), lambda at: at.read("a"), lambda at: at.write("a", b"x")):
            with pytest.raises(TinyTagsError, match=r"a: ") as raised:
                attempt(store(with_login(server)))
            assert "hidden" not in f"{raised.value} {raised.value.__cause__}"


def test_a_server_that_keeps_no_store_is_named_without_its_login():
    with name_node(CREATE=(201, b""), MKDIRS=DONE, RENAME=DONE, DELETE=DONE, GETFILESTATUS=FILE) as server:
        for attempt in (lambda at: at.write("a", b"x"), lambda at: at.rename("a", "b")):
            with pytest.raises(TinyTagsError, match=rf"^{server.url}: ") as raised:
                attempt(store(with_login(server)))
            assert "hidden" not in str(raised.value)


def test_a_source_in_a_store_that_does_not_answer_is_named_without_its_login():
    with pytest.raises(EngineDownError, match="its server does not answer") as raised:
        list(SourceFiles("hdfs:///tree", webhdfs_url=REFUSED, hdfs_user="me").files())
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("url", [REFUSED, PAIR])
def test_what_the_doctor_finds_has_no_login(url):
    settings = Settings(webhdfs_url=url, hdfs_url="hdfs://namenode:8020")
    findings = list(doctor.examine_hdfs(SimpleNamespace(settings=settings, storage=store(url))))
    assert {finding.verdict for finding in findings} >= {"warning", "fails"}
    assert "hidden" not in str(findings)
    assert "hidden" not in str(webhdfs_unready(settings))


def test_a_gateway_is_told_by_the_doctor_without_its_login(monkeypatch):
    monkeypatch.setattr(doctor, "get_json", lambda *_, **__: {"beans": []})
    (finding,) = doctor._name_nodes(["https://u:hidden@knox/gateway/default"])
    assert finding.text.startswith("knox does not say what HDFS runs")


def test_engines_that_do_not_answer_are_named_without_a_login():
    for ask in (get_json, answers):
        with pytest.raises(EngineDownError, match=r"nothing answers at http://127\.0\.0\.1:1 ") as raised:
            ask(REFUSED)
        assert "hidden" not in str(raised.value)
    airflow = AirflowClient(REFUSED, "me", "hidden")
    with pytest.raises(EngineDownError, match=r"^http://127\.0\.0\.1:1: Airflow does not answer") as raised:
        airflow.version()
    assert "hidden" not in str(raised.value)
    with pytest.raises(BadInputError, match="'http://spark' is not a Spark Connect address"):
        SparkAddress.parse("http://u:hidden@spark")


def test_an_engine_whose_certificate_is_not_trusted_is_not_said_to_be_away(tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with name_node() as server:
        speak_tls(server, make_certificate(tmp_path))
        url = with_login(server).replace("http:", "https:")
        told = r"certificate of the server is not valid .*SSL_CERT_FILE"
        for ask in (get_json, answers):
            with pytest.raises(EngineDownError, match=told) as raised:
                ask(url)
            assert "hidden" not in str(raised.value)


def test_whether_hdfs_is_ready_is_asked_with_the_login_of_its_address():
    with name_node(LISTSTATUS=(200, {"FileStatuses": {"FileStatus": []}})) as server:
        for url in (server.url, with_login(server).replace("hidden", "h%40dden")):
            assert webhdfs_unready(Settings(webhdfs_url=url)) is None
    assert server.logins == [None, "Basic dTpoQGRkZW4="]


def test_the_summary_of_a_run_has_no_login(monkeypatch, capsys):
    monkeypatch.setattr(follow, "has_none", lambda *_: False)
    urls = dict.fromkeys(("webhdfs_url", "solr_url", "airflow_url", "search_url"), REFUSED)
    settings = Settings(**urls, hdfs_url="hdfs://namenode:8020")
    run = SimpleNamespace(name="run", model="model", corpus="corpus", threshold=40, description="")
    totals = SimpleNamespace(read=1, kept=1, below=0, none=0, unreadable=0, taken_down=0)
    follow._print_summary(SimpleNamespace(settings=settings, storage=None), run, totals, 1, "live", ())
    shown = capsys.readouterr().out
    assert shown.count("http://127.0.0.1:1") == 5
    assert "hidden" not in shown
