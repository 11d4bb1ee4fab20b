"""Measure tags by content beside the original's forest on pixels: what is right, what ranks first, seconds to train.

``python benchmarks/tags.py [CALTECH-101 [NATURAL-IMAGES]]`` starts its own HDFS and Spark, and prints Markdown. The
arguments are sources that no net saw, a folder for each category: Caltech-101's `101_ObjectCategories`, and the data
set "Natural Images" (airplane, car, cat, ...); without them, their rows are left out.
"""

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine, print_table, quiet
from sklearn.metrics import roc_auc_score

from tinytags_tasks import services
from tinytags_tasks.corpus.class_names import CIFAR10_TAGS, TAGS_KEY
from tinytags_tasks.corpus.demo.make import OTHER_FILE, TEST_FILE, TRAIN_FILE
from tinytags_tasks.nets.recipe.evaluate import (
    CALTECH_ARGUABLE,
    CALTECH_TAGS,
    MOST_A_CATEGORY,
    NATURAL_TAGS,
    read_folders,
)
from tinytags_tasks.nets.shipped import read_packaged
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_figures import share
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.train.evaluation import count_votes
from tinytags_tasks.train.images import LEFT_OUT, read_other
from tinytags_tasks.train.parameters import HELD_OUT
from tinytags_tasks.train.step import TrainRequest, train_model

NET = "general32"
SHOTS = (5, 20)
ROUNDS = 3
THRESHOLDS = (40, 60, 80)

SETS = 9
"""How many sets of eight new tags are dealt from a source: as many as Caltech-101 has."""

MOST_OF_NATURAL = 500
"""How many pictures a category of Natural Images has at the most."""

LEAST_OF_TAG, MOST_OF_TAG = 40, 100
"""How many pictures a new tag of Caltech-101 has: so that as many are left to measure as are taught; and no more."""

NOT_NEW = {"BACKGROUND_Google", "Faces", *CALTECH_TAGS}
"""Categories of Caltech-101 that are no new tags; those of Faces are in Faces_easy, too."""

Labels = npt.NDArray[np.int64]
Pictures = tuple[list[bytes], Labels, tuple[str, ...]]
"""Encoded pictures, their labels, and the names of the labels."""


@dataclass(frozen=True)
class Way:
    """What a model sees and is: the options of ``tinytags train``."""

    name: str
    features: str
    head: str
    none: bool | None
    name_of_model: str = ""


PIXELS = Way("the original: forest on pixels", "pixels", "forest", False)
FOREST = Way(f"forest on {NET}", NET, "forest", False)
FOREST_NONE = Way(f"forest on {NET}, with none", NET, "forest", None)
LOGISTIC = Way(f"logistic on {NET}", NET, "logistic", False)
DEFAULT = Way(f"**logistic on {NET}, with none** (the default)", NET, "logistic", None)
WAYS = (PIXELS, FOREST, FOREST_NONE, LOGISTIC, DEFAULT)


class Bench:
    """The engines, and the files that several parts use."""

    def __init__(self, folder: Path, settings: Settings, caltech: Path | None, natural: Path | None) -> None:
        self.folder = folder
        self.runtime = Runtime(settings)
        self.storage = self.runtime.storage
        self.source = settings.demo_source
        self.caltech = caltech
        self.natural = natural

    def train(
        self, way: Way, labelled: Path, test: Path | None, other: Path | None = None, held_out: int = 0
    ) -> tuple[ModelCard, float]:
        """Train a model; return its card, and the seconds of the step."""
        request = TrainRequest(
            str(labelled),
            str(test) if test else None,
            way.name_of_model,
            features=way.features,
            head=way.head,
            none=way.none,
            other=str(other) if other else None,
            held_out=held_out,
        )
        began = time.perf_counter()
        trained = train_model(request, storage=self.storage, connect_spark=self.runtime.connect_spark, report=quiet)
        seconds = time.perf_counter() - began
        return ModelCard.load(self.storage, layout.card_file(trained.model)), seconds

    def votes(self, card: ModelCard, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        """Return the votes from pixels, by the model's one graph."""
        return count_votes(self.storage.read(layout.model_file(card.version)), images)


# Accuracy, on CIFAR-10


def measure_accuracy(bench: Bench) -> dict[Way, ModelCard]:
    """Train every way on CIFAR-10's 50,000 training images; print what is right, and the seconds."""
    labelled, test, other = (bench.source / name for name in (TRAIN_FILE, TEST_FILE, OTHER_FILE))
    for way in (PIXELS, DEFAULT):  # Spark has just been started; the embeddings of the labelled set are kept, too
        _, seconds = bench.train(replace(way, name_of_model="first"), labelled, None)
        print(f"The first training, {way.name}: {seconds:.1f} s.\n")
    cards, rows = {}, []
    for way in WAYS:
        card, seconds = bench.train(way, labelled, test, other)
        assert card.test is not None and card.other is not None  # both were given
        cards[way] = card
        kept = {each.threshold: each for each in card.test.thresholds}
        tagged = {each.threshold: each for each in card.other.thresholds}
        rows.append(
            [
                way.name,
                f"{card.metrics['test_accuracy']:.1f} %",
                *(share(kept[each].right, kept[each].kept) for each in THRESHOLDS),
                share(kept[40].kept, card.test.images),
                *(share(tagged[each].right, tagged[each].tagged) for each in THRESHOLDS),
                share(tagged[40].tagged, card.other.with_tag + card.other.without_tag),
                f"{seconds:.1f}",
            ]
        )
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print("### CIFAR-10\n\n50,000 labelled; 10,000 test images; 9,100 other photographs, 11.5 % of which show a tag.\n")
    from_each = [f"right from {each} %" for each in THRESHOLDS]
    columns = ["right, no threshold", *from_each, "kept from 40 %", *(f"others: {each}" for each in from_each)]
    print_table(("model", *columns, "others: tagged from 40 %", "seconds of the whole step"), rows)
    return cards


# Seconds, on stored embeddings


def measure_seconds(bench: Bench) -> None:
    """Print the seconds of the whole step, card included, on embeddings that are stored, with Spark warm."""
    labelled, test = (bench.source / name for name in (TRAIN_FILE, TEST_FILE))
    rows = []
    for way in (FOREST, FOREST_NONE, LOGISTIC, DEFAULT):
        for held_out in (0, HELD_OUT.default):
            named = [replace(way, name_of_model=f"round-{number}-{held_out}") for number in range(ROUNDS)]
            found = [bench.train(each, labelled, test, held_out=held_out) for each in named]
            seconds = [f"{seconds:.1f}" for _, seconds in found]
            parts = found[-1][0].seconds
            of_parts = ", ".join(f"{part} {parts[part]}" for part in parts)
            rows.append([way.name, f"{held_out} %" if held_out else "none", ", ".join(seconds), of_parts])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    print("\n### Seconds to train a head on 50,000 stored embeddings, card included\n")
    print_table(("model", "held out to measure a second head", "seconds of each round", "the last round's parts"), rows)


# Ranking: does a picture that shows a tag get more votes than one that shows none?


def measure_ranking(bench: Bench, cards: dict[Way, ModelCard]) -> None:
    """Print AUROC of tag against none, by the votes of the surest tag, before anybody has reviewed anything."""
    sources = {"other sample": other_sample(bench.source / OTHER_FILE)}
    if bench.caltech:
        sources["Caltech-101"] = unseen_sample(bench.caltech, CALTECH_TAGS, MOST_A_CATEGORY)
    if bench.natural:
        sources["Natural Images"] = unseen_sample(bench.natural, NATURAL_TAGS, MOST_OF_NATURAL)
    rows = []
    for way, card in cards.items():
        row = [way.name]
        for images, labels in sources.values():
            best = bench.votes(card, images)[:, : len(card.tags)].max(axis=1)
            row.append(f"{roc_auc_score(labels >= 0, best):.3f}")
        rows.append(row)
    print("\n### Tag against none: AUROC before any review\n")
    for name, (_, labels) in sources.items():
        print(f"{name}: {len(labels):,} pictures, {100 * (labels >= 0).mean():.1f} % show a tag.")
    print()
    print_table(("model", *sources), rows)


def other_sample(path: Path) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Return pictures of other things, and their labels: -1 for those that show none of the tags."""
    read = read_other(path, CIFAR10_TAGS, 32, 32)
    known = read.labels != LEFT_OUT
    return read.images[known], read.labels[known]


def unseen_sample(folder: Path, tags: Mapping[str, int], most: int) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Return the same of a folder for each category, without Caltech's that can be argued either way."""
    names = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name not in CALTECH_ARGUABLE)
    encoded, categories = read_folders(folder, names, most)
    labels = np.array([tags.get(name, -1) for name in names])[categories]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "unseen.parquet"
        write_labelled(path, encoded, labels, CIFAR10_TAGS)
        return other_sample(path)


def write_labelled(path: Path, encoded: Sequence[bytes], labels: Labels, tags: Sequence[str]) -> None:
    """Write a labelled set of encoded pictures, unchanged."""
    table = pa.table({"img": [{"bytes": each} for each in encoded], "label": pa.array(labels, pa.int64())})
    pq.write_table(table.replace_schema_metadata({TAGS_KEY: json.dumps(tags)}), path)


# A handful of labelled pictures


def measure_handful(bench: Bench) -> None:
    """Print how often eight new tags are right that were taught with a handful of pictures each."""
    rows = []
    for source, sets in new_tags(bench).items():
        for way in (PIXELS, FOREST_NONE, LOGISTIC, DEFAULT):
            row = [source, way.name]
            for shots in SHOTS:
                found = [learn_handful(bench, way, pictures, shots, draw) for draw, pictures in enumerate(sets)]
                right, seconds = zip(*found, strict=True)
                span = f"{min(right):.1f} to {max(right):.1f} %"
                row += [f"{statistics.mean(right):.1f} %", span, f"{statistics.median(seconds):.1f}"]
            rows.append(row)
            print(" | ".join(row), file=sys.stderr, flush=True)
    print("\n### Eight new tags from a handful of labelled pictures\n")
    print(f"{SETS} sets of eight a source, dealt by chance; measured on the pictures that were not taught.\n")
    columns = [name for shots in SHOTS for name in (f"{shots} each: right (mean)", "of the sets", "seconds (median)")]
    print_table(("pictures", "model", *columns), rows)


def learn_handful(bench: Bench, way: Way, pictures: Pictures, shots: int, draw: int) -> tuple[float, float]:
    """Teach tags with a few pictures each; return how many of the others are right, in percent, and the seconds."""
    encoded, labels, tags = pictures
    order = np.random.default_rng(draw).permutation(len(labels))
    few = np.concatenate([order[labels[order] == tag][:shots] for tag in range(len(tags))])
    taught, rest = (bench.folder / f"{part}.parquet" for part in ("taught", "rest"))
    for path, chosen in ((taught, few), (rest, np.setdiff1d(order, few))):
        write_labelled(path, [encoded[place] for place in chosen], labels[chosen], tags)
    card, seconds = bench.train(way, taught, rest)
    return card.metrics["test_accuracy"], seconds


def new_tags(bench: Bench) -> dict[str, list[Pictures]]:
    """Return sets of eight tags by source, without those that a net learned as one of CIFAR-10's tags."""
    found = {"other sample": [other_tags(bench, chosen) for chosen in deal(other_classes(bench))]}
    if bench.caltech:
        places = [place for place in bench.caltech.iterdir() if place.is_dir() and place.name not in NOT_NEW]
        names = sorted(place.name for place in places if sum(1 for _ in place.iterdir()) >= LEAST_OF_TAG)
        found["Caltech-101"] = [caltech_tags(bench.caltech, chosen) for chosen in deal(names)]
    return found


def deal(names: Sequence[str]) -> list[list[str]]:
    """Deal classes into sets of eight by chance, with a fixed seed; no class is in two of them."""
    order = np.random.default_rng(0).permutation(len(names))
    return [[names[place] for place in order[8 * number : 8 * number + 8]] for number in range(SETS)]


def caltech_tags(folder: Path, names: Sequence[str]) -> Pictures:
    encoded, labels = read_folders(folder, names, MOST_OF_TAG)
    return encoded, labels, tuple(names)


def other_classes(bench: Bench) -> list[str]:
    """Return the folders of the other sample that show none of CIFAR-10's tags."""
    table = pq.read_table(bench.source / OTHER_FILE)
    shown = zip(table["img"].to_pylist(), table["label"].to_pylist(), strict=True)
    return sorted({row["path"].partition("/")[0] for row, label in shown if label == -1})


def other_tags(bench: Bench, folders: Sequence[str]) -> Pictures:
    table = pq.read_table(bench.source / OTHER_FILE)["img"].to_pylist()
    # The background has the same classes, and what names a tag does not teach "none".
    background = pq.read_table(io.BytesIO(read_packaged("background.parquet")), columns=["wnid", "class"])
    names = dict(zip(*(column.to_pylist() for column in background.columns), strict=True))
    chosen = [row for row in table if row["path"].partition("/")[0] in folders]
    labels = np.array([folders.index(row["path"].partition("/")[0]) for row in chosen])
    return [row["bytes"] for row in chosen], labels, tuple(names[folder].partition(",")[0] for folder in folders)


def main() -> None:
    """Run all parts on engines of their own."""
    caltech, natural = [*map(Path, sys.argv[1:]), None, None][:2]
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        if sys.dont_write_bytecode:  # otherwise each of Spark's workers would compile everything that it imports
            del os.environ["PYTHONDONTWRITEBYTECODE"]
            os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        settings = services.up(load_settings(), engines=["hdfs", "spark"], standard_ports=False, die_with_parent=True)
        try:
            print(f"## Tags\n\n{describe_machine()}; `{NET}`.\n")
            bench = Bench(folder, settings, caltech, natural)
            cards = measure_accuracy(bench)
            measure_seconds(bench)
            measure_ranking(bench, cards)
            measure_handful(bench)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
