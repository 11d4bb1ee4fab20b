"""HDFS fulfils the contract of every storage."""

import uuid
from dataclasses import replace

import pytest
from storage_contract import StorageContract

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store.hdfs import HdfsStorage


class TestHdfs(StorageContract):
    @pytest.fixture
    def storage(self, hdfs: Runtime) -> HdfsStorage:
        return HdfsStorage(replace(hdfs.store_address, root=f"/contract-{uuid.uuid4().hex}"))


def test_an_hdfs_that_is_away_is_named_with_the_remedy(hdfs: Runtime) -> None:
    away = HdfsStorage(replace(hdfs.store_address, webhdfs_url="http://127.0.0.1:1"))
    with pytest.raises(EngineDownError, match=r"127\.0\.0\.1:1.*tinytags up"):
        away.read("anything")
