"""Measure nets side by side: heads on CIFAR-10, tags from a handful, tag against none on sources that no net saw.

``python -m tinytags_tasks.nets.recipe.evaluate PLACES.json NET.onnx ...`` where PLACES.json names ``cifar10_train``,
``cifar10_test``, ``tiny_imagenet``, ``other_sample`` and, where they are at hand, ``caltech101`` and ``natural_images``
(a folder with a folder for each class). scikit-learn stands in for Spark's heads.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tinytags_tasks.nets.recipe.classes import NONE, UNKNOWN
from tinytags_tasks.nets.recipe.pictures import plain, read_cifar10, read_tiny_imagenet

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Caltech-101's categories that show one of the ten tags, and those that can be argued either way; the rest show none.
CALTECH_TAGS = {
    "airplanes": 0,
    "car_side": 1,
    "emu": 2,
    "flamingo": 2,
    "ibis": 2,
    "pigeon": 2,
    "rooster": 2,
    "dalmatian": 5,
    "ferry": 8,
    "ketch": 8,
    "schooner": 8,
}
CALTECH_ARGUABLE = {
    "BACKGROUND_Google",
    "Leopards",
    "cougar_body",
    "cougar_face",
    "flamingo_head",
    "garfield",
    "gerenuk",
    "helicopter",
    "llama",
    "okapi",
    "snoopy",
    "wild_cat",
}
NATURAL_TAGS = {"airplane": 0, "car": 1, "cat": 3, "dog": 5}
MOST_A_CATEGORY = 80
# Classes that neither training set has, fixed before anything was measured: the eight with the most pictures, and
# eight animals.
NEW_TAGS = {
    "common": ["Faces_easy", "Leopards", "Motorbikes", "bonsai", "chandelier", "grand_piano", "hawksbill", "watch"],
    "animals": ["butterfly", "crab", "dolphin", "flamingo", "ibis", "kangaroo", "llama", "starfish"],
}


class Head(Protocol):
    """A classifier of scikit-learn."""

    classes_: Labels

    def fit(self, features: Numbers, labels: Labels) -> "Head":
        """Learn."""

    def predict_proba(self, features: Numbers) -> Numbers:
        """Return a share for each class."""


@dataclass(frozen=True)
class Sample:
    """Pictures of a source, with a tag, ``NONE`` or ``UNKNOWN`` each."""

    pixels: Pixels
    tags: Labels


def decode(encoded: Sequence[bytes], *, encode_again: bool = False) -> Pixels:
    """Return pictures as 32x32 pixels."""
    return np.stack([plain(picture, encode_again=encode_again) for picture in encoded])


def read_folders(folder: Path, names: Sequence[str], most: int) -> tuple[list[bytes], Labels]:
    """Read at most so many pictures of each named class, drawn with a fixed seed; labels are places in ``names``."""
    encoded, labels = list[bytes](), list[int]()
    for number, name in enumerate(names):
        paths = sorted((folder / name).iterdir())
        chosen = np.random.default_rng(0).permutation(len(paths))[:most]
        encoded += [paths[place].read_bytes() for place in sorted(chosen)]
        labels += [number] * len(chosen)
    return encoded, np.array(labels)


def embed(net: Path, pixels: Pixels, *, threads: int = 1) -> Numbers:
    """Return a net's embeddings."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(net, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"pixels": pixels[start : start + 500]})[0] for start in range(0, len(pixels), 500)]
    return np.concatenate(parts)


def rounded(embeddings: Numbers, scale: float) -> Numbers:
    """Return embeddings as whole numbers of 0 to 127, as int8 stores them."""
    return np.clip(np.rint(embeddings / scale), 0, 127).astype(np.float32)


def logistic(strength: float = 0.01) -> Head:
    """Return a multinomial regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))


def forest() -> Head:
    """Return ten trees of depth ten, each split on 16 of the 256 numbers, as Spark's forest."""
    return RandomForestClassifier(10, max_depth=10, max_features="sqrt", random_state=0, n_jobs=1)


def tag_score(head: Head, features: Numbers) -> Numbers:
    """Return how much a head believes in its best tag; what it believes of "none" counts for nothing."""
    shares = head.predict_proba(features)
    return shares[:, head.classes_ < NONE].max(1)


def ranking(score: Numbers, tags: Labels) -> dict[str, float]:
    """Return AUROC of tag against none, and precision at some recalls."""
    known = tags != UNKNOWN
    shown, score = tags[known] < NONE, score[known]
    precision, recall, _ = precision_recall_curve(shown, score)
    at = {f"P@R{percent}": precision[recall >= percent / 100].max() for percent in (20, 40, 60)}
    return {"AUROC": roc_auc_score(shown, score), **at}


def few_shot(features: Numbers, labels: Labels, shots: int, repeats: int = 10) -> float:
    """Return the mean accuracy of a logistic head that learned from so many pictures per tag, over several draws."""
    results = []
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(len(labels))
        taught = np.concatenate([order[labels[order] == tag][:shots] for tag in np.unique(labels)])
        others = np.setdiff1d(order, taught)
        head = logistic().fit(features[taught], labels[taught])
        results.append((head.predict_proba(features[others]).argmax(1) == labels[others]).mean())
    return float(np.mean(results))


class Bench:
    """The pictures, decoded once, and what is asked of every net."""

    def __init__(self, places: dict[str, str]) -> None:
        train, test = (read_cifar10(Path(places[f"cifar10_{part}"])) for part in ("train", "test"))
        self.train = Sample(decode(train.encoded), train.tags)
        self.test = Sample(decode(test.encoded), test.tags)
        tiny = read_tiny_imagenet(Path(places["tiny_imagenet"]))
        chosen = np.flatnonzero(tiny.tags == NONE)[::4]  # about 20,000 pictures, none of them showing a tag
        self.background = decode([tiny.encoded[place] for place in chosen], encode_again=True)
        self.sources = {"other sample": self._other_sample(Path(places["other_sample"]))}
        self.new_tags = dict[str, tuple[Pixels, Labels]]()
        if "caltech101" in places:
            self._add_caltech(Path(places["caltech101"]))
        if "natural_images" in places:
            folder = Path(places["natural_images"])
            names = sorted(place.name for place in folder.iterdir())
            self._add_source("natural images", folder, names, NATURAL_TAGS, 500)

    def _other_sample(self, path: Path) -> Sample:
        table = pq.read_table(path)
        tags = table["label"].to_numpy().astype(np.int64)
        tags = np.where(tags == -2, UNKNOWN, np.where(tags == -1, NONE, tags))
        return Sample(decode([row["bytes"] for row in table["img"].to_pylist()]), tags)

    def _add_caltech(self, folder: Path) -> None:
        names = sorted(place.name for place in folder.iterdir() if place.name not in CALTECH_ARGUABLE)
        self._add_source("Caltech-101", folder, names, CALTECH_TAGS, MOST_A_CATEGORY)
        for name, categories in NEW_TAGS.items():
            encoded, labels = read_folders(folder, categories, 200)
            self.new_tags[name] = decode(encoded), labels

    def _add_source(self, name: str, folder: Path, names: list[str], tags: dict[str, int], most: int) -> None:
        encoded, labels = read_folders(folder, names, most)
        of_names = np.array([tags.get(category, NONE) for category in names])
        self.sources[name] = Sample(decode(encoded), of_names[labels])

    def measure(self, net: Path, report: Callable[[str, float], None]) -> None:
        """Report every figure of a net, on embeddings that are rounded to int8 by one scale, as they are stored."""
        train = embed(net, self.train.pixels)
        scale = float(np.quantile(train[:2000], 0.9995)) / 127

        def features(pixels: Pixels) -> Numbers:
            return rounded(embed(net, pixels), scale)

        heads = self._heads(rounded(train, scale), features(self.background))
        test = features(self.test.pixels)
        for name, head in heads.items():
            answers = head.classes_[head.predict_proba(test).argmax(1)]
            report(f"CIFAR-10 test, {name}", float((answers == self.test.tags).mean()))
        for source, sample in self.sources.items():
            numbers = features(sample.pixels)
            for name, head in heads.items():
                for figure, value in ranking(tag_score(head, numbers), sample.tags).items():
                    report(f"{source}, {name}, {figure}", value)
        for name, (pixels, labels) in self.new_tags.items():
            numbers = features(pixels)
            for shots in (5, 20):
                report(f"8 new tags ({name}), {shots} each", few_shot(numbers, labels, shots))

    def _heads(self, train: Numbers, background: Numbers) -> dict[str, Head]:
        with_none = np.concatenate([train, background])
        labels = np.concatenate([self.train.tags, np.full(len(background), NONE)])
        heads = dict[str, Head]()
        for name, make in (("logistic", logistic), ("forest 10x10", forest)):
            heads[name] = make().fit(train, self.train.tags)
            heads[f"{name} with none"] = make().fit(with_none, labels)
        return heads


def main() -> None:
    """Measure each net and print a table."""
    places = json.loads(Path(sys.argv[1]).read_text())
    bench = Bench(places)
    results = dict[str, list[float]]()

    def report(name: str, value: float) -> None:
        results.setdefault(name, []).append(value)
        print(f"{name}: {value:.4f}", flush=True)

    for argument in sys.argv[2:]:
        bench.measure(Path(argument), report)
    for name, values in results.items():
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |")


if __name__ == "__main__":
    main()
