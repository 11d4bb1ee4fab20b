"""How soon readers see what a person said: single corrections and take-downs, and ten thousand in one request.

``python benchmarks/corrections.py [IMAGES]`` starts an HDFS and a Solr of its own, and prints Markdown.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from index import IMAGE_BYTES, MANY, make_run, publish_model
from ingest import build_file, definition, timed
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.corrections import correct_live, pending_blocks
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.review.words import say
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.query import search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run

ROUNDS = 7
AT_ONCE = 10_000
CORPUS = "corrected"


def index_all(runtime: Runtime) -> Run:
    """Score, index and publish the corpus; return the run."""
    storage, solr = runtime.storage, runtime.solr
    run = make_run(runtime, CORPUS)
    prepare_collection(run.name, storage=storage, solr=solr)
    for first in range(0, run.blocks, 5):
        request = IndexRequest(run.name, tuple(range(first, min(first + 5, run.blocks))))
        index_blocks(request, storage=storage, solr=solr, report=quiet)
    publish_run(PublishRequest(run.name, runtime.settings.alias), storage=storage, solr=solr, report=quiet)
    return run


def measure(runtime: Runtime, images: int) -> list[list[str]]:
    """Return a row for each kind of request."""
    storage, solr = runtime.storage, runtime.solr
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    chance = random.Random(1)
    unused = iter(chance.sample(range(images), 2 * ROUNDS + 2 * AT_ONCE))
    rows: list[list[str]] = []

    def seen(words: Sequence[Word], is_seen: Callable[[], bool]) -> tuple[float, float]:
        """Say words; return the seconds until they are in the log, and until a search shows them."""
        started = time.perf_counter()
        say(corpus, words, by="bench", storage=storage, report=quiet)
        said = time.perf_counter() - started
        correct_live(CORPUS, runtime.settings.alias, storage=storage, solr=solr, report=quiet)
        while not is_seen():
            time.sleep(0.02)
        return said, time.perf_counter() - started

    def found(tag: str) -> int:
        return search_images(runtime.settings, SearchRequest(tags=(tag,), rows=1, with_pixels=False)).total

    def everything() -> int:
        return search_images(runtime.settings, SearchRequest(rows=1, with_pixels=False)).total

    def correct(number: int) -> tuple[float, float]:
        tag = f"gnu{number}-{chance.random()}"
        words = [Word(next(unused), Verdict.TAG, tag, is_public=True) for _ in range(number)]
        return seen(words, lambda: found(tag) == number)

    def take_down(number: int) -> tuple[float, float]:
        expected = everything() - number
        words = [Word(next(unused), Verdict.TAKEDOWN, reason="asked") for _ in range(number)]
        return seen(words, lambda: everything() == expected)

    for what, act in (("correction", correct), ("take-down", take_down)):
        for number, rounds in ((1, ROUNDS), (AT_ONCE, 1)):
            times = [act(number) for _ in range(rounds)]
            said, shown = ([value[at] for value in times] for at in (0, 1))
            rows.append(
                [
                    f"{number:,} {what}{'s' if number > 1 else ''}",
                    f"{statistics.median(said):.2f}",
                    f"{statistics.median(shown):.2f}",
                    f"{max(shown):.2f}",
                ]
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    images = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else MANY
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), engines=["hdfs", "solr"], standard_ports=False, die_with_parent=True)
        try:
            runtime = Runtime(settings)
            demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
            publish_model(runtime)
            source = folder / "images.bin"
            build_file(source, demo.corpus_path, images * IMAGE_BYTES)
            ingest_corpus(definition(CORPUS, source, blocks_per_shard=50), storage=runtime.storage, report=quiet)
            source.unlink()
            run = index_all(runtime)
            print(f"## Corrections\n\n{describe_machine()}. {images:,} documents.\n")
            print_table(
                ["request", "seconds until recorded", "until a search shows it (median)", "(slowest)"],
                measure(runtime, images),
            )
            assert pending_blocks(run, runtime.storage) == ()
            compared = timed(lambda: reconcile_run(run.name, storage=runtime.storage, solr=runtime.solr, report=quiet))
            print(f"\nAfterwards, every document is as it must be ({compared:.1f} s to compare all).")
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
