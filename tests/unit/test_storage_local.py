"""The local store fulfils the contract, and is opened from its address."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from storage_contract import StorageContract

from tinytags_tasks.errors import FinalError, LostWriteError, MissingError, TransientError
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import StoreAddress, temporary_name


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path):
        return LocalStorage(tmp_path / "store")

    def test_a_write_leaves_no_temporary_file_on_the_disk(self, storage):
        storage.write("folder/file", b"x")
        storage.write("folder/file", b"y", overwrite=False)
        assert [path.name for path in (storage.root / "folder").iterdir()] == ["file"]

    def test_free_bytes_are_those_of_the_disk_even_before_the_folder_is_made(self, storage, monkeypatch):
        asked = []
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or SimpleNamespace(free=7))
        assert not storage.root.exists()
        assert storage.free_bytes() == 7
        storage.write("folder/file", b"x")
        assert storage.free_bytes() == 7
        assert asked == [storage.root.parent, storage.root]

    def test_it_has_no_checksums(self, storage):
        storage.write("folder/file", b"x")
        assert storage.checksum("folder/file") == ""

    @pytest.mark.parametrize(
        ("call", "act"),
        [
            ("open", lambda storage: storage.read("folder/file")),
            ("stat", lambda storage: storage.size_bytes("folder/file")),
            ("rename", lambda storage: storage.rename("folder/file", "folder/new")),
            ("replace", lambda storage: storage.write("folder/file", b"y")),
            ("unlink", lambda storage: storage.delete("folder/file")),
            ("iterdir", lambda storage: storage.names("folder")),
        ],
    )
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (PermissionError(13, "Permission denied"), FinalError),
            (OSError(28, "No space left on device"), TransientError),
        ],
    )
    def test_an_error_of_the_system_is_one_of_ours(self, storage, monkeypatch, call, act, fault, error):
        storage.write("folder/file", b"x")

        def fail(*_, **__):
            raise fault

        with monkeypatch.context() as patch:
            patch.setattr(Path, call, fail)
            with pytest.raises(error, match="folder"):
                act(storage)

    def test_a_file_that_another_takes_away_meanwhile_is_missing_and_not_a_fault(self, storage, monkeypatch):
        storage.write("folder/file", b"x")
        genuine = Path.exists
        monkeypatch.setattr(Path, "exists", lambda path: genuine(path) or path.name == "file")
        storage.delete("folder/file")
        with pytest.raises(MissingError, match="folder/file"):
            storage.rename("folder/file", "folder/new")
        monkeypatch.setattr(storage, "names", lambda path: ["file"])
        assert storage.sizes("folder") == {}
        assert storage.delete("folder/file") is False

    def test_a_temporary_folder_is_deleted_whole_or_moved_whole(self, storage, monkeypatch):
        temporary, genuine, moved = temporary_name("folder/model"), shutil.rmtree, []

        def move_first(folder, *arguments, **options):
            with pytest.raises(LostWriteError, match="another writer deleted"):
                moved.append(storage.rename(temporary, "folder/model"))
            storage.make_folder(f"{temporary}/inner")
            genuine(folder, *arguments, **options)

        storage.make_folder(f"{temporary}/inner")
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", move_first)
            assert storage.delete(temporary) is True
        assert moved == []
        assert [path.name for path in (storage.root / "folder").iterdir()] == [temporary.rpartition("/")[2]]
        assert storage.delete(temporary) is True
        assert list((storage.root / "folder").iterdir()) == []

    def test_spark_finds_a_file_by_its_url(self, storage):
        assert storage.url("folder/file") == (storage.root / "folder" / "file").as_uri()


def test_an_address_without_an_hdfs_is_a_folder(tmp_path):
    open_store(StoreAddress(str(tmp_path))).write("file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x"
