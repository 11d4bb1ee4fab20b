"""Calls that the ``hdfs`` package has no method for, and responses that are not from HDFS."""

import pytest
import requests
from certificates import make_certificate, speak_tls
from hdfs import HdfsError
from name_nodes import DONE, FILE, HALF, RESET, name_node, refusal

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError, TransientError, WaitError
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.webhdfs import WebHdfs


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


@pytest.mark.parametrize(("offset", "is_behind_the_end"), [(10, True), (11, True), (9, False)])
def test_behind_the_end_of_a_file_there_is_nothing_although_httpfs_does_not_say_so(offset, is_behind_the_end):
    page, status = b"<html>Server Error</html>", {"FileStatus": {"length": 10}}
    with name_node(OPEN=(500, page), GETFILESTATUS=(200, status)) as server:
        hdfs = WebHdfs(server.url, user="me")
        if is_behind_the_end:
            assert hdfs.read("/file", offset, 5) == b""
        else:
            with pytest.raises(requests.HTTPError, match="500"):
                hdfs.read("/file", offset, 5)


@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_server_that_ignores_the_options_of_a_rename_keeps_no_store(is_renamed):
    """HttpFS answers so, also where a file exists that should have been replaced, and was not."""
    status = {"FileStatus": {"length": 1, "fileId": 7, "type": "FILE"}}
    answers = {"MKDIRS": (200, {"boolean": True}), "DELETE": (200, {"boolean": True}), "CREATE": (201, b"")}
    with name_node(RENAME=(200, {"boolean": is_renamed}), GETFILESTATUS=(200, status), **answers) as server:
        server.answers["CREATE"] = [(307, "CREATE"), (201, b"")]
        with pytest.raises(FinalError, match=rf"{server.url}: ignores the options of a rename, as HttpFS does.*Knox"):
            store(server).write("a/b", b"x")
        with pytest.raises(FinalError, match="sources can be read from there, but a store cannot be kept"):
            store(server).rename("a", "b")


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


def test_a_gateway_that_does_not_reach_hdfs_is_an_hdfs_that_is_away():
    with (
        name_node(GETFILESTATUS=(502, b"<html>a gateway's page</html>")) as server,
        pytest.raises(EngineDownError, match=r"HDFS does not answer \(HTTPError: 502 "),
    ):
        store(server).exists("a")


def test_of_several_name_nodes_the_one_that_failed_last_is_named():
    address = StoreAddress("/store", webhdfs_url="http://127.0.0.1:1;http://127.0.0.1:2", user="me")
    with pytest.raises(EngineDownError, match=r"HDFS does not answer at 127\.0\.0\.1:2, the last of 2 addresses"):
        HdfsStorage(address).exists("a")


@pytest.mark.parametrize("status", [404, 500])
def test_a_page_that_is_not_from_hdfs_is_worth_a_retry_and_no_missing_file(status):
    page = b"<html>a gateway's page</html>"
    with (
        name_node(GETFILESTATUS=(status, page), OPEN=(status, page)) as server,
        pytest.raises(TransientError, match=rf"the connection to HDFS broke \(HTTPError: {status} "),
    ):
        store(server).exists("a")
    with name_node(OPEN=(status, page)) as server, pytest.raises(TransientError):
        store(server).read("a")


# Questions that are refused are no answers

STATUS_QUESTIONS = {
    "exists": lambda store: store.exists("a"),
    "size": lambda store: store.size_bytes("a"),
    "version": lambda store: store.version("a"),
    "time": lambda store: store.changed_seconds("a"),
    "names": lambda store: store.names("a"),
    "sizes": lambda store: store.sizes("a"),
    "leftovers": lambda store: store.leftovers("a"),
    "read": lambda store: store.read("a"),
}


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((429, b"slow down"), EngineDownError, "does not answer"),
        ((502, b"<html>"), EngineDownError, "does not answer"),
        ((503, b""), EngineDownError, "does not answer"),
        ((500, b"<html>"), TransientError, "the connection to HDFS broke"),
        ((401, b"<html>"), FinalError, "refuses access .*401.*; check TINYTAGS_WEBHDFS_URL and TINYTAGS_HDFS_USER"),
        ((403, b"<html>"), FinalError, "refuses access .*403"),
        (refusal(401, "AuthenticationException"), FinalError, r"rejected this \(said so\); ask its administrator"),
        (refusal(401, "SecurityException", "token is expired"), FinalError, "token is expired"),
        (refusal(403, "AccessControlException"), FinalError, "rejected this"),
        (refusal(403, "SecurityException", "user x does not exist"), FinalError, "user x does not exist"),
        (refusal(403, "SecurityException", "InvalidToken: StandbyException"), EngineDownError, "no NameNode is active"),
        (refusal(403, "StandbyException"), EngineDownError, "no NameNode is active"),
        (refusal(503, "SafeModeException"), EngineDownError, "safe mode"),
        (refusal(500, "NullPointerException"), TransientError, "HDFS failed"),
    ],
)
def test_a_question_that_is_refused_is_no_missing_file(answer, error, told):
    operations = ("GETFILESTATUS", "LISTSTATUS", "LISTSTATUS_BATCH", "OPEN")
    with name_node(**dict.fromkeys(operations, answer)) as server:
        for ask in STATUS_QUESTIONS.values():
            with pytest.raises(error, match=told) as raised:
                ask(store(server))
            assert not isinstance(raised.value, MissingError)


def test_only_a_file_that_hdfs_says_is_missing_is_missing():
    with name_node(GETFILESTATUS=refusal(404, "FileNotFoundException")) as server:
        assert not store(server).exists("a")
        assert store(server).version("a") == ""
        with pytest.raises(MissingError):
            store(server).size_bytes("a")


def test_a_login_that_is_answered_is_no_refusal():
    class Login(requests.auth.AuthBase):
        def __call__(self, request):
            request.register_hook("response", self.answer)
            return request

        def answer(self, response, **options):
            if response.status_code != 401:
                return response
            assert response.content == b"log in"
            return response.connection.send(response.request, **options)

    with name_node(GETFILESTATUS=[(401, b"log in"), FILE]) as server:
        asking = store(server)
        asking._hdfs._session.auth = Login()
        assert asking.exists("a")


def test_an_authority_of_ones_own_is_named_by_a_variable(monkeypatch, tmp_path):
    certificate = make_certificate(tmp_path)
    with name_node(GETFILESTATUS=FILE) as server:
        speak_tls(server, certificate)
        server.url = server.url.replace("http", "https")
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(
            FinalError, match=r"certificate of HDFS is not valid .*name the file of its authority in SSL_CERT_FILE"
        ):
            store(server).exists("a")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert store(server).exists("a")


# Gateways, and DataNodes with names of their own


def test_the_path_of_a_gateway_is_kept():
    with name_node(CREATE=(307, "SEND"), SEND=(201, b""), GETFILESTATUS=FILE, RENAME=(200, b""), DELETE=DONE) as server:
        url = f"{server.url}/gateway/default/"
        assert HdfsStorage(StoreAddress("/store", webhdfs_url=url, user="me")).write("a", b"content")
    assert {path.partition("/store/")[0] for _, path, _ in server.asked} == {"/gateway/default/webhdfs/v1"}


def test_a_gateway_may_say_in_its_body_where_bytes_go():
    with name_node(SEND=(201, b""), GETFILESTATUS=FILE, RENAME=(200, b"")) as server:
        server.answers["CREATE"] = (200, {"Location": f"{server.url}/webhdfs/v1/x?op=SEND"})
        assert store(server).write("a", b"content")


@pytest.mark.parametrize("answer", [(201, b""), (200, b"<html>"), (200, {"boolean": True})])
def test_a_gateway_that_does_not_say_where_bytes_go_is_named(answer):
    with (
        name_node(CREATE=answer, DELETE=DONE) as server,
        pytest.raises(BadInputError, match=r"http://127\.0\.0\.1:\d+: answers .* 20[01] .*no Location\); set TINYTAGS"),
    ):
        store(server).write("a", b"content")


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ("http://datanode-7.invalid:9864", r"DataNode datanode-7\.invalid:9864, .* cannot be resolved here; add it to"),
        ("http://127.0.0.1:1", r"DataNode 127\.0\.0\.1:1, .* does not answer"),
    ],
)
def test_a_datanode_that_cannot_be_reached_is_named(hasty, node, told):
    with name_node(OPEN=(307, "READ"), CREATE=(307, "SEND"), DELETE=DONE) as server:
        asking, server.url = store(server), node
        for attempt in (lambda: asking.read("a"), lambda: asking.write("a", b"content")):
            with pytest.raises(EngineDownError, match=told):
                attempt()


def test_a_datanode_that_cannot_be_reached_is_named_though_another_name_node_stands_by():
    with name_node(OPEN=(307, "READ")) as active, name_node(OPEN=refusal(403, "StandbyException")) as standby:
        urls, active.url = f"{active.url};{standby.url}", "http://datanode-7.invalid:9864"
        with pytest.raises(EngineDownError, match=r"DataNode datanode-7\.invalid:9864"):
            HdfsStorage(StoreAddress("/store", webhdfs_url=urls, user="me")).read("a")
        assert standby.asked == []


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


# Copies


@pytest.mark.parametrize(("copies", "asked"), [(2, ["2", "2"]), (None, [None, None])])
def test_a_file_gets_as_many_copies_as_set_also_when_it_is_sent_again(hasty, copies, asked):
    with name_node(
        CREATE=(307, "SEND"), SEND=[RESET, (201, b"")], GETFILESTATUS=FILE, RENAME=(200, b""), DELETE=DONE
    ) as server:
        address = StoreAddress("/store", webhdfs_url=server.url, user="me", replication=copies)
        assert HdfsStorage(address).write("a", b"content")
    assert [each.get("replication") for _, _, each in server.asked if each["op"] == "CREATE"] == asked


@pytest.mark.parametrize(("copies", "free"), [(None, 300), (2, 450), (1, 900)])
def test_room_is_told_by_the_copies_that_are_set(copies, free):
    with name_node(
        GETSERVERDEFAULTS=(200, {"FsServerDefaults": {"replication": 3, "blockSize": 10}}),
        GETSTATUS=(200, {"FsStatus": {"remaining": 900}}),
        GETFILESTATUS=refusal(404, "FileNotFoundException"),
    ) as server:
        address = StoreAddress("/store", webhdfs_url=server.url, user="me", replication=copies)
        assert HdfsStorage(address).free_bytes() == free


# Connections that break


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr("tinytags_tasks.store.hdfs._PAUSES_SECONDS", (0.01, 0.01))


def operations(server):
    return [asked["op"] for _, _, asked in server.asked]


def test_a_read_whose_connection_is_reset_is_asked_for_again():
    with name_node(GETFILESTATUS=[RESET, FILE]) as server:
        assert store(server).exists("a")
    with name_node(DELETE=[RESET, (200, {"boolean": False})]) as server:
        assert not store(server).delete("a")  # the first request may have deleted it


def test_a_read_that_breaks_in_the_middle_is_read_again(hasty):
    with name_node(
        OPEN=[(HALF, b"con"), (200, b"content")], GET_BLOCK_LOCATIONS=(200, {"LocatedBlocks": {"locatedBlocks": []}})
    ) as server:
        assert store(server).read("a") == b"content"


def test_a_server_that_never_answers_is_away(hasty):
    with name_node(GETFILESTATUS=[RESET] * 3) as server, pytest.raises(EngineDownError, match="HDFS does not answer"):
        store(server).exists("a")
    assert len(server.asked) == 3


def test_bytes_whose_connection_breaks_are_sent_again(hasty):
    with name_node(
        CREATE=(307, "SEND"), SEND=[RESET, (201, b"")], GETFILESTATUS=FILE, RENAME=(200, b""), DELETE=DONE
    ) as server:
        assert store(server).write("a", b"content")
    assert operations(server) == ["CREATE", "SEND", "CREATE", "SEND", "GETFILESTATUS", "RENAME"]
    assert [asked["overwrite"] for _, _, asked in server.asked if asked["op"] == "CREATE"] == ["False", "True"]


def test_a_stream_whose_connection_breaks_cannot_be_sent_again(hasty):
    with name_node(CREATE=(307, "SEND"), SEND=[RESET], DELETE=DONE) as server, pytest.raises(EngineDownError):
        store(server).write("a", iter([b"content"]))


@pytest.mark.parametrize(
    ("file_id", "renames"), [(5, 1), (6, 2)], ids=["only the answer was lost", "it was not carried out"]
)
def test_a_rename_whose_connection_breaks_is_not_done_twice(hasty, file_id, renames):
    target = (200, {"FileStatus": {**FILE[1]["FileStatus"], "fileId": file_id}})
    with name_node(
        CREATE=(307, "SEND"), SEND=(201, b""), GETFILESTATUS=[FILE, target], RENAME=[RESET, (200, b"")]
    ) as server:
        assert store(server).write("a", b"content")
    assert operations(server).count("RENAME") == renames


@pytest.mark.parametrize(("file_id", "again"), [(5, 0), (6, 1)], ids=["renamed by the first", "deleted by another"])
def test_a_rename_that_the_second_of_a_pair_does_not_find_may_be_the_firsts(file_id, again):
    target = (200, {"FileStatus": {**FILE[1]["FileStatus"], "fileId": file_id}})
    standby, sent = refusal(403, "StandbyException"), {"SEND": (201, b""), "DELETE": DONE}
    with (
        name_node(CREATE=[(307, "SEND"), standby], GETFILESTATUS=[FILE, standby], RENAME=[RESET], **sent) as first,
        name_node(CREATE=(307, "SEND"), GETFILESTATUS=[target, FILE], **sent) as second,
    ):
        second.answers["RENAME"] = [refusal(404, "FileNotFoundException"), (200, b"")]
        pair = StoreAddress("/store", webhdfs_url=f"{first.url};{second.url}", user="me")
        assert HdfsStorage(pair).write("a", b"content", overwrite=False)
    assert operations(first)[-1] == ("CREATE" if again else "GETFILESTATUS")
    assert operations(second).count("CREATE") == again


# What an HDFS says that cannot work now

NO_ROOM = "File /store/a could only be written to 0 of the 1 minReplication nodes. There are {} datanode(s) running"


@pytest.mark.parametrize(
    ("exception", "message", "told"),
    [
        ("SafeModeException", "Cannot create file /store/a. Name node is in safe mode.", "safe mode: it is starting"),
        ("RetriableException", "org.apache.hadoop.hdfs.server.namenode.SafeModeException: in safe mode", "safe mode"),
        ("RetriableException", "Namenode is in startup mode", "cannot answer yet"),
        ("StandbyException", "Operation category WRITE is not supported", "no NameNode is active"),
        ("SocketException", "Call From vm to localhost:8020 failed: Connection reset", "does not reach the NameNode"),
        ("EOFException", "End of File Exception between local host and NameNode", "does not reach the NameNode"),
        ("ClosedChannelException", "", "does not reach the NameNode"),
        ("IOException", "Failed on local exception: java.io.IOException: Broken pipe", "does not reach the NameNode"),
        ("IOException", "Call From vm to localhost:8020 failed on connection exception", "does not reach the NameNode"),
        ("IOException", "Namesystem has not been initialized yet.", "the NameNode is starting"),
        ("IOException", "Not ready to serve the block pool, BP-1.", "a DataNode is starting"),
        ("NotReplicatedYetException", "Not replicated yet: /store/a", "not written yet"),
        ("BlockMissingException", "Could not obtain block: BP-1:blk_1 file=/store/a", "has reported a block of it"),
        ("IOException", "No active nodes contain this block", "HDFS was just started, or a DataNode is away"),
        ("IOException", "No active and not excluded nodes contain this block", "the block is lost"),
        ("IOException", "Block could not be located. Path=/store/a, offset=0", "has reported a block of it"),
        ("ServerTooBusyException", "Server too busy", "overloaded"),
        ("IOException", NO_ROOM.format(1), "the disk is full: no DataNode has room for a block"),
        ("IOException", NO_ROOM.format(0), "no DataNode is running"),
    ],
)
def test_an_hdfs_that_cannot_work_now_is_away_and_says_why(exception, message, told):
    answer = refusal(403, exception, message)
    with (
        name_node(MKDIRS=answer, GETFILESTATUS=answer) as server,
        pytest.raises(EngineDownError, match=told) as raised,
    ):
        store(server).make_folder("a")
    assert raised.value.awaited == "HDFS"


def test_an_hdfs_that_fails_is_not_away():
    with (
        name_node(MKDIRS=refusal(500, "NullPointerException")) as server,
        pytest.raises(TransientError, match="HDFS failed") as raised,
    ):
        store(server).make_folder("a")
    assert not isinstance(raised.value, WaitError)


def test_more_copies_than_the_cluster_allows_are_not_asked_for_again():
    message = "Requested replication factor of 600 exceeds maximum of 512 for /store/a from 127.0.0.1"
    with (
        name_node(CREATE=refusal(403, "IOException", message)) as server,
        pytest.raises(FinalError, match=r"exceeds maximum of 512 .*correct TINYTAGS_HDFS_REPLICATION"),
    ):
        store(server).write("a", b"content")


@pytest.mark.parametrize("message", ["No active nodes contain this block", "Block could not be located. Path=/store/a"])
def test_a_block_that_no_datanode_has_reported_yet_is_waited_for_by_a_reader(message):
    with name_node(OPEN=refusal(403, "IOException", message)) as server, pytest.raises(EngineDownError) as raised:
        store(server).read("a")
    assert raised.value.awaited == "HDFS"
