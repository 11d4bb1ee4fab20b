"""Sources over HTTP: listing, reading by ranges, and what servers do wrong."""

from urllib.parse import quote, unquote

import fsspec
import pytest
from source_trees import CONTENT, Server, paths, serving

from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, EngineDownError, TinyTagsError, TransientError


@pytest.fixture
def server():
    with serving(Server()) as server:
        server.content["/sets/pictures.bin"] = CONTENT
        yield server


@pytest.fixture
def remote(server):
    return SourceFiles(f"{server.url}/sets/pictures.bin")


def test_a_file_over_http_is_listed_and_read_by_ranges(server, remote):
    (file,) = remote.files(".jpg")
    assert (file.path, file.size_bytes, len(file.version)) == ("pictures.bin", len(CONTENT), 32)
    assert (remote.is_local, remote.address) == (False, f"{server.url}/sets/pictures.bin")
    assert remote.name(file.path) == remote.address
    for offset, length in ((0, 10), (10_000, 240), (3, 0), (0, 10_240)):
        server.sent = 0
        assert remote.read(file.path, offset, length, file.version) == CONTENT[offset : offset + length]
        assert server.sent == length
    remote.check_unchanged(file.path, file.size_bytes, file.version)


def test_a_read_over_http_is_one_request(server, remote):
    remote.only_file()
    server.asked.clear()
    remote.read("pictures.bin", 100, 50)
    assert server.asked == [("GET", "/sets/pictures.bin", "bytes=100-149")]


def test_an_address_with_a_query_is_kept(server):
    files = SourceFiles(f"{server.url}/sets/pictures.bin?path=/a/b&sign=x")
    assert files.read(files.only_file().path, 1, 2) == b"\1\2"
    assert {path for _, path, _ in server.asked} == {"/sets/pictures.bin?path=/a/b&sign=x"}


def test_parameters_that_nothing_stores_are_sent_from_fsspecs_environment(server, remote, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "http", {"params": {"X-Amz-Signature": "hunter2"}})
    files = SourceFiles(f"{server.url}/sets/pictures.bin")
    assert files.read(files.only_file().path, 1, 2) == b"\1\2"
    assert {path for _, path, _ in server.asked} == {"/sets/pictures.bin?X-Amz-Signature=hunter2"}
    assert "hunter2" not in f"{files.address} {files.only_file()}"


@pytest.mark.parametrize("status", [403, 404, 418, 503])
def test_no_error_repeats_the_parameters_of_an_address(server, status, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "http", {"params": {"X-Amz-Signature": "hunter2"}})
    server.how["status"] = status
    with pytest.raises(TinyTagsError, match=r"pictures\.bin") as caught:
        SourceFiles(f"{server.url}/sets/pictures.bin?plain=hunter2").only_file()
    assert "hunter2" not in str(caught.value)


def test_a_list_of_presigned_addresses_is_refused(server):
    server.content["/sets/a.jpg?X-Amz-Signature=hunter2"] = CONTENT
    with pytest.raises(
        BadInputError, match=r"a\.jpg\?\.\.\.: .*secret \(X-Amz-Signature\).*download the files"
    ) as caught:
        list(SourceFiles(f"{server.url}/sets/").files())
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("size", [1_000, 20_000_000])
def test_a_server_that_sends_no_ranges_is_told_without_taking_all_it_sends(server, remote, size):
    server.content["/sets/pictures.bin"] = bytes(size)
    server.how["ranges"] = False
    remote.only_file()
    with pytest.raises(
        BadInputError, match=r"pictures\.bin: its server does not support ranges; download it and ingest the copy"
    ):
        remote.read("pictures.bin", 500, 400)
    assert server.sent < 15_000_000


def test_a_head_is_read_though_its_server_sends_no_ranges(server, remote):
    server.how["ranges"] = False
    assert remote.read("pictures.bin", 0, 500) == CONTENT[:500]
    assert remote.read("pictures.bin", 0, len(CONTENT)) == CONTENT


def test_a_server_that_answers_no_head_is_asked_otherwise(server, remote):
    server.how["head_status"] = 405
    assert remote.only_file().size_bytes == len(CONTENT)


def test_a_server_that_tells_no_size_is_told(server, remote):
    server.how["length"] = False
    with pytest.raises(
        BadInputError, match=r"pictures\.bin: its server does not report its size; download it and inges"
    ):
        remote.only_file()


@pytest.mark.parametrize(
    "change",
    [
        {"content": CONTENT[1:]},
        {"content": bytes(len(CONTENT))},
        {"how": {"etag": False, "modified": "Wed, 25 Nov 2020 00:00:00 GMT"}},
    ],
)
def test_a_file_over_http_that_has_changed_is_refused(server, remote, change):
    file = remote.only_file()
    server.content["/sets/pictures.bin"] = change.get("content", CONTENT)
    server.how |= change.get("how", {})
    with pytest.raises(BadInputError, match=r"pictures\.bin: has changed since it was listed"):
        remote.check_unchanged(file.path, file.size_bytes, file.version)


def test_a_time_tells_a_change_where_there_is_no_etag(server, remote):
    server.how |= {"etag": False, "modified": "Wed, 25 Nov 2020 00:00:00 GMT"}
    assert remote.only_file().version == "Wed, 25 Nov 2020 00:00:00 GMT"


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, BadInputError, "no such file or folder; correct the address"),
        (410, BadInputError, "no such file or folder"),
        (401, BadInputError, "permission denied .*401.*; check its permissions and your credentials"),
        (403, BadInputError, "permission denied .*403"),
        (400, BadInputError, "its server refuses .*400.*; correct the address or the options"),
        (408, TransientError, "cannot be read now .*408"),
        (429, EngineDownError, "its server cannot answer now .*429"),
        (500, TransientError, "cannot be read now .*500"),
        (502, EngineDownError, "its server cannot answer now .*502"),
        (503, EngineDownError, "its server cannot answer now .*503"),
    ],
)
@pytest.mark.parametrize("when", ["listing", "reading"])
def test_an_answer_of_http_is_worth_a_retry_or_not(server, remote, status, error, message, when):
    if when == "reading":
        remote.only_file()
    server.how["status"] = status
    with pytest.raises(error, match=rf"^http://127\.0\.0\.1:\d+/sets/pictures\.bin: {message}"):
        remote.only_file() if when == "listing" else remote.read("pictures.bin", 10, 10)


@pytest.mark.parametrize("when", ["listing", "reading"])
def test_a_server_that_is_gone_is_worth_a_retry(when):
    with serving(Server()) as server:
        server.content["/sets/pictures.bin"] = CONTENT
        remote = SourceFiles(f"{server.url}/sets/pictures.bin")
        server.how["close"] = True
        if when == "reading":
            remote.only_file()
    with pytest.raises(EngineDownError, match=r"/sets/pictures\.bin: its server does not answer \("):
        remote.only_file() if when == "listing" else remote.read("pictures.bin", 10, 10)


def test_a_connection_that_breaks_while_it_is_read_is_worth_a_retry(server, remote):
    remote.only_file()
    server.how["cut"] = 100
    with pytest.raises(TransientError, match=r"pictures\.bin: cannot be read now \("):
        remote.read("pictures.bin", 10, 1_000)


@pytest.mark.parametrize(("offset", "told"), [(10_000, "ends at offset 10,240, where 11,000 was"), (10_240, "ends")])
def test_a_file_over_http_that_became_shorter_is_told(remote, offset, told):
    with pytest.raises(BadInputError, match=rf"pictures\.bin: {told}"):
        remote.read("pictures.bin", offset, 1_000)


@pytest.mark.parametrize("ending", ["", "*.bin"])
def test_a_folder_over_http_is_listed_from_its_page(server, ending):
    for name in ("b.bin", "a.bin", ".hidden.bin", "a/c.bin", "note.txt", "ü x.bin"):
        server.content[f"/sets/{quote(name)}"] = name.encode()
    files = SourceFiles(f"{server.url}/sets/{ending}")
    found = list(files.files(".bin"))
    folder = [] if ending else ["a/c.bin"]
    assert [unquote(file.path) for file in found] == [*folder, "a.bin", "b.bin", "pictures.bin", "ü x.bin"]
    assert files.read(found[-1].path, 0, found[-1].size_bytes).decode() == "ü x.bin"


@pytest.mark.parametrize("source", ["/sets/", "/sets/*.bin"])
def test_a_folder_over_http_that_cannot_be_listed_is_never_an_empty_one(server, source):
    server.how["status"] = 500
    with pytest.raises(TransientError, match="cannot be read now"):
        paths(SourceFiles(server.url + source))
    server.how["status"] = 404
    with pytest.raises(BadInputError, match="no such file or folder"):
        paths(SourceFiles(server.url + source))


@pytest.mark.parametrize("source", ["/sets", "/sets/about"])
def test_a_page_is_not_taken_for_a_file(server, source):
    server.how["pages"] = ["/sets/about"]
    with pytest.raises(
        BadInputError, match=rf"{source}: a web page, not a file; end the address of a folder with a /, or name a file"
    ):
        paths(SourceFiles(f"{server.url}{source}"))


def test_pages_and_an_indexs_links_to_itself_are_no_files_of_a_folder(server):
    server.how["pages"] = ["/sets/about"]
    server.content |= {"/sets/about": b"a page", "/sets/?C=N;O=D": b""}
    files = SourceFiles(f"{server.url}/sets/")
    assert paths(files) == ["pictures.bin"]
    assert [group.reason for group in files.left_out] == ["web pages"]


def test_metadata_beside_a_source_is_reached_in_the_same_way(server, tmp_path):
    server.content["/sets/more.bin"] = b"more"
    files = SourceFiles(f"{server.url}/sets/pictures.bin", {"headers": {"X-Name": "x"}})
    assert files.with_source(f"{server.url}/sets/more.bin").only_file().size_bytes == 4
    (tmp_path / "more.bin").write_bytes(b"more")
    assert files.with_source(str(tmp_path / "more.bin")).only_file().size_bytes == 4
