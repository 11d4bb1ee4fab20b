"""Ingestion into the real HDFS: whatever is killed, fills up or runs at the same time, the bytes are a clean run's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import disturbed_ingest
import numpy as np
import pytest
import requests
from conftest import assert_one_error_line, hdfs_client, kill_engine, restart, stored_files

from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, to_column_major
from tinytags_tasks.corpus.registry import load_definition
from tinytags_tasks.errors import TransientError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.hdfs import HdfsStorage

IMAGES, SHARD, BLOCKS = 6_003, 2_500, 3
"""So many that a shard takes two reads and thirty chunks."""

SHARDS = ("00000", "00001", "00002")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def noise(images: np.ndarray, tinytags_here: Command, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a defined corpus with keywords."""
    folder = tmp_path_factory.mktemp("noise")
    (folder / "noise.bin").write_bytes(to_column_major(images))
    words = (f"word {position % 97}".encode().ljust(METADATA_BYTES) for position in range(IMAGES))
    (folder / "tiny_metadata.bin").write_bytes(b"".join(words))
    added = tinytags_here(
        *("corpus", "add", "noise", str(folder / "noise.bin"), "--format", "tiny-images"),
        *("--keywords", str(folder / "tiny_metadata.bin")),
        *("--shard-images", str(SHARD), "--blocks-per-shard", str(BLOCKS)),
    )
    assert added.returncode == 0, added.stderr
    return "noise"


@pytest.fixture(scope="module")
def clean(hdfs: Runtime, noise: str, images: np.ndarray, tinytags_here: Command) -> dict[str, bytes]:
    """All files of a store after an undisturbed ingestion."""
    outcome = tinytags_here("ingest", noise, TINYTAGS_STORE="/clean")
    assert outcome.returncode == 0, outcome.stderr
    files = stored_files(Runtime(hdfs.settings.model_copy(update={"store": "/clean"})))
    assert b"".join(files[layout.shard_file(noise, shard)] for shard in range(3)) == images.tobytes()
    assert sorted(Path(path).name for path in files if "/shards/" in path) == sorted(
        name + ending for name in SHARDS for ending in (".bin", ".json", ".keywords.parquet")
    )
    return files


def disturbed(moment: str, *arguments: str, store: str) -> subprocess.Popen[str]:
    """Start the command line, disturbed at a moment."""
    return subprocess.Popen(
        [sys.executable, disturbed_ingest.__file__, moment, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROJECT_ROOT,
        env=os.environ | {"TINYTAGS_STORE": store},
    )


@pytest.mark.parametrize("moment", disturbed_ingest.MOMENTS)
def test_a_run_after_a_kill_equals_a_clean_one(
    own_store: Runtime, noise: str, clean: dict[str, bytes], tinytags_here: Command, moment: str
) -> None:
    store = own_store.settings.store
    killed = disturbed(moment, "ingest", noise, store=store)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert stored_files(own_store) != clean
    resumed = tinytags_here("ingest", noise, TINYTAGS_STORE=store)
    assert resumed.returncode == 0, resumed.stderr
    assert "waiting for it" not in resumed.stderr  # a dead owner's lease is taken over at once
    assert stored_files(own_store) == clean


def test_two_ingestions_at_once_write_each_shard_once(
    own_store: Runtime, noise: str, clean: dict[str, bytes], tmp_path: Path
) -> None:
    pair = [disturbed(str(tmp_path), "ingest", noise, store=own_store.settings.store) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    written = [[line for line in out.splitlines() if line.startswith("wrote ")] for out, _ in outputs]
    assert all(written)
    assert sorted(written[0] + written[1]) == [f"wrote {name}.bin" for name in SHARDS]
    assert stored_files(own_store) == clean


def act_in_mid_write(monkeypatch: pytest.MonkeyPatch, file: str, act: Callable[[], object]) -> None:
    """Act once some chunks of a file have been sent, until the patch is undone."""
    monkeypatch.setattr(HdfsStorage, "write", HdfsStorage.write)
    disturbed_ingest.at_chunk(file, 3, act)


def test_a_datanode_killed_in_mid_write_asks_for_a_retry_that_equals_a_clean_run(
    own_store: Runtime, noise: str, clean: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = load_definition(own_store.settings.corpora_folder, noise)
    act_in_mid_write(monkeypatch, "00001.bin", lambda: kill_engine(load_settings(), "datanode"))
    with pytest.raises(TransientError, match=r"00001\.bin"):
        ingest_corpus(definition, storage=own_store.storage)
    monkeypatch.undo()
    left = hdfs_client(own_store).list(layout.shards_folder(noise))
    # Without a DataNode, the lease cannot be read, and therefore not given back.
    assert left == ["00000.bin", "00000.json", "00000.keywords.parquet", "00001.lease"]
    restart("hdfs")
    ingest_corpus(definition, storage=own_store.storage)
    assert stored_files(own_store) == clean


def set_quota(runtime: Runtime, size_bytes: int) -> None:
    """Set the store's space quota as the superuser, without TinyTags' own code."""
    hdfs_client(runtime).makedirs("")
    requests.put(
        f"{runtime.settings.webhdfs_url}/webhdfs/v1{runtime.settings.store}",
        params={
            "op": "SETQUOTA",
            "user.name": runtime.settings.hdfs_user,
            "storagespacequota": size_bytes,
            "namespacequota": 2**63 - 1,
        },
        timeout=30,
    ).raise_for_status()


@pytest.fixture
def wide(tinytags_here: Command, tmp_path: Path) -> str:
    """The name of a defined corpus whose shard takes two HDFS blocks of 128 MiB."""
    path = tmp_path / "wide.bin"
    with path.open("wb") as file:
        file.truncate(60_000 * 3072)
    added = tinytags_here("corpus", "add", "wide", str(path), "--format", "tiny-images", "--replace")
    assert added.returncode == 0, added.stderr
    return "wide"


def test_a_quota_that_is_too_small_is_told_before_anything_is_written(
    own_store: Runtime, wide: str, tinytags_here: Command
) -> None:
    set_quota(own_store, 150_000_000)
    outcome = tinytags_here("ingest", wide, TINYTAGS_STORE=own_store.settings.store)
    assert_one_error_line(outcome, "corpus wide needs 184,320,000 more bytes, but the store has only ")
    assert "raise the quota" in outcome.stderr
    assert not own_store.storage.exists(layout.shards_folder(wide))


def test_an_hdfs_that_fills_up_in_mid_write_leaves_nothing_and_a_later_run_succeeds(
    own_store: Runtime, wide: str, tinytags_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = own_store.settings.store
    set_quota(own_store, 500_000_000)
    act_in_mid_write(monkeypatch, "00000.bin", lambda: set_quota(own_store, 200_000_000))
    outcome = tinytags_here("ingest", wide, TINYTAGS_STORE=store)
    monkeypatch.undo()
    assert_one_error_line(
        outcome,
        f"{store}/corpora/wide/shards/00000.bin: the folder's quota of bytes is used up (The DiskSpace quota of",
    )
    assert hdfs_client(own_store).list(layout.shards_folder(wide)) == []
    set_quota(own_store, 500_000_000)
    again = tinytags_here("ingest", wide, TINYTAGS_STORE=store)
    assert again.returncode == 0, again.stderr
    assert json.loads(tinytags_here("corpus", "verify", wide, "--json", TINYTAGS_STORE=store).stdout)["damaged"] == {}
