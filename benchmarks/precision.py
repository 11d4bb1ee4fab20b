"""Check by simulation how true measured precision is: intervals, what is stated, and the gate's thresholds.

``python benchmarks/precision.py [REVIEWS] [SOURCE]`` needs no engines. It embeds real pictures with the net that ships,
fits heads, and lets a made reviewer, who knows what each picture shows, look at 500 of them, many times over: each time
with another seed of the permanent random numbers. It prints Markdown.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from machine import describe_machine, print_table
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))
from made_frames import UNCLEAR, look, make_frame

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.demo.make import OTHER_FILE, TEST_FILE, TRAIN_FILE
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.background import parse_background
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.nets.shipped import shipped_background, shipped_card, shipped_net
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.intervals import Estimate
from tinytags_tasks.review.precision import PrecisionTable, measure
from tinytags_tasks.review.thresholds import choose_thresholds
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store.review_records import SCHEMA
from tinytags_tasks.train.features import LabelledFeatures
from tinytags_tasks.train.images import read_other
from tinytags_tasks.train.logistic import with_fair_none
from tinytags_tasks.train.none import choose_background
from tinytags_tasks.votes import confidence, decide

LABELLED = 12_000
THRESHOLD = 40
LOOKS, ROUND = 500, 250
GATE = (80, 90)
NEAR = 5.0
FEW = 0.01
"""A cell with less than this share of the images counts as small."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tagged:
    """What a model says of a corpus' pictures, and what they show."""

    name: str
    tags: Numbers
    confidences: Numbers
    truth: Numbers

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whether each picture has a tag."""
        return (self.tags < len(CIFAR10_TAGS)) & (self.confidences >= THRESHOLD)


def tag_corpora(source: Path) -> Iterator[Tagged]:
    """Yield the demo's pictures, and those of the other source alone, as two models tag them."""
    card = shipped_card()
    session = open_session(embedding_graph(shipped_net(), card, 32, 32), "the net that ships")

    def read(name: str, most: int | None = None) -> tuple[npt.NDArray[np.int8], Numbers]:
        found = read_other(source / name, CIFAR10_TAGS, 32, 32)
        return embed(session, found.images[:most].reshape(len(found.images[:most]), -1)), found.labels[:most]

    (labelled, labels), (test, test_labels), (other, other_labels) = (
        read(TRAIN_FILE, LABELLED),
        read(TEST_FILE),
        read(OTHER_FILE),
    )
    embeddings = np.concatenate([test, other])
    truth = np.concatenate([test_labels, other_labels])
    is_other = np.arange(len(truth)) >= len(test)
    for head, votes, total in (
        ("logistic, none", logistic_votes(labelled, labels, embeddings), 100),
        ("forest 10x10", forest_votes(labelled, labels, embeddings), 10),
    ):
        decided = decide(votes, len(CIFAR10_TAGS), THRESHOLD, total)
        sure = confidence(decided.won, total).astype(np.int64)
        yield Tagged(f"demo, {head}", decided.winner, sure, truth)
        yield Tagged(f"other source alone, {head}", decided.winner[is_other], sure[is_other], truth[is_other])


def logistic_votes(
    labelled: npt.NDArray[np.int8], labels: Numbers, embeddings: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64]:
    """Return percentages of the tags and none, fitted as the default model is, but without Spark."""
    background = parse_background(shipped_background(), shipped_card().dimensions, "the background", "")
    features = LabelledFeatures(Path(), "", CIFAR10_TAGS, labels, labelled)
    chosen = choose_background(background, features, "the net that ships").embeddings
    values = np.concatenate([labelled, chosen]).astype(np.float32)
    mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    classes = np.concatenate([labels, np.full(len(chosen), len(CIFAR10_TAGS))])
    head = LogisticRegression(C=1 / 100, max_iter=40).fit((values - mean) / deviation, classes)
    head.intercept_ = with_fair_none(head.intercept_, len(labelled), len(chosen))
    votes: npt.NDArray[np.float64] = 100 * head.predict_proba((embeddings - mean) / deviation)
    return votes


def forest_votes(
    labelled: npt.NDArray[np.int8], labels: Numbers, embeddings: npt.NDArray[np.int8]
) -> npt.NDArray[np.float64]:
    """Return the votes of ten trees for the tags."""
    forest = RandomForestClassifier(10, max_depth=10, random_state=0).fit(labelled, labels)
    chosen = np.stack([tree.predict(embeddings.astype(np.float32)).astype(np.int64) for tree in forest.estimators_])
    return np.stack([(chosen == tag).sum(axis=0) for tag in range(len(CIFAR10_TAGS))], axis=1).astype(np.float64)


class Figures:
    """Collects what reviews of one corpus find."""

    def __init__(self, tagged: Tagged) -> None:
        self.tagged = tagged
        self.held: dict[str, list[bool]] = defaultdict(list)
        self.off: list[tuple[float, int]] = []
        self.short: dict[int, list[bool]] = defaultdict(list)
        self.shown: dict[int, list[float]] = defaultdict(list)

    def add(self, table: PrecisionTable, taught: Numbers) -> None:
        """Compare a review's table with the truth; pictures that taught are in no estimate, and not in its truth."""
        tagged = self.tagged
        counted = tagged.truth != UNCLEAR
        right = (tagged.truth == tagged.tags) & tagged.kept
        everything = counted.copy()
        counted[taught] = False

        def share(chosen: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]) -> float:
            return float(100.0 * (chosen & of).sum() / max(1, of.sum()))

        self._hold("overall", table.overall, share(right, tagged.kept & counted))
        self._hold("recall, all tags", table.recall_overall, share(right, (tagged.truth >= 0) & counted))
        for place, tag in enumerate(table.tags):
            own = tagged.kept & (tagged.tags == place) & counted
            self._hold("tags", tag.precision, share(right, own))
            self._hold("recall, tags", tag.recall, share(right, (tagged.truth == place) & counted))
        for row in table.rows:
            place = CIFAR10_TAGS.index(row.tag)
            cell = tagged.kept & (tagged.tags == place)
            cell &= (tagged.confidences >= row.band_low) & (tagged.confidences <= row.band_high)
            if row.precision is not None and row.low is not None and row.high is not None:
                estimate = Estimate(row.precision, row.low, row.high)
                self._hold("bands", estimate, share(right, cell & counted))
            if row.stated is not None and (cell & everything).any():
                self.off.append((abs(row.stated - share(right, cell & everything)), int((cell & everything).sum())))
        for least in GATE:
            self._ask_gate(table, least, right, everything)

    def _hold(self, what: str, estimate: Estimate | None, truth: float) -> None:
        if estimate is not None:
            self.held[what].append(estimate.low - 0.01 <= truth <= estimate.high + 0.01)

    def _ask_gate(
        self, table: PrecisionTable, least: int, right: npt.NDArray[np.bool_], everything: npt.NDArray[np.bool_]
    ) -> None:
        try:
            chosen = choose_thresholds(table, least)
        except BadInputError:
            self.shown[least].append(0.0)
            return
        for tag, threshold in chosen.thresholds.items():
            shown = self.tagged.kept & everything & (self.tagged.tags == CIFAR10_TAGS.index(tag))
            shown &= self.tagged.confidences >= threshold
            self.short[least].append(bool(100.0 * right[shown].mean() < least))
        self.shown[least].append(chosen.images / chosen.images_before)


def simulate(tagged: Tagged, reviews: int, share: float) -> Figures:
    """Let a made reviewer look at a corpus again and again, each time from the start."""
    figures = Figures(tagged)
    for seed in range(reviews):
        frame = make_frame(tagged.tags, tagged.confidences, seed=seed, threshold=THRESHOLD, names=CIFAR10_TAGS)
        words, taught = SCHEMA.empty_table(), []
        for number in range(1, LOOKS // ROUND + 1):
            drawn = next_pictures(frame, words, count=ROUND, purpose_share=share)
            words = pa.concat_tables([words, look(drawn, tagged.truth, number, names=CIFAR10_TAGS)])
            taught += [each.position for each in drawn if each.why == "teach"]
        figures.add(measure(frame, words), np.array(taught, dtype=np.int64))
    return figures


def main() -> None:
    """Run all sets and print what was found."""
    reviews = int(sys.argv[1]) if sys.argv[1:] else 1_000
    source = Path(sys.argv[2]) if sys.argv[2:] else load_settings().demo_source
    print(f"## Measured precision\n\n{describe_machine()}; {reviews:,} simulated reviews of {LOOKS} looks each.\n")
    covered, stated, gated = [], [], []
    for tagged in tag_corpora(source):
        for share in (0.6, 1.0):
            began = time.perf_counter()
            found = simulate(tagged, reviews, share)
            seconds = time.perf_counter() - began
            name = f"{tagged.name}; {share:.0%} measure"
            covered.append([name, *(f"{100 * np.mean(found.held[what]):.1f}" for what in COVERED)])
            off, images = (np.array(column, dtype=float) for column in zip(*found.off, strict=True))
            large = images >= FEW * tagged.kept.sum()
            near = off <= NEAR
            stated.append(
                [
                    name,
                    f"{off @ images / images.sum():.1f}",
                    f"{100 * near @ images / images.sum():.0f} %",
                    f"{100 * near[large].mean():.0f} %",
                    f"{100 * near.mean():.0f} %",
                ]
            )
            short = [np.mean(found.short[least]) if found.short[least] else 0.0 for least in GATE]
            shown = [np.mean(found.shown[least]) for least in GATE]
            gated.append([name, *(f"{100 * each:.1f} %" for pair in zip(short, shown, strict=True) for each in pair)])
            print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    print("How many of 100 intervals of 95 % hold the truth:\n")
    print_table(("corpus, head", *COVERED), covered)
    print("\nStated against true precision, by tag and band:\n")
    columns = ("mean distance, by images", "images within 5 points", "cells of 1 % of the images or more", "all cells")
    print_table(("corpus, head", *columns), stated)
    print("\nThe gate:\n")
    of_gate = [f"{what} at {least} %" for least in GATE for what in ("tags that fall short", "images shown")]
    print_table(("corpus, head", *of_gate), gated)


COVERED = ("overall", "tags", "bands", "recall, all tags", "recall, tags")

if __name__ == "__main__":
    main()
