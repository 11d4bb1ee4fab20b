"""Exported files: right way up, whole or recognisably not, safe names and cells, and memory that stays flat."""

import csv
import io
import shutil
import subprocess
import tarfile
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.places import SourcePlace
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.search import export
from tinytags_tasks.search.export import Export, Format, cell, file_name, folder_name, write_export
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def marked(seed: int = 0) -> np.ndarray:
    """Return a picture whose upper left corner is red, upper right green, lower left blue; else noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[:8, :8], pixels[:8, -8:], pixels[-8:, :8] = RED, GREEN, BLUE
    return pixels


def image(position: int, tag: str = "cat", keyword: str | None = "Tabby", **values: object) -> TaggedImage:
    known = {
        "id": f"pets:{position}",
        "tag": tag,
        "confidence": 70,
        "votes": 7,
        "block": 3,
        "position": position,
        "model": "forest-12ab",
        "corpus": "pets",
        "keyword": keyword,
        "corrected": None,
    }
    return TaggedImage(known | values, image=marked(position))


IMAGES = (image(0), image(7, "dog", None), image(123_456, "=cmd|' /C calc'!A0", 'Säbel\nzahn, "x"', corrected=4))


def exported(kind: Format, images: tuple[TaggedImage, ...] = IMAGES) -> bytes:
    return b"".join(write_export(Export([images[:2], images[2:]], len(images), lambda some: some), kind))


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_table_has_a_row_for_each_picture_and_no_formula() -> None:
    text = exported(Format.CSV).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == ["pets:0", "pets:7", "pets:123456"]
    assert rows[0] | {"tag": "cat", "confidence": "70", "keyword": "Tabby", "corrected": ""} == rows[0]
    assert rows[1]["keyword"] == ""
    assert (rows[2]["tag"], rows[2]["keyword"]) == ("'=cmd|' /C calc'!A0", 'Säbel\nzahn, "x"')
    assert text.endswith("\r\n")


@pytest.mark.parametrize("name", ["EQUALS SIGN", "PLUS SIGN", "HYPHEN-MINUS", "COMMERCIAL AT"])
def test_a_wide_sign_begins_no_formula_either(name: str) -> None:
    text = unicodedata.lookup(f"FULLWIDTH {name}") + "1"
    assert cell(text) == "'" + text


@given(st.text(max_size=20))
def test_no_cell_begins_like_a_formula(text: str) -> None:
    assert not str(cell(text)).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert str(cell(text)).removeprefix("'").removeprefix("'") in (text, text.removeprefix("'"), text[2:])


def test_every_kind_names_the_files_that_pictures_come_from() -> None:
    places = {
        "pets:0": SourcePlace("/data", "a/=b.jpg", 0, 1, 0, 9),
        "pets:7": SourcePlace("/data", "set.tar", 0, 1, 512, 9, "dogs/x.jpg"),
        "pets:123456": SourcePlace("/data", "all.bin", 42, 100, 0, 9),
    }
    files = {
        kind: b"".join(write_export(Export([IMAGES], 3, lambda some: some, places=lambda _: places), kind))
        for kind in Format
    }
    expected = [("a/=b.jpg", None), ("set.tar", "dogs/x.jpg"), ("all.bin", "42")]
    rows = list(csv.DictReader(io.StringIO(files[Format.CSV].decode(), newline="")))
    assert [(row["source_file"], row["source_member"] or None) for row in rows] == expected
    table = pq.read_table(io.BytesIO(files[Format.PARQUET]))
    assert [(row["source_file"], row["source_member"]) for row in table.to_pylist()] == expected
    with tarfile.open(fileobj=io.BytesIO(files[Format.TAR])) as tar:
        described = [orjson.loads(tar.extractfile(member).read()) for member in tar if member.name.endswith(".json")]
    assert [(one["source_file"], one["source_member"]) for one in described] == expected


def test_parquet_has_the_pictures_and_can_be_ingested_again(tmp_path) -> None:
    path = tmp_path / "found.parquet"
    path.write_bytes(exported(Format.PARQUET))
    table = pq.read_table(path, page_checksum_verification=True)
    assert table.column("position").to_pylist() == [0, 7, 123_456]
    assert table.column("tag")[2].as_py().startswith("=cmd")  # no spreadsheet: the value is as it is
    np.testing.assert_array_equal(decoded(table.column("image")[0].as_py()["bytes"]), marked(0))
    storage = LocalStorage(tmp_path / "store")
    definition = CorpusDefinition(name="again", source=str(path), format="parquet", keywords="tag", shard_images=10)
    ingest_corpus(definition, storage=storage, report=lambda line: None)
    corpus = Corpus.load(storage, layout.corpus_file("again"))
    assert corpus.images == 3
    assert storage.read(layout.shard_file("again", 0), 0, corpus.image_bytes) == marked(0).tobytes()


def test_a_tar_is_a_webdataset() -> None:
    with tarfile.open(fileobj=io.BytesIO(exported(Format.TAR))) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = [f"pets-{position:012d}" for position in (0, 7, 123_456)]
    assert list(members) == [f"{key}.{ending}" for key in keys for ending in ("png", "cls", "json")]
    np.testing.assert_array_equal(decoded(members[f"{keys[1]}.png"]), marked(7))
    assert members[f"{keys[1]}.cls"] == b"dog"
    assert b'"confidence":70' in members[f"{keys[1]}.json"]


def test_a_zip_has_a_folder_for_each_tag_and_a_list(tmp_path) -> None:
    content = exported(Format.ZIP)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        np.testing.assert_array_equal(decoded(archive.read(names[0])), marked(0))
        rows = list(csv.DictReader(io.StringIO(archive.read("images.csv").decode(), newline="")))
    assert names[:2] == ["cat/pets-000000000000.png", "dog/pets-000000000007.png"]
    assert [row["file"] for row in rows] == names[:3]
    if shutil.which("unzip"):
        (tmp_path / "found.zip").write_bytes(content)
        subprocess.run(["unzip", "-tq", tmp_path / "found.zip"], check=True, capture_output=True)


@pytest.mark.parametrize("kind", Format)
def test_equal_exports_have_equal_bytes(kind: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    first = exported(kind)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert exported(kind) == first


@pytest.mark.parametrize("kind", Format)
@pytest.mark.parametrize("counted", [2, 4])
def test_a_file_whose_pictures_changed_meanwhile_breaks_off(kind: Format, counted: int) -> None:
    received = []
    with pytest.raises(CorruptError, match="export again"):
        received.extend(write_export(Export([IMAGES], counted, lambda some: some), kind))
    content = b"".join(received)
    if kind is Format.PARQUET:
        assert not content.endswith(b"PAR1")
    if kind is Format.ZIP:
        assert not zipfile.is_zipfile(io.BytesIO(content))


def test_a_file_may_have_fewer_pictures_than_counted_if_more_are_hidden_than_solr_leaves_out() -> None:
    def rows(counted: int) -> int:
        export = Export([IMAGES], counted, lambda some: some, is_at_most=True)
        return b"".join(write_export(export, Format.CSV)).count(b"pets:")

    assert rows(len(IMAGES) + 1) == len(IMAGES)
    with pytest.raises(CorruptError, match="export again"):
        rows(len(IMAGES) - 1)


def test_a_picture_that_cannot_be_read_breaks_the_file_off() -> None:
    lost = (replace(IMAGES[0], image=None, missing="HDFS is away"),)
    with pytest.raises(CorruptError, match="pets:0 cannot be exported: HDFS is away"):
        list(write_export(Export([lost], 1, lambda some: some), Format.TAR))
    assert b"pets:0" in b"".join(write_export(Export([lost], 1, lambda some: some), Format.CSV))


@given(st.text(max_size=120))
def test_every_system_can_store_the_folder_of_a_tag(tag: str) -> None:
    name = folder_name(tag)
    assert name.isascii()
    assert 1 <= len(name) <= 64
    assert not set(name) & set('<>:"/\\|?*. ')
    assert name.upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat dog", "tinytags-cat-dog-12-images.csv"),
        ('../../x"; \r\n', "tinytags-x-12-images.csv"),
        ("", "tinytags-12-images.csv"),
        ("猫", "tinytags-12-images.csv"),
    ],
)
def test_the_name_of_a_file_is_safe_and_says_how_many_it_holds(name: str, safe: str) -> None:
    assert file_name(name, 12, Format.CSV) == safe


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", Format)
def test_memory_does_not_grow_with_the_pictures(kind: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "GROUP_BYTES", 200_000)
    some = tuple(image(position) for position in range(30))

    def pages(number: int) -> Iterator[tuple[TaggedImage, ...]]:
        yield from (some for _ in range(number))

    def peak(number: int) -> int:
        tracemalloc.start()
        for _ in write_export(Export(pages(number), 30 * number, lambda images: images), kind):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    assert peak(40) < peak(2) + 2_500_000  # the pictures of 38 pages are 3.5 MB
