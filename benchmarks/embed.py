"""Measure embedding, and tagging again from stored embeddings, beside the original's forest on pixels.

``python benchmarks/embed.py`` starts its own HDFS and Spark, and prints Markdown.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from ingest import build_file, definition, timed
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.demo.make import TEST_FILE, TRAIN_FILE
from tinytags_tasks.corpus.labelled import read_labelled_set
from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.catalogue import net_for, read_net
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.evaluation import count_votes
from tinytags_tasks.train.step import TrainRequest, train_model

NET = "general32"
CORPUS = "big"
IMAGE_BYTES = 3_072
IMAGES = 200_000
EMBEDDED_AGAIN = 100_000
IN_MEMORY = 20_000
LABELLED = 5_000
ROUNDS = 3
THRESHOLD = 40
CORES = os.cpu_count() or 1


def prepare(runtime: Runtime, folder: Path) -> tuple[Corpus, npt.NDArray[np.uint8]]:
    """Ingest CIFAR-10's test images, repeated; return the corpus and its first images."""
    test = read_labelled_set(runtime.settings.demo_source / TEST_FILE, CIFAR10_TAGS).images
    few, many = folder / "few.bin", folder / "many.bin"
    test.tofile(few)
    build_file(many, few, IMAGES * IMAGE_BYTES)
    fields = {"height": 32, "width": 32, "shard_images": 100_000, "blocks_per_shard": 10}
    ingest_corpus(definition(CORPUS, many, "raw", **fields), storage=runtime.storage, report=quiet)
    first = np.fromfile(many, dtype=np.uint8, count=IN_MEMORY * IMAGE_BYTES).reshape(-1, IMAGE_BYTES)
    many.unlink()
    return Corpus.load(runtime.storage, layout.corpus_file(CORPUS)), first


def train(runtime: Runtime, folder: Path) -> dict[str, ModelCard]:
    """Train the models to tag with; how good they are is measured by `tags.py`."""
    labelled = folder / "labelled.parquet"
    pq.write_table(pq.read_table(runtime.settings.demo_source / TRAIN_FILE).slice(0, LABELLED), labelled)
    ways = {
        "the original: forest on pixels": ("pixels", "forest"),
        f"forest on {NET}, with none": (NET, "forest"),
        f"**logistic on {NET}, with none** (the default)": (NET, "logistic"),
    }
    cards = {}
    for name, (features, head) in ways.items():
        request = TrainRequest(str(labelled), tags=CIFAR10_TAGS, features=features, head=head, held_out=0)
        trained = train_model(request, storage=runtime.storage, connect_spark=runtime.connect_spark, report=quiet)
        cards[name] = ModelCard.load(runtime.storage, layout.card_file(trained.model))
    return cards


def embed_all(runtime: Runtime, net: str, blocks: Sequence[int]) -> None:
    embed_blocks(
        EmbedRequest(CORPUS, net, tuple(blocks), redo=True),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        report=quiet,
    )


def compare_embedding(runtime: Runtime, corpus: Corpus, images: npt.NDArray[np.uint8]) -> None:
    """Print how fast a net embeds in memory, and from HDFS through Spark into committed files."""
    storage = runtime.storage
    net = net_for(NET, storage)
    session = open_session(embedding_graph(read_net(storage, net.version), net, 32, 32), NET, threads=CORES)
    blocks = corpus.partition.blocks
    embed_all(runtime, net.version, range(blocks))  # all are there to be tagged, and Spark's workers are running
    part = range(blocks * EMBEDDED_AGAIN // IMAGES)
    alone, ours = [], []
    for _ in range(ROUNDS):  # interleaved, so that a disturbance affects both
        alone.append(IN_MEMORY / timed(lambda: embed(session, images)))
        ours.append(EMBEDDED_AGAIN / timed(lambda: embed_all(runtime, net.version, part)))
    ratio = statistics.median(ours) / statistics.median(alone)
    print_table(
        ("way", "images/s in each round", "images/s (median)", "against ONNX Runtime alone"),
        [
            [f"ONNX Runtime alone, in memory, {CORES} threads", *in_rounds(alone), "1.00"],
            ["**TinyTags: from HDFS through Spark into committed files**", *in_rounds(ours), f"{ratio:.2f}"],
        ],
    )


def in_rounds(rates: Sequence[float]) -> list[str]:
    return [", ".join(f"{rate:,.0f}" for rate in rates), f"{statistics.median(rates):,.0f}"]


def score(runtime: Runtime, card: ModelCard) -> tuple[Run, float]:
    """Score the whole corpus; return the run and the images a second."""
    planned = plan_run(PlanRequest(CORPUS, card.version, THRESHOLD), storage=runtime.storage, report=quiet)
    run = Run.load(runtime.storage, layout.run_file(planned.run))
    request = ScoreRequest(run.name, tuple(range(run.blocks)), redo=True)
    seconds = timed(
        lambda: score_blocks(
            request,
            storage=runtime.storage,
            address=runtime.store_address,
            connect_spark=runtime.connect_spark,
            report=quiet,
        )
    )
    return run, IMAGES / seconds


def compare_tagging(runtime: Runtime, cards: dict[str, ModelCard]) -> None:
    """Print how fast a corpus is tagged again: from stored embeddings, and from pixels."""
    rates: dict[str, list[float]] = {name: [] for name in cards}
    for _ in range(ROUNDS):
        for name, card in cards.items():
            rates[name].append(score(runtime, card)[1])
    original = statistics.median(next(iter(rates.values())))
    print(f"\n{IMAGES:,} images, from HDFS through Spark into committed files:\n")
    print_table(
        ("tagging again", "images/s in each round", "images/s (median)", "against the original"),
        [[name, *in_rounds(each), f"{statistics.median(each) / original:.2f}"] for name, each in rates.items()],
    )


def compare_scores(runtime: Runtime, card: ModelCard, images: npt.NDArray[np.uint8]) -> str:
    """Compare what was scored from stored embeddings with the votes from pixels, image by image."""
    run, _ = score(runtime, card)
    votes = count_votes(runtime.storage.read(layout.model_file(card.version)), images.reshape(-1, 32, 32, 3))
    winner, won = votes.argmax(axis=1), votes.max(axis=1)
    is_kept = (winner < len(card.tags)) & (won * 100 >= THRESHOLD * card.trees)
    expected = {int(at): (card.tags[winner[at]], int(won[at])) for at in np.flatnonzero(is_kept)}
    blocks = range(len(images) * run.blocks // IMAGES)
    rows = [row for block in blocks for row in read_scored(runtime.storage, run.name, block)[0].to_pylist()]
    found = {row["position"]: (row["tag"], row["votes"]) for row in rows}
    different = sum(expected.get(at) != found.get(at) for at in {*expected, *found})
    return (
        f"{len(images):,} images scored from stored embeddings, and from pixels through the model's one graph: "
        f"{different} differ in tag or votes."
    )


def main() -> None:
    """Run all parts on engines of their own."""
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        if sys.dont_write_bytecode:  # otherwise each of Spark's workers would compile everything that it imports
            del os.environ["PYTHONDONTWRITEBYTECODE"]
            os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        settings = services.up(load_settings(), engines=["hdfs", "spark"], standard_ports=False, die_with_parent=True)
        try:
            print(f"## Embedding\n\n{describe_machine()}; `{NET}`, 32x32.\n")
            runtime = Runtime(settings)
            corpus, images = prepare(runtime, folder)
            cards = train(runtime, folder)
            compare_embedding(runtime, corpus, images)
            compare_tagging(runtime, cards)
            print(f"\n{compare_scores(runtime, list(cards.values())[-1], images)}")
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
