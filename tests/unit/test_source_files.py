"""Sources: the same files in the same order wherever they are, and one clear error for each way to fail."""

import asyncio
import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError

CONTENT = bytes(range(256)) * 40

TREE = ("B.jpg", "a/2.JPG", "a/10.jpg", "a/b/x.jpg", "a.b/x.jpg", "a.jpg", "c d/ü.jpg", "note.txt", "猫.jpg")
HIDDEN = (".DS_Store", "a/.1.jpg", ".cache/x.jpg")
IN_ORDER = ["B.jpg", "a/10.jpg", "a/2.JPG", "a/b/x.jpg", "a.b/x.jpg", "a.jpg", "c d/ü.jpg", "猫.jpg"]
"""The pictures of the tree, by the code points of their paths, part by part."""


def paths(files, *endings):
    return [file.path for file in files.files(*endings)]


def make_tree(folder):
    for name in (*TREE, *HIDDEN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


# Files of this machine


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pictures.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_listed_with_size_and_time(file):
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    files = SourceFiles(str(file))
    assert list(files.files()) == [SourceFile("pictures.bin", len(CONTENT), "1234567890123456789")]
    assert list(files.files(".jpg")) == list(files.files())  # it was named: its ending does not matter
    assert files.only_file() == files.current("pictures.bin")
    assert (files.is_local, files.address, files.name("pictures.bin")) == (True, str(file), str(file))


@pytest.mark.parametrize("source", ["pictures.bin", "./pictures.bin", "~/pictures.bin"])
def test_a_path_may_begin_here_or_at_home(file, source, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("HOME", str(file.parent))
    files = SourceFiles(source)
    assert files.address == str(file)
    assert files.read("pictures.bin", 0, 3) == b"\0\1\2"


def test_a_path_may_be_written_as_an_address(file):
    assert paths(SourceFiles(f"file://{file}")) == ["pictures.bin"]


def test_a_folder_is_listed_part_by_part_without_hidden_names(tmp_path):
    files = SourceFiles(str(make_tree(tmp_path)))
    assert paths(files, ".jpg") == IN_ORDER
    assert paths(files) == [*IN_ORDER[:-1], "note.txt", IN_ORDER[-1]]
    assert paths(files, ".txt", ".png") == ["note.txt"]
    assert [files.read(file.path, 0, file.size_bytes).decode() for file in files.files(".jpg")] == IN_ORDER


def test_a_hidden_folder_may_itself_be_the_source(tmp_path):
    make_tree(tmp_path)
    assert paths(SourceFiles(f"{tmp_path}/.cache/")) == ["x.jpg"]


def test_an_empty_folder_has_no_files(tmp_path):
    assert paths(SourceFiles(str(tmp_path))) == []


def test_links_to_files_and_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    make_tree(tmp_path / "elsewhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    for name in ("birds", "cats"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / "a")
    files = SourceFiles(str(folder))
    inside = ["10.jpg", "2.JPG", "b/x.jpg"]
    assert paths(files) == [*(f"birds/{name}" for name in inside), *(f"cats/{name}" for name in inside), "link.jpg"]
    assert files.read("cats/b/x.jpg", 0, 9) == b"a/b/x.jpg"
    assert files.current("link.jpg").size_bytes == len("a.jpg")


@pytest.mark.parametrize("ending", [(), (".jpg",)])
def test_a_link_that_leads_to_no_file_is_named(tmp_path, ending):
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(BadInputError, match=r"/lost\.jpg: a broken link; fix it or remove it"):
        paths(SourceFiles(str(tmp_path)), *ending)
    assert paths(SourceFiles(str(tmp_path)), ".png") == []


def test_links_in_a_circle_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    with pytest.raises(BadInputError, match=r"/a/to-b/to-a: a link to a folder that contains it; remove it"):
        paths(SourceFiles(str(tmp_path)))
    (tmp_path / "b" / "to-a").unlink()
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(BadInputError, match="cannot be read"):
        paths(SourceFiles(str(tmp_path)))


def test_what_is_no_file_is_not_taken_for_one(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert paths(SourceFiles(str(tmp_path))) == []
    with pytest.raises(BadInputError, match=r"pipe\.jpg: not a file; name a file, or the folder it is in"):
        paths(SourceFiles(str(tmp_path / "pipe.jpg")))
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInputError, match="folder: not a file"):
        SourceFiles(str(tmp_path)).current("folder")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["B.jpg", "a.jpg", "猫.jpg"]),
        ("*", ["B.jpg", "a.jpg", "note.txt", "猫.jpg"]),
        ("a*", ["a.jpg"]),
        ("a*/*.jpg", ["a/10.jpg", "a.b/x.jpg"]),
        ("*/*/x.jpg", ["a/b/x.jpg"]),
        ("*/x.jpg", ["a.b/x.jpg"]),
        ("a/*", ["10.jpg", "2.JPG"]),
    ],
)
def test_a_pattern_stands_for_parts_of_names(tmp_path, pattern, expected):
    files = SourceFiles(f"{make_tree(tmp_path / 'with [marks] + ?')}/{pattern}")
    assert paths(files) == expected
    assert paths(files, ".png") == expected
    assert all(files.current(path).size_bytes for path in expected)


@pytest.mark.parametrize("pattern", ["*.png", "*/*/*/*", "a.jpg*x", "a/b/*.txt"])
def test_a_pattern_without_a_match_is_told(tmp_path, pattern):
    with pytest.raises(BadInputError, match=r"\*.*: no file matches; correct the corpus' source"):
        paths(SourceFiles(f"{make_tree(tmp_path)}/{pattern}"))


@pytest.mark.parametrize("source", ["none.bin", "none/pictures.bin", "none/*.bin"])
def test_what_is_not_there_is_named(tmp_path, source):
    with pytest.raises(BadInputError, match=r"none.*: no such file or folder; correct the corpus' source"):
        paths(SourceFiles(str(tmp_path / source)))


@pytest.mark.parametrize("source", ["/x" * 3_000, "/" + "x" * 300, "/a\0b", "~nobody-at-all/x", "/dev/null/x"])
def test_what_can_be_no_path_is_told(source):
    with pytest.raises(BadInputError, match=r": (cannot be read \(|no such file)"):
        paths(SourceFiles(source))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("source", ["", "pictures.bin", "*"])
def test_what_may_not_be_read_is_told(file, source):
    file.chmod(0)
    file.parent.chmod(0 if source == "" else 0o700)
    try:
        files = SourceFiles(str(file.parent / source))
        with pytest.raises(BadInputError, match="permission denied; check its permissions"):
            files.read(next(files.files()).path, 0, 1)
    finally:
        file.parent.chmod(0o700)


@pytest.mark.parametrize("call", ["open", "stat", "scandir"])
def test_what_the_system_forbids_is_told(file, monkeypatch, call):
    def forbid(*_, **__):
        raise PermissionError(13, "Permission denied")

    files = SourceFiles(str(file.parent))
    assert paths(files) == ["pictures.bin"]
    monkeypatch.setattr(os, call, forbid)
    with pytest.raises(BadInputError, match="permission denied; check its permissions"):
        if call == "scandir":
            paths(files)
        else:
            {"open": lambda: files.read("pictures.bin", 0, 1), "stat": lambda: files.current("pictures.bin")}[call]()


def test_a_disk_that_fails_is_told(file, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(BadInputError, match=r"pictures\.bin: cannot be read \(Input/output error\)"):
        SourceFiles(str(file)).read("pictures.bin", 0, 1)


def test_a_name_that_is_not_utf_8_is_told(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_text("x")
    with pytest.raises(BadInputError, match=r"caf\\udce9\.jpg': its name is not UTF-8; rename it"):
        paths(SourceFiles(str(tmp_path)))


def test_one_file_is_asked_for_and_another_number_told(tmp_path):
    with pytest.raises(BadInputError, match="0 files where one is needed; name the file"):
        SourceFiles(str(tmp_path)).only_file()
    with pytest.raises(BadInputError, match="9 files where one is needed"):
        SourceFiles(str(make_tree(tmp_path))).only_file()


# Reading


@settings(deadline=None)
@given(st.data())
def test_any_range_is_read_as_it_lies_in_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("range")
    content = data.draw(st.binary(max_size=300))
    (folder / "file").write_bytes(content)
    files = SourceFiles(str(folder))
    for _ in range(3):
        offset = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, len(content) - offset))
        assert files.read("file", offset, length) == content[offset : offset + length]
    files.close()


def test_a_read_that_the_system_gives_in_pieces_is_whole(file, monkeypatch):
    genuine = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: genuine(descriptor, min(length, 1_000), offset))
    assert SourceFiles(str(file)).read("pictures.bin", 5, 9_999) == CONTENT[5:10_004]
    with pytest.raises(BadInputError, match="ends at offset 10,240, where 10,241 was expected"):
        SourceFiles(str(file)).read("pictures.bin", 0, 10_241)


@pytest.mark.parametrize(
    ("offset", "length", "told"), [(10_000, 241, "10,240"), (10_240, 1, "10,240"), (20_000, 1, "20,000")]
)
def test_a_file_that_ends_before_the_range_is_told_with_the_offset(file, offset, length, told):
    with pytest.raises(BadInputError, match=f"ends at offset {told}, where {offset + length:,} was expected"):
        SourceFiles(str(file)).read("pictures.bin", offset, length)


def test_a_file_that_has_changed_since_it_was_listed_is_refused(file):
    files = SourceFiles(str(file))
    listed = files.only_file()
    files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    assert files.read(listed.path, 0, 1, listed.version) == b"\0"
    files.close()
    os.utime(file, ns=(1, 1))
    with pytest.raises(BadInputError, match=r"pictures\.bin: has changed since it was listed \(10,240 bytes then, 10"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    with pytest.raises(BadInputError, match=r"pictures\.bin: has changed since it was listed; restore it, or remove"):
        files.read(listed.path, 0, 1, listed.version)
    assert SourceFiles(str(file)).read(listed.path, 0, 1) == b"\0"
    file.write_bytes(b"short")
    with pytest.raises(BadInputError, match=r"\(10,240 bytes then, 5 now\)"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    file.unlink()
    with pytest.raises(BadInputError, match="no such file"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)


def open_descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_only_one_file_is_open_at_a_time(tmp_path):
    opened = open_descriptors()
    files = SourceFiles(str(make_tree(tmp_path)))
    for path in [*IN_ORDER, *IN_ORDER]:
        assert files.read(path, 0, len(path.encode())).decode() == path
        assert len(open_descriptors() - opened) == 1
    files.close()
    files.close()
    assert open_descriptors() == opened


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_head_and_tail_are_hashed(tmp_path, size):
    content = (CONTENT * 20)[:size]
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content + (b"b" if name == "b" else b""))
    files = SourceFiles(str(tmp_path))
    first, last = files.files()
    expected = (content[:65_536], (content + b"b")[-65_536:])
    assert hash_ends(files, first, last) == tuple(hashlib.sha256(part).hexdigest() for part in expected)


# http


class Server(ThreadingHTTPServer):
    """Serves bytes by path; ``how`` says how it misbehaves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {}
        self.how = {}
        self.sent = 0
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head):
        how, path = self.server.how, urlsplit(self.path).path
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if status := how.get("head_status" if head else "get_status", how.get("status")):
            return self.send(status, how.get("page", b"an error page"), head=head)
        if path not in self.server.content and path.endswith("/"):
            return self.send(200, self.index(path), head=head, type="text/html")
        if path not in self.server.content:
            return self.send(404, b"not here", head=head)
        content, wanted = self.server.content[path], self.headers.get("Range")
        fields = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if how.get("etag", True) else {}
        if how.get("modified"):
            fields["Last-Modified"] = how["modified"]
        if not wanted or not how.get("ranges", True):
            return self.send(200, content, head=head, **fields)
        first, last = (int(number) for number in re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
        if first >= len(content):
            return self.send(416, b"", head=head)
        part = content[first : last + 1]
        fields["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self.send(206, part[: how.get("cut", len(part))], head=head, announced=len(part), **fields)

    def index(self, path):
        below = {name.removeprefix(path) for name in self.server.content if name.startswith(path)}
        links = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in below}, reverse=True)
        return "".join(f'<a href="{link}">{link}</a>' for link in ["../", *links]).encode()

    def send(self, status, content, *, head, announced=None, type="application/octet-stream", **fields):
        self.send_response(status)
        if self.server.how.get("close"):
            fields["Connection"] = "close"
        if self.server.how.get("length", True):
            self.send_header("Content-Length", str(len(content) if announced is None else announced))
        else:
            self.close_connection = True
        for name, value in {"Content-Type": type, **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, 0 if head else len(content), 65_536):
            try:
                self.wfile.write(content[start : start + 65_536])
            except OSError:
                return
            self.server.sent += len(content[start : start + 65_536])
        if announced not in (None, len(content)):
            self.close_connection = True


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
        (404, BadInputError, "no such file or folder; correct the corpus' source"),
        (410, BadInputError, "no such file or folder"),
        (401, BadInputError, "permission denied .*401.*; check its permissions and your credentials"),
        (403, BadInputError, "permission denied .*403"),
        (400, BadInputError, "its server refuses .*400.*; correct the corpus' source or options"),
        (408, TransientError, "cannot be read now .*408"),
        (429, TransientError, "cannot be read now .*429"),
        (500, TransientError, "cannot be read now .*500"),
        (503, TransientError, "cannot be read now .*503"),
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


def test_metadata_beside_a_source_is_reached_in_the_same_way(server, tmp_path):
    server.content["/sets/more.bin"] = b"more"
    files = SourceFiles(f"{server.url}/sets/pictures.bin", {"headers": {"X-Name": "x"}})
    assert files.with_source(f"{server.url}/sets/more.bin").only_file().size_bytes == 4
    (tmp_path / "more.bin").write_bytes(b"more")
    assert files.with_source(str(tmp_path / "more.bin")).only_file().size_bytes == 4


# S3


@pytest.fixture(scope="module")
def s3():
    """Our own S3 with one bucket; returns its client and the options for fsspec."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "dummy")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
        patch.delenv("AWS_PROFILE", raising=False)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="sets")
        client.put_object(Bucket="sets", Key="pictures.bin", Body=CONTENT)
        yield client
        server.stop()


def s3_options(client, **more):
    once = {"retries": {"max_attempts": 0}}
    return {"client_kwargs": {"endpoint_url": client.meta.endpoint_url}, "config_kwargs": once, **more}


def in_s3(client, source, **more):
    return SourceFiles(source, s3_options(client, **more))


def test_an_object_of_s3_is_listed_and_read_by_ranges(s3):
    files = in_s3(s3, "s3://sets/pictures.bin")
    (file,) = files.files(".jpg")
    assert file == SourceFile("pictures.bin", len(CONTENT), hashlib.md5(CONTENT).hexdigest())
    assert (files.is_local, files.address, files.name(file.path)) == (False, files.source, files.source)
    for offset, length in ((0, 10), (10_000, 240), (3, 0), (0, 10_240)):
        assert files.read(file.path, offset, length, file.version) == CONTENT[offset : offset + length]
    files.check_unchanged(file.path, file.size_bytes, file.version)


def test_an_object_of_s3_that_has_changed_is_refused(s3):
    s3.put_object(Bucket="sets", Key="changes.bin", Body=b"one")
    files = in_s3(s3, "s3://sets/changes.bin")
    file = files.only_file()
    s3.put_object(Bucket="sets", Key="changes.bin", Body=b"two")
    with pytest.raises(BadInputError, match=r"sets/changes\.bin: has changed since it was listed"):
        files.check_unchanged(file.path, file.size_bytes, file.version)
    assert files.only_file() != file


@pytest.mark.parametrize("source", ["s3://sets/tree", "s3://sets/tree/"])
def test_a_folder_of_objects_is_listed_as_one_of_this_machine(s3, tmp_path, source):
    for name in (*TREE, *HIDDEN, "", "a/", "empty/"):  # those that end in / stand for folders
        s3.put_object(Bucket="sets", Key=f"tree/{name}", Body=name.encode())
    files, here = in_s3(s3, source), SourceFiles(str(make_tree(tmp_path)))
    assert paths(files, ".jpg") == paths(here, ".jpg") == IN_ORDER
    assert paths(files) == paths(here)
    assert [file.size_bytes for file in files.files()] == [file.size_bytes for file in here.files()]
    for path in IN_ORDER:
        assert files.read(path, 0, len(path.encode())).decode() == path
    for pattern in ("*.jpg", "*/*.jpg", "*/b/*"):
        assert paths(in_s3(s3, f"s3://sets/tree/{pattern}")) == paths(SourceFiles(f"{tmp_path}/{pattern}"))


def test_a_whole_bucket_may_be_the_source_and_what_came_since_is_seen(s3):
    s3.create_bucket(Bucket="all")
    files = in_s3(s3, "s3://all")
    assert paths(files) == []
    s3.put_object(Bucket="all", Key="b.jpg", Body=b"x")
    assert paths(files) == ["b.jpg"]
    s3.put_object(Bucket="all", Key="a/c.jpg", Body=b"x")
    assert paths(files) == paths(in_s3(s3, "s3://all/")) == ["a/c.jpg", "b.jpg"]


def test_more_objects_than_a_page_of_s3_holds_are_all_listed(s3):
    s3.create_bucket(Bucket="many")
    for number in range(13):
        s3.put_object(Bucket="many", Key=f"set/{number:02d}.jpg", Body=b"")
    assert s3.list_objects_v2(Bucket="many")["KeyCount"] == 5
    files = in_s3(s3, "s3://many/set")
    assert len(paths(files)) == 13
    assert not files._remote.dircache  # memory does not grow with what was listed


@pytest.mark.parametrize(
    "source", ["s3://sets/none.bin", "s3://sets/none/", "s3://none/x.bin", "s3://none", "s3://none/*"]
)
def test_what_is_not_in_s3_is_named(s3, source):
    with pytest.raises(BadInputError, match=r"s3://.*none.*: no such file or folder; correct the corpus' source"):
        paths(in_s3(s3, source))


def test_an_object_that_vanishes_is_told(s3):
    s3.put_object(Bucket="sets", Key="vanishes.bin", Body=b"one")
    files = in_s3(s3, "s3://sets/vanishes.bin")
    files.only_file()
    s3.delete_object(Bucket="sets", Key="vanishes.bin")
    with pytest.raises(BadInputError, match=r"sets/vanishes\.bin: no such file"):
        files.read("vanishes.bin", 0, 1)
    with pytest.raises(BadInputError, match=r"sets/vanishes\.bin: no such file"):
        files.current("vanishes.bin")


@pytest.mark.parametrize("offset", [10_000, 10_240, 99_999])
def test_an_object_that_became_shorter_is_told(s3, offset):
    with pytest.raises(BadInputError, match=r"sets/pictures\.bin: ends (at offset 10,240|before the requested bytes)"):
        in_s3(s3, "s3://sets/pictures.bin").read("pictures.bin", offset, 1_000)


def test_a_folder_is_no_object(s3):
    s3.put_object(Bucket="sets", Key="deep/inner/x", Body=b"")
    with pytest.raises(BadInputError, match="sets/deep/inner: a folder, not a file; name the file"):
        in_s3(s3, "s3://sets/deep").current("inner")


def test_a_key_with_an_empty_part_is_told_and_not_lost(s3):
    s3.put_object(Bucket="sets", Key="double//x.jpg", Body=b"")
    with pytest.raises(BadInputError, match="sets/double//: a folder without a name; move its content"):
        paths(in_s3(s3, "s3://sets/double"))


@pytest.fixture(scope="module")
def refusing_s3():
    """A server that responds like S3 if it fails or refuses; one for all tests, as each address needs a client."""
    with serving(Server()) as server:
        server.content["/sets/pictures.bin"] = CONTENT
        yield server


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (
            403,
            "AccessDenied",
            BadInputError,
            "permission denied .*said so.*; check its permissions and your credentials",
        ),
        (403, "InvalidAccessKeyId", BadInputError, "permission denied .*said so"),
        (400, "ExpiredToken", BadInputError, "permission denied .*said so"),
        (400, "InvalidRequest", BadInputError, "its server refuses .*said so"),
        (404, "NoSuchBucket", BadInputError, "no such file or folder"),
        (500, "InternalError", TransientError, "cannot be read now .*said so"),
        (503, "SlowDown", TransientError, "cannot be read now .*said so"),
        (503, "SomethingNew", TransientError, "cannot be read now .*said so"),
    ],
)
@pytest.mark.parametrize("when", ["listing", "reading"])
def test_an_answer_of_s3_is_worth_a_retry_or_not(s3, refusing_s3, monkeypatch, status, code, error, message, when):
    genuine = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *result: genuine(min(seconds, 0.001), *result))
    options = s3_options(s3) | {"client_kwargs": {"endpoint_url": refusing_s3.url}}
    files = SourceFiles("s3://sets/pictures.bin" if when == "reading" else "s3://sets/some/*", options)
    refusing_s3.how.clear()
    if when == "reading":
        files.only_file()
    page = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said so</Message></Error>"
    refusing_s3.how |= {"status": status, "page": page.encode()}
    with pytest.raises(error, match=f"sets/.*: {message}"):
        files.read("pictures.bin", 0, 10) if when == "reading" else paths(files)


@pytest.mark.parametrize("source", ["s3://sets/pictures.bin", "s3://sets/*"])
def test_an_s3_that_is_gone_is_worth_a_retry(s3, source):
    options = s3_options(s3) | {"client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
    with pytest.raises(EngineDownError, match=r"s3://sets.*: its server does not answer \("):
        paths(SourceFiles(source, options))


def test_missing_credentials_are_told(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BadInputError, match=r"s3://sets/pictures\.bin: cannot be read \(NoCredentialsError"):
        paths(in_s3(s3, "s3://sets/pictures.bin", default_block_size=1))
    s3.put_object(Bucket="sets", Key="public.bin", Body=b"x", ACL="public-read")
    assert paths(in_s3(s3, "s3://sets/public.bin", anon=True)) == ["public.bin"]


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "nobody"},
        {"client_kwargs": {"bogus": 1}},
        {"config_kwargs": {"bogus": 1}},
        {"client_kwargs": {"endpoint_url": "no address"}},
    ],
)
def test_options_that_s3_does_not_take_are_told(s3, options):
    with pytest.raises(BadInputError, match=r"s3://sets/pictures\.bin: cannot be read \(.*options of its"):
        paths(SourceFiles("s3://sets/pictures.bin", s3_options(s3) | options))


def test_a_bucket_with_an_impossible_name_is_told(s3):
    with pytest.raises(BadInputError, match=r"s3://Not A Bucket!/x: "):
        paths(in_s3(s3, "s3://Not A Bucket!/x"))


# Addresses


@pytest.mark.parametrize("source", ["nope://host/x", "http://", "https:///x", "s3://", "s3:///", "http://[bad/x"])
def test_an_address_that_leads_nowhere_is_told(source):
    with pytest.raises(FinalError, match=f"^{re.escape(source)}: "):
        paths(SourceFiles(source))


class NameNode(BaseHTTPRequestHandler):
    """The part of WebHDFS that reading needs: it redirects to a DataNode for bytes."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        path = unquote(url.path).removeprefix("/webhdfs/v1")
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        server.asked.append((path, asked))
        if path.startswith("/datanode"):
            path = path.removeprefix("/datanode")
            if server.how.get("datanode"):
                return self.send(server.how["datanode"], b"x" * int(asked["length"]))
            start = int(asked["offset"])
            return self.send(200, server.content[path][start : start + int(asked["length"])])
        if exception := server.how.get("exception"):
            status, name = exception
            return self.send_json(status, {"RemoteException": {"exception": name, "message": "said so"}})
        below = {name.removeprefix(f"{path.rstrip('/')}/") for name in server.content if name.startswith(f"{path}/")}
        if path not in server.content and not below:
            return self.send_json(404, {"RemoteException": {"exception": "FileNotFoundException", "message": path}})
        if asked["op"] == "OPEN":
            where = f"/datanode{quote(path)}?offset={asked['offset']}&length={asked['length']}"
            return self.send(307, b"", Location=f"http://127.0.0.1:{server.server_port}{where}")
        if asked["op"] == "GETFILESTATUS":
            return self.send_json(200, {"FileStatus": self.status("", path)})
        names = sorted({name.partition("/")[0] for name in below})
        statuses = [self.status(name, f"{path.rstrip('/')}/{name}") for name in names]
        return self.send_json(200, {"FileStatuses": {"FileStatus": statuses}})

    def status(self, name, path):
        content = self.server.content.get(path)
        kind, length = ("DIRECTORY", 0) if content is None else ("FILE", len(content))
        return {"pathSuffix": name, "type": kind, "length": length, "modificationTime": 1_600_000_000_000}

    def send_json(self, status, content):
        self.send(status, json.dumps(content).encode())

    def send(self, status, content, **fields):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hdfs():
    server = Server()
    server.RequestHandlerClass = NameNode
    with serving(server):
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


def test_another_hdfs_is_named_by_host_and_port(hdfs):
    host = hdfs.url.removeprefix("http://")
    assert paths(SourceFiles(f"webhdfs://{host}/tree", hdfs_user="me"), ".txt") == ["note.txt"]
    assert paths(SourceFiles(f"webhdfs://you@{host}/tree", hdfs_user="me"), ".txt") == ["note.txt"]
    assert paths(SourceFiles(f"webhdfs://{host}/tree", {"user": "they"}), ".txt") == ["note.txt"]
    users = [asked["user.name"] for _, asked in hdfs.asked]
    assert sorted(set(users), key=users.index) == ["me", "you", "they"]


def test_the_port_of_another_hdfs_may_be_left_out(monkeypatch):
    files = SourceFiles("webhdfs://127.0.0.1/tree")
    assert files._remote.url == "http://127.0.0.1:9870"
    files = SourceFiles("hdfs:///tree", webhdfs_url="https://127.0.0.1:9871/")
    assert files._remote.url == "https://127.0.0.1:9871"


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
        (403, "StandbyException", TransientError, "cannot be read now .*said so"),
        (500, "RetriableException", TransientError, "cannot be read now .*said so"),
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
