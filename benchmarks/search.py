"""Measure the search page and its API under load: 20 clients, over HTTP, on real images.

``python benchmarks/search.py [--similar] [IMAGES ...]`` starts an HDFS, a Solr and a search page of its own, and prints
Markdown. Images are the demo's, repeated; they are kept in the store, and documents have none. With ``--similar``,
documents have vectors: the embeddings of ``benchmarks/similar.py``, repeated and shaken. With ``--distinct 1000000``,
later shards of a larger corpus have the files of the first million pictures, see ``benchmarks/repeated.py``.
"""

import argparse
import asyncio
import json
import os
import random
import re
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from html import unescape
from pathlib import Path

import aiohttp
import numpy as np
from index import IMAGE_BYTES, MANY, TAGS, make_run, publish_model
from ingest import build_file, definition
from machine import describe_machine, print_table, quiet
from repeated import repeat_corpus, search_page, share_shards
from similar import embed_real, vectors_of

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.catalogue import net_for
from tinytags_tasks.nets.shipped import shipped_card
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.embedding_files import Embeddings, embeddings_sha256, write_embeddings
from tinytags_tasks.store.net_records import EmbeddedBlock
from tinytags_tasks.store.protocol import Storage

CLIENTS = 20
SECONDS = 60.0
FAST_SECONDS = 20.0
ROWS = 30
DEEP_PAGE = 10_000
WALK_ROWS = 100
SHARD_IMAGES = MANY
BLOCKS_PER_SHARD = 50
BROWSER_CONNECTIONS = 6
"""Pictures that a browser asks for at once."""

_IMAGE = re.compile(r'<img[^>]*?\ssrc="([^"]*/pictures/[^"]*)"')

Connect = Callable[[], aiohttp.ClientSession]
Ask = Callable[[aiohttp.ClientSession, random.Random], Awaitable[None]]


def connect_to(address: str, login: tuple[str, str]) -> aiohttp.ClientSession:
    """Return a client that asks as one browser does, without compression.

    It took 7 ms of CPU time for 31 small answers of an idle server, about a third of what the search page takes for a
    page with its pictures.
    """
    headers = {"Authorization": aiohttp.encode_basic_auth(*login), "Accept-Encoding": "identity"}
    connections = aiohttp.TCPConnector(limit=BROWSER_CONNECTIONS)
    return aiohttp.ClientSession(address, headers=headers, connector=connections)


async def get(client: aiohttp.ClientSession, path: str) -> bytes:
    """Return the body of an answer.

    Raises
    ------
    RuntimeError
        If its status is not 200.
    """
    async with client.get(path, allow_redirects=False) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}: {body[:300]!r}")
        return body


def some_search(chance: random.Random) -> str:
    """Return the parameters of a search: a tag, from some confidence on."""
    return f"tag={chance.choice(TAGS)}&confidence={chance.randrange(0, 21)}&rows={ROWS}"


async def search(client: aiohttp.ClientSession, chance: random.Random) -> None:
    """Ask for a page of results with its counts, without pictures."""
    await get(client, f"/search?{some_search(chance)}")


async def whole_page(client: aiohttp.ClientSession, chance: random.Random) -> None:
    """Ask for a page of results and all of its pictures, as a browser with an empty cache does."""
    address = f"/search?{some_search(chance)}"
    page = await get(client, address)
    pictures = [unescape(source) for source in _IMAGE.findall(page.decode())]
    if len(pictures) != ROWS:
        raise RuntimeError(f"{address} shows {len(pictures)} pictures, not {ROWS}")
    await asyncio.gather(*(get(client, picture) for picture in pictures))


def similar_in(corpus: str, images: int) -> Ask:
    """Return what asks for the pictures that look most like some picture of a corpus."""

    async def ask(client: aiohttp.ClientSession, chance: random.Random) -> None:
        await get(client, f"/search?to={corpus}:{chance.randrange(images)}&sort=similar&rows={ROWS}")

    return ask


def page_at(address: str) -> Ask:
    """Return what asks for one page again and again."""

    async def ask(client: aiohttp.ClientSession, _: random.Random) -> None:
        await get(client, address)

    return ask


async def load(connect: Connect, ask: Ask, seconds: float, pause: float) -> list[float]:
    """Let all clients ask for some time, each once in ``pause`` seconds; return how long each answer took."""
    found: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        chance = random.Random(number)
        await asyncio.sleep(pause * number / CLIENTS)
        async with connect() as client:
            while (started := time.perf_counter()) < end:
                await ask(client, chance)
                took = time.perf_counter() - started
                found.append(took)
                await asyncio.sleep(max(0.0, pause - took))

    await asyncio.gather(*map(one, range(CLIENTS)))
    return found


def deep_page(connect: Connect, number: int) -> str:
    """Walk to a page by the API's cursors, and return its address."""

    async def walk() -> str:
        cursor = ""
        async with connect() as client:
            for _ in range(number * ROWS // WALK_ROWS):
                answer = json.loads(await get(client, f"/api/v1/search?rows={WALK_ROWS}{cursor}"))
                cursor = f"&cursor={answer['next_cursor']}"
        return f"/search?rows={ROWS}{cursor}"

    return asyncio.run(walk())


def write_embeddings_of(corpus: Corpus, real: Embeddings, storage: Storage) -> None:
    """Write embeddings of all blocks as if the net that ships had made them."""
    net = net_for(shipped_card().version, storage).version
    for source in block_sources(storage, corpus, range(corpus.partition.blocks)):
        embeddings = vectors_of(real, source.first, source.images)
        record = EmbeddedBlock(
            corpus=corpus.name,
            block=source.block,
            net=net,
            source_sha256=source.sha256,
            images=source.images,
            dimensions=embeddings.shape[1],
            sha256=embeddings_sha256(embeddings),
        )
        write_embeddings(storage, embeddings, record)


def publish(runtime: Runtime, folder: Path, images: int, distinct: int, real: Embeddings | None) -> None:
    """Make a corpus and publish a run on it; Solr holds no pictures, and vectors only if there are embeddings."""
    demo = make_demo(folder / "demo", runtime.settings.demo_source, report=quiet)
    source, name = folder / f"of-{images}.bin", f"of-{images}"
    build_file(source, demo.corpus_path, min(images, distinct) * IMAGE_BYTES)
    shard_images = min(SHARD_IMAGES, distinct, images)
    ingest_corpus(
        definition(name, source, shard_images=shard_images, blocks_per_shard=BLOCKS_PER_SHARD),
        storage=runtime.storage,
        report=quiet,
    )
    source.unlink()
    if images > distinct:
        repeat_corpus(name, images, runtime.storage)
    report(f"{images:,} images are ingested")
    if real is not None:
        write_embeddings_of(load_corpus(name, runtime.storage), real, runtime.storage)
        report("their embeddings are written")
    run = make_run(runtime, name, "store", similar="off" if real is None else "on")
    report(f"they are scored in {run.blocks:,} blocks")
    prepare_collection(run.name, storage=runtime.storage, solr=runtime.solr)
    for at in range(0, run.blocks, 5):
        blocks = tuple(range(at, min(at + 5, run.blocks)))
        index_blocks(IndexRequest(run.name, blocks), storage=runtime.storage, solr=runtime.solr, report=quiet)
        if at % 100 == 0:
            report(f"{at:,} blocks are indexed")
    publish_run(
        PublishRequest(run.name, runtime.settings.alias), storage=runtime.storage, solr=runtime.solr, report=report
    )


def report(line: str) -> None:
    """Say how far it is, beside the Markdown."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def measure(connect: Connect, images: int, has_vectors: bool, seconds: float) -> None:
    """Print one table."""
    last = max(1, min(DEEP_PAGE, images // ROWS - WALK_ROWS))
    ways: dict[str, Ask] = {
        "a page of results with counts, without its pictures": search,
        "the same, with its 30 pictures": whole_page,
        "page 1 of everything": page_at(f"/search?rows={ROWS}"),
        f"page {last:,} of everything": page_at(deep_page(connect, last)),
    }
    if has_vectors:
        ways["the 30 pictures most similar to one, with counts, without their pictures"] = similar_in(
            f"of-{images}", images
        )
    rows = []
    for way, ask in ways.items():
        found = asyncio.run(load(connect, ask, seconds, pause=1.0))
        fast_seconds = min(FAST_SECONDS, seconds)
        fast = asyncio.run(load(connect, ask, fast_seconds, pause=0.0))
        p50, p95, p99 = (f"{1e3 * float(np.quantile(found, share)):.0f}" for share in (0.5, 0.95, 0.99))
        rows.append([way, f"{len(found):,}", p50, p95, p99, f"{len(fast) / fast_seconds:.0f}"])
    print(f"{images:,} documents:\n")
    print_table(["what", "answers", "p50, ms", "p95, ms", "p99, ms", "as fast as they can, a second"], rows)
    print(flush=True)


def parse_arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="*", type=lambda text: int(text.replace(",", "")), default=[MANY])
    parser.add_argument("--similar", action="store_true", help="documents have vectors")
    parser.add_argument("--distinct", type=int, default=MANY, help="pictures that have files of their own, at most")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each way is measured")
    parser.add_argument("--folder", type=Path, help="where everything is written; default: the temporary folder")
    return parser.parse_args()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> None:
    asked = parse_arguments()
    distinct_shards = -(-asked.distinct // min(SHARD_IMAGES, asked.distinct))
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-", dir=asked.folder) as name:
        folder = Path(name)
        os.environ |= {"TINYTAGS_HOME": str(folder / "home"), "TINYTAGS_SEARCH_RATE_LIMIT": "0"}
        settings = services.up(load_settings(), engines=["hdfs", "solr"], standard_ports=False, die_with_parent=True)
        try:
            share_shards(distinct_shards)
            runtime = Runtime(settings)
            publish_model(runtime)
            print(f"## Search under load\n\n{describe_machine()}; {CLIENTS} clients.\n")
            login = settings.search_user, secret(settings, "search_password")
            real = embed_real(settings.demo_source) if asked.similar else None
            # The search page runs beside, in a process of its own.
            with search_page(free_port(), distinct_shards) as address:
                for images in asked.images:
                    publish(runtime, folder, images, asked.distinct, real)
                    measure(lambda: connect_to(address, login), images, asked.similar, asked.seconds)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
