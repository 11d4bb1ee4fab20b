"""The same images however they are stored; and whatever bytes there are, an answer of ours."""

import bz2
import gzip
import io
import itertools
import lzma
import pickle
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from source_servers import NameNode, s3_options, serving_s3
from source_trees import Server, serving

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.pictures.prepare import prepare_picture
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE, IMAGES = 32, 9
PIXELS = np.random.default_rng(7).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
WAYS = {
    "webdataset": ["", "gz", "bz2", "xz", "zst"],
    "parquet": ["none", "snappy", "gzip", "zstd", "lz4", "brotli"],
}
"""How files can be compressed, by format."""


def picture(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


PICTURES = [picture(pixels) for pixels in PIXELS]


def planes(number: int) -> bytes:
    return PIXELS[number].transpose(2, 0, 1).tobytes()


def tar_of(numbers, way: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for place, number in enumerate(numbers):
            member = tarfile.TarInfo(f"{place:04d}.png")
            member.size = len(PICTURES[number])
            tar.addfile(member, io.BytesIO(PICTURES[number]))
    if way == "zst":
        return pa.compress(sink.getvalue(), "zstd", asbytes=True)
    return {"gz": gzip, "bz2": bz2, "xz": lzma}[way].compress(sink.getvalue()) if way else sink.getvalue()


def parquet_of(numbers, way: str) -> bytes:
    sink = io.BytesIO()
    images = pa.array([PICTURES[number] for number in numbers], pa.binary())
    pq.write_table(pa.table({"image": images}), sink, compression=way, row_group_size=2)
    return sink.getvalue()


def files_of(format_name: str, numbers, way: str) -> dict[str, bytes]:
    """Return a part of a corpus: its files' contents by the endings of their names."""
    if format_name == "folder":
        return {f"/{place:04d}.png": PICTURES[number] for place, number in enumerate(numbers)}
    if format_name == "webdataset":
        return {f".tar.{way}" if way else ".tar": tar_of(numbers, way)}
    if format_name == "parquet":
        return {".parquet": parquet_of(numbers, way)}
    if format_name == "cifar-pickle":
        rows = np.frombuffer(b"".join(map(planes, numbers)), dtype=np.uint8).reshape(-1, SIDE * SIDE * 3)
        return {"": pickle.dumps({b"data": rows, b"labels": [1] * len(rows)}, protocol=2)}
    contents = {
        "raw": lambda number: PIXELS[number].tobytes(),
        "cifar-binary": lambda number: b"\1" + planes(number),
        "tiny-images": lambda number: to_column_major(PIXELS[number : number + 1]),
    }
    return {".bin": b"".join(map(contents[format_name], numbers))}


class Stores:
    """Places that a corpus can be moved to; each is put into a new folder."""

    def __init__(self, folder: Path, http: Server, s3: Any, hdfs: Server) -> None:
        self._folder, self._http, self._s3, self._hdfs = folder, http, s3, hdfs
        self._numbers = itertools.count()

    def put(self, where: str, files: dict[str, bytes]) -> SourceFiles:
        folder = f"corpus-{next(self._numbers)}"
        for name, content in files.items():
            if where == "here":
                path = self._folder / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            elif where == "s3":
                self._s3.put_object(Bucket="sets", Key=f"{folder}/{name}", Body=content)
            else:
                {"http": self._http, "hdfs": self._hdfs}[where].content[f"/{folder}/{name}"] = content
        return {
            "here": lambda: SourceFiles(str(self._folder / folder)),
            "http": lambda: SourceFiles(f"{self._http.url}/{folder}/"),
            "s3": lambda: SourceFiles(f"s3://sets/{folder}", s3_options(self._s3)),
            "hdfs": lambda: SourceFiles(f"hdfs:///{folder}", webhdfs_url=self._hdfs.url, hdfs_user="someone"),
        }[where]()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with serving(Server()) as http, serving_s3() as s3, serving(Server(NameNode)) as hdfs:
        s3.create_bucket(Bucket="sets")
        yield Stores(tmp_path_factory.mktemp("stores"), http, s3, hdfs)


def read(files: SourceFiles, format_name: str) -> tuple[np.ndarray, dict[int, str], list[bytes]]:
    fields = {"source": files.source, "format": format_name}
    if format_name in ("folder", "parquet", "webdataset", "raw"):
        fields |= {"height": SIDE, "width": SIDE}
    definition = make_definition("any", fields)
    listing = MemoryListing(list_items(files, definition))
    with closing(open_reader(definition, files, listing)) as reader:
        batches = list(reader.batches(0, listing.images))
    assert sum(batch.images for batch in batches) == listing.images
    unreadable = {position: reason for batch in batches for position, reason in batch.unreadable.items()}
    pixels = np.concatenate([np.zeros((0, SIDE, SIDE, 3), np.uint8), *(batch.pixels for batch in batches)])
    return pixels, unreadable, [image for batch in batches for image in batch.encoded]


FORMATS = ["folder", "webdataset", "parquet", "raw", "cifar-binary", "cifar-pickle", "tiny-images"]


@pytest.mark.parametrize("where", ["here", "http", "s3", "hdfs"])
@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=6, deadline=None)
@given(st.data())
def test_a_corpus_in_another_order_split_compressed_and_moved_has_the_same_images(format_name, where, stores, data):
    order = data.draw(st.permutations(range(IMAGES)))
    cuts = sorted(data.draw(st.sets(st.integers(1, IMAGES - 1), max_size=4)))
    parts = [order[start:stop] for start, stop in zip([0, *cuts], [*cuts, IMAGES], strict=True)]
    way = data.draw(st.sampled_from(WAYS.get(format_name, [""])))
    files = {
        f"data_batch_{place + 1}{ending}": content
        for place, numbers in enumerate(parts)
        for ending, content in files_of(format_name, numbers, way).items()
    }
    pixels, unreadable, encoded = read(stores.put(where, files), format_name)
    assert not unreadable
    np.testing.assert_array_equal(pixels, PIXELS[list(order)])
    assert not encoded or encoded == [PICTURES[number] for number in order]


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Overwrite, insert, leave out and repeat some bytes, and cut."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(found) - 1, 0)) | st.integers(0, 600)) % max(len(found), 1)
        length = draw(st.integers(1, 4) | st.integers(1, 600))
        change = draw(st.sampled_from(["overwrite", "insert", "leave out", "repeat", "cut"]))
        if change == "overwrite":
            new = draw(st.binary(min_size=1, max_size=8))
            found[at : at + len(new)] = new
        elif change == "insert":
            found[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif change == "leave out":
            del found[at : at + length]
        elif change == "repeat":
            found[at:at] = found[at : at + length]
        else:
            del found[at:]
    return bytes(found)


SEEDS = {
    "JPEG": picture(PIXELS[0], "JPEG"),
    "progressive": picture(PIXELS[1], "JPEG", progressive=True, xmp=b"<x tiff:Orientation='6'/>"),
    "PNG": PICTURES[0],
    "PNG of few bits": picture(PIXELS[2] // 64 * 64, "PNG", icc_profile=bytes(3_000)),
    "WebP": picture(PIXELS[3], "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=60, deadline=5_000)
@given(st.data())
def test_any_bytes_are_a_picture_or_unreadable_with_one_line(seed, data):
    try:
        assert prepare_picture(data.draw(damaged(SEEDS[seed])), 8, 8).shape == (8, 8, 3)
    except BadInputError as error:
        assert "\n" not in str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("format_name", "way"),
    [("webdataset", ""), ("webdataset", "gz"), ("webdataset", "zst"), ("parquet", "none"), ("parquet", "zstd")]
    + [(name, "") for name in ("folder", "raw", "cifar-binary", "cifar-pickle", "tiny-images")],
)
@settings(max_examples=40, deadline=5_000)
@given(st.data())
def test_any_bytes_are_a_corpus_or_an_error_that_names_the_file(format_name, way, data):
    (ending, content), *_ = files_of(format_name, range(4), way).items()
    name = f"data_batch_1{ending.replace('/', '-')}"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(data.draw(damaged(content)))
        try:
            read(SourceFiles(folder), format_name)
        except BadInputError as error:
            assert folder in str(error)
            assert "\n" not in str(error)
