"""HDFS fulfils the contract of every storage."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from storage_contract import StorageContract

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.webhdfs import WebHdfs


class TestHdfs(StorageContract):
    @pytest.fixture
    def storage(self, hdfs: Runtime) -> HdfsStorage:
        return HdfsStorage(replace(hdfs.store_address, root=f"/contract-{uuid.uuid4().hex}"))


def test_an_hdfs_that_is_away_is_named_with_the_remedy(hdfs: Runtime) -> None:
    away = HdfsStorage(replace(hdfs.store_address, webhdfs_url="http://127.0.0.1:1"))
    with pytest.raises(EngineDownError, match=r"127\.0\.0\.1:1.*tinytags up"):
        away.read("anything")


NAMES = ("a b.bin", "50%.bin", "%41.bin", "a+b.bin", "a;b.bin", "k=v.bin", "é 猫.bin", "a#1?.bin", "a&b.bin")


def test_names_with_characters_of_addresses_are_written_listed_and_read(hdfs: Runtime) -> None:
    root = f"/names-{uuid.uuid4().hex}"
    storage = HdfsStorage(replace(hdfs.store_address, root=root))
    paths = [f"{folder}/{name}" for folder in ("a;b c+%", "label=cat") for name in NAMES]
    for path in paths:
        storage.write(path, path.encode())
    definition = make_definition("names", {"source": f"hdfs://{root}", "format": "raw"})
    files = hdfs.source_files(definition)
    assert sorted(file.path for file in files.files()) == sorted(paths)
    for path in paths:
        assert files.read(path, 0, files.current(path).size_bytes) == storage.read(path) == path.encode()
    storage.delete("")


def test_leftovers_are_found_although_hdfs_lists_a_folder_in_parts(hdfs: Runtime) -> None:
    root = f"/parts-{uuid.uuid4().hex}"
    storage = HdfsStorage(replace(hdfs.store_address, root=root))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storage.make_folder, (f"folder/.{number:04d}.json.x.tmp" for number in range(1_020))))
        list(pool.map(storage.make_folder, (f"folder/{number:04d}.json" for number in range(20))))
    client = WebHdfs(hdfs.store_address.webhdfs_url, root=root, user=hdfs.store_address.user)
    first = client.list_part("folder")
    assert (len(first.entries), first.is_more) == (1_000, True)
    second = client.list_part("folder", first.entries[-1][0])
    assert (len(second.entries), second.is_more) == (40, False)
    assert storage.delete_leftovers("folder/0000.json", "folder/1019.json") == 2
    assert len(storage.names("folder")) == 20
    storage.delete("")


@pytest.mark.parametrize("copies", [2, None])
def test_a_file_has_as_many_copies_as_set(hdfs: Runtime, copies: int | None) -> None:
    storage = HdfsStorage(replace(hdfs.store_address, root=f"/copies-{uuid.uuid4().hex}", replication=copies))
    storage.write("file", b"content")
    assert storage._client.status("file")["replication"] == (copies or 1)
    storage.delete("")


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_rename_that_was_made_is_found_although_it_is_asked_for_again(
    hdfs: Runtime, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """The second NameNode of a pair is asked again when the first one's answer was lost."""
    storage = HdfsStorage(replace(hdfs.store_address, root=f"/twice-{uuid.uuid4().hex}"))
    genuine = storage._rename

    def rename_twice(source: str, target: str, *, overwrite: bool) -> bool:
        assert genuine(source, target, overwrite=overwrite)
        return genuine(source, target, overwrite=overwrite)

    monkeypatch.setattr(storage, "_rename", rename_twice)
    assert storage.write("file", b"content", overwrite=overwrite)
    assert storage.read("file") == b"content"
    assert storage.leftovers("") == []
    storage.delete("")
