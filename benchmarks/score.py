"""Compare scoring with other ways to get a forest's tags for the same real images.

``python benchmarks/score.py`` starts its own HDFS and Spark, trains a forest, and prints Markdown.
"""

import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
from ingest import build_file, definition, timed
from machine import describe_machine, print_table, quiet
from pyspark.ml.classification import RandomForestClassificationModel
from sklearn.ensemble import RandomForestClassifier

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import Demo, make_demo
from tinytags_tasks.corpus.labelled import read_labelled_set
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score import step as score_step
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.services.java import find_java
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources, read_pixels, read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.spark_features import PARTITION_VALUES, Rows, write_features
from tinytags_tasks.train.step import TrainRequest, train_model

IMAGE_BYTES = 3_072
IMAGES = 500_000
IN_MEMORY = 100_000
ROUNDS = 3
ORIGINAL_IMAGES = 600
CORES = os.cpu_count() or 1
FOREST = "bench/forest"
VECTORS = "bench/vectors.parquet"

Trees = list[dict[str, list[float]]]


class ForestKeeper(HdfsStorage):
    """Keeps the forest that Spark saved in training, instead of deleting it, so that MLlib can predict with it."""

    def delete(self, path: str) -> bool:
        """See :meth:`Storage.delete`."""
        if self.exists(f"{path}/treesMetadata"):
            return self.rename(path, FOREST)
        return super().delete(path)


# The trees, read without our own code


def read_trees(runtime: Runtime) -> Trees:
    """Read the trees from the text that Spark prints; this shares no code with the export to ONNX."""
    spark = runtime.connect_spark()
    try:
        forest = RandomForestClassificationModel.load(runtime.storage.url(FOREST))
        return [parse_tree(tree.toDebugString) for tree in forest.trees]
    finally:
        spark.stop()


def parse_tree(text: str) -> dict[str, list[float]]:
    lines = iter(text.splitlines()[1:])
    nodes: list[tuple[float, ...]] = []

    def parse() -> int:
        line = next(lines).strip()
        number = len(nodes)
        nodes.append(())
        if leaf := re.fullmatch(r"Predict: (\d+)\.0", line):
            nodes[number] = (0, 0.0, -1, -1, int(leaf[1]))
            return number
        split = re.fullmatch(r"If \(feature (\d+) <= ([-\d.E]+)\)", line)
        assert split, line
        left = parse()
        assert next(lines).strip().startswith(f"Else (feature {split[1]} > ")
        right = parse()
        nodes[number] = (int(split[1]), float(split[2]), left, right, -1)
        return number

    parse()
    names = ("feature", "threshold", "left", "right", "prediction")
    return {name: list(column) for name, column in zip(names, zip(*nodes, strict=True), strict=True)}


def walk_trees(trees: Trees, pixels: np.ndarray, tags: int) -> np.ndarray:
    """Return the votes for each tag by walking each tree, shape (images, tags)."""
    votes = np.zeros((len(pixels), tags), dtype=np.int64)
    rows = np.arange(len(pixels))
    for tree in trees:
        feature, threshold, left, right, prediction = (np.array(column) for column in tree.values())
        node = np.zeros(len(pixels), dtype=np.int64)
        while (inner := left[node] >= 0).any():
            child = np.where(pixels[rows, feature[node]] <= threshold[node], left[node], right[node])
            node = np.where(inner, child, node)
        votes[rows, prediction[node]] += 1
    return votes


def count_votes(session: onnxruntime.InferenceSession, pixels: np.ndarray, batch: int = 500) -> np.ndarray:
    return np.concatenate(
        [session.run(["votes"], {"pixels": pixels[at : at + batch]})[0] for at in range(0, len(pixels), batch)]
    )


def compare_votes(runtime: Runtime, model: str, trees: Trees) -> str:
    """Score the demo's images from 0 % up, and return how many rows differ from a walk of the trees."""
    storage = runtime.storage
    run, _ = score(runtime, "demo", model, threshold=0)
    pixels = np.frombuffer(storage.read(layout.shard_file("demo", 0)), dtype=np.uint8).reshape(-1, IMAGE_BYTES)
    tags = run_tags(runtime, run)
    walked = walk_trees(trees, pixels, len(tags))
    session = onnxruntime.InferenceSession(storage.read(layout.model_file(model)), providers=["CPUExecutionProvider"])
    other_votes = int((count_votes(session, pixels) != walked).any(axis=1).sum())
    stored = {
        row["position"]: (row["tag"], row["votes"])
        for block in range(run.blocks)
        for row in read_scored(storage, run.name, block)[0].to_pylist()
    }
    most = walked.max(axis=1)
    expected = {at: (tags[int(np.flatnonzero(walked[at] == most[at])[0])], int(most[at])) for at in range(len(pixels))}
    other_rows = sum(stored.get(at) != row for at, row in expected.items())
    ties = int(((walked == most[:, None]).sum(axis=1) > 1).sum())
    return (
        f"The votes were compared with a walk of the trees as Spark prints them, on {len(pixels):,} images ({ties:,} "
        f"of them ties, which go to the lowest tag): ONNX Runtime differs for {other_votes} images, and the committed "
        f"files differ in tag or count for {other_rows}."
    )


def run_tags(runtime: Runtime, run: Run) -> list[str]:
    card = json.loads(runtime.storage.read(layout.card_file(run.model)))
    return list(card["tags"])


# The ways


@dataclass(frozen=True)
class Way:
    """One way to score: its name, the number of images, and the seconds of each round."""

    name: str
    images: int
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Images per second in the median round."""
        return self.images / statistics.median(self.seconds)


def score(
    runtime: Runtime, corpus: str, model: str, *, blocks: int | None = None, threshold: int = 40
) -> tuple[Run, float]:
    """Score a corpus or its first blocks as if for the first time; return the run and the seconds."""
    storage = runtime.storage
    request = PlanRequest(corpus, model, threshold)
    storage.delete(layout.run_file(plan_run(request, storage=storage, report=quiet).run).rpartition("/")[0])
    run = Run.load(storage, layout.run_file(plan_run(request, storage=storage, report=quiet).run))
    chosen = score_step.ScoreRequest(run.name, tuple(range(blocks or run.blocks)))
    seconds = timed(
        lambda: score_step.score_blocks(
            chosen,
            storage=storage,
            address=runtime.store_address,
            connect_spark=runtime.connect_spark,
            report=quiet,
        )
    )
    return run, seconds


def read_in_spark(runtime: Runtime, sources: list[BlockSource], *, hashed: bool) -> None:
    """Only read the blocks, in the same Spark tasks as scoring, two at a time per worker."""
    address = runtime.store_address

    def read_numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with ThreadPoolExecutor(2) as pool:
                sizes = list(pool.map(lambda at: read_block(address, sources[at], hashed), batch.column(0).to_pylist()))
            yield pa.record_batch([pa.array(sizes)], names=["bytes"])

    stored_bytes = sum(source.images * source.image_bytes for source in sources)
    spark = runtime.connect_spark()
    try:
        numbers = spark.range(0, len(sources), 1, numPartitions=-(-stored_bytes // score_step._BYTES_PER_SPARK_TASK))
        rows = numbers.mapInArrow(read_numbers, "bytes long").collect()
    finally:
        spark.stop()
    assert sum(row.bytes for row in rows) == stored_bytes


def read_block(address: StoreAddress, source: BlockSource, hashed: bool) -> int:
    storage = open_store(address)
    if hashed:
        return int(read_pixels(storage, source).nbytes)
    path = layout.shard_file(source.corpus, source.shard)
    return len(storage.read(path, source.offset_bytes, source.images * source.image_bytes))


def read_without_spark(pool: ProcessPoolExecutor, runtime: Runtime, sources: list[BlockSource]) -> None:
    jobs = [pool.submit(read_block, runtime.store_address, source, True) for source in sources]
    assert sum(job.result() for job in jobs) == sum(source.images * source.image_bytes for source in sources)


def transform_in_mllib(runtime: Runtime, images: np.ndarray, tags: tuple[str, ...]) -> list[Way]:
    """Score with MLlib's transform, which takes vectors: they are written to Parquet in HDFS first."""
    labels = np.zeros(len(images), dtype=np.int64)
    rows = Rows(images, labels, classes=len(tags), held_out=np.zeros(len(images), dtype=np.bool_))
    partition_rows = PARTITION_VALUES // IMAGE_BYTES
    writing = timed(lambda: write_features(rows, VECTORS, runtime.storage, partition_rows=partition_rows))
    spark = runtime.connect_spark()
    try:
        forest = RandomForestClassificationModel.load(runtime.storage.url(FOREST))

        def transform() -> None:
            frame = spark.read.parquet(runtime.storage.url(VECTORS))
            chosen = forest.transform(frame).select("prediction", "probability")
            chosen.write.format("noop").mode("overwrite").save()

        timed(transform)  # warms up the JVM's compiler
        seconds = [timed(transform) for _ in range(ROUNDS)]
    finally:
        spark.stop()
    return [
        Way(
            "(b) MLlib: pixels of blocks into Parquet vectors, then `transform`", len(images), [writing + min(seconds)]
        ),
        Way("(b') MLlib `transform` alone, with existing vectors", len(images), seconds),
    ]


def predict_in_scikit_learn(demo: Demo, pixels: np.ndarray) -> list[float]:
    labelled = read_labelled_set(demo.labelled_path, demo.tags)
    forest = RandomForestClassifier(n_estimators=10, max_depth=10, random_state=42, n_jobs=CORES)
    forest.fit(labelled.images.reshape(len(labelled.images), -1), labelled.labels)
    return [
        timed(lambda: [forest.predict_proba(pixels[at : at + 10_000]) for at in range(0, len(pixels), 10_000)])
        for _ in range(ROUNDS)
    ]


def predict_in_onnx_runtime(model: bytes, pixels: np.ndarray) -> list[float]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [timed(lambda: count_votes(session, pixels)) for _ in range(ROUNDS)]


# As the original does it, in its own process: RDDs do not work over Spark Connect


def measure_original(runtime: Runtime, folder: Path, trees: Trees) -> list[Way]:
    (folder / "trees.json").write_text(json.dumps(trees))
    shard, forest = runtime.storage.url(layout.shard_file("demo", 0)), runtime.storage.url(FOREST)
    java = find_java(runtime.settings).resolve().parents[1]
    # The client of Spark Connect sets it to say that this is not classic Spark.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")} | {
        "JAVA_HOME": str(java),
        "PYSPARK_PYTHON": sys.executable,
        "HADOOP_USER_NAME": runtime.settings.hdfs_user,
    }
    done = subprocess.run(
        [sys.executable, __file__, "--original", shard, forest, str(folder / "trees.json")],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        Way("(a) as the original: RDDs of each tree's MLlib predictions, zipped", *found["predict"]),
        Way("(a') an RDD whose workers walk the trees in pure Python", *found["walk"]),
    ]


def original(shard: str, forest_url: str, trees_file: str) -> None:
    from pyspark.mllib.linalg import Vectors
    from pyspark.mllib.tree import DecisionTreeModel
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(f"local[{CORES}]").config("spark.driver.memory", "2g")
    for option, value in (("ui.enabled", "false"), ("ui.showConsoleProgress", "false"), ("log.level", "ERROR")):
        builder = builder.config(f"spark.{option}", value)
    spark = builder.getOrCreate()
    records = spark.sparkContext.binaryRecords(shard, IMAGE_BYTES).repartition(CORES * 2).cache()
    images = records.count()
    few = spark.sparkContext.parallelize(records.take(ORIGINAL_IMAGES), CORES * 2)
    forest = RandomForestClassificationModel.load(forest_url)._java_obj.toOld()  # the old API, which has RDDs

    def predict_by_tree() -> None:
        vectors = few.map(lambda record: Vectors.dense(list(record)))
        each = [DecisionTreeModel(tree).predict(vectors) for tree in forest.trees()]
        together = each[0].map(lambda tag: [tag])
        for predictions in each[1:]:
            together = together.zip(predictions).map(lambda pair: [*pair[0], pair[1]])
        won = together.map(lambda tags: Counter(tags).most_common(1)[0]).filter(lambda won: won[1] >= 4)
        assert won.count() <= ORIGINAL_IMAGES

    predict = [ORIGINAL_IMAGES, [timed(predict_by_tree)]]
    trees = json.loads(Path(trees_file).read_text())

    def winner(record: bytes) -> tuple[int, int]:
        votes: Counter[int] = Counter()
        for tree in trees:
            feature, threshold, left, right = tree["feature"], tree["threshold"], tree["left"], tree["right"]
            node = 0
            while left[node] >= 0:
                node = left[node] if record[feature[node]] <= threshold[node] else right[node]
            votes[tree["prediction"][node]] += 1
        return votes.most_common(1)[0]

    walk = [images, [timed(lambda: records.map(winner).filter(lambda won: won[1] >= 4).count()) for _ in range(2)]]
    print(json.dumps({"predict": predict, "walk": walk}))
    spark.stop()


# All of it


def prepare(runtime: Runtime, folder: Path) -> tuple[Demo, str]:
    """Ingest the corpora ``demo`` and ``big``, and train a forest; return the demo and the model."""
    demo = make_demo(folder / "demo", runtime.settings.demo_source, report=quiet)
    ingest_corpus(definition("demo", demo.corpus_path), storage=runtime.storage, report=quiet)
    big = folder / "big.bin"
    build_file(big, demo.corpus_path, IMAGES * IMAGE_BYTES)
    ingest_corpus(definition("big", big), storage=runtime.storage, report=quiet)
    big.unlink()
    model = train_model(
        TrainRequest(str(demo.labelled_path), tags=demo.tags, features="pixels", head="forest", held_out=0),
        storage=ForestKeeper(runtime.store_address),
        connect_spark=runtime.connect_spark,
        report=quiet,
    ).model
    return demo, model


def measure(runtime: Runtime, folder: Path) -> None:
    demo, model = prepare(runtime, folder)
    storage = runtime.storage
    trees = read_trees(runtime)
    print(f"{compare_votes(runtime, model, trees)}\n", flush=True)

    corpus = Corpus.load(storage, layout.corpus_file("big"))
    sources = block_sources(storage, corpus, range(corpus.partition.blocks))
    ours, read_hashed, read_plain, read_bare = [], [], [], []
    # Not forked: the threads of Spark's client would be missing.
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool:
        read_without_spark(pool, runtime, sources)  # starts its processes, and brings the file into memory
        for _ in range(ROUNDS):  # interleaved, so that a disturbance affects all of them
            ours.append(score(runtime, "big", model)[1])
            read_hashed.append(timed(lambda: read_in_spark(runtime, sources, hashed=True)))
            read_plain.append(timed(lambda: read_in_spark(runtime, sources, hashed=False)))
            read_bare.append(timed(lambda: read_without_spark(pool, runtime, sources)))
    growth = {IMAGES: statistics.median(ours)}
    for blocks in (2, 10, 25):
        seconds = [score(runtime, "big", model, blocks=blocks)[1] for _ in range(2)]
        growth[IMAGES * blocks // corpus.partition.blocks] = statistics.median(seconds)

    pixels = np.frombuffer(storage.read(layout.shard_file("big", 0), 0, IN_MEMORY * IMAGE_BYTES), dtype=np.uint8)
    pixels = pixels.reshape(-1, IMAGE_BYTES)
    first = pixels[:20_000]
    scored = Way("**(d) TinyTags: from HDFS through Spark into committed files**", IMAGES, ours)
    ways = [
        *measure_original(runtime, folder, trees),
        *transform_in_mllib(runtime, first, demo.tags),
        Way("(c) scikit-learn `predict_proba`, in memory", IN_MEMORY, predict_in_scikit_learn(demo, pixels)),
        scored,
        Way(
            "(e) ONNX Runtime alone, in memory",
            IN_MEMORY,
            predict_in_onnx_runtime(storage.read(layout.model_file(model)), pixels),
        ),
        Way("(f) only reading the blocks in Spark, with sha256", IMAGES, read_hashed),
        Way("(f') the same without sha256", IMAGES, read_plain),
        Way(f"(f'') with sha256, by {CORES} running processes without Spark", IMAGES, read_bare),
    ]
    print_table(
        ["way", "images", "seconds of each round", "images/s (median)", "speed of (d), ratio"],
        [
            [
                way.name,
                f"{way.images:,}",
                ", ".join(f"{value:.1f}" for value in way.seconds),
                f"{way.rate:,.0f}",
                f"{scored.rate / way.rate:,.2f}",
            ]
            for way in ways
        ],
    )
    print()
    print_table(
        ["images", "seconds of (d)", "images/s"],
        [[f"{images:,}", f"{growth[images]:.1f}", f"{images / growth[images]:,.0f}"] for images in sorted(growth)],
    )


def main() -> None:
    if sys.argv[1:2] == ["--original"]:
        original(*sys.argv[2:])
        return
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        if sys.dont_write_bytecode:  # otherwise each of Spark's workers would compile everything that it imports
            del os.environ["PYTHONDONTWRITEBYTECODE"]
            os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        settings = services.up(load_settings(), engines=["hdfs", "spark"], standard_ports=False, die_with_parent=True)
        try:
            print(f"## Scoring\n\n{describe_machine()}; a forest of 10 trees, depth 10, trained on CIFAR-10.\n")
            measure(Runtime(settings), folder)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
