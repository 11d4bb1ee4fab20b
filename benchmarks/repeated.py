"""A corpus whose later shards are its first ones again, so that ten million documents need the disk of one million.

Only the files of the shards are shared: every shard has a manifest, and every picture a position, a document and an
address of its own. The search page that is measured is :func:`create_app`, which finds the shared files.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from fastapi import FastAPI

from tinytags_tasks.search.page import create_app as create_page
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import ShardManifest, load_corpus
from tinytags_tasks.store.protocol import Storage

SHARDS = "BENCH_DISTINCT_SHARDS"
"""The environment variable with the number of shards that have files of their own."""

READY_SECONDS = 60.0

_own_file = layout.shard_file


def share_shards(distinct: int) -> None:
    """Let every shard from ``distinct`` on have the file of one before it, in this process."""
    layout.shard_file = lambda corpus, shard: _own_file(corpus, shard % distinct)


def create_app() -> FastAPI:
    """Return the search page, with shared shards."""
    share_shards(int(os.environ[SHARDS]))
    return create_page()


def repeat_corpus(name: str, images: int, storage: Storage) -> None:
    """Make a corpus of whole shards longer by manifests alone.

    Raises
    ------
    ValueError
        If it does not consist of whole shards, or would not.
    """
    corpus = load_corpus(name, storage)
    if corpus.images % corpus.shard_images or images % corpus.shard_images:
        raise ValueError(f"{corpus.images:,} and {images:,} images are not whole shards of {corpus.shard_images:,}")
    distinct = corpus.images // corpus.shard_images
    manifests = [ShardManifest.load(storage, layout.shard_manifest_file(name, shard)) for shard in range(distinct)]
    for shard in range(distinct, images // corpus.shard_images):
        manifest = manifests[shard % distinct]
        later = shard - shard % distinct
        blocks = tuple(
            block.replaced(
                number=block.number + later * corpus.blocks_per_shard, first=block.first + later * corpus.shard_images
            )
            for block in manifest.blocks
        )
        repeated = manifest.replaced(shard=shard, first=shard * corpus.shard_images, blocks=blocks)
        repeated.save(storage, layout.shard_manifest_file(name, shard))
    corpus.replaced(images=images).save(storage, layout.corpus_file(name), overwrite=True)


@contextmanager
def search_page(port: int, distinct_shards: int) -> Iterator[str]:
    """Serve the search page with shared shards, as the service does; yield its address.

    Raises
    ------
    RuntimeError
        If it does not answer in time.
    """
    command = (
        *(sys.executable, "-m", "uvicorn", "repeated:create_app", "--factory", "--port", str(port)),
        *("--http", "tinytags_tasks.search.server:SafeProtocol", "--ws", "none"),
        *("--no-proxy-headers", "--no-access-log", "--log-level", "warning"),
    )
    environment = {**os.environ, SHARDS: str(distinct_shards)}
    process = subprocess.Popen(command, cwd=Path(__file__).parent, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        try:
            if requests.get(f"{address}/healthz", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise RuntimeError(f"{address} did not answer within {READY_SECONDS:g} s")
