"""Engines killed in the middle of each stage: after the retry the index equals a clean run's, document by document."""

import base64
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import all_documents, engine_process, kill_engine, restart, wait_for, walk

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.errors import EngineDownError, TransientError
from tinytags_tasks.index import posting
from tinytags_tasks.index import step as index_step
from tinytags_tasks.index.step import IndexRequest, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import LEASE_SECONDS
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.train.forest_trees import Tree, forest_to_onnx

IMAGES, BLOCKS = 12_000, 24
TREES = 1_000
"""So many that a block takes a second, and a kill meets it in the middle."""

TAGS = ("left", "right", "up")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trees() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(8)
    trees = []
    for _ in range(TREES):
        depth = 7
        inner = 2**depth - 1
        nodes = 2 ** (depth + 1) - 1
        children = np.arange(nodes)
        is_inner = children < inner
        trees.append(
            {
                "feature": np.where(is_inner, random.integers(0, 3072, nodes), -1),
                "threshold": np.where(is_inner, random.integers(0, 256, nodes) + 0.5, 0.0),
                "left": np.where(is_inner, 2 * children + 1, -1),
                "right": np.where(is_inner, 2 * children + 2, -1),
                "prediction": random.integers(0, len(TAGS), nodes),
            }
        )
    return trees


@pytest.fixture(scope="module")
def slow_model(runtime: Runtime, trees: list[dict[str, np.ndarray]]) -> str:
    onnx_model = forest_to_onnx([Tree(**tree) for tree in trees], 3072, TAGS, {})
    version = model_version("slow", onnx_model)
    card = ModelCard(
        version=version,
        tags=TAGS,
        trees=TREES,
        height=32,
        width=32,
        preparation="none",
        labelled_set="none",
        labelled_sha256="",
        labelled_images=0,
        parameters={},
        metrics={},
        libraries={},
        seconds={},
        created=now(),
    )
    runtime.storage.write(layout.model_file(version), onnx_model)
    card.save(runtime.storage, layout.card_file(version))
    return version


@pytest.fixture(scope="module")
def expected(images: np.ndarray, trees: list[dict[str, np.ndarray]]) -> dict[int, dict]:
    """A clean run's result by position, computed only from the trees and the bytes."""
    votes = np.zeros((IMAGES, len(TAGS)), dtype=int)
    pixels = images.reshape(IMAGES, -1)
    for tree in trees:
        votes[np.arange(IMAGES), walk(tree, pixels)] += 1
    return {
        position: {
            "tag": TAGS[int(votes[position].argmax())],
            "votes": int(votes[position].max()),
            "accuracy": int(votes[position].max() * 100 // TREES),
            "data": base64.b64encode(images[position]).decode(),
        }
        for position in range(IMAGES)
        if votes[position].max() * 100 >= 34 * TREES
    }


@pytest.fixture
def bin_file(tmp_path: Path, images: np.ndarray) -> Path:
    path = tmp_path / "random.bin"
    path.write_bytes(to_column_major(images))
    return path


def define(name: str, source: Path) -> CorpusDefinition:
    fields = {"source": str(source), "format": "tiny-images", "shard_images": IMAGES, "blocks_per_shard": BLOCKS}
    return make_definition(name, fields)


@pytest.fixture
def planned(runtime: Runtime, slow_model: str, bin_file: Path, request: pytest.FixtureRequest) -> str:
    """A run with its own corpus for each test, planned and with an empty collection."""
    corpus = re.sub(r"[^a-z0-9_]", "-", request.node.name.removeprefix("test_")[:60]).strip("-")
    ingest_corpus(define(corpus, bin_file), storage=runtime.storage)
    name = plan_run(PlanRequest(corpus, slow_model, threshold=34), storage=runtime.storage).run
    prepare_collection(name, storage=runtime.storage, solr=runtime.solr)
    return name


def score_all(runtime: Runtime, run: str) -> int:
    return score_blocks(
        ScoreRequest(run, tuple(range(BLOCKS))),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
    ).scored


def finish_and_compare(runtime: Runtime, run: str, expected: dict[int, dict]) -> None:
    """Index and publish a run, and compare each document with a clean run's."""
    index_step.index_blocks(IndexRequest(run, tuple(range(BLOCKS))), storage=runtime.storage, solr=runtime.solr)
    result = publish_run(PublishRequest(run, alias="faults"), storage=runtime.storage, solr=runtime.solr)
    found = all_documents(runtime.solr.url, result.collection)
    assert len(found) == len(expected)
    for document in found.values():
        wanted = expected[document["position"]]
        assert {name: document[name] for name in wanted} == wanted


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, errors


def wait_for_first_block(runtime: Runtime, run: str, thread: threading.Thread) -> None:
    """Return once one block is committed and others are in progress."""
    deadline = time.monotonic() + 120
    while not runtime.storage.names(layout.scored_folder(run)):
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def scoring_processes(*, parents: bool) -> list[psutil.Process]:
    return [
        process
        for process in engine_process(load_settings(), "spark").children(recursive=True)
        if any("pyspark" in part for part in process.cmdline()) and bool(process.children()) is parents
    ]


LONG = pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="set LONG_TESTS=1")


@pytest.mark.parametrize("parents", [pytest.param(False, id="workers"), pytest.param(True, id="daemon", marks=LONG)])
def test_python_processes_killed_in_mid_block(
    runtime: Runtime, planned: str, expected: dict[int, dict], parents: bool
) -> None:
    """As the kernel does if memory runs out: those that score, or the one that starts them."""
    thread, errors = in_background(lambda: score_all(runtime, planned))
    wait_for_first_block(runtime, planned, thread)
    victims = scoring_processes(parents=parents)
    assert victims
    for victim in victims:
        victim.kill()
    thread.join(180)
    assert not thread.is_alive()
    # Spark itself retries such blocks; if it gave up, the error asks for a retry.
    assert all(isinstance(error, TransientError) for error in errors)
    assert len(runtime.storage.names(layout.scored_folder(planned))) >= 1
    score_all(runtime, planned)
    finish_and_compare(runtime, planned, expected)


def test_spark_killed_in_mid_job(runtime: Runtime, planned: str, expected: dict[int, dict]) -> None:
    thread, errors = in_background(lambda: score_all(runtime, planned))
    wait_for_first_block(runtime, planned, thread)
    kill_engine(load_settings(), "spark")
    thread.join(180)
    assert not thread.is_alive()
    assert [type(error) for error in errors] == [EngineDownError]
    committed = len(runtime.storage.names(layout.scored_folder(planned)))
    assert 1 <= committed < BLOCKS
    restart("spark")
    assert score_all(runtime, planned) == BLOCKS - committed
    finish_and_compare(runtime, planned, expected)


def test_two_who_score_the_same_blocks_at_once_both_end_well(
    runtime: Runtime, planned: str, expected: dict[int, dict]
) -> None:
    thread, errors = in_background(lambda: score_all(runtime, planned))
    wait_for_first_block(runtime, planned, thread)
    assert score_all(runtime, planned) == 0  # it waited, and found the work done
    thread.join(180)
    assert errors == []
    finish_and_compare(runtime, planned, expected)


def test_two_backfills_of_the_same_blocks_at_once_both_end_well(
    runtime: Runtime, planned: str, expected: dict[int, dict]
) -> None:
    """One compares its counts while the other indexes the same blocks again."""
    command = (sys.executable, "-m", "tinytags_tasks.cli", "backfill", planned, "--blocks", f"0-{BLOCKS - 1}")
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait(300) for one in both] == [0, 0]
    finish_and_compare(runtime, planned, expected)


def test_a_driver_killed_in_mid_job_is_taken_over_at_once_beside_its_workers(
    runtime: Runtime, planned: str, expected: dict[int, dict]
) -> None:
    with subprocess.Popen([sys.executable, "-m", "tinytags_tasks.cli", "score", planned]) as driver:
        wait_for(lambda: runtime.storage.names(layout.scored_folder(planned)))
        driver.kill()
        driver.wait(30)
    started = time.monotonic()
    score_all(runtime, planned)
    assert time.monotonic() - started < LEASE_SECONDS
    finish_and_compare(runtime, planned, expected)
    run = Run.load(runtime.storage, layout.run_file(planned))
    for _ in range(5):  # work that Spark did not stop changes nothing
        assert {record.state for record in read_ledger(runtime.storage, run)} == {BlockState.VERIFIED}
        time.sleep(1)
    assert runtime.storage.names(layout.leases_folder(planned)) == []


def test_solr_killed_in_mid_index(
    runtime: Runtime, planned: str, expected: dict[int, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    score_all(runtime, planned)
    genuine = posting.document_bodies
    blocks = iter(range(BLOCKS))

    def bodies_until_the_kill(*arguments: object, **named: object) -> Iterator[bytes]:
        if next(blocks) == 3:
            kill_engine(load_settings(), "solr")
        yield from genuine(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(posting, "document_bodies", bodies_until_the_kill)
    admin, writer = (runtime.settings.solr_login(role) for role in ("admin", "writer"))
    impatient = SolrClient(runtime.solr.url, admin=admin, writer=writer, pauses_seconds=(0.1,))
    with pytest.raises(EngineDownError, match="Solr does not answer"):
        index_step.index_blocks(IndexRequest(planned, tuple(range(BLOCKS))), storage=runtime.storage, solr=impatient)
    monkeypatch.undo()
    restart("solr")
    finish_and_compare(runtime, planned, expected)
