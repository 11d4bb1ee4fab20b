"""CIFAR's pickles: Python 2's and Python 3's are read, and never executed."""

import os
import pickle
import struct
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats import cifar_pickle
from tinytags_tasks.corpus.formats.cifar_labels import cifar_label_names
from tinytags_tasks.corpus.formats.inert_pickle import array_numbers, load_inert
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError


def pictures(images: int, seed: int = 0) -> np.ndarray:
    """Return pictures with a red upper left corner, green upper right, blue lower left."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    pixels[:, 0, 0], pixels[:, 0, -1], pixels[:, -1, 0] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return pixels


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)


def python2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Write a batch as Python 2 and its numpy did, with cPickle's protocol 2: strings are bytes."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    raw = planes(pixels).tobytes()
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3_072) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85" + string(b"b") + b"\x87Rq\x05"
        b"(K\x01" + shape + b"cnumpy\ndtype\nq\x06" + string(b"u1") + b"K\x00K\x01\x87Rq\x07"
        b"(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}q\x01(" + string(b"data") + array + string(b"labels") + numbers + b"u."


@pytest.fixture
def folder(tmp_path):
    """CIFAR-10's folder with five, three and two images."""
    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for name, images in (("data_batch_1", 5), ("data_batch_2", 3), ("test_batch", 2)):
        (root / name).write_bytes(python2(pictures(images, images), [9 - number for number in range(images)]))
    names = [name.upper().encode() for name in CIFAR10_TAGS]
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names, b"num_vis": 3_072}, 2))
    (root / "readme.html").write_text("CIFAR")
    return root


def definition(source, **fields):
    return make_definition("cifar", {"source": str(source), "format": "cifar-pickle", **fields})


def listed(source, **fields):
    return list(list_items(SourceFiles(str(source)), definition(source, **fields)))


def read(source, first=0, images=None, *, decode=True, **fields):
    items = listed(source, **fields)
    images = sum(item.images for item in items) - first if images is None else images
    reader = open_reader(definition(source, **fields), SourceFiles(str(source)), MemoryListing(items))
    with closing(reader):
        batches = list(reader.batches(first, images, decode=decode))
    assert [batch.first for batch in batches] == (first + np.cumsum([0] + [b.images for b in batches])[:-1]).tolist()
    assert sum(batch.images for batch in batches) == images
    pixels = np.concatenate([batch.pixels for batch in batches]) if decode else [batch.pixels for batch in batches]
    assert not any(batch.encoded or batch.unreadable for batch in batches)
    return pixels, [word for batch in batches for word in batch.keywords]


def write(path: Path, record, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(record, protocol))
    return path


def test_what_python_2_wrote_is_read_with_every_corner_in_its_place(folder):
    pixels, keywords = read(folder, keywords="label")
    np.testing.assert_array_equal(pixels, np.concatenate([pictures(5, 5), pictures(3, 3), pictures(2, 2)]))
    assert pixels.flags.c_contiguous
    assert pixels[7, 0, 0].tolist() == [255, 0, 0]
    assert pixels[7, 0, -1].tolist() == [0, 255, 0]
    assert pixels[7, -1, 0].tolist() == [0, 0, 255]
    assert keywords[:5] == ["TRUCK", "SHIP", "HORSE", "FROG", "DOG"]
    assert keywords[5] == "TRUCK"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("keys", ["bytes", "text"])
def test_what_python_3_wrote_again_is_read_in_every_protocol(tmp_path, protocol, keys):
    record = {"data": planes(pictures(3)), "labels": [1, 0, 2], "filenames": ["a.png", "b.png", "c.png"]}
    if keys == "bytes":
        record = {name.encode(): value for name, value in record.items()}
    content = pickle.dumps(record, protocol)
    for written in (content, content.replace(b"numpy._core", b"numpy.core") if protocol < 4 else content):
        (tmp_path / "data_batch_1").write_bytes(written)
        pixels, keywords = read(tmp_path, keywords="label")
        np.testing.assert_array_equal(pixels, pictures(3))
        assert keywords == ["automobile", "airplane", "bird"]


@pytest.mark.parametrize("kind", ["u1", "<i4", ">i8"])
def test_labels_may_be_an_array(tmp_path, kind):
    record = {"data": planes(pictures(2)), "labels": np.array([3, 5], dtype=kind)}
    assert read(write(tmp_path / "data_batch_1", record), keywords="label")[1] == ["cat", "dog"]


def test_cifar_100_has_fine_and_coarse_labels(tmp_path):
    record = {b"data": planes(pictures(3)), b"fine_labels": [1, 0, 7], b"coarse_labels": [1, 1, 0]}
    write(tmp_path / "train", record, 2)
    assert read(tmp_path, keywords="label")[1] == ["1", "0", "7"]
    write(tmp_path / "meta", {b"fine_label_names": [b"duck", b"gull"], b"coarse_label_names": [b"fish", b"birds"]}, 2)
    assert read(tmp_path, keywords="label")[1] == ["gull", "duck", "7"]
    assert read(tmp_path, keywords="coarse_label")[1] == ["birds", "birds", "fish"]
    assert [item.path for item in listed(tmp_path)] == ["train"]


@pytest.mark.parametrize("label", [10, -1])
def test_a_label_that_cifar_10_does_not_have_is_an_error_and_no_keyword(tmp_path, label):
    source = write(tmp_path / "data_batch_1", {"data": planes(pictures(3)), "labels": [3, label, 0]})
    told = rf"data_batch_1: image 1 has the label {label} in labels, but labels are 0 to 9; correct the file"
    with pytest.raises(BadInputError, match=told):
        read(source, keywords="label")
    assert read(source)[1] == []


def test_without_keywords_labels_are_not_needed(tmp_path):
    source = write(tmp_path / "data_batch_1", {"data": planes(pictures(2))})
    assert read(source)[1] == []
    with pytest.raises(BadInputError, match="data_batch_1: has no labels or fine_labels; correct keywords"):
        read(source, keywords="label")


def test_without_decoding_no_pixels_are_given(folder):
    pixels, keywords = read(folder, decode=False, keywords="label")
    assert pixels == [None] * 3
    assert len(keywords) == 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(first=st.integers(0, 9), data=st.data(), batch=st.integers(1, 6))
def test_any_positions_are_those_images(folder, monkeypatch, first, data, batch):
    monkeypatch.setattr(cifar_pickle, "_BATCH", batch)
    images = data.draw(st.integers(1, 10 - first))
    everything = np.concatenate([pictures(5, 5), pictures(3, 3), pictures(2, 2)])
    names = [CIFAR10_TAGS[9 - number].upper() for size in (5, 3, 2) for number in range(size)]
    pixels, keywords = read(folder, first, images, keywords="label")
    np.testing.assert_array_equal(pixels, everything[first : first + images])
    assert keywords == names[first : first + images]


def test_one_file_and_a_pattern_are_taken_too(folder, tmp_path):
    assert [item.path for item in listed(folder / "data_batch_*")] == ["data_batch_1", "data_batch_2"]
    assert listed(folder / "test_batch")[0].images == 2
    assert read(folder / "test_batch", keywords="label")[1] == ["TRUCK", "SHIP"]
    copy = tmp_path / "images.pkl"
    copy.write_bytes((folder / "test_batch").read_bytes())
    assert listed(copy)[0].images == 2
    assert listed(tmp_path)[0].path == "cifar-10-batches-py/data_batch_1"


def test_a_folder_without_cifars_files_is_refused(tmp_path):
    for name in ("readme.html", "images.pkl"):
        (tmp_path / name).write_text("CIFAR")
    with pytest.raises(BadInputError, match="holds no data_batch_1, test_batch, train or test"):
        listed(tmp_path)


class Runs:
    """Runs code if it is unpickled in the usual way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, protocol):
    ran = tmp_path / "ran"
    record = {"data": planes(pictures(1)), "labels": [0], "more": Runs(ran)}
    source = write(tmp_path / "data_batch_1", record, protocol)
    with pytest.raises(BadInputError, match=r"data_batch_1: this pickle asks for posix\.mkdir.*it was not read; write"):
        listed(source)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("opcodes", "said"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"asks for os\.system"),
        (b"(S'true'\nios\nsystem\n.", r"asks for os\.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", r"asks for __builtin__\.eval"),
        (b"cbuiltins\ngetattr\n.", r"asks for builtins\.getattr"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0dload.__call__\x93.", r"asks for numpy\.load\.__call__"),
        (b"cnumpy.core.multiarray\nscalar\n.", r"asks for numpy\.core\.multiarray\.scalar"),
        (b"ccopy_reg\n_reconstructor\n.", r"asks for copy_reg\._reconstructor"),
        (b"cnumpy\ndtype\n(S'O'\ntR(N}S'name'\nI5\nstb.", "not an array of integers|is not a numpy array"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}S'__call__'\nI5\nsb.", "changes a function that it may only call"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(N}S'__call__'\nI5\nstb.", "changes a function that it may only call"),
        (b"cnumpy\nndarray\n(tR.", "not callable"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "not a readable pickle"),
        (b"c_codecs\nencode\n(V__import__\nS'rot13'\ntR.", "encodes something other than bytes"),
        (b"Pplace\n.", "not a readable pickle"),
        (b"\x80\x02\x82\x01.", "not a readable pickle"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", r"not a readable pickle.*value 2,147,483,647 of"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "not a readable pickle"),
        (b"\x80\x05\x97.", "not a readable pickle"),
        (b"", "not a readable pickle"),
        (b"]" * 90_000, "not a readable pickle"),
        (b"N.", "data is not a numpy array"),
        (b"(lp0\n.", "data is not a numpy array"),
    ],
)
def test_nothing_that_a_pickle_may_try_gets_past(tmp_path, opcodes, said):
    source = tmp_path / "data_batch_1"
    source.write_bytes(opcodes)
    with pytest.raises(BadInputError, match=f"data_batch_1: .*({said})") as refused:
        listed(source)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3_072), dtype=np.float32), "is not an array of integers"),
        (np.array([["a"]], dtype=object), "is not an array of integers"),
        (np.zeros((2, 3_072), dtype=np.uint8, order="F"), "is column-major"),
        (np.zeros((2, 3_071), dtype=np.uint8), r" is uint8 of the shape \(2, 3071\)"),
        (np.zeros(3_072, dtype=np.uint8), r" is uint8 of the shape \(3072,\)"),
        (np.zeros((2, 3_072), dtype=np.int16), r" is int16 of the shape \(2, 3072\)"),
        (np.zeros((2, 3, 32, 32), dtype=np.uint8), "not one or two lengths"),
        ([0] * 3_072, "is not a numpy array"),
    ],
)
def test_an_array_of_another_kind_is_refused(tmp_path, array, said):
    with pytest.raises(BadInputError, match=f"data_batch_1: data.*{said}"):
        listed(write(tmp_path / "data_batch_1", {"data": array}, 2))


@pytest.mark.parametrize("shape", [(2, 3_072), (3, 3_071), (-1, 3_072), (0, 1 << 62), ()])
def test_a_shape_that_its_bytes_do_not_fill_is_refused(shape):
    content = pickle.dumps(np.zeros((3, 3_072), dtype=np.uint8), 2)
    old = b"K\x03M\x00\x0c\x86"  # the tuple (3, 3072)
    assert old in content
    new = pickle.dumps(shape, 2)[2:-1].split(b"q\x00")[0]
    with pytest.raises(BadInputError, match="data has the shape"):
        array_numbers(load_inert(content.replace(old, new), "f"), "f: data")


@pytest.mark.parametrize("labels", [[1], [1, 2, 3], [1.5, 2], ["a", "b"], np.array([1, 2, 3]), 5, [True, False]])
def test_labels_that_are_not_one_number_an_image_are_refused(tmp_path, labels):
    source = write(tmp_path / "data_batch_1", {"data": planes(pictures(2)), "labels": labels})
    with pytest.raises(BadInputError, match=r"data_batch_1: (has 2 images and \d labels|labels is not a list)"):
        listed(source, keywords="label")


def test_no_images_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="its files contain no images"):
        listed(write(tmp_path / "data_batch_1", {"data": np.zeros((0, 3_072), dtype=np.uint8)}))


def test_a_file_too_large_for_a_pickle_of_cifar_is_not_read(folder):
    with (folder / "data_batch_1").open("r+b") as file:
        file.truncate(2_000_000_000)
    with pytest.raises(BadInputError, match=r"data_batch_1: 2,000,000,000 bytes are more than"):
        listed(folder)


def test_a_file_that_changed_after_it_was_listed_is_an_error(folder):
    items = listed(folder)
    os.utime(folder / "data_batch_2", ns=(1, 1))
    reader = open_reader(definition(folder), SourceFiles(str(folder)), MemoryListing(items))
    with closing(reader), pytest.raises(BadInputError, match=r"data_batch_2: has changed since it was listed"):
        list(reader.batches(0, 10))


@settings(deadline=None, max_examples=400)
@given(
    at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), protocol=st.integers(-1, pickle.HIGHEST_PROTOCOL)
)
def test_a_pickle_with_any_damaged_byte_is_read_or_refused(at, change, protocol):
    record = {b"data": planes(pictures(1))[:, :40], b"labels": [1, 300], b"filenames": [b"a.png", "b.png"]}
    content = bytearray(python2(pictures(1), [1]) if protocol < 0 else pickle.dumps(record, protocol))
    # Most of the first is pixels: damage there says nothing.
    content[int(at * len(content)) if protocol >= 0 else int(at * 190)] ^= change
    try:
        held = load_inert(bytes(content), "batch")
        if isinstance(held, dict) and b"data" in held:
            assert array_numbers(held[b"data"], "batch: data").dtype.kind in "ui"
    except BadInputError as error:
        assert str(error).startswith("batch")


@pytest.mark.parametrize("image_file", ["data_batch_1.bin", "test_batch"])
def test_cifar_10s_labels_have_their_names_without_any_file(tmp_path, image_file):
    (tmp_path / image_file).write_bytes(b"")
    assert cifar_label_names(SourceFiles(str(tmp_path)), "label") == CIFAR10_TAGS
    (tmp_path / "batches.meta.txt").write_text("plane\ncar\n\n")
    assert cifar_label_names(SourceFiles(str(tmp_path)), "label") == ("plane", "car")
    assert cifar_label_names(SourceFiles(str(tmp_path / image_file)), "label") == ("plane", "car")


def test_cifar_100s_labels_have_the_names_of_its_text_files(tmp_path):
    inside = tmp_path / "cifar-100-binary"
    inside.mkdir()
    (inside / "train.bin").write_bytes(b"")
    files = SourceFiles(str(tmp_path))
    assert cifar_label_names(files, "label") == ()
    (inside / "fine_label_names.txt").write_text("duck\ngull\n")
    (inside / "coarse_label_names.txt").write_text("birds\n")
    assert cifar_label_names(files, "label") == ("duck", "gull")
    assert cifar_label_names(files, "coarse_label") == ("birds",)


@pytest.mark.parametrize("content", [b"no pickle", pickle.dumps({"label_names": 5}), pickle.dumps([])])
def test_a_file_of_names_that_cannot_be_read_is_refused(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(b"")
    (tmp_path / "batches.meta").write_bytes(content)
    with pytest.raises(BadInputError, match=r"batches\.meta: (not a readable pickle|has no list label_names)"):
        cifar_label_names(SourceFiles(str(tmp_path)), "label")
