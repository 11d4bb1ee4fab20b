"""The store: one protocol, two homes (a local folder, HDFS). Paths are relative to its root, with '/' between parts."""

from tinytags_tasks.storage.base import LEFTOVER_SECONDS, Leftover, Storage, StoreAddress, open_store, temporary_name
from tinytags_tasks.storage.hdfs import HdfsStorage
from tinytags_tasks.storage.local import LocalStorage

__all__ = [
    "LEFTOVER_SECONDS",
    "HdfsStorage",
    "Leftover",
    "LocalStorage",
    "Storage",
    "StoreAddress",
    "open_store",
    "temporary_name",
]
