"""Compare training in Spark with scikit-learn, on the demo's labelled images; and measure an imported neural net.

``python benchmarks/train.py [IMAGES ...]`` starts its own HDFS and Spark, and prints Markdown. If more images are asked
for than exist, they are repeated with noise.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import psutil
import pyarrow.parquet as pq
from machine import describe_machine, print_table, quiet
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import OTHER_FILE, Demo, make_demo, write_labelled_parquet
from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_figures import share
from tinytags_tasks.store.models import load_card
from tinytags_tasks.train import step
from tinytags_tasks.train.evaluation import count_votes, evaluate
from tinytags_tasks.train.images import read_labelled
from tinytags_tasks.train.import_step import ImportRequest, import_model
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.sample_forest import SampleForest

SIZES = (10_000, 20_000, 50_000, 100_000)
NET_IMAGES = 20_000
NOISE = 8


Outcome = TypeVar("Outcome")


@dataclass
class Cost:
    """Seconds of wall time, and of CPU time of this process, its children and Spark together."""

    wall: float = 0.0
    cpu: float = 0.0


def cpu_seconds(spark: psutil.Process) -> float:
    own = os.times()
    java = spark.cpu_times()
    return own.user + own.system + own.children_user + own.children_system + java.user + java.system


def costed(spark: psutil.Process, work: Callable[[], Outcome]) -> tuple[Outcome, Cost]:
    wall, cpu = time.perf_counter(), cpu_seconds(spark)
    outcome = work()
    return outcome, Cost(time.perf_counter() - wall, cpu_seconds(spark) - cpu)


def write_size(folder: Path, demo: Demo, images: int) -> Path:
    """Write a labelled set of a given size; if there are too few images, they are repeated with noise."""
    path = folder / f"labelled-{images}.parquet"
    table = pq.read_table(demo.labelled_path)
    if images <= table.num_rows:
        pq.write_table(table.slice(0, images), path)
        return path
    labelled = read_labelled(demo.labelled_path, demo.tags, 32, 32)
    chosen = np.arange(images) % len(labelled.images)
    random = np.random.default_rng(0)
    noisy = np.empty((images, 32, 32, 3), dtype=np.uint8)
    for start in range(0, images, 1_000):
        rows = chosen[start : start + 1_000]
        noise = random.integers(-NOISE, NOISE + 1, (len(rows), 32, 32, 3), dtype=np.int16)
        noisy[start : start + 1_000] = (labelled.images[rows] + noise).clip(0, 255)
    write_labelled_parquet(path, noisy, labelled.labels[chosen], demo.tags)
    return path


def fit_plain(labelled: LabelledSet, request: TrainRequest) -> RandomForestClassifier:
    """Fit scikit-learn's own forest on the unchanged pixels."""
    forest = RandomForestClassifier(request.trees, max_depth=request.depth, random_state=request.seed, n_jobs=-1)
    return forest.fit(labelled.images.reshape(len(labelled.images), -1).astype(np.float32), labelled.labels)


def plain_votes(forest: RandomForestClassifier, images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    chosen = np.stack([tree.predict(flat).astype(int) for tree in forest.estimators_])
    return np.stack([(chosen == tag).sum(axis=0) for tag in range(len(forest.classes_))], axis=1)


def accuracy(votes: np.ndarray, labelled: LabelledSet) -> float:
    return 100 * float((votes.argmax(axis=1) == labelled.labels).mean())


def compare_trainings(folder: Path, settings: Settings, demo: Demo, sizes: tuple[int, ...]) -> None:
    runtime = Runtime(settings)
    (status,) = [engine for engine in services.status(settings) if engine.name == "spark"]
    spark = psutil.Process(status.pid)
    test = read_labelled(demo.test_path or demo.labelled_path, demo.tags, 32, 32)
    rows, accuracies = [], []
    # Spark has just been started when the first training begins.
    for number, images in enumerate((sizes[-1] if len(sizes) == 1 else min(sizes[-1], 50_000), *sizes)):
        path = write_size(folder, demo, images)
        request = TrainRequest(
            str(path), tags=demo.tags, name=f"bench{number}", features="pixels", head="forest", held_out=0
        )
        labelled, reading = costed(spark, partial(read_labelled, path, demo.tags, 32, 32))
        forest, fitting = costed(spark, partial(fit_plain, labelled, request))
        result, whole = costed(
            spark,
            partial(
                step.train_model,
                request,
                storage=runtime.storage,
                connect_spark=runtime.connect_spark,
                report=quiet,
            ),
        )
        seconds = load_card(runtime.storage, result.model).seconds
        rows.append(
            [
                f"{images:,}" + (" (Spark just started)" if number == 0 else ""),
                f"{reading.wall:.1f}",
                f"{fitting.wall:.1f}",
                f"{seconds['load']:.1f}",
                f"{seconds['fit']:.1f}",
                f"{whole.wall:.1f}",
                f"{seconds['fit'] / fitting.wall:.1f}",
                f"{whole.wall / (reading.wall + fitting.wall):.1f}",
                f"{whole.cpu / (reading.cpu + fitting.cpu):.1f}",
            ]
        )
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
        if number == 0:
            continue
        binned = SampleForest(request, len(demo.tags), jobs=-1)
        binned.fit(labelled.images.reshape(images, -1), labelled.labels)
        ours = count_votes(runtime.storage.read(layout.model_file(result.model)), test.images)
        found = (
            accuracy(plain_votes(forest, test.images), test),
            accuracy(binned.votes(test.images.reshape(len(test.images), -1)), test),
            accuracy(ours, test),
        )
        accuracies.append([f"{images:,}", *(f"{each:.2f} %" for each in found), f"{found[2] - found[1]:+.2f}"])
        print(" | ".join(accuracies[-1]), file=sys.stderr, flush=True)
    print("Seconds, and Spark's as a multiple of scikit-learn's; the last column is CPU time.\n")
    print_table(
        (
            *("images", "scikit-learn: read", "fit", "Spark: read and transfer", "fit", "whole step"),
            *("fit, times", "whole, times", "CPU, times"),
        ),
        rows,
    )
    print("\nTest accuracy by votes; the lab is scikit-learn with MLlib's bins.\n")
    print_table(("images", "scikit-learn", "the lab", "Spark", "Spark minus the lab"), accuracies)


def net_to_onnx(net: MLPClassifier, tags: int) -> bytes:
    """Write a net of one hidden layer as ONNX: float32 pixels from 0 to 1 in, probabilities out."""
    names = ("hidden", "hidden_bias", "last", "last_bias")
    values = (net.coefs_[0], net.intercepts_[0], net.coefs_[1], net.intercepts_[1])
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["pixels", "hidden", "hidden_bias"], ["first"]),
            helper.make_node("Relu", ["first"], ["active"]),
            helper.make_node("Gemm", ["active", "last", "last_bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["images", len(net.coefs_[0])])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", tags])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in zip(names, values, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def import_a_net(folder: Path, settings: Settings, demo: Demo) -> None:
    labelled = read_labelled(write_size(folder, demo, NET_IMAGES), demo.tags, 32, 32)
    test = read_labelled(demo.test_path or demo.labelled_path, demo.tags, 32, 32)
    net = MLPClassifier((96,), batch_size=128, learning_rate_init=5e-4, max_iter=12, random_state=42)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(labelled.images.reshape(NET_IMAGES, -1).astype(np.float32) / 255, labelled.labels)
    theirs = net.predict_proba(test.images.reshape(len(test.images), -1).astype(np.float32) / 255)
    path = folder / "net.onnx"
    path.write_bytes(net_to_onnx(net, len(demo.tags)))
    storage = Runtime(settings).storage
    other = settings.demo_source / OTHER_FILE
    request = ImportRequest(
        str(path), demo.tags, "net", scale="0-1", test=str(demo.test_path), other=str(other) if other.exists() else None
    )
    model = import_model(request, storage=storage, report=quiet).model
    onnx_model = storage.read(layout.model_file(model))
    started = time.perf_counter()
    ours = count_votes(onnx_model, test.images)
    seconds = time.perf_counter() - started
    measured = evaluate(ours, test, 100, "")
    print("\n## An imported neural net\n")
    print(f"scikit-learn's MLPClassifier with one layer of 96, trained on {NET_IMAGES:,} images:")
    print(f"accuracy {measured.accuracy:.2f} % as {model}, {accuracy(theirs, test):.2f} % in scikit-learn itself,")
    print(f"probabilities differ by at most {np.abs(ours / 100 - theirs).max():.1e},")
    print(f"{len(test.images) / seconds:,.0f} images/s in memory.\n")
    print_table(
        ("confidence at least", "kept", "precision"),
        [
            [f"{each.threshold} %", share(each.kept, measured.images), share(each.right, each.kept)]
            for each in measured.thresholds
        ],
    )


def main() -> None:
    sizes = tuple(int(each.replace(",", "")) for each in sys.argv[1:]) or SIZES
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), engines=["hdfs", "spark"], standard_ports=False, die_with_parent=True)
        try:
            demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
            forest = TrainRequest("", features="pixels", head="forest").parameters
            parameters = ", ".join(f"{name} {value}" for name, value in forest.items())
            print(f"## Training\n\n{describe_machine()}; {parameters}; {demo.description}.\n")
            compare_trainings(folder, settings, demo, sizes)
            import_a_net(folder, settings, demo)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
