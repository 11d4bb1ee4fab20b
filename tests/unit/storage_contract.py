"""What every storage must do, in terms of the ``Storage`` protocol only.

A test module inherits :class:`StorageContract` and overrides the ``storage`` fixture with an empty store.
"""

import os
import time
from pathlib import Path

import pytest

from tinytags_tasks.errors import CorruptError, LostWriteError, MissingError
from tinytags_tasks.store.protocol import Storage, temporary_name


class _WriterDiedError(Exception):
    """An exception that a source of chunks raises half-way."""


def _dying():
    yield b"half of "
    raise _WriterDiedError


class StorageContract:
    """The promises of ``tinytags_tasks.store.protocol.Storage``."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError("override this fixture with an empty store")

    # Reading

    def test_what_is_written_is_read(self, storage):
        assert storage.write("folder/deep/file.bin", bytes(range(256))) is True
        assert storage.read("folder/deep/file.bin") == bytes(range(256))
        assert storage.size_bytes("folder/deep/file.bin") == 256

    @pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 10), (3, 4), (9, 1), (4, None), (0, None)])
    def test_a_range_is_read_exactly(self, storage, offset, length):
        storage.write("folder/file", b"0123456789")
        stop = None if length is None else offset + length
        assert storage.read("folder/file", offset, length) == b"0123456789"[offset:stop]

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (8, 3), (10, 1), (11, 1), (1_000, 5)])
    def test_a_file_that_ends_before_the_range_does_is_corrupt(self, storage, offset, length):
        storage.write("folder/file", b"0123456789")
        with pytest.raises(CorruptError, match="folder/file"):
            storage.read("folder/file", offset, length)

    def test_a_file_that_is_not_there_is_missing(self, storage):
        with pytest.raises(MissingError, match="folder/none"):
            storage.read("folder/none")
        with pytest.raises(MissingError, match="folder/none"):
            storage.read("folder/none", 5, 5)
        with pytest.raises(MissingError, match="folder/none"):
            storage.size_bytes("folder/none")
        assert not storage.exists("folder/none")

    def test_a_folder_has_no_size(self, storage):
        storage.write("folder/deep/file", b"0123456789")
        with pytest.raises(MissingError, match="folder/deep: is a folder, not a file"):
            storage.size_bytes("folder/deep")

    def test_an_empty_file_is_a_file(self, storage):
        assert storage.write("folder/empty", b"") is True
        assert storage.exists("folder/empty")
        assert storage.size_bytes("folder/empty") == 0
        assert storage.read("folder/empty") == b""

    # What is known without reading a file

    def test_a_checksum_is_the_same_for_the_same_bytes_wherever_they_lie(self, storage):
        for path, content in {"a/one": b"same", "b/two": b"same", "b/three": b"other", "b/empty": b""}.items():
            storage.write(path, content)
        checksums = {path: storage.checksum(path) for path in ("a/one", "b/two", "b/three", "b/empty")}
        assert checksums["a/one"] == checksums["b/two"]
        if checksums["a/one"]:  # otherwise the store has none
            assert len(set(checksums.values())) == 3
        assert storage.read("a/one") == b"same"

    def test_a_checksum_follows_what_is_written(self, storage):
        storage.write("folder/file", b"first")
        before = storage.checksum("folder/file")
        storage.write("folder/file", b"second")
        after = storage.checksum("folder/file")
        assert before != after or before == ""
        storage.write("folder/file", b"first")
        assert storage.checksum("folder/file") == before

    def test_what_is_not_there_has_no_checksum(self, storage):
        with pytest.raises(MissingError, match="folder/none"):
            storage.checksum("folder/none")

    def test_free_bytes_are_told_before_anything_is_written_and_after(self, storage):
        before = storage.free_bytes()
        storage.write("folder/file", b"x")
        after = storage.free_bytes()
        assert (before is None) == (after is None)
        assert all(isinstance(free, int) and free >= 0 for free in (before, after) if free is not None)

    def test_sizes_are_told_by_name_without_folders_and_temporaries(self, storage):
        for name, size in {"b": 3, "a": 0, "ü c": 5_000}.items():
            storage.write(f"folder/{name}", bytes(size))
        storage.write(temporary_name("folder/d"), b"half")
        storage.write("folder/inner/file", b"x")
        assert storage.sizes("folder") == {"a": 0, "b": 3, "ü c": 5_000}

    def test_a_folder_that_is_not_there_has_no_sizes(self, storage):
        assert storage.sizes("none/such") == {}
        assert storage.versions("none/such") == {}

    def test_one_file_has_the_version_that_the_listing_says(self, storage):
        storage.write("folder/a", b"one")
        storage.write("folder/b", b"two")
        assert {name: storage.version(f"folder/{name}") for name in "ab"} == storage.versions("folder")
        assert storage.version("folder/none") == storage.version("none/such") == ""

    def test_a_folder_says_when_a_name_in_it_changed(self, storage):
        assert storage.changed_seconds("folder") == 0
        storage.write("folder/a", b"one")
        before = storage.changed_seconds("folder")
        assert abs(before - time.time()) < 600
        time.sleep(0.05)
        storage.write("folder/a", b"two")
        assert storage.changed_seconds("folder") > before
        assert storage.changed_seconds("folder/a") > before

    def test_a_file_that_is_written_again_has_another_version(self, storage):
        storage.write("folder/a", b"one")
        storage.write("folder/b", b"two")
        before = storage.versions("folder")
        storage.write("folder/a", b"eno")
        after = storage.versions("folder")
        assert after["a"] != before["a"]
        assert after["b"] == before["b"]

    # Writing

    def test_chunks_are_joined_and_empty_ones_do_no_harm(self, storage):
        storage.write("folder/file", iter([b"", b"one", b"", b"", b"two", b""]))
        assert storage.read("folder/file") == b"onetwo"

    @pytest.mark.parametrize("chunks", [[], [b""]])
    def test_no_chunks_make_an_empty_file(self, storage, chunks):
        storage.write("folder/file", iter(chunks))
        assert storage.read("folder/file") == b""

    def test_a_file_is_overwritten_whole(self, storage):
        storage.write("folder/file", b"a long first version")
        assert storage.write("folder/file", b"short") is True
        assert storage.read("folder/file") == b"short"
        assert storage.names("folder") == ["file"]

    def test_a_file_that_must_not_be_overwritten_is_left_as_it_was(self, storage):
        assert storage.write("folder/file", b"first", overwrite=False) is True
        assert storage.write("folder/file", b"second", overwrite=False) is False
        assert storage.read("folder/file") == b"first"
        assert storage.names("folder") == ["file"]

    def test_a_write_that_fails_half_way_leaves_nothing(self, storage):
        with pytest.raises(_WriterDiedError):
            storage.write("folder/file", _dying())
        assert not storage.exists("folder/file")
        assert storage.names("folder") == []

    def test_a_write_that_fails_half_way_leaves_the_old_file(self, storage):
        storage.write("folder/file", b"old")
        with pytest.raises(_WriterDiedError):
            storage.write("folder/file", _dying())
        assert storage.read("folder/file") == b"old"
        assert storage.names("folder") == ["file"]

    def test_a_write_whose_temporary_file_is_deleted_in_flight_is_made_again(self, storage, monkeypatch):
        deletions = self.delete_in_flight(storage, monkeypatch, times=2)
        assert storage.write("folder/file", b"content") is True
        assert storage.read("folder/file") == b"content"
        assert storage.write("folder/other", b"content", overwrite=False) is True
        assert len(deletions) == 2
        assert storage.leftovers("folder") == []

    def test_chunks_whose_temporary_file_is_deleted_in_flight_are_worth_a_retry(self, storage, monkeypatch):
        self.delete_in_flight(storage, monkeypatch, times=1)
        with pytest.raises(LostWriteError, match="folder/file: another writer deleted"):
            storage.write("folder/file", iter([b"con", b"tent"]))
        assert storage.write("folder/file", iter([b"con", b"tent"])) is True

    def test_a_write_whose_temporary_file_is_always_deleted_is_worth_a_retry(self, storage, monkeypatch):
        self.delete_in_flight(storage, monkeypatch, times=100)
        with pytest.raises(LostWriteError, match="folder/file: another writer deleted"):
            storage.write("folder/file", b"content")

    @staticmethod
    def delete_in_flight(storage, monkeypatch, times: int) -> list[str]:
        """Delete a write's temporary file, as another process would, whenever it is about to be renamed."""
        deletions: list[str] = []
        owner, name = (os, "link") if hasattr(storage, "root") else (storage, "_rename")
        renames = [(owner, name)] + ([(Path, "replace")] if owner is os else [])

        def watch(genuine):
            def rename(source, *arguments, **options):
                if len(deletions) < times:
                    deletions.append(str(source))
                    storage.delete_leftovers("folder/file", "folder/other")
                return genuine(source, *arguments, **options)

            return rename

        for owner, name in renames:
            monkeypatch.setattr(owner, name, watch(getattr(owner, name)))
        return deletions

    # Folders

    def test_a_folder_that_is_made_is_there_and_making_it_again_does_no_harm(self, storage):
        storage.make_folder("folder/deep/inner")
        storage.write("folder/deep/inner/file", b"x")
        storage.make_folder("folder/deep/inner")
        assert storage.names("folder/deep") == ["inner"]
        assert storage.names("folder/deep/inner") == ["file"]

    # Names

    def test_names_are_sorted_and_hide_temporaries(self, storage):
        for name in ("b", "c", "a"):
            storage.write(f"folder/{name}", b"x")
        storage.write(temporary_name("folder/d"), b"half")
        assert storage.names("folder") == ["a", "b", "c"]

    def test_names_hold_folders_too(self, storage):
        storage.write("folder/inner/file", b"x")
        assert storage.names("folder") == ["inner"]
        assert storage.exists("folder/inner")

    def test_a_folder_that_is_not_there_has_no_names(self, storage):
        assert storage.names("none/such") == []

    # Renaming

    def test_a_file_is_renamed_into_a_folder_that_was_not_there(self, storage):
        storage.write("folder/old", b"content")
        assert storage.rename("folder/old", "elsewhere/new") is True
        assert storage.read("elsewhere/new") == b"content"
        assert not storage.exists("folder/old")

    def test_a_folder_is_renamed_with_all_it_holds(self, storage):
        temporary = temporary_name("folder/model")
        storage.write(f"{temporary}/one", b"1")
        storage.write(f"{temporary}/two", b"2")
        assert storage.rename(temporary, "folder/model") is True
        assert storage.names("folder/model") == ["one", "two"]
        assert not storage.exists(temporary)

    def test_a_file_is_not_renamed_to_a_taken_name(self, storage):
        storage.write("folder/old", b"old")
        storage.write("folder/taken", b"taken")
        assert storage.rename("folder/old", "folder/taken") is False
        assert storage.read("folder/old") == b"old"
        assert storage.read("folder/taken") == b"taken"

    def test_a_folder_is_not_renamed_to_a_taken_name(self, storage):
        storage.write("folder/old/one", b"old")
        storage.write("folder/taken/two", b"taken")
        assert storage.rename("folder/old", "folder/taken") is False
        assert storage.names("folder/old") == ["one"]
        assert storage.names("folder/taken") == ["two"]

    def test_renaming_what_is_not_there_says_so(self, storage):
        storage.write("folder/file", b"x")
        with pytest.raises(MissingError, match="folder/none"):
            storage.rename("folder/none", "folder/new")

    def test_renaming_a_temporary_file_that_another_writer_deleted_is_worth_a_retry(self, storage):
        storage.write("folder/file", b"x")
        with pytest.raises(LostWriteError, match="folder/new: another writer deleted"):
            storage.rename(temporary_name("folder/new"), "folder/new")

    # Deleting

    def test_a_file_is_deleted_once(self, storage):
        storage.write("folder/file", b"x")
        storage.write("folder/other", b"x")
        assert storage.delete("folder/file") is True
        assert storage.delete("folder/file") is False
        assert storage.names("folder") == ["other"]

    def test_a_folder_is_deleted_with_all_it_holds(self, storage):
        storage.write("folder/inner/one", b"1")
        storage.write("folder/inner/deep/two", b"2")
        storage.write("folder/other", b"x")
        assert storage.delete("folder/inner") is True
        assert not storage.exists("folder/inner")
        assert not storage.exists("folder/inner/deep/two")
        assert storage.names("folder") == ["other"]

    def test_only_leftovers_of_the_named_files_are_deleted(self, storage):
        mine = [temporary_name("folder/a.json"), temporary_name("folder/a.json"), temporary_name("folder/b.json")]
        others = [
            temporary_name("folder/c.json"),
            temporary_name("folder/a.json.old"),
            temporary_name("folder/xa.json"),
        ]
        for path in (*mine, *others, "folder/a.json", "folder/c.json"):
            storage.write(path, b"x")
        assert storage.delete_leftovers("folder/a.json", "folder/b.json") == 3
        assert not any(storage.exists(path) for path in mine)
        assert all(storage.exists(path) for path in others)
        assert storage.names("folder") == ["a.json", "c.json"]
        assert storage.delete_leftovers("folder/a.json", "folder/b.json") == 0

    def test_leftovers_that_are_too_young_stay(self, storage):
        storage.write(temporary_name("folder/a.json"), b"x")
        assert storage.delete_leftovers("folder/a.json", least_age_seconds=600) == 0
        time.sleep(0.1)
        assert storage.delete_leftovers("folder/a.json", least_age_seconds=0.01) == 1

    def test_a_leftover_folder_is_deleted_with_all_it_holds(self, storage):
        storage.write(f"{temporary_name('folder/model')}/file", b"x")
        assert storage.delete_leftovers("folder/model") == 1
        assert storage.names("folder") == []

    def test_leftovers_are_found_in_all_folders_below_with_their_size_and_time(self, storage):
        file, deep, folder = (temporary_name(path) for path in ("runs/a.json", "runs/r/scored/b", "runs/model"))
        storage.write(file, b"abc")
        storage.write(deep, b"de")
        storage.write(f"{folder}/{temporary_name('inner')}", b"f")
        storage.write("runs/a.json", b"x")
        storage.write(temporary_name("other/c"), b"x")
        found = {leftover.path: leftover for leftover in storage.leftovers("runs")}
        assert {path: leftover.size_bytes for path, leftover in found.items()} == {file: 3, deep: 2, folder: 0}
        assert all(abs(leftover.changed - time.time()) < 600 for leftover in found.values())
        assert set(found) < {leftover.path for leftover in storage.leftovers("")}
        assert storage.leftovers("none/such") == []

    def test_a_folder_that_is_not_there_has_no_leftovers(self, storage):
        assert storage.delete_leftovers("none/such") == 0
