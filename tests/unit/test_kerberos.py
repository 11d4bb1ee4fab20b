"""WebHDFS that asks for a Kerberos ticket (SPNEGO), with a stand-in for GSSAPI: no KDC is needed."""

import base64
import json
import sys
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from serving import serving

from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.doctor import hdfs as doctor
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TinyTagsError
from tinytags_tasks.services.control import external_addresses
from tinytags_tasks.services.hdfs import webhdfs_unready
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.opening import address_for_workers, open_store
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.webhdfs import WebHdfs

FILE = {"FileStatus": {"type": "FILE", "length": 7, "fileId": 5, "modificationTime": 0}}
PAGE = b"<html>Authentication required</html>"


class GssError(Exception):
    """As GSSAPI's: the reason is behind one of two codes."""

    maj_code, min_code = 1, 2

    def get_all_statuses(self, code, is_major):
        return [str(self)] if is_major else ["Success"]


class Tickets:
    """Stands in for the package ``gssapi``: its tickets name the server that they are for."""

    exceptions = SimpleNamespace(GSSError=GssError)
    NameType = SimpleNamespace(hostbased_service="service")
    OID = SimpleNamespace(from_int_seq=str)
    RequirementFlag = SimpleNamespace(mutual_authentication="mutual")

    def __init__(self):
        self.problem, self.seconds = "", 36_000

    def Name(self, text, kind):
        return text

    def Credentials(self, usage):
        if self.problem:
            raise GssError(self.problem)
        return SimpleNamespace(name="ada@EXAMPLE.ORG", lifetime=self.seconds)

    def SecurityContext(self, *, name, creds, mech, flags, usage):
        return Context(name)


class Context:
    def __init__(self, name):
        self.name, self.complete = name, False

    def step(self, proof=None):
        if proof is None:
            return f"ticket for {self.name}".encode()
        if proof != f"proof of {self.name}".encode():
            raise GssError("the proof is another server's")
        self.complete = True
        return None


class Guarded(BaseHTTPRequestHandler):
    """Asks for a ticket, or for the cookie that it gave; below /datanode, or with a token, it asks for none."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        ticket, cookie = self.headers.get("Authorization", ""), self.headers.get("Cookie", "")
        server.asked.append((asked.get("op", ""), bool(ticket), asked))
        while "chunked" in self.headers.get("Transfer-Encoding", "") and self.rfile.readline().strip() != b"0":
            pass  # the bytes of a file
        fields = {}
        if server.asks and "delegation" not in asked and cookie != "hadoop.auth=known":
            name = f"HTTP@{self.headers['Host'].partition(':')[0]}"
            if base64.b64decode(ticket.removeprefix("Negotiate ")).decode() != f"ticket for {name}":
                return self.send(401, PAGE, {"WWW-Authenticate": "Negotiate"})
            fields["Set-Cookie"] = "hadoop.auth=known; Path=/"
            if server.proof is not None:
                fields["WWW-Authenticate"] = "Negotiate " + base64.b64encode((server.proof + name).encode()).decode()
        status, content = server.answers.get(asked.get("op", ""), (200, {}))
        if status == 307:
            fields["Location"] = f"{server.redirects}{url.path}?op={content}{server.token}"
            content = b""
        return self.send(status, content if isinstance(content, bytes) else json.dumps(content).encode(), fields)

    do_PUT = do_DELETE = do_GET

    def send(self, status, content, fields):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def guarded(**answers):
    with serving(Guarded) as server:
        server.url = server.redirects = f"http://localhost:{server.server_port}"
        server.token = "&delegation=hidden"
        server.answers, server.asked, server.asks, server.proof = answers, [], True, "proof of "
        yield server


@pytest.fixture
def tickets(monkeypatch):
    found = Tickets()
    monkeypatch.setitem(sys.modules, "gssapi", found)
    return found


def address(server, **how):
    return StoreAddress("/store", webhdfs_url=server.url, user="me", **{"kerberos": True, **how})


def shown(server):
    """Return the operations that came with a ticket."""
    return [operation for operation, has_ticket, _ in server.asked if has_ticket]


def test_a_ticket_is_shown_once_and_only_when_asked_for(tickets):
    with guarded(GETFILESTATUS=(200, FILE)) as server:
        store = open_store(address(server))
        assert store.exists("a")
        assert store.size_bytes("a") == 7
    assert [has_ticket for _, has_ticket, _ in server.asked] == [False, True, False]  # then there is the cookie
    assert all("user.name" not in asked for _, _, asked in server.asked)


def test_a_server_that_asks_for_no_ticket_gets_none(tickets):
    with guarded(GETFILESTATUS=(200, FILE)) as server:
        server.asks = False
        assert open_store(address(server)).exists("a")
    assert shown(server) == []


def test_a_datanode_gets_the_token_of_the_redirect_and_no_ticket(tickets):
    with guarded(READ=(200, b"content"), SEND=(201, b"")) as node, guarded(GETFILESTATUS=(200, FILE)) as server:
        server.answers |= {"OPEN": (307, "READ"), "CREATE": (307, "SEND"), "RENAME": (200, b"")}
        server.redirects = node.url
        store = open_store(address(server))
        assert store.read("a") == b"content"
        assert store.write("a", b"content")
    assert shown(server) == ["OPEN"]
    assert [(operation, has_ticket) for operation, has_ticket, _ in node.asked] == [("READ", False), ("SEND", False)]


def test_httpfs_serves_bytes_itself_and_knows_its_cookie(tickets):
    with guarded(CREATE=(307, "SEND"), SEND=(201, b""), GETFILESTATUS=(200, FILE), RENAME=(200, b"")) as server:
        server.token = ""
        assert open_store(address(server)).write("a", iter([b"con", b"tent"]))
    assert shown(server) == ["CREATE"]


def test_what_is_missing_is_missing_though_a_ticket_was_asked_for(tickets):
    missing = {"RemoteException": {"exception": "FileNotFoundException", "message": "File does not exist"}}
    with guarded(GETFILESTATUS=(404, missing)) as server:
        assert not open_store(address(server)).exists("a")


def test_each_thread_logs_in_by_itself(tickets):
    with guarded(GETFILESTATUS=(200, FILE)) as server:
        store, found = open_store(address(server)), []
        threads = [threading.Thread(target=lambda: found.append(store.exists("a"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [True] * 8


@pytest.mark.parametrize("proof", [None, "proof of another "], ids=["none", "another's"])
def test_a_server_that_does_not_prove_itself_is_not_believed(tickets, proof):
    with guarded(GETFILESTATUS=(200, FILE)) as server:
        server.proof = proof
        with pytest.raises(FinalError, match="localhost took the Kerberos ticket but does not prove that it is HTTP/"):
            open_store(address(server)).exists("a")


@pytest.mark.parametrize("status", [401, 403])
def test_a_ticket_that_is_not_accepted_is_shown_once_and_told(tickets, status):
    with guarded() as server:
        server.proof = None
        server.answers["GETFILESTATUS"] = (status, PAGE)
        with pytest.raises(FinalError, match=rf"localhost does not accept the Kerberos ticket \(it answers {status}\)"):
            open_store(address(server)).exists("a")
    assert len(server.asked) == 2


def test_a_gateway_that_fails_after_the_ticket_is_away(tickets):
    with guarded(GETFILESTATUS=(503, b"busy")) as server:
        server.proof = None
        with pytest.raises(EngineDownError, match="HDFS does not answer"):
            open_store(address(server)).exists("a")


def test_without_a_ticket_the_reason_and_the_remedy_are_told(tickets):
    tickets.problem = "Ticket expired"
    with guarded() as server, pytest.raises(FinalError, match=r"/store/a: .*none for it \(Ticket expired\): .*`kinit`"):
        open_store(address(server)).exists("a")


def test_a_server_that_kerberos_does_not_know_by_this_name_is_told(tickets):
    tickets.problem = "Server HTTP/127.0.0.1@EXAMPLE.ORG not found in Kerberos database"
    with (
        guarded() as server,
        pytest.raises(FinalError, match=r"database\): write the server's full name in its address"),
    ):
        open_store(address(server)).exists("a")


def test_a_kdc_that_is_away_is_worth_a_wait(tickets):
    tickets.problem = "Cannot contact any KDC for realm 'EXAMPLE.ORG'"
    with guarded() as server, pytest.raises(EngineDownError, match=r"EXAMPLE.ORG'; check `kdc` in krb5\.conf"):
        open_store(address(server)).exists("a")


REMEDY = r"localhost:\d+ asks for Kerberos: install tinytags\[kerberos\], and set TINYTAGS_HDFS_KERBEROS=1"


@pytest.mark.parametrize(
    "content", [PAGE, {"RemoteException": {"exception": "AuthenticationException", "message": "log in"}}]
)
def test_an_hdfs_that_asks_for_kerberos_without_the_setting_says_the_remedy(monkeypatch, content):
    monkeypatch.setattr(sys.modules[__name__], "PAGE", content if content is PAGE else json.dumps(content).encode())
    with guarded() as server:
        with pytest.raises(FinalError, match=REMEDY):
            open_store(address(server, kerberos=False)).exists("a")
        with pytest.raises(BadInputError, match=REMEDY):
            list(SourceFiles("hdfs:///tree", webhdfs_url=server.url).files())
        assert "asks for Kerberos: install" in (webhdfs_unready(Settings(webhdfs_url=server.url)) or "")


def test_without_the_extra_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gssapi", None)
    with pytest.raises(BadInputError, match=r"pip install 'tinytags\[kerberos\]', with a C compiler and libkrb5-dev"):
        open_store(StoreAddress("/store", webhdfs_url="http://namenode:9870", kerberos=True))


# Spark's workers have no ticket


def test_workers_get_a_token_in_place_of_a_ticket(monkeypatch, tickets):
    with guarded(GETDELEGATIONTOKEN=(200, {"Token": {"urlString": "hidden"}}), GETFILESTATUS=(200, FILE)) as server:
        given = address(server)
        sent = address_for_workers(given)
        monkeypatch.setitem(sys.modules, "gssapi", None)
        assert open_store(sent).exists("a")
    assert server.asked[-1] == ("GETFILESTATUS", False, {"op": "GETFILESTATUS", "delegation": "hidden"})
    assert sent == given  # what a worker keeps from one job serves the next
    assert "hidden" not in repr(sent)


def test_workers_of_an_hdfs_without_kerberos_get_the_same_address(tmp_path):
    for given in (StoreAddress(str(tmp_path)), StoreAddress("/store", webhdfs_url="http://127.0.0.1:1", user="me")):
        assert address_for_workers(given) is given


@pytest.mark.parametrize("away", [True, False])
def test_a_token_is_not_in_what_a_log_shows(tickets, away):
    with guarded(GETFILESTATUS=(200, FILE), OPEN=(307, "READ"), READ=(400, PAGE)) as server:
        if away:
            server.redirects = "http://127.0.0.1:1"
        source = SourceFiles("hdfs:///a", webhdfs_url=server.url, hdfs_kerberos=True)
        for read in (lambda: HdfsStorage(address(server)).read("a"), lambda: source.read("a", 0, 7)):
            with pytest.raises(TinyTagsError) as raised:
                read()
            assert "hidden" not in "".join(traceback.format_exception(raised.value))


# Sources, settings, status, doctor


def test_a_source_in_the_stores_hdfs_is_read_as_the_store_is(tickets):
    with guarded(GETFILESTATUS=(200, FILE)) as server:
        for options, url in (({}, "hdfs:///a.bin"), ({"kerberos": True}, server.url.replace("http", "webhdfs") + "/a")):
            files = SourceFiles(url, options, webhdfs_url=server.url, hdfs_user="me", hdfs_kerberos=True)
            assert [file.size_bytes for file in files.files()] == [7]
    assert shown(server) == ["GETFILESTATUS"] * 2


def test_another_hdfs_is_not_shown_a_ticket_unless_its_definition_says_so():
    files = SourceFiles("webhdfs://namenode/a", webhdfs_url="http://other:9870", hdfs_user="me", hdfs_kerberos=True)
    assert files._remote._hdfs._session.auth is None


@pytest.mark.parametrize(
    ("extra", "expected"),
    [({}, False), ({"kerberos": True}, True), ({"kerberos": "true"}, True), ({"kerberos": "False"}, False)],
)
def test_airflows_connection_says_whether_a_ticket_is_asked_for(extra, expected):
    connection = SimpleNamespace(login="me", conn_id="c", extra_dejson={"url": "http://namenode:9870", **extra})
    assert Settings().with_connections(connection, None).hdfs_kerberos is expected
    assert Settings(hdfs_kerberos=True).with_connections(connection, None).hdfs_kerberos is (expected or not extra)


def test_a_word_that_is_no_answer_is_refused_with_the_connection():
    connection = SimpleNamespace(login="", conn_id="c", extra_dejson={"url": "http://namenode", "kerberos": "perhaps"})
    with pytest.raises(BadInputError, match="connection c: the extra `kerberos` is 'perhaps'; write true or false"):
        Settings().with_connections(connection, None)


def test_the_embedded_hdfs_has_no_kerberos(monkeypatch):
    monkeypatch.setenv("TINYTAGS_HDFS_KERBEROS", "1")
    for name in ("TINYTAGS_WEBHDFS_URL", "TINYTAGS_HDFS_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadInputError, match="unset TINYTAGS_HDFS_KERBEROS, or set TINYTAGS_WEBHDFS_URL"):
        external_addresses()


def test_the_status_of_an_hdfs_is_asked_for_with_a_ticket(tickets):
    with guarded(LISTSTATUS=(200, {})) as server:
        settings = Settings(webhdfs_url=server.url, hdfs_kerberos=True)
        assert webhdfs_unready(settings) is None
        server.proof = "proof of another "
        assert "does not prove" in (webhdfs_unready(settings) or "")
        tickets.problem = "Ticket expired"
        assert "(Ticket expired): get a ticket by `kinit`" in (webhdfs_unready(settings) or "")


@pytest.mark.parametrize(
    ("problem", "seconds", "keytab", "verdict", "told"),
    [
        ("", 36_000, "", "ok", "the ticket of ada@EXAMPLE.ORG is valid for 10.0 h"),
        ("", 600, "", "warning", "valid for 0.2 h"),
        ("", 600, "/etc/ada.keytab", "ok", "valid for 0.2 h"),
        ("No Kerberos credentials available", 0, "", "fails", "no valid Kerberos ticket"),
    ],
)
def test_the_doctor_says_whose_ticket_there_is_and_for_how_long(
    monkeypatch, tickets, tmp_path, problem, seconds, keytab, verdict, told
):
    tickets.problem, tickets.seconds = problem, seconds
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", keytab)
    settings = Settings(webhdfs_url="http://127.0.0.1:1", hdfs_kerberos=True)
    findings = list(doctor.examine_hdfs(SimpleNamespace(settings=settings, storage=LocalStorage(str(tmp_path)))))
    assert (findings[0].subject, findings[0].verdict) == ("kerberos", verdict)
    assert told in findings[0].text
    if verdict == "fails":
        assert "`kinit`" in findings[0].text
        assert len(findings) == 1


@pytest.mark.parametrize(
    ("kerberos", "proof", "told"),
    [
        (
            False,
            "proof of ",
            "localhost asks for Kerberos: install tinytags[kerberos], and set TINYTAGS_HDFS_KERBEROS=1",
        ),
        (True, "proof of another ", "does not prove that it is HTTP/localhost"),
    ],
)
def test_the_doctor_says_once_that_a_name_node_lets_nobody_in(tickets, tmp_path, kerberos, proof, told):
    with guarded() as server:
        server.proof = proof
        settings = Settings(webhdfs_url=server.url, hdfs_kerberos=kerberos)
        findings = list(doctor.examine_hdfs(SimpleNamespace(settings=settings, storage=LocalStorage(str(tmp_path)))))
    *before, finding = findings
    assert (finding.subject, finding.verdict) == ("kerberos", "fails")
    assert told in finding.text
    assert [each.verdict for each in before] == ["ok"] * kerberos  # the ticket


def test_a_token_needs_no_kerberos(monkeypatch):
    monkeypatch.setitem(sys.modules, "gssapi", None)
    assert WebHdfs("http://namenode:9870", token="hidden", kerberos=True)._session.auth is None
