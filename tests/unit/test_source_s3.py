"""Sources in S3: listing, reading by ranges, and what it refuses."""

import asyncio
import hashlib

import pytest
from source_servers import s3_options, serving_s3
from source_trees import CONTENT, HIDDEN, IN_ORDER, TREE, Server, make_tree, paths, serving

from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError, EngineDownError, TransientError


@pytest.fixture(scope="module")
def s3():
    """Our own S3 with one bucket; returns its client."""
    with serving_s3() as client:
        client.create_bucket(Bucket="sets")
        client.put_object(Bucket="sets", Key="pictures.bin", Body=CONTENT)
        yield client


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
    with pytest.raises(BadInputError, match=r"s3://.*none.*: no such file or folder; correct the address"):
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
        (503, "SlowDown", EngineDownError, "its server cannot answer now .*said so"),
        (503, "SomethingNew", EngineDownError, "its server cannot answer now .*said so"),
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


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, BadInputError), (403, BadInputError), (429, TransientError), (502, TransientError), (503, TransientError)],
)
@pytest.mark.parametrize("page", [b"", b"<html>a proxy's page</html>"])
def test_a_question_for_an_object_that_is_refused_is_no_missing_one(s3, refusing_s3, monkeypatch, status, error, page):
    genuine = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds, *result: genuine(min(seconds, 0.001), *result))
    options = s3_options(s3) | {"client_kwargs": {"endpoint_url": refusing_s3.url}}
    refusing_s3.how.clear()
    refusing_s3.how |= {"status": status, "page": page}
    files = SourceFiles("s3://sets/pictures.bin", options)
    with pytest.raises(
        error, match=r"s3://sets/pictures\.bin: (permission denied|cannot be read now|its server cannot)"
    ):
        files.only_file()


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
