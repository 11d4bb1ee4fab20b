"""Embedding on the real Spark and HDFS: whoever is killed in the middle, the retry ends like a clean run."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import assert_one_error_line, engine_process, wait_for

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.errors import TransientError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_card, shipped_net
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embeddings
from tinytags_tasks.store.lease import LEASE_SECONDS

CORPUS = "embedded-under-fire"
IMAGES, BLOCKS = 6_000, 24
NET = shipped_card().version

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(images: np.ndarray) -> np.ndarray:
    """A clean run's embeddings, without Spark and without the store."""
    graph = embedding_graph(shipped_net(), shipped_card(), 32, 32)
    return embed(open_session(graph, "a test", threads=0), images.reshape(IMAGES, -1))


@pytest.fixture(scope="module")
def corpus(runtime: Runtime, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    source = tmp_path_factory.mktemp("embedded") / "random.bin"
    source.write_bytes(to_column_major(images))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": IMAGES, "blocks_per_shard": BLOCKS}
    ingest_corpus(make_definition(CORPUS, fields), storage=runtime.storage)
    return Corpus.load(runtime.storage, layout.corpus_file(CORPUS))


@pytest.fixture(autouse=True)
def unembedded(runtime: Runtime, corpus: Corpus) -> None:
    runtime.storage.delete(layout.all_embeddings_folder(CORPUS))


def embed_all(runtime: Runtime) -> int:
    return embed_blocks(
        EmbedRequest(CORPUS, DEFAULT_NET),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        providers=runtime.onnx_providers,
    ).embedded


def embedded_files(runtime: Runtime) -> dict[str, int]:
    return runtime.storage.sizes(layout.embeddings_folder(CORPUS, NET))


def assert_clean(runtime: Runtime, corpus: Corpus, expected: np.ndarray) -> None:
    """Assert that the store holds exactly what a clean run leaves."""
    sources = block_sources(runtime.storage, corpus, range(BLOCKS))
    found = [read_embeddings(runtime.storage, source, NET)[0] for source in sources]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    folder = layout.embeddings_folder(CORPUS, NET)
    assert len(runtime.storage.sizes(folder)) == BLOCKS
    assert runtime.storage.names(f"{folder}/leases") == []
    assert runtime.storage.leftovers(folder) == []


def embedding_processes() -> list[psutil.Process]:
    """Return the processes in which Spark runs Python."""
    return [
        process
        for process in engine_process(load_settings(), "spark").children(recursive=True)
        if any("pyspark" in part for part in process.cmdline()) and not process.children()
    ]


def test_embedding_processes_killed_in_mid_block(runtime: Runtime, corpus: Corpus, expected: np.ndarray) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            embed_all(runtime)
        except TransientError as error:  # Spark itself retries such blocks; if it gave up, this asks for a retry
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: embedded_files(runtime), seconds=120)
    victims = embedding_processes()
    assert victims
    for victim in victims:
        victim.kill()
    thread.join(180)
    assert not thread.is_alive()
    kept = embedded_files(runtime)
    assert kept
    assert embed_all(runtime) == BLOCKS - len(kept)
    assert_clean(runtime, corpus, expected)


def test_a_driver_killed_in_mid_embedding_is_taken_over_at_once_beside_its_workers(
    runtime: Runtime, corpus: Corpus, expected: np.ndarray
) -> None:
    with subprocess.Popen([sys.executable, "-m", "tinytags_tasks.cli", "embed", CORPUS]) as driver:
        wait_for(lambda: embedded_files(runtime), seconds=120)
        driver.kill()
        driver.wait(30)
    assert len(embedded_files(runtime)) < BLOCKS
    started = time.monotonic()
    embed_all(runtime)
    assert time.monotonic() - started < LEASE_SECONDS
    assert_clean(runtime, corpus, expected)


def test_lost_and_damaged_embeddings_are_found_and_made_again_by_the_command(
    runtime: Runtime, corpus: Corpus, expected: np.ndarray, tinytags_here: Command
) -> None:
    assert embed_all(runtime) == BLOCKS
    lost, cut, flipped = (layout.embeddings_file(CORPUS, NET, block) for block in (3, 11, 17))
    good = runtime.storage.read(cut)
    runtime.storage.delete(lost)
    runtime.storage.write(cut, good[:-100])
    content = bytearray(runtime.storage.read(flipped))
    content[len(content) // 2] ^= 1
    runtime.storage.write(flipped, bytes(content))
    verify = tinytags_here("corpus", "verify", CORPUS, "--deep", "--without-source")
    assert_one_error_line(verify, f"tinytags embed {CORPUS} --net {NET} --blocks 11,17 --redo`")
    done = tinytags_here("embed", CORPUS)
    assert done.returncode == 0, done.stderr
    assert "22 of 24 blocks are embedded" in done.stderr
    assert "24 blocks are embedded by" in done.stdout
    assert tinytags_here("embed", CORPUS, "--blocks", "17", "--redo").returncode == 0
    assert_clean(runtime, corpus, expected)
    assert tinytags_here("corpus", "verify", CORPUS, "--deep", "--without-source").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "corpus nowhere is not in the store: ingest it with `tinytags ingest nowhere`"),
        ((CORPUS, "--net", "unheard-of"), "unheard-of: no such net; `tinytags nets list` lists the nets"),
        ((CORPUS, "--blocks", "24"), "24"),
    ],
)
def test_what_cannot_be_embedded_is_said_in_one_line(
    tinytags_here: Command, arguments: tuple[str, ...], message: str
) -> None:
    assert_one_error_line(tinytags_here("embed", *arguments), message)


def test_a_provider_that_is_not_there_is_said_in_one_line(tinytags_here: Command, tmp_path: Path) -> None:
    outcome = tinytags_here("embed", CORPUS, TINYTAGS_ONNX_PROVIDERS="NoSuchExecutionProvider")
    assert_one_error_line(outcome, "ONNX Runtime knows no NoSuchExecutionProvider; it knows ")
