"""Calls that the ``hdfs`` package has no method for, and responses that are not from HDFS."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
from hdfs import HdfsError

from tinytags_tasks.errors import EngineDownError, TransientError
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.webhdfs import WebHdfs


class NameNode(BaseHTTPRequestHandler):
    """Responds to each operation as the test says: with a status and JSON, or with a page."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        self.server.asked.append((self.command, unquote(url.path), asked))
        status, content = self.server.answers[asked["op"]]
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_DELETE = do_GET


def refusal(status, exception, message="said so"):
    return status, {"RemoteException": {"exception": exception, "message": message}}


@contextmanager
def name_node(**answers):
    server = ThreadingHTTPServer(("127.0.0.1", 0), NameNode)
    server.answers, server.asked = answers, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def store(server):
    return HdfsStorage(StoreAddress("/store", webhdfs_url=server.url, user="me"))


def test_a_rename_is_asked_for_as_the_user_below_the_root():
    with name_node(MKDIRS=(200, {"boolean": True}), RENAME=(200, b"")) as server:
        assert store(server).rename("a b#1", "c/d")
    method, path, asked = server.asked[-1]
    assert (method, path) == ("PUT", "/webhdfs/v1/store/a b#1")
    assert asked == {"op": "RENAME", "destination": "/store/c/d", "renameoptions": "NONE", "user.name": "me"}


def test_a_rename_onto_a_name_that_is_taken_moves_nothing():
    with name_node(MKDIRS=(200, {"boolean": True}), RENAME=refusal(403, "FileAlreadyExistsException")) as server:
        assert not store(server).rename("a", "b")


@pytest.mark.parametrize("exception", ["StandbyException", "RetriableException"])
def test_another_name_node_is_asked_when_one_stands_by_or_is_away(exception):
    with name_node(GETSTATUS=refusal(403, exception)) as one, name_node(GETSTATUS=(200, {"FsStatus": 1})) as other:
        hdfs = WebHdfs(f"http://127.0.0.1:1;{one.url};{other.url}", user="me")
        assert hdfs.call("GET", "GETSTATUS", "/") == {"FsStatus": 1}
    with pytest.raises(requests.ConnectionError):
        hdfs.call("GET", "GETSTATUS", "/")


def test_what_one_name_node_refuses_for_good_no_other_is_asked_for():
    with name_node(GETSTATUS=refusal(403, "AccessControlException")) as one, name_node() as other:
        with pytest.raises(HdfsError, match="said so") as raised:
            WebHdfs(f"{one.url};{other.url}", user="me").call("GET", "GETSTATUS", "/")
        assert raised.value.exception == "AccessControlException"
        assert other.asked == []


@pytest.mark.parametrize(
    "answer", [refusal(400, "IllegalArgumentException"), refusal(403, "AccessControlException")], ids=["old", "closed"]
)
def test_a_server_that_does_not_tell_what_is_free_is_no_error(answer):
    with name_node(GETSERVERDEFAULTS=answer) as server:
        assert store(server).free_bytes() is None


def test_a_server_that_cannot_tell_now_what_is_free_is_worth_a_retry():
    with name_node(GETSERVERDEFAULTS=refusal(403, "StandbyException")) as server, pytest.raises(TransientError):
        store(server).free_bytes()
    with pytest.raises(EngineDownError):
        store(server).free_bytes()


@pytest.mark.parametrize("status", [403, 404, 502])
def test_a_page_that_is_not_from_hdfs_is_worth_a_retry_and_no_missing_file(status):
    page = b"<html>a gateway's page</html>"
    with (
        name_node(GETFILESTATUS=(status, page), OPEN=(status, page)) as server,
        pytest.raises(TransientError, match=rf"the connection to HDFS broke \(HTTPError: {status} "),
    ):
        store(server).exists("a")
    with name_node(OPEN=(status, page)) as server, pytest.raises(TransientError):
        store(server).read("a")


def test_a_server_that_does_not_list_in_parts_lists_all():
    statuses = [{"pathSuffix": name, "type": "FILE", "length": 1} for name in (".a.json.x.tmp", "a.json")]
    listing = {"FileStatuses": {"FileStatus": statuses}}
    with name_node(LISTSTATUS_BATCH=refusal(400, "IllegalArgumentException"), LISTSTATUS=(200, listing)) as server:
        part = WebHdfs(server.url, root="/store", user="me").list_part("folder")
    assert [name for name, _ in part.entries] == [".a.json.x.tmp", "a.json"]
    assert not part.is_more


def test_a_server_that_begins_each_part_anew_is_asked_for_all():
    statuses = [{"pathSuffix": f".{name}.json.x.tmp", "type": "FILE", "length": 1} for name in "ab"]
    statuses[0] |= {"modificationTime": 0}
    statuses[1] |= {"modificationTime": 0}
    part = {"partialListing": {"FileStatuses": {"FileStatus": statuses[:1]}}, "remainingEntries": 1}
    answers = {
        "LISTSTATUS_BATCH": (200, {"DirectoryListing": part}),
        "LISTSTATUS": (200, {"FileStatuses": {"FileStatus": statuses}}),
        "DELETE": (200, {"boolean": True}),
    }
    with name_node(**answers) as server:
        assert store(server).delete_leftovers("folder/b.json") == 1
