"""Measure how long the next picture of a review takes, on a run with a million documents.

``python benchmarks/review_page.py [IMAGES]`` prints Markdown. The store is a folder, and the run is made up: its
pictures are noise of 8x8 pixels, its tags come by chance. All requests go through HTTP. The log holds the looks of
1,000 requests before the measuring begins.
"""

import html
import json
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import uvicorn
from machine import describe_machine, print_table

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.account_file import AccountFile
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.page import create_app
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import SCHEMA, write_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

TAGS = tuple(f"tag {number}" for number in range(10))
IMAGES = 2_000_000
"""About half of them are kept."""

SIZE, LOOKS, BEFORE = 8, 300, 1_000
PASSWORD = "a long password"
NAME = "noise"


def make_run(storage: LocalStorage, folder: Path, images: int) -> Run:
    """Make the corpus and a run whose blocks count as verified."""
    random = np.random.default_rng(1)
    source = folder / "noise.raw"
    source.write_bytes(random.bytes(images * SIZE * SIZE * 3))
    definition = CorpusDefinition(name=NAME, source=str(source), format="raw", height=SIZE, width=SIZE)
    ingest_corpus(definition, storage=storage, report=lambda _: None)
    source.unlink()
    corpus = Corpus.load(storage, layout.corpus_file(NAME))
    ModelCard(
        version="chance-00",
        tags=TAGS,
        trees=100,
        height=SIZE,
        width=SIZE,
        preparation="",
        labelled_set="",
        labelled_sha256="",
        labelled_images=0,
        parameters={},
        metrics={},
        libraries={},
        seconds={},
        created="2026-01-01T00:00:00+00:00",
    ).save(storage, layout.card_file("chance-00"))
    run = Run(
        name=f"{NAME}-1",
        corpus=NAME,
        corpus_digest=corpus.digest,
        model="chance-00",
        threshold=40,
        images=images,
        blocks=corpus.partition.blocks,
        collection=f"tinytags-{NAME}-1",
        created="2026-01-01T00:00:00+00:00",
    )
    run.save(storage, layout.run_file(run.name))
    for number in range(run.blocks):
        block = corpus.partition.block(number)
        kept = np.flatnonzero(random.random(block.images) < 0.5) + block.first
        tags = random.integers(0, len(TAGS), len(kept))
        confidence = random.integers(40, 101, len(kept)).astype(np.int16)
        columns = [kept, pa.array(TAGS).take(pa.array(tags)), confidence, confidence]
        counts = np.bincount(tags, minlength=len(TAGS))
        record = BlockRecord(
            run=run.name,
            block=number,
            state=BlockState.SCORED,
            model=run.model,
            read=block.images,
            kept=len(kept),
            below=block.images - len(kept),
            kept_by_tag=dict(zip(TAGS, counts.tolist(), strict=True)),
        )
        record = write_scored(storage, pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA), record)
        record.replaced(state=BlockState.VERIFIED).save(storage, layout.ledger_file(run.name, number))
    return run


def serve(settings: Settings) -> tuple[uvicorn.Server, str]:
    """Start the search page."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


def fields_of(page: str) -> dict[str, str]:
    """Return the hidden fields of the page's form for a look."""
    form = page[page.index('<form id="look"') :].partition("</form>")[0]
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    return {name: html.unescape(value) for name, value in found}


def state_of(page: str) -> dict[str, object]:
    """Return what the page's script begins with."""
    return dict(json.loads(html.unescape(re.findall(r'data-state="([^"]*)"', page)[0])))


class Reviewer:
    """Looks at pictures as a browser does, and notes how long it waits."""

    def __init__(self, url: str, run: str) -> None:
        self._client = httpx.Client(base_url=url, auth=("ann", PASSWORD), timeout=600, trust_env=False)
        self._page = f"/review/{run}"

    def open(self) -> float:
        """Open the review, and return how long that took."""
        start = time.perf_counter()
        while (page := self._client.get(f"{self._page}/one?to=100000", follow_redirects=True)).status_code == 202:
            time.sleep(0.1)
        self._address, self._text = str(page.url), page.text
        return time.perf_counter() - start

    def look_with_script(self, picture: dict[str, str]) -> tuple[float, list[dict[str, str]]]:
        """Say that a picture is right; return the time until the server's answer, and the next pictures."""
        fields = fields_of(self._text)
        look = {**fields, "position": str(picture["position"]), "why": picture["why"], "answer": "right"}
        start = time.perf_counter()
        answer = self._client.post(f"/api{self._page}/look", data=look).json()
        return time.perf_counter() - start, answer["pictures"]

    def see(self, source: str) -> float:
        """Return how long a picture takes."""
        start = time.perf_counter()
        self._client.get(source).raise_for_status()
        return time.perf_counter() - start

    def look_without_script(self) -> float:
        """Say that a picture is unclear; return the time until the next page and its picture are there."""
        start = time.perf_counter()
        data = {**fields_of(self._text), "answer": "unclear"}
        page = self._client.post(f"{self._page}/look", data=data, follow_redirects=True)
        self._text = page.text
        self.see(re.findall(r'<img id="image" src="([^"]*)"', page.text)[0])
        return time.perf_counter() - start

    def wall(self) -> float:
        """Return how long a wall takes, without its pictures."""
        start = time.perf_counter()
        self._client.get(f"{self._page}/wall?tag=tag 1", follow_redirects=True).raise_for_status()
        return time.perf_counter() - start

    def first_pictures(self) -> list[dict[str, str]]:
        """Return the pictures that came with the page."""
        pictures = state_of(self._text)["pictures"]
        assert isinstance(pictures, list)
        return pictures


def main() -> None:
    """Print the tables."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = LocalStorage(folder / "store")
        run = make_run(storage, folder, images)
        settings = Settings(home=folder / "home", search_password="pass")
        AccountFile(settings).add("ann", Role.REVIEWER, PASSWORD)
        Runtime.storage = storage  # type: ignore[assignment]
        server, url = serve(settings)
        reviewer = Reviewer(url, run.name)
        opening = reviewer.open()
        pictures, waits, seen = reviewer.first_pictures(), [], []
        for looks in range(BEFORE + LOOKS):
            seconds, pictures = reviewer.look_with_script(pictures[0])
            if looks >= BEFORE:
                waits.append(seconds)
                seen.append(reviewer.see(pictures[-1]["source"]))
        again = reviewer.open()
        plain = [reviewer.look_without_script() for _ in range(LOOKS)]
        walls = [reviewer.wall() for _ in range(10)]
        server.should_exit = True
    print(f"{describe_machine()}; {images:,} images, {images // 2:,} documents\n")
    print(f"Opening the review for the first time took {opening:.1f} s, {again:.2f} s later.\n")
    rows = {
        "answer to a look, with the next pictures (the script shows the next one without waiting for it)": waits,
        "a picture, fetched twelve looks before it is shown": seen,
        "without scripts: save, next page and its picture": plain,
        "a wall of 50 pictures, without their bytes": walls,
    }
    print_table(
        ("what", "median, ms", "95 %, ms", "slowest, ms"),
        [
            (what, *(f"{1000 * float(np.quantile(seconds, share)):.0f}" for share in (0.5, 0.95, 1)))
            for what, seconds in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
