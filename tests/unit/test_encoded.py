"""Folders and WebDataset's tars: which images they hold, in which order, and what is refused."""

import io
import os
import tarfile
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats import encoded as encoded_module
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE = 8


def picture(number: int, side: int = SIDE) -> np.ndarray:
    """Return a picture that encodes its number, with a red upper left corner."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[0, 0] = 255, 0, 0
    return pixels


def png(number: int, side: int = SIDE) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture(number, side)).save(sink, "PNG")
    return sink.getvalue()


def definition(source, format_name, **fields):
    return make_definition(
        "birds", {"source": str(source), "format": format_name, "height": SIDE, "width": SIDE, **fields}
    )


def listed(source, format_name, **fields):
    return list(list_items(SourceFiles(str(source)), definition(source, format_name, **fields)))


def read(source, format_name, items, first=0, images=None, *, decode=True, **fields):
    """Return a reader's batches, joined to one list per attribute."""
    images = len(items) - first if images is None else images
    with closing(
        open_reader(definition(source, format_name, **fields), SourceFiles(str(source)), MemoryListing(items))
    ) as reader:
        batches = list(reader.batches(first, images, decode=decode))
    assert [batch.first for batch in batches] == (first + np.cumsum([0] + [b.images for b in batches])[:-1]).tolist()
    assert sum(batch.images for batch in batches) == images
    pixels = np.concatenate([batch.pixels for batch in batches]) if decode else [batch.pixels for batch in batches]
    unreadable = {position: reason for batch in batches for position, reason in batch.unreadable.items()}
    return (
        pixels,
        unreadable,
        [word for batch in batches for word in batch.keywords],
        [image for batch in batches for image in batch.encoded],
    )


@pytest.fixture
def folder(tmp_path):
    """Thirteen pictures in folders, among other files."""
    root = tmp_path / "birds"
    names = [
        f"{kind}/{number}.{'PNG' if number % 2 else 'png'}"
        for kind in ("duck", "gull", "gull/young")
        for number in range(4)
    ]
    for number, name in enumerate(sorted([*names, "owl.png"], key=lambda name: name.split("/"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    (root / "gull" / "readme.txt").write_text("gulls")
    (root / ".hidden.png").write_bytes(b"no bird")
    return root


@pytest.fixture
def write_tar(tmp_path):
    def write(members, name="birds.tar", **options):
        path = tmp_path / name
        with tarfile.open(path, "w", **options) as tar:
            for member, content in members:
                described = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
                described.size = len(content)
                tar.addfile(described, io.BytesIO(content))
        return path

    return write


def samples(numbers, ending="png"):
    return [
        member
        for number in numbers
        for member in ((f"{number:04d}.{ending}", png(number)), (f"{number:04d}.cls", b" %d\n" % number))
    ]


def test_a_folder_is_read_in_the_order_of_its_names(folder):
    items = listed(folder, "folder", keywords="folder")
    pixels, unreadable, keywords, encoded = read(folder, "folder", items, keywords="folder")
    assert len(items) == 13
    assert unreadable == {}
    assert encoded == [png(number) for number in range(13)]
    np.testing.assert_array_equal(pixels, np.stack([picture(number) for number in range(13)]))
    assert keywords == ["duck"] * 4 + ["gull"] * 8 + [None]


def test_keywords_are_left_out_unless_they_are_asked_for(folder):
    items = listed(folder, "folder")
    assert {item.keyword for item in items} == {None}
    assert read(folder, "folder", items)[2] == []


@pytest.mark.parametrize("name", ["photo.jpg", "photo.JPEG", "photo.webp"])
def test_every_usual_ending_is_a_picture(tmp_path, name):
    Image.fromarray(picture(1)).save(tmp_path / name)
    assert [item.path for item in listed(tmp_path, "folder")] == [name]
    assert read(tmp_path, "folder", listed(tmp_path, "folder"))[1] == {}


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(BadInputError, match=r"holds no picture, no file that ends in \.jpg"):
        listed(tmp_path, "folder")


def test_what_is_no_picture_keeps_its_position_and_is_black(folder):
    (folder / "gull" / "1.PNG").write_bytes(b"")
    (folder / "gull" / "3.PNG").write_bytes(png(1)[:90])
    pixels, unreadable, _, encoded = read(folder, "folder", listed(folder, "folder"))
    assert sorted(unreadable) == [5, 7]
    assert unreadable[5] == "not a picture: 0 bytes"
    assert encoded[7] == png(1)[:90]
    assert not pixels[[5, 7]].any()
    np.testing.assert_array_equal(pixels[6], picture(6))


def test_without_decoding_only_the_stored_bytes_are_given(folder, monkeypatch):
    monkeypatch.setattr(encoded_module.PictureDecoder, "decode_batches", None)
    (folder / "duck" / "0.png").write_bytes(b"no bird")
    pixels, unreadable, _, encoded = read(folder, "folder", listed(folder, "folder"), decode=False)
    assert pixels == [None]
    assert unreadable == {}
    assert encoded == [b"no bird"] + [png(number) for number in range(1, 13)]


def test_a_file_that_vanished_after_it_was_listed_is_an_error(folder):
    items = listed(folder, "folder")
    (folder / "gull" / "2.png").unlink()
    with pytest.raises(BadInputError, match=r"gull/2\.png: no such file"):
        read(folder, "folder", items)


@pytest.mark.parametrize("content", [b"", png(77)])
def test_a_file_that_changed_after_it_was_listed_is_an_error(folder, content):
    items = listed(folder, "folder")
    changed = folder / "gull" / "2.png"
    changed.write_bytes(content)
    os.utime(changed, ns=(1, 1))
    with pytest.raises(BadInputError, match=r"gull/2\.png: has changed since it was listed"):
        read(folder, "folder", items)


def test_a_file_larger_than_any_picture_is_not_read(folder, monkeypatch):
    items = listed(folder, "folder")
    largest = items[0].size_bytes + 20
    monkeypatch.setattr(encoded_module, "MOST_PICTURE_BYTES", largest)
    with (folder / "gull" / "2.png").open("ab") as file:
        file.truncate(1_000_000)
    _, unreadable, _, encoded = read(folder, "folder", listed(folder, "folder"))
    assert unreadable == {6: f"1,000,000 bytes are more than {largest}: not read"}
    assert encoded[6] == b""


def test_batches_end_at_a_number_of_images_and_at_a_number_of_bytes(folder, monkeypatch):
    items = listed(folder, "folder")
    monkeypatch.setattr(encoded_module, "MOST_BATCH_BYTES", 3 * max(item.size_bytes for item in items))
    reader = open_reader(definition(folder, "folder"), SourceFiles(str(folder)), MemoryListing(items))
    with closing(reader):
        assert [batch.images for batch in reader.batches(0, 13, decode=False)] == [3, 3, 3, 3, 1]
        monkeypatch.setattr(type(reader._decoder), "most_batch_images", 2)
        assert [batch.images for batch in reader.batches(4, 5, decode=False)] == [2, 2, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("format_name", ["folder", "webdataset"])
def test_any_positions_are_those_images(format_name, tmp_path, data):
    source = tmp_path / format_name
    if not source.exists():
        source.mkdir()
        for first in range(0, 40, 10):
            if format_name == "folder":
                for number in range(first, first + 10):
                    (source / f"{number:04d}.png").write_bytes(png(number))
            else:
                with tarfile.open(source / f"{first:02d}.tar", "w") as tar:
                    for name, content in samples(range(first, first + 10)):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    first = data.draw(st.integers(0, 39))
    images = data.draw(st.integers(1, 40 - first))
    items = listed(source, format_name)
    pixels, unreadable, _, encoded = read(source, format_name, items, first, images)
    assert encoded == [png(number) for number in range(first, first + images)]
    np.testing.assert_array_equal(pixels, np.stack([picture(number) for number in range(first, first + images)]))
    assert unreadable == {}


def test_a_tar_is_read_in_the_order_of_its_samples(write_tar):
    order = [7, 3, 5, 1]
    tar = write_tar(samples(order))
    items = listed(tar, "webdataset", keywords="cls")
    content = tar.read_bytes()
    assert [content[item.offset : item.offset + item.size_bytes] for item in items] == [png(number) for number in order]
    pixels, unreadable, keywords, encoded = read(tar, "webdataset", items, keywords="cls")
    np.testing.assert_array_equal(pixels, np.stack([picture(number) for number in order]))
    assert (unreadable, keywords) == ({}, ["7", "3", "5", "1"])
    assert encoded == [png(number) for number in order]


def test_members_of_one_sample_may_come_in_any_order(write_tar):
    tar = write_tar([("a.cls", b"duck"), ("a.json", b"{}"), ("a.png", png(1)), ("b.png", png(2)), ("b.cls", b"gull")])
    items = listed(tar, "webdataset", keywords=".CLS")
    assert [item.keyword for item in items] == ["duck", "gull"]
    assert read(tar, "webdataset", items)[3] == [png(1), png(2)]


@pytest.mark.parametrize("options", [{"format": tarfile.PAX_FORMAT}, {"format": tarfile.GNU_FORMAT}])
def test_long_and_foreign_names_are_read(write_tar, options):
    names = ["v" * 90 + "/" + "w" * 200 + ".png", "möwe/Ente.png", "dir.with.dots/c.PNG"]
    tar = write_tar([(name, png(number)) for number, name in enumerate(names)], **options)
    items = listed(tar, "webdataset")
    assert read(tar, "webdataset", items)[3] == [png(0), png(1), png(2)]


def test_what_belongs_to_no_sample_is_passed_over(write_tar):
    birds = tarfile.TarInfo("birds")
    birds.type = tarfile.DIRTYPE
    tar = write_tar(
        [(birds, b""), ("birds/._a.png", b"mac"), ("LICENSE", b"free"), ("birds/a.png", png(1)), ("__meta__", b"")]
    )
    assert [item.size_bytes for item in listed(tar, "webdataset")] == [len(png(1))]


def test_the_image_of_a_sample_is_the_one_with_the_plain_ending(write_tar):
    tar = write_tar([("a.seg.png", png(1)), ("a.png", png(2)), ("b.input.png", png(3))])
    assert read(tar, "webdataset", listed(tar, "webdataset"))[3] == [png(2), png(3)]


@pytest.mark.parametrize("second", ["a.jpg", "a.png"])
def test_two_images_in_a_sample_are_refused(write_tar, second):
    tar = write_tar([("a.png", png(1)), (second, png(2))])
    with pytest.raises(BadInputError, match=rf"birds\.tar: member '{second}' at offset 1,024 is a second image"):
        listed(tar, "webdataset")


def test_a_sample_without_an_image_keeps_its_position(write_tar):
    tar = write_tar([*samples([0, 1]), ("0002.cls", b"2"), *samples([3]), ("0004.png", b"")])
    items = listed(tar, "webdataset", keywords="cls")
    pixels, unreadable, keywords, _ = read(tar, "webdataset", items, keywords="cls")
    assert unreadable == dict.fromkeys([2, 4], "its sample has no image, or an empty one")
    assert keywords == ["0", "1", "2", "3", None]
    np.testing.assert_array_equal(pixels[3], picture(3))


def test_a_keyword_is_text_without_its_edges_and_not_endless(write_tar):
    tar = write_tar(
        [
            ("a.png", png(1)),
            ("a.txt", " Möwe\n".encode()),
            ("b.png", png(2)),
            ("b.txt", b"x" * 9_000),
            ("c.png", png(3)),
            ("c.txt", b"\n"),
        ]
    )
    assert [item.keyword for item in listed(tar, "webdataset", keywords="txt")] == ["Möwe", "x" * 1_000, None]


def test_keywords_that_no_sample_has_are_refused(write_tar):
    with pytest.raises(BadInputError, match="no sample has a member with the ending json; correct keywords"):
        listed(write_tar(samples([1])), "webdataset", keywords="json")


def test_several_tars_follow_each_other(write_tar, tmp_path):
    write_tar(samples(range(3)), "a.tar")
    write_tar([], "b.tar")
    write_tar(samples(range(3, 5)), "c.tar")
    items = listed(tmp_path, "webdataset")
    assert [item.path for item in items] == ["a.tar"] * 3 + ["c.tar"] * 2
    assert read(tmp_path, "webdataset", items)[3] == [png(number) for number in range(5)]
    assert len(listed(tmp_path / "*.tar", "webdataset")) == 5


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "birds/../../a.png"])
def test_a_name_that_leads_out_of_the_archive_is_refused(write_tar, name):
    tar = write_tar([*samples([1]), (name, png(1))])
    with pytest.raises(
        BadInputError, match=rf"birds\.tar: member '{name}' at offset 2,048 has a name outside of the archive"
    ):
        listed(tar, "webdataset")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.CHRTYPE, "neither a file nor a folder"),
        (tarfile.FIFOTYPE, "neither a file nor a folder"),
    ],
)
def test_devices_are_refused(write_tar, kind, said):
    member = tarfile.TarInfo("b.png")
    member.type, member.linkname = kind, "a.png"
    with pytest.raises(BadInputError, match=rf"birds\.tar: member 'b\.png' at offset 1,024 is {said}"):
        listed(write_tar([("a.png", png(1)), (member, b"")]), "webdataset")


def test_a_folder_without_tars_and_tars_without_images_are_refused(write_tar, tmp_path):
    with pytest.raises(BadInputError, match=r"contains no \.tar file"):
        listed(tmp_path, "webdataset")
    with pytest.raises(BadInputError, match="no sample in 1 tars has an image"):
        listed(write_tar([("a.txt", b"a")]), "webdataset")
    with pytest.raises(BadInputError, match="no sample in 1 tars has an image"):
        listed(write_tar([]), "webdataset")


def test_a_tar_cut_off_anywhere_is_refused(write_tar):
    tar = write_tar(samples([1, 2]))
    content = tar.read_bytes()
    end = len(content.rstrip(b"\0"))
    for stop in range(0, end, 100):
        tar.write_bytes(content[:stop])
        with pytest.raises(BadInputError, match=r"birds\.tar: (damaged at|ends at) offset|no sample"):
            listed(tar, "webdataset")


def test_a_tar_cut_off_between_members_is_refused(write_tar):
    tar = write_tar(samples([1, 2]))
    tar.write_bytes(tar.read_bytes()[:2_048])
    with pytest.raises(
        BadInputError, match=r"birds\.tar: ends at offset 2,048, after member '0001\.cls', without an end mark"
    ):
        listed(tar, "webdataset")


def test_a_damaged_header_is_refused_and_never_ends_the_archive_silently(write_tar):
    tar = write_tar(samples([1, 2]))
    content = bytearray(tar.read_bytes())
    for at in (0, 1_024, 2_048, 3_072):
        damaged = bytearray(content)
        damaged[at + 3] ^= 1
        tar.write_bytes(damaged)
        with pytest.raises(BadInputError, match=rf"birds\.tar: damaged at offset {at:,}, after "):
            listed(tar, "webdataset")


def test_tars_appended_to_each_other_are_refused(write_tar):
    tar = write_tar(samples([1]))
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(BadInputError, match=r"birds\.tar: continues after its end mark at offset 2,048"):
        listed(tar, "webdataset")


def test_a_tar_that_changed_before_it_was_read_is_an_error(write_tar):
    tar = write_tar(samples([1, 2]))
    items = listed(tar, "webdataset")
    os.utime(tar, ns=(1, 1))
    with pytest.raises(BadInputError, match=r"birds\.tar: has changed since it was listed"):
        read(tar, "webdataset", items)


def test_a_tar_that_changed_while_it_was_read_is_an_error(write_tar):
    tar = write_tar(samples([1, 2]))
    items = listed(tar, "webdataset")
    reader = open_reader(definition(tar, "webdataset"), SourceFiles(str(tar)), MemoryListing(items))
    with closing(reader):
        batches = reader.batches(0, 2, decode=False)
        assert next(batches).images == 2
        os.utime(tar, ns=(1, 1))
        with pytest.raises(BadInputError, match=r"birds\.tar: has changed since it was listed"):
            next(batches)


def test_neighbours_in_a_tar_are_read_at_once_and_far_ones_are_not(write_tar, monkeypatch):
    tar = write_tar([*samples([1, 2, 3]), ("0003.npy", bytes(100_000)), *samples([4, 5])])
    items = listed(tar, "webdataset")
    lengths = []
    whole = SourceFiles.read

    def spy(self, path, offset, length, version=None):
        lengths.append(length)
        return whole(self, path, offset, length, version)

    monkeypatch.setattr(SourceFiles, "read", spy)
    assert read(tar, "webdataset", items)[3] == [png(number) for number in range(1, 6)]
    assert len(lengths) == 1 + 2  # the first tells whether the tar is compressed
    assert sum(lengths) < 20_000


def test_pictures_of_another_size_are_made_the_corpus_size(tmp_path):
    Image.fromarray(np.repeat(np.repeat(picture(1), 4, axis=0), 4, axis=1)).save(tmp_path / "a.png")
    items = listed(tmp_path, "folder")
    np.testing.assert_array_equal(read(tmp_path, "folder", items)[0][0], picture(1))
    assert read(tmp_path, "folder", items, resize="none")[1] == {0: "32x32 and not 8x8"}


def test_files_behind_an_address_are_read_too():
    import fsspec

    memory = fsspec.filesystem("memory")
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in samples(range(6)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    memory.pipe("/encoded/tars/birds.tar", sink.getvalue())
    memory.pipe({f"/encoded/folder/{number}.png": png(number) for number in range(6)})
    for source, format_name in (("memory://encoded/tars", "webdataset"), ("memory://encoded/folder", "folder")):
        items = listed(source, format_name)
        assert read(source, format_name, items, 1, 4)[3] == [png(number) for number in range(1, 5)]
