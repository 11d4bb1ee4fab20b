"""`tinytags corpus verify` on the real HDFS: damage is found, and `ingest --redo` repairs it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_one_error_line, stored_files

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, to_column_major
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import ShardManifest

IMAGES, SHARD = 250, 100
NAME = "verified"

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def source(tinytags_here: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of a corpus that is defined and ingested."""
    path = tmp_path_factory.mktemp("verified") / "verified.bin"
    images = np.random.default_rng(5).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    path.write_bytes(to_column_major(images))
    cut = ("--shard-images", str(SHARD), "--blocks-per-shard", "4")
    assert tinytags_here("corpus", "add", NAME, str(path), "--format", "tiny-images", *cut).returncode == 0
    assert tinytags_here("ingest", NAME).returncode == 0
    return path


@pytest.fixture
def verify(source: Path, tinytags_here: Command) -> Command:
    return lambda *options: tinytags_here("corpus", "verify", NAME, *options)


@pytest.fixture
def mended(hdfs: Runtime, source: Path, verify: Command, tinytags_here: Command) -> Iterator[None]:
    """Finally, the damaged shard is written again, and no damage is found."""
    before = corpus_files(hdfs)
    yield
    assert tinytags_here("ingest", NAME, "--redo", "1").returncode == 0
    assert verify("--deep").returncode == 0
    assert corpus_files(hdfs) == before


def corpus_files(hdfs: Runtime) -> dict[str, bytes]:
    return {path: content for path, content in stored_files(hdfs).items() if f"/{NAME}/" in path}


def test_a_good_corpus_is_said_to_be_good(verify: Command) -> None:
    shallow, deep = verify(), verify("--deep")
    assert (shallow.returncode, deep.returncode) == (0, 0)
    assert "250 images in 3 shards match the source (compared: sizes, checksums" in shallow.stdout
    assert "(compared: every byte)" in deep.stdout
    assert json.loads(verify("--deep", "--json").stdout)["read_bytes"] == IMAGES * IMAGE_BYTES


@pytest.mark.usefixtures("mended")
def test_a_flipped_byte_is_seen_by_the_checksum_of_hdfs(hdfs: Runtime, verify: Command) -> None:
    path = layout.shard_file(NAME, 1)
    content = bytearray(hdfs.storage.read(path))
    content[70 * IMAGE_BYTES] ^= 1
    hdfs.storage.write(path, bytes(content))
    assert_one_error_line(verify(), "1 of 3 shards are damaged (shard 1: ")
    assert_one_error_line(verify("--deep"), f"rewrite them with `tinytags ingest {NAME} --redo 1`")


@pytest.mark.usefixtures("mended")
def test_a_byte_that_the_checksum_does_not_tell_is_found_block_by_block(hdfs: Runtime, verify: Command) -> None:
    path, manifest_path = layout.shard_file(NAME, 1), layout.shard_manifest_file(NAME, 1)
    content = bytearray(hdfs.storage.read(path))
    content[70 * IMAGE_BYTES] ^= 1
    hdfs.storage.write(path, bytes(content))
    manifest = ShardManifest.load(hdfs.storage, manifest_path)
    manifest.replaced(checksum=hdfs.storage.checksum(path)).save(hdfs.storage, manifest_path)
    assert verify().returncode == 0
    assert_one_error_line(verify("--deep"), "(shard 1: the bytes of blocks 6 are not what was ingested)")


@pytest.mark.usefixtures("mended")
def test_a_truncated_shard_is_found(hdfs: Runtime, verify: Command) -> None:
    path = layout.shard_file(NAME, 1)
    hdfs.storage.write(path, hdfs.storage.read(path)[:-1])
    assert_one_error_line(verify(), "1 of 3 shards are damaged (shard 1: ")


@pytest.mark.usefixtures("mended")
def test_a_missing_manifest_is_found(hdfs: Runtime, verify: Command) -> None:
    hdfs.storage.delete(layout.shard_manifest_file(NAME, 1))
    assert_one_error_line(verify(), "1 of 3 shards are damaged (shard 1: ")


@pytest.mark.usefixtures("mended")
def test_a_damaged_manifest_is_found(hdfs: Runtime, verify: Command) -> None:
    hdfs.storage.write(layout.shard_manifest_file(NAME, 1), b'{"corpus": "ver')
    assert_one_error_line(verify(), "00001.json: no usable ShardManifest")


@pytest.fixture
def changed(source: Path) -> Iterator[None]:
    """A byte of the source has changed, but not its size, its time, its head or its tail."""
    content, status = source.read_bytes(), source.stat()
    at = 120 * IMAGE_BYTES
    try:
        write_unnoticed(source, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], status)
        yield
    finally:
        write_unnoticed(source, content, status)


def write_unnoticed(path: Path, content: bytes, status: os.stat_result) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("changed")
def test_a_source_that_changed_unnoticed_is_found_when_every_byte_is_read(source: Path, verify: Command) -> None:
    assert verify().returncode == 0
    assert verify("--deep", "--without-source").returncode == 0
    assert_one_error_line(
        verify("--deep"), f"{source}: images 100 to 124 have changed since shard 1 was made from them"
    )


@pytest.mark.usefixtures("changed")
def test_a_resumed_ingestion_refuses_a_source_that_changed_unnoticed(
    hdfs: Runtime, source: Path, tinytags_here: Command
) -> None:
    path = layout.corpus_file(NAME)
    totals = hdfs.storage.read(path)
    hdfs.storage.delete(path)
    try:
        assert_one_error_line(tinytags_here("ingest", NAME), f"{source}: images 100 to 124 have changed since shard 1")
        assert not hdfs.storage.exists(path)
    finally:
        hdfs.storage.write(path, totals)


@pytest.mark.usefixtures("changed")
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_shard_is_never_written_again_from_a_source_that_changed_unnoticed(
    hdfs: Runtime, source: Path, tinytags_here: Command, is_whole: bool
) -> None:
    path = layout.shard_file(NAME, 1)
    content = hdfs.storage.read(path)
    if not is_whole:
        hdfs.storage.delete(path)
    before = corpus_files(hdfs)
    outcome = tinytags_here("ingest", NAME, *(("--redo", "1") if is_whole else ()))
    try:
        assert_one_error_line(outcome, f"{source}: images 100 to 124 have changed since shard 1 was made from them")
        assert corpus_files(hdfs) == before
    finally:
        hdfs.storage.write(path, content)


def test_a_source_that_is_gone_does_not_hinder_looking_at_the_store(source: Path, verify: Command) -> None:
    away = source.rename(source.with_suffix(".away"))
    try:
        assert_one_error_line(verify(), f"{source}: no such file")
        assert verify("--deep", "--without-source").returncode == 0
    finally:
        away.rename(source)


def test_an_unfinished_and_an_unknown_corpus_are_named(hdfs: Runtime, verify: Command, tinytags_here: Command) -> None:
    path = layout.corpus_file(NAME)
    totals = hdfs.storage.read(path)
    hdfs.storage.delete(path)
    try:
        assert_one_error_line(verify(), f"corpus {NAME}: its ingestion did not finish; run `tinytags ingest {NAME}`")
    finally:
        hdfs.storage.write(path, totals)
    assert_one_error_line(tinytags_here("corpus", "verify", "never"), "corpus never is not in the store")
