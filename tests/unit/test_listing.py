"""Listings: the positions of a source's files, read in parts however many there are."""

import errno
import itertools
import tempfile
import weakref
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_storage import FaultyStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.corpus import listing as listing_module
from tinytags_tasks.corpus.listing import ListingFile, MemoryListing, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.store.local import LocalStorage

PATH = "source.parquet"

items_of_any_size = st.lists(
    st.builds(
        ListedItem,
        path=st.sampled_from(["a", "b", "größe/c.jpg"]),
        images=st.integers(0, 5),
        offset=st.integers(0, 2**40),
        size_bytes=st.integers(0, 2**40),
        version=st.text(max_size=5),
        keyword=st.none() | st.text(max_size=5),
    ),
    max_size=40,
)


@pytest.fixture
def small_groups(monkeypatch):
    """Limit row groups to three rows."""
    monkeypatch.setattr(listing_module, "_ROWS_PER_GROUP", 3)


def item(number, images=1, **fields):
    return ListedItem(f"{number:04d}.jpg", images, **{"offset": 0, "size_bytes": 10, "version": "v", **fields})


def store(storage, items):
    """Write a listing into the store and open it."""
    file = ListingFile(items)
    storage.write(PATH, file.content())
    file.close()
    return open_listing(storage, PATH)


def with_positions(items):
    """Return items with the position of their first image, by counting."""
    firsts = itertools.accumulate((item.images for item in items), initial=0)
    return list(zip(firsts, items, strict=False))


# Reading in parts


@settings(deadline=None, max_examples=60)
@given(items=items_of_any_size, first=st.integers(0, 90), images=st.integers(0, 90), group=st.integers(1, 9))
def test_items_of_a_range_are_those_that_hold_one_of_its_positions(tmp_path_factory, items, first, images, group):
    expected = [
        (start, item)
        for start, item in with_positions(items)
        if set(range(start, start + item.images)) & set(range(first, first + images))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_module, "_ROWS_PER_GROUP", group)
        stored = store(LocalStorage(tmp_path_factory.mktemp("store")), items)
    assert list(stored.items(first, images)) == expected
    assert list(MemoryListing(items).items(first, images)) == expected


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 6, 7])
def test_rows_at_the_bounds_of_groups_are_all_there(storage, small_groups, rows):
    items = [item(number, images=2) for number in range(rows)]
    stored = store(storage, items)
    assert list(stored.items(0, 100)) == with_positions(items)
    assert [list(stored.items(2 * at + 1, 1)) for at in range(rows)] == [[pair] for pair in with_positions(items)]


def test_files_without_images_are_counted_and_hashed_but_hold_no_position(storage):
    empty, full = item(0, 0, size_bytes=0), item(1, 3)
    for items in ([empty, full], [full, empty], [empty, full, empty]):
        file = ListingFile(items)
        summary = file.summary
        file.close()
        assert (summary.files, summary.images, summary.size_bytes) == (len(items), 3, 10)
        assert (summary.first_path, summary.last_path) == ("0001.jpg", "0001.jpg")
        assert list(store(storage, items).items(0, 10)) == [(0, full)]
        assert list(MemoryListing(items).items(0, 10)) == [(0, full)]
    hashes = {summary_of(items).sha256 for items in ([empty, full], [full, empty], [full], [empty])}
    assert len(hashes) == 4


def summary_of(items):
    file = ListingFile(items)
    file.close()
    return file.summary


@pytest.mark.parametrize("first", [0, 2, 5, 9])
def test_no_images_are_in_no_item(storage, first):
    items = [item(0, 5)]
    assert list(store(storage, items).items(first, 0)) == []
    assert list(MemoryListing(items).items(first, 0)) == []


def test_neighbours_in_one_file_are_one_file():
    items = [item(0, offset=0), item(0, offset=10), item(1), item(1), item(2)]
    summary = summary_of(items)
    assert (summary.files, summary.images, summary.size_bytes) == (3, 5, 50)
    assert (summary.first_path, summary.last_path) == ("0000.jpg", "0002.jpg")


def test_an_empty_source_has_an_empty_listing(storage):
    summary = summary_of([])
    assert (summary.files, summary.images, summary.first_path, summary.last_path) == (0, 0, "", "")
    assert list(store(storage, []).items(0, 10)) == []


@pytest.mark.parametrize(
    "change", [{"path": "x"}, {"images": 2}, {"offset": 1}, {"size_bytes": 11}, {"version": "w"}, {"keyword": "k"}]
)
def test_whatever_changes_in_an_item_changes_the_hash(change):
    fields = {"path": "0001.jpg", "images": 1, "offset": 0, "size_bytes": 10, "version": "v", "keyword": None}
    assert summary_of([item(0), item(1)]).sha256 == summary_of([item(0), ListedItem(**fields)]).sha256
    assert summary_of([item(0), item(1)]).sha256 != summary_of([item(0), ListedItem(**{**fields, **change})]).sha256


@settings(deadline=None, max_examples=60)
@given(items=items_of_any_size, positions=st.lists(st.integers(-3, 90)), group=st.integers(1, 9))
def test_each_position_is_found_in_its_item(tmp_path_factory, items, positions, group):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_module, "_ROWS_PER_GROUP", group)
        stored = store(LocalStorage(tmp_path_factory.mktemp("store")), items)
    expected = {
        position: (start, item)
        for start, item in with_positions(items)
        for position in positions
        if start <= position < start + item.images
    }
    assert stored.find(positions) == expected == stored.find(positions)


def test_names_of_members_are_kept_and_change_no_identity(storage):
    items = [item(0, member="cats/a.jpg"), item(0, offset=10, member="ü.png")]
    assert [found for _, found in store(storage, items).items(0, 2)] == items
    assert summary_of(items).sha256 == summary_of([item(0), item(0, offset=10)]).sha256


# Flat


class CountingStorage(FaultyStorage):
    """Counts the bytes that are read."""

    def __init__(self, inner):
        super().__init__(inner, 0)
        self.bytes = 0

    def read(self, path, offset=0, length=None):
        content = self.inner.read(path, offset, length)
        self.bytes += len(content)
        return content


def test_a_part_is_read_without_the_rest(storage, monkeypatch):
    monkeypatch.setattr(listing_module, "_ROWS_PER_GROUP", 2_000)
    counting = CountingStorage(storage)
    stored = store(counting, (item(number, version=f"{number * 7_919:x}") for number in range(60_000)))
    counting.bytes = 0
    found = list(stored.items(31_990, 20))
    assert [start for start, _ in found] == list(range(31_990, 32_010))
    assert 0 < counting.bytes < storage.size_bytes(PATH) / 10


def test_items_are_not_kept_while_a_listing_is_written(small_groups):
    alive = weakref.WeakSet()
    most = 0

    def items():
        nonlocal most
        for number in range(200):
            made = item(number)
            alive.add(made)
            yield made
            del made
            most = max(most, len(alive))

    assert summary_of(items()).images == 200
    assert most <= 3


def test_content_is_sent_in_pieces_and_may_be_sent_again(storage, monkeypatch):
    monkeypatch.setattr(listing_module, "_UPLOAD_BYTES", 100)
    file = ListingFile([item(number) for number in range(50)])
    pieces = list(file.content())
    assert len(pieces) > 5
    assert max(map(len, pieces)) == 100
    assert b"".join(file.content()) == b"".join(pieces)
    file.close()


# What can be wrong


def test_a_listing_that_is_not_there_is_missing(storage):
    with pytest.raises(MissingError, match=r"source\.parquet: no such file in the store"):
        open_listing(storage, PATH)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", bytes(10_000)])
def test_what_is_no_listing_is_corrupt(storage, content):
    storage.write(PATH, content)
    with pytest.raises(CorruptError, match=r"source\.parquet: damaged .* ingest it again"):
        open_listing(storage, PATH)


def test_a_listing_cut_short_is_corrupt(storage):
    store(storage, [item(number) for number in range(100)])
    content = storage.read(PATH)
    for length in range(0, len(content), 97):
        storage.write(PATH, content[:length])
        with pytest.raises(CorruptError, match=r"source\.parquet: damaged"):
            open_listing(storage, PATH)


def test_a_changed_byte_never_gives_other_items(storage, small_groups):
    items = [item(number, keyword="word" * number) for number in range(8)]
    store(storage, items)
    content = storage.read(PATH)
    refused = 0
    for at in range(0, len(content), 11):
        storage.write(PATH, content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            found = list(open_listing(storage, PATH).items(0, 100))
        except CorruptError as error:
            assert str(error).startswith("source.parquet: damaged")
            refused += 1
        else:
            assert found == with_positions(items)
    assert refused > len(content) / 11 / 4


@pytest.mark.parametrize("columns", [{"image": [1]}, {"first": [0], "path": ["a"]}])
def test_another_parquet_file_is_no_listing(storage, columns, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "other")
    storage.write(PATH, (tmp_path / "other").read_bytes())
    with pytest.raises(CorruptError, match=rf"damaged \(it has the columns {', '.join(columns)}\)"):
        open_listing(storage, PATH)


@pytest.mark.parametrize("reads", [1, 2])
def test_a_store_that_is_away_is_no_damage(storage, reads):
    store(storage, [item(0)])
    count = iter(range(1, 100))

    class Away(FaultyStorage):
        def read(self, path, offset=0, length=None):
            if next(count) == reads:
                raise TransientError("the store is away")
            return super().read(path, offset, length)

    with pytest.raises(TransientError, match="the store is away"):
        list(open_listing(Away(storage, 0), PATH).items(0, 1))


def test_an_error_of_the_source_passes_and_leaves_no_temporary_file(monkeypatch):
    opened = []
    genuine = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: opened.append(genuine()) or opened[-1])

    def items():
        yield item(0)
        raise BadInputError("0001.jpg: cannot be read")

    with pytest.raises(BadInputError, match="0001"):
        ListingFile(items())
    assert [file.closed for file in opened] == [True]


def test_a_machine_without_room_for_it_is_told_where(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        with pytest.raises(FinalError, match=r"cannot be written there \(No space left on device\); free some space"):
            ListingFile([item(0)])
    writer = SimpleNamespace(write_table=full, close=full)
    monkeypatch.setattr(listing_module.pq, "ParquetWriter", lambda *_, **__: writer)
    with pytest.raises(FinalError, match=r"No space left on device\); free some space, or set TMPDIR"):
        ListingFile([item(0)])
