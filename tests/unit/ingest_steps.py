"""Ingesting a small corpus, for tests."""

import os
import re

import numpy as np
import pytest
from faulty_storage import files_under
from small_run import quiet

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.store.local import LocalStorage

IMAGES, SHARD_IMAGES, BLOCKS_PER_SHARD = 23, 10, 4

CHANGES = 2 + 3 * 4 + 1
"""What a clean run changes: listing and plan; three times lease, shard, manifest, lease; then the totals."""


def define(source, **fields):
    fields = {"shard_images": SHARD_IMAGES, "blocks_per_shard": BLOCKS_PER_SHARD, **fields}
    return make_definition(
        "tiny", {"source": str(source), "format": "tiny-images", "description": "small pictures", **fields}
    )


def ingest(storage, source, *, redo=(), report=quiet, **fields):
    return ingest_corpus(define(source, **fields), storage=storage, redo=redo, report=report)


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the time in a corpus' totals, and with it their checksum."""
    time = rb'"created": "[^"]*"|"record_sha256": "[^"]*"'
    return {
        path: re.sub(time, b"", content) if path.endswith("corpus.json") else content for path, content in files.items()
    }


def restore_time(path, change):
    status = path.stat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_one_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    restore_time(path, lambda: path.write_bytes(content))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "tiny.bin"
    path.write_bytes(to_column_major(images))
    return path


@pytest.fixture
def own_source(images, tmp_path):
    """A source that the test may change."""
    path = tmp_path / "own.bin"
    path.write_bytes(to_column_major(images))
    return path


@pytest.fixture(scope="module")
def clean(source, tmp_path_factory):
    """The files of an undisturbed ingestion."""
    folder = tmp_path_factory.mktemp("clean")
    ingest(LocalStorage(folder), source)
    return without_times(files_under(folder))
