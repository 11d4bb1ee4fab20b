"""Tars as other programs write them: links, long names, keys with dots, compressed."""

import bz2
import gc
import gzip
import io
import lzma
import tarfile
import tracemalloc

import pyarrow as pa
import pytest
from test_encoded import listed, png, read

from tinytags_tasks.corpus.formats.base import Sample
from tinytags_tasks.corpus.formats.webdataset import WebDataset
from tinytags_tasks.corpus.sources import tar_samples, unpacking
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, FinalError


def tar_of(members, **options) -> bytes:
    """Return a tar of members: a name with its content, or with the type and the target of a link."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                member.type, member.linkname = content
                content = b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()


@pytest.fixture
def write(tmp_path):
    def write_tar(members, name="birds.tar", **options):
        path = tmp_path / name
        path.write_bytes(members if isinstance(members, bytes) else tar_of(members, **options))
        return path

    return write_tar


def symbolic(target):
    return tarfile.SYMTYPE, target


def hard(target):
    return tarfile.LNKTYPE, target


def test_links_to_other_members_are_followed(write):
    tar = write(
        [
            ("all/1.png", png(1)),
            ("all/1.cls", b"duck"),
            ("./all/2.png", png(2)),
            ("train/a.png", symbolic("../all/1.png")),
            ("train/a.cls", symbolic("../all/1.cls")),
            ("train/b.png", hard("all/2.png")),
            ("train/c.png", symbolic("a.png")),
            ("train/d.png", symbolic("../later/9.png")),
            ("later", symbolic("last")),  # a folder, which is of no sample
            ("later/9.png", png(9)),
        ]
    )
    items = listed(tar, "webdataset", keywords="cls")
    _, unreadable, keywords, encoded = read(tar, "webdataset", items, keywords="cls")
    assert encoded == [png(number) for number in (1, 2, 1, 2, 1, 9, 9)]
    assert keywords == ["duck", None, "duck", None, None, None, None]
    assert not unreadable


@pytest.mark.parametrize("target", ["/etc/a.png", "../a.png", "x/../../a.png", ".."])
@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_link_that_leads_out_is_refused(write, link, target):
    tar = write([("a.png", png(1)), ("b.png", link(target))])
    with pytest.raises(BadInputError, match=r"member 'b\.png' at offset 1,024 is a link to .*outside of the archive"):
        listed(tar, "webdataset")


@pytest.mark.parametrize(
    "members",
    [
        [("b.png", symbolic("missing.png"))],
        [("b.png", symbolic("b.png"))],
        [("b.png", symbolic("c.png")), ("c.png", symbolic("b.png"))],
        [("b.png", symbolic("."))],
    ],
)
def test_a_link_to_no_file_is_refused(write, members):
    with pytest.raises(BadInputError, match=r"member 'b\.png' at offset 0 is a link to '.*', which is no file"):
        listed(write(members), "webdataset")


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_whole(write, kind):
    names = [f"{'größe/' * 60}{'x' * 150}{number}" for number in range(3)]
    members = [
        (f"{name}.{ending}", content) for name in names for ending, content in (("png", png(1)), ("cls", b"duck"))
    ]
    long_link = (f"{'y' * 300}.png", hard(f"{names[2]}.png"))
    tar = write([*members, long_link], format=kind)
    items = listed(tar, "webdataset", keywords="cls")
    assert read(tar, "webdataset", items, keywords="cls")[2:] == (["duck"] * 3 + [None], [png(1)] * 4)


@pytest.mark.parametrize("most", [3, 1_000])
def test_keys_may_have_dots(write, monkeypatch, most):
    monkeypatch.setattr(tar_samples, "_MOST_IN_GROUP", most)
    names = [f"www.host.org_{number:04d}" for number in range(10)] + ["v1.2", "other"]
    members = [
        (f"{name}.{ending}", content)
        for number, name in enumerate(names)
        for ending, content in (("cls", b"%d" % number), ("png", png(number)))
    ]
    tar = write(members)
    items = listed(tar, "webdataset", keywords="cls")
    _, _, keywords, encoded = read(tar, "webdataset", items, keywords="cls")
    assert encoded == [png(number) for number in range(12)]
    assert keywords == [str(number) for number in range(12)]


def test_a_second_image_beside_the_plain_one_is_still_no_sample(write):
    tar = write([("a.png", png(1)), ("a.seg.png", png(2)), ("b.left.png", png(3)), ("b.cls", b"1")])
    assert read(tar, "webdataset", listed(tar, "webdataset"))[3] == [png(1), png(3)]
    with pytest.raises(BadInputError, match="is a second image of its sample"):
        listed(write([("v.1.png", png(1)), ("v.1.seg.png", png(2))]), "webdataset")
    with pytest.raises(BadInputError, match="is a second image of its sample"):
        listed(write([("a.left.png", png(1)), ("a.right.png", png(2)), ("a.cls", b"1")]), "webdataset")


def packed(content: bytes, ending: str) -> bytes:
    if ending == "zst":
        return pa.compress(content[:700], "zstd", asbytes=True) + pa.compress(content[700:], "zstd", asbytes=True)
    return {"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(content)


MEMBERS = [
    (f"{number}.{ending}", content) for number in range(6) for ending, content in (("png", png(number)), ("cls", b"x"))
]


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("name", ["b.tar", "b.tar.{}"])
def test_compressed_tars_are_read(write, tmp_path, ending, name):
    write(MEMBERS, "a.tar")
    path = write(packed(tar_of(MEMBERS[4:]), ending), name.format(ending))
    items = listed(tmp_path, "webdataset", keywords="cls")
    assert read(tmp_path, "webdataset", items, 4, 4)[3] == [png(number) for number in (4, 5, 2, 3)]
    assert read(tmp_path, "webdataset", items)[3] == [png(number) for number in (*range(6), *range(2, 6))]
    files = SourceFiles(str(path))
    assert WebDataset().guess(Sample(files, files.only_file(), 8, 8))


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_a_damaged_compressed_tar_is_refused(write, ending):
    whole = packed(tar_of(MEMBERS), ending)
    for damaged in (whole[:-20], whole[:6], whole[:40] + bytes(20) + whole[60:]):
        with pytest.raises(BadInputError, match=rf"b\.tar\.{ending}: (damaged|ends at|continues)"):
            listed(write(damaged, f"b.tar.{ending}"), "webdataset")


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_damaged_compressed_tars_leave_nothing_in_memory(write, ending):
    path = write(packed(tar_of(MEMBERS), ending)[:-20], f"b.tar.{ending}")
    tracemalloc.start()
    try:
        for _ in range(10):
            with pytest.raises(BadInputError):
                listed(path, "webdataset")
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()


def test_no_room_to_unpack_is_said(write, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacking.tempfile, "TemporaryFile", Full)
    with pytest.raises(FinalError, match=r"b\.tar\.gz cannot be unpacked there \(No space left on device\); free some"):
        listed(write(packed(tar_of(MEMBERS), "gz"), "b.tar.gz"), "webdataset")
