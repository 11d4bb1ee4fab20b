"""Sources in HDFS: listing, reading by ranges, and what it refuses."""

import pytest
from source_servers import NameNode
from source_trees import CONTENT, HIDDEN, IN_ORDER, TREE, Server, make_tree, paths, serving

from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.corpus.sources.left_out import FORBIDDEN
from tinytags_tasks.errors import BadInputError, EngineDownError, TransientError
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.protocol import StoreAddress


@pytest.fixture
def hdfs():
    with serving(Server(NameNode)) as server:
        server.content = {f"/tree/{name}": name.encode() for name in (*TREE, *HIDDEN)}
        server.content["/sets/a#1 50%?.bin"] = CONTENT
        yield server


def in_hdfs(server, path, options=None):
    return SourceFiles(f"hdfs://{path}", options, webhdfs_url=server.url, hdfs_user="someone")


def test_a_file_of_hdfs_is_listed_and_read_by_ranges_as_the_user(hdfs):
    files = in_hdfs(hdfs, "/sets/a#1 50%?.bin")
    (file,) = files.files()
    assert file == SourceFile("a#1 50%?.bin", len(CONTENT), "1600000000000")
    assert (files.is_local, files.address) == (False, "hdfs:///sets/a#1 50%?.bin")
    for offset, length in ((0, 10), (10_000, 240), (3, 0), (0, 10_240)):
        assert files.read(file.path, offset, length) == CONTENT[offset : offset + length]
    assert {asked["user.name"] for path, asked in hdfs.asked if not path.startswith("/datanode")} == {"someone"}


def test_no_more_of_hdfs_is_read_than_was_asked_for(hdfs):
    in_hdfs(hdfs, "/sets/a#1 50%?.bin").read("a#1 50%?.bin", 100, 50)
    (asked,) = [asked for path, asked in hdfs.asked if path.startswith("/datanode")]
    assert int(asked["length"]) <= 51


@pytest.mark.parametrize("source", ["/tree", "/tree/"])
def test_a_folder_of_hdfs_is_listed_as_one_of_this_machine(hdfs, tmp_path, source):
    files, here = in_hdfs(hdfs, source), SourceFiles(str(make_tree(tmp_path)))
    assert paths(files, ".jpg") == IN_ORDER
    assert paths(files) == paths(here)
    assert paths(in_hdfs(hdfs, "/tree/*/*.jpg")) == paths(SourceFiles(f"{tmp_path}/*/*.jpg"))


SPECIAL = ["a b.bin", "50%.bin", "%41.bin", "a+b.bin", "a;b.bin", "k=v.bin", "é 猫.bin", "a#1?.bin", "a&b.bin"]


def test_names_with_characters_of_addresses_are_listed_and_read(hdfs):
    for folder in ("label=cat", "a;b c+%"):
        hdfs.content |= {f"/special/{folder}/{name}": name.encode() for name in SPECIAL}
    files = in_hdfs(hdfs, "/special")
    assert sorted(paths(files)) == sorted(f"{folder}/{name}" for folder in ("a;b c+%", "label=cat") for name in SPECIAL)
    for file in files.files():
        assert files.current(file.path) == file
        assert files.read(file.path, 0, file.size_bytes).decode() == file.path.rpartition("/")[2]


def test_another_hdfs_is_named_by_host_and_port(hdfs):
    host = hdfs.url.removeprefix("http://")
    assert paths(SourceFiles(f"webhdfs://{host}/tree", hdfs_user="me"), ".txt") == ["note.txt"]
    assert paths(SourceFiles(f"webhdfs://you@{host}/tree", hdfs_user="me"), ".txt") == ["note.txt"]
    assert paths(SourceFiles(f"webhdfs://{host}/tree", {"user": "they"}), ".txt") == ["note.txt"]
    users = [asked["user.name"] for _, asked in hdfs.asked]
    assert sorted(set(users), key=users.index) == ["me", "you", "they"]


def test_a_folder_of_hdfs_that_may_not_be_read_is_counted(hdfs):
    hdfs.how["forbidden"] = "/tree/a"
    files = in_hdfs(hdfs, "/tree")
    assert [path for path in paths(files, ".jpg") if path.startswith("a/")] == []
    assert [(group.reason, group.example) for group in files.left_out][-1] == (FORBIDDEN, "a/")


def test_the_port_of_another_hdfs_may_be_left_out(monkeypatch):
    files = SourceFiles("webhdfs://127.0.0.1/tree")
    assert files._remote.url == "http://127.0.0.1:9870"
    files = SourceFiles("webhdfs://you@[::1]/tree")
    assert files._remote.url == "http://[::1]:9870"


@pytest.mark.parametrize(
    "url",
    [
        "https://two/gateway/default",
        "https://127.0.0.1:9871/",
        "http://a;http://b",
        "http://one:9870;https://two/gateway/default/;http://me@three",
        "https://me:hidden@knox/gateway/default",
    ],
)
def test_a_source_in_the_stores_own_hdfs_has_the_stores_address(url):
    address = Settings(webhdfs_url=url).address("webhdfs_url")
    files = SourceFiles("hdfs:///tree", {"use_https": False}, webhdfs_url=url, hdfs_user="me")
    store = HdfsStorage(StoreAddress("/store", webhdfs_url=address, user="me"))
    assert (files._remote.url, files._remote.urls) == (store._client.url, tuple(store._client.urls))
    assert files._remote._hdfs.client._session.params == store._client._session.params


def test_the_login_of_the_stores_own_hdfs_is_shown_to_it(hdfs):
    url = hdfs.url.replace("//", "//me:hidden@")
    assert paths(SourceFiles("hdfs:///tree", webhdfs_url=url, hdfs_user="someone"), ".txt") == ["note.txt"]
    assert {(asked["user.name"], asked["login"]) for _, asked in hdfs.asked} == {("someone", "Basic bWU6aGlkZGVu")}


def test_the_path_of_a_gateway_of_another_hdfs_is_kept():
    files = SourceFiles("webhdfs://knox:8443/tree", {"gateway": "gateway/default", "use_https": True})
    assert files._remote.url == "https://knox:8443/gateway/default"


def test_a_datanode_that_cannot_be_resolved_is_named(hdfs):
    files = in_hdfs(hdfs, "/tree/a.jpg")
    hdfs.how["location"] = "http://datanode-7.invalid:9864"
    with pytest.raises(
        EngineDownError, match=r"/tree/a\.jpg: .*DataNode datanode-7\.invalid:9864, .* cannot be resolved"
    ):
        files.read("a.jpg", 0, 5)


@pytest.mark.parametrize("source", ["hdfs://namenode:8020/tree", "hdfs://tree"])
def test_an_rpc_address_of_hdfs_is_refused_with_the_one_to_write(source):
    with pytest.raises(BadInputError, match=r"write hdfs:///path for the HDFS .*, or webhdfs://host:9870/path"):
        SourceFiles(source, webhdfs_url="http://127.0.0.1:9870")


@pytest.mark.parametrize("webhdfs_url", [None, ""])
def test_an_hdfs_that_nobody_told_is_named_with_the_remedy(webhdfs_url):
    with pytest.raises(BadInputError, match="no HDFS is known; start one with `tinytags up`, or set TINYTAGS_WEBHDFS"):
        SourceFiles("hdfs:///tree", webhdfs_url=webhdfs_url)


def test_a_port_that_is_none_is_refused():
    with pytest.raises(BadInputError, match=r"webhdfs://host:x/tree: cannot be read"):
        SourceFiles("webhdfs://host:x/tree")


@pytest.mark.parametrize(
    ("status", "exception", "error", "message"),
    [
        (404, "FileNotFoundException", BadInputError, "no such file or folder"),
        (403, "AccessControlException", BadInputError, "permission denied .*said so"),
        (400, "IllegalArgumentException", BadInputError, "cannot be read .*said so"),
        (401, "AuthenticationException", BadInputError, "permission denied .*said so"),
        (403, "StandbyException", EngineDownError, "no NameNode is active .*said so"),
        (500, "RetriableException", EngineDownError, "the NameNode cannot answer yet .*said so"),
    ],
)
def test_an_answer_of_hdfs_is_worth_a_retry_or_not(hdfs, status, exception, error, message):
    hdfs.how["exception"] = (status, exception)
    for source in ("/tree", "/tree/*", "/tree/a.jpg"):
        with pytest.raises(error, match=f"hdfs:///tree.*: {message}"):
            paths(in_hdfs(hdfs, source))


@pytest.mark.parametrize(("status", "error"), [(403, BadInputError), (404, BadInputError), (500, TransientError)])
def test_a_datanodes_error_page_is_not_taken_for_the_files_bytes(hdfs, status, error):
    files = in_hdfs(hdfs, "/tree/a.jpg")
    hdfs.how["datanode"] = status
    with pytest.raises(error, match=r"/tree/a\.jpg: "):
        files.read("a.jpg", 0, 5)


def test_an_hdfs_that_is_gone_is_worth_a_retry(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    for source in ("hdfs:///tree", "hdfs:///tree/*"):
        with pytest.raises(
            EngineDownError, match=r"hdfs:///tree.*: its server does not answer \(.*127\.0\.0\.1.*port=1"
        ):
            paths(SourceFiles(source, webhdfs_url="http://127.0.0.1:1"))


def test_a_file_of_hdfs_that_became_shorter_is_told(hdfs):
    with pytest.raises(BadInputError, match=r"/tree/a\.jpg: ends at offset 5, where 6 was expected"):
        in_hdfs(hdfs, "/tree/a.jpg").read("a.jpg", 0, 6)
