"""Scoring the small run, for tests: the step, and what it wrote."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
from small_run import BLOCKS, TAGS, VOTES, SparkHere, address_of, quiet

from tinytags_tasks.score import step
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.run_records import Run

ALL = tuple(range(BLOCKS))


def score(storage, run: Run, blocks=ALL, spark=None):
    return step.score_blocks(
        step.ScoreRequest(run.name, tuple(blocks)),
        storage=storage,
        address=address_of(storage),
        connect_spark=spark or SparkHere(),
        report=quiet,
    )


def block_tasks(storage, run: Run, blocks=ALL):
    return step._block_tasks(run, blocks, storage)


def rows(storage, run: Run, blocks=ALL) -> dict[int, tuple]:
    """Return tag, votes and confidence of every kept image by position."""
    return {
        row["position"]: (row["tag"], row["votes"], row["accuracy"])
        for block in blocks
        for row in read_scored(storage, run.name, block)[0].to_pylist()
    }


def expected_rows(threshold: int, unreadable=()) -> dict[int, tuple]:
    """Return what follows from each picture's votes."""
    return {
        position: (TAGS[votes.index(max(votes))], max(votes), 10 * max(votes))
        for position, votes in enumerate(VOTES)
        if position not in unreadable and 10 * max(votes) >= threshold
    }


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return a store's files without what always differs between runs."""
    ever_new = (
        rb'"(created|record_sha256|scored|score_seconds|attempts|host|scored_bytes|scored_sha256)": ?("[^"]*"|[0-9.]+)'
    )
    return {
        path: re.sub(ever_new, b"", content if path.endswith(".json") else readable(content))
        for path, content in files.items()
        if not path.endswith((".bin", ".onnx"))
    }


def readable(parquet: bytes) -> bytes:
    table = pq.read_table(pa.BufferReader(parquet))
    return repr(table.to_pylist()).encode() + table.schema.metadata[b"tinytags.block"]
