"""Exports a scored run in the original system's format: one line with a JSON object for each image that is kept.

The format does not follow :mod:`tinytags_tasks.document_fields`: programs that read it expect exactly these
four names, so confidence is still ``accuracy`` here.
"""

import base64
import os
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from tinytags_tasks.blocks import block_numbers_argument
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import (
    CONFIDENCE_COLUMN,
    BlockSource,
    block_sources,
    read_pixels,
    read_scored,
    unscored_blocks,
)
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import BlockRecord, Run

STANDARD_OUTPUT = "-"
REPORT_SECONDS = 10.0
"""After how long it is said how far an export is."""


@dataclass(frozen=True)
class ExportRequest:
    """Which blocks of which run to export, and where to.

    Attributes
    ----------
    run
        The run's name.
    blocks
        Its blocks, in the order in which to write them.
    output
        The path of a local file; ``-`` is standard output.
    """

    run: str
    blocks: tuple[int, ...]
    output: str = STANDARD_OUTPUT


@dataclass(frozen=True)
class ExportResult:
    """What was written: ``images`` counts the lines."""

    run: str
    blocks: tuple[int, ...]
    images: int


def export_run(request: ExportRequest, *, storage: Storage, report: Callable[[str], None] = print) -> ExportResult:
    """Write a line for each image that is kept, by position; a file gets its name only once it is complete.

    What is kept follows from the scored files and people's words: what was taken down is not exported.

    A line is ``{"block": 3, "data": "<base64>", "label": "cat", "accuracy": 60}``: ``data`` is the image's bytes,
    row-major HWC uint8, ``label`` is its tag and ``accuracy`` its confidence in percent. Only one block is in memory.

    Raises
    ------
    BadInputError
        If the run has no such block, or the output cannot be written.
    MissingError
        If blocks are not scored. The message names them, and nothing is written.
    CorruptError
        If a scored file or a shard is not what was written.
    """
    run = Run.load(storage, layout.run_file(request.run))
    run.check_blocks(request.blocks)
    _refuse_unscored(request, storage)
    corpus = corpus_of_run(run, storage)
    images = 0
    with _opened(request.output) as output:
        blocks = RunBlocks(run, corpus, storage)
        reported = time.monotonic()
        for done, source in enumerate(block_sources(storage, corpus, request.blocks)):
            if time.monotonic() - reported >= REPORT_SECONDS:
                report(f"{images:,} images of {done:,} of {len(request.blocks):,} blocks are written")
                reported = time.monotonic()
            for line in _lines(blocks, source):
                output.write(line)
                images += 1
    report(f"wrote {images:,} images of {len(request.blocks)} blocks of run {run.name}")
    return ExportResult(run.name, request.blocks, images)


def _refuse_unscored(request: ExportRequest, storage: Storage) -> None:
    if unscored := unscored_blocks(storage, request.run, request.blocks):
        numbers = block_numbers_argument(unscored)
        raise MissingError(
            f"run {request.run}: {len(unscored)} of {len(request.blocks)} blocks are not scored: {numbers}; "
            f"run `tinytags score {request.run} --blocks {numbers}` first, or choose other blocks with --blocks"
        )


def _lines(blocks: RunBlocks, source: BlockSource) -> Iterator[bytes]:
    run, storage = blocks.run, blocks.storage
    table, record = read_scored(storage, run.name, source.block)
    if record.sha256 != source.sha256:
        raise CorruptError(
            f"run {run.name}: block {source.block} was scored on bytes other than those in the shard; "
            f"{BlockRecord.remedy(layout.scored_file(run.name, source.block))}"
        )
    table = blocks.correct(table, record, source=source).table
    pixels = read_pixels(storage, source)
    columns = (table.column(name).to_pylist() for name in ("position", "tag", CONFIDENCE_COLUMN))
    for position, tag, confidence in zip(*columns, strict=True):
        image = {
            "block": source.block,
            "data": base64.b64encode(pixels[position - source.first]).decode(),
            "label": tag,
            "accuracy": confidence,
        }
        yield orjson.dumps(image, option=orjson.OPT_APPEND_NEWLINE)


@contextmanager
def _opened(output: str) -> Generator[BinaryIO]:
    """Open the output; a file is written under a temporary name and renamed at the end."""
    if output == STANDARD_OUTPUT:
        # Not through sys.stdout's buffer: after a broken pipe, flushing what is left in it would fail again at exit.
        try:
            with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
                yield stream
        except BrokenPipeError as error:
            raise BadInputError(
                "standard output was closed before the export was complete; write to a file instead"
            ) from error
        return
    target = Path(output).expanduser()
    if target.exists() and not target.is_file():  # a rename would replace a pipe or a device
        raise BadInputError(f"{target}: is not a regular file; choose another file, or - for standard output")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise BadInputError(
            f"{target}: cannot be written ({error}); free some disk space, or choose another file"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
