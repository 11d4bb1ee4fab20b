"""Measure the loop that learns from reviews, whole: look, train, tag again, publish, look again, measure.

``python benchmarks/loop.py [IMAGES]`` starts its own HDFS, Solr and Spark, and prints Markdown. The corpus is the
demo's images, moved and mirrored so that no two are equal; what they show is known, so a made reviewer looks at them.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from ingest import definition
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import OTHER_FILE, Demo, make_demo
from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import load_frame
from tinytags_tasks.review.made_reviewer import MADE_REVIEWER, MadeReviewer
from tinytags_tasks.review.measuring import describe, measure_run
from tinytags_tasks.review.words import say
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_log import read_words
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.step import train_model

IMAGES = 1_000_000
LOOKS, ROUND = 500, 250
NAME = "demo-moved"
SIDE = 32


def write_moved(path: Path, demo_file: Path, images: int) -> None:
    """Write the demo's images again and again, each time moved by a few pixels and every second time mirrored."""
    stored = np.fromfile(demo_file, dtype=np.uint8).reshape(-1, 3, SIDE, SIDE)  # channel, column, row
    with path.open("wb") as file:
        for turn in range(-(-images // len(stored))):
            mirrored = stored[:, :, ::-1] if turn % 2 else stored
            across, down = divmod(turn // 2, 5)
            moved = np.roll(mirrored, (across - 2, down - 2), axis=(2, 3))
            np.ascontiguousarray(moved[: images - turn * len(stored)]).tofile(file)


@contextmanager
def part(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Take the time of a part."""
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
    print(f"{name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)


def embed_corpus(runtime: Runtime, corpus: str, net: str) -> None:
    """Embed a whole corpus."""
    embed_blocks(
        EmbedRequest(corpus, net),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        report=quiet,
    )


def score_group(runtime: Runtime, run: Run, blocks: Sequence[int]) -> None:
    """Score some blocks of a run."""
    score_blocks(
        ScoreRequest(run.name, tuple(blocks)),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        report=quiet,
    )


def tag_corpus(runtime: Runtime, corpus: str, model: str, threshold: int = 40) -> Run:
    """Score, index, reconcile and publish a whole corpus without Airflow."""
    storage = runtime.storage
    planned = plan_run(PlanRequest(corpus, model, threshold), storage=storage, report=quiet)
    run = Run.load(storage, layout.run_file(planned.run))
    prepare_collection(run.name, storage=storage, solr=runtime.solr)
    for group in planned.groups:
        score_group(runtime, run, group)
        index_blocks(IndexRequest(run.name, tuple(group)), storage=storage, solr=runtime.solr, report=quiet)
    publish_run(PublishRequest(run.name, runtime.settings.alias), storage=storage, solr=runtime.solr, report=quiet)
    return run


class Loop:
    """What is done in the loop, and before it."""

    def __init__(self, runtime: Runtime, reviewer: MadeReviewer) -> None:
        self._runtime = runtime
        self._storage = runtime.storage
        self._reviewer = reviewer

    def train(self, labelled: Path, other: Path, *, learns: bool) -> str:
        """Train the default model; return its version."""
        request = TrainRequest(
            str(labelled), other=str(other), corpus=NAME if learns else None, reviews=NAME if learns else None
        )
        trained = train_model(request, storage=self._storage, connect_spark=self._runtime.connect_spark, report=quiet)
        return trained.model

    def tag(self, model: str) -> Run:
        """Score, index, reconcile and publish the whole corpus."""
        return tag_corpus(self._runtime, NAME, model)

    def look(self, run: Run) -> None:
        """Let the made reviewer look at some hundred pictures of a run."""
        corpus = load_corpus(NAME, self._storage)
        frame = load_frame(run, self._storage, quiet)
        for _ in range(LOOKS // ROUND):
            pictures = next_pictures(frame, read_words(corpus, self._storage), count=ROUND, taken=())
            words = self._reviewer.look(pictures)
            say(corpus, words, by=MADE_REVIEWER, run=run.name, storage=self._storage)

    def measured(self, run: Run) -> tuple[str, str]:
        """Return precision and recall of a run, as looks have measured them."""
        table = measure_run(run, self._storage, quiet)
        return describe(table.overall), describe(table.recall_overall)


def measure(runtime: Runtime, demo: Demo, folder: Path, images: int) -> None:
    """Tag the corpus, then go through the loop once, and print the seconds."""
    source = folder / "moved.bin"
    write_moved(source, demo.corpus_path, images)
    truth = MadeReviewer.of_demo(demo)
    labels = np.resize(truth.labels, images)
    loop = Loop(runtime, MadeReviewer(truth.tags, labels))
    labelled, other = demo.labelled_path, demo.labelled_path.with_name(OTHER_FILE)
    storage = runtime.storage
    once: dict[str, float] = {}
    parts: dict[str, float] = {}
    with part(once, "ingest"):
        ingest_corpus(definition(NAME, source), storage=storage, report=quiet)
    source.unlink()
    with part(once, "train"):
        model = loop.train(labelled, other, learns=False)
    with part(once, "embed"):
        embed_corpus(runtime, NAME, "general32")
    with part(once, "score, index, publish"):
        first = loop.tag(model)
    with part(parts, f"{LOOKS} looks of a made reviewer, who takes no time"):
        loop.look(first)
    with part(parts, "train, with the reviews"):
        model = loop.train(labelled, other, learns=True)
    with part(parts, "score from stored embeddings, index, reconcile, publish"):
        second = loop.tag(model)
    with part(parts, f"{LOOKS} looks at the new run, and measure"):
        loop.look(second)
        after = loop.measured(second)
    print(f"## The loop of reviews\n\n{describe_machine()}; {images:,} images.\n")
    print_table(
        ("part", "seconds"),
        [
            *((name, f"{took:.0f}") for name, took in parts.items()),
            ("**the loop**", f"**{sum(parts.values()):.0f}**"),
        ],
    )
    print()
    runs = (("before", first, loop.measured(first)), ("after", second, after))
    print_table(
        ("run", "documents", "precision", "recall"),
        [[name, f"{runtime.solr.count(run.collection):,}", *measured] for name, run, measured in runs],
    )
    spent = ", ".join(f"{name} {took:.0f} s" for name, took in once.items())
    print(f"\nBefore the loop, once: {spent}.")


def main() -> None:
    """Run on engines of their own."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        engines = ["hdfs", "solr", "spark"]
        settings = services.up(load_settings(), engines=engines, standard_ports=False, die_with_parent=True)
        try:
            measure(Runtime(settings), make_demo(folder / "demo", settings.demo_source, report=quiet), folder, images)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
