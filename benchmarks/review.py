"""Measure what reviews buy: precision at given recalls after 0 to 1,000 looks of a simulated reviewer.

``python benchmarks/review.py [--spark] [CALTECH-101]`` prints Markdown. The pictures to look at are drawn by
``tinytags_tasks.review``, the way to learn from them is chosen by ``tinytags_tasks.train``, and scikit-learn fits the
heads; with ``--spark``, Spark does, on engines that the script starts. The argument is the folder of Caltech-101 with a
folder for each category, the source that nothing was tuned on; without it, its rows are left out.

Each corpus is divided in two halves by chance. Pictures of one are reviewed, those of the other are measured, and the
other way round. So no picture on which a figure rests was ever looked at.
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from machine import describe_machine, print_table, quiet
from tags import NET, Labels, other_sample, unseen_sample

from tinytags_tasks import services
from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.demo.make import OTHER_FILE, TEST_FILE, TRAIN_FILE
from tinytags_tasks.nets.catalogue import net_for, read_background
from tinytags_tasks.nets.recipe.evaluate import CALTECH_TAGS, MOST_A_CATEGORY
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.frame_making import _Block, _Pass
from tinytags_tasks.review.sampler import Numbers, seed_of
from tinytags_tasks.review.spread import farthest_first
from tinytags_tasks.review.strata import Strata
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import SCHEMA, Verdict
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.features import LabelledFeatures, Sight, head_votes, read_features, see, sight_of
from tinytags_tasks.train.fitting import fit_heads, make_lesson
from tinytags_tasks.train.logistic import with_fair_none
from tinytags_tasks.train.none import Chosen, choose_background
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.review_weight import Way, choose_way, predict_shares
from tinytags_tasks.train.reviews import Reviewed
from tinytags_tasks.votes import decide

SHARE = 0.1
"""The share of a corpus' pictures that show one of the tags."""

ROUND = 250
LOOKS = (0, 250, 500, 1_000)
RECALLS = (20, 40, 60)
SEEDS = (0, 1)
THRESHOLD = 40

FEW_TAGS = ("airplane", "bird", "cat", "deer", "ship")
"""Tags of the labelled set's own source: its pictures of the other five show none of them."""

Votes = npt.NDArray[np.floating]
Fit = Callable[[TrainRequest, LabelledFeatures, Chosen | None, Reviewed | None, Embeddings], Votes]
"""Returns the votes, for some pictures, of a head that learned from labelled ones, a background and reviews."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a corpus: embeddings, and the tag of each, or -1 for none."""

    embeddings: Embeddings
    labels: Labels

    def part(self, chosen: Numbers) -> "Pictures":
        """Return some of them."""
        return Pictures(self.embeddings[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Source:
    """A corpus, its first model's labelled set, and whether the net was fine-tuned with reviews (``net_knows``)."""

    name: str
    corpus: Pictures
    labelled: LabelledFeatures
    background: Chosen | None
    net_knows: bool = False


class Reviewer:
    """Somebody who looks at what is drawn, and says what it shows; the run's model learns from it after each round."""

    def __init__(self, source: Source, fit: Fit, seed: int) -> None:
        self._source = source
        self._fit = fit
        self._request = TrainRequest("simulated", seed=seed, held_out=0)
        self._tags = source.labelled.tags
        self.looked_at = np.zeros(0, dtype=np.int64)
        """Positions in the pool, in the order in which they were looked at."""

    def review(self, pool: Pictures, measured: Pictures, most: int) -> dict[int, tuple[list[float], Way | None]]:
        """Return after each round the precision at each recall on other pictures, and the way to learn."""
        digest = f"{self._source.name} {self._request.seed} {pool.labels[:50].tolist()}"
        said = SCHEMA.empty_table()
        found = {}
        for looks in range(0, most + 1, ROUND):
            positions = said.column("position").to_numpy().astype(np.int64)
            order = np.argsort(positions)
            votes, way = self.learn(pool.part(positions[order]), np.concatenate([measured.embeddings, pool.embeddings]))
            of_measured, of_pool = votes[: len(measured.labels)], votes[len(measured.labels) :]
            found[looks] = (
                [precision_at(of_measured, measured.labels, len(self._tags), each) for each in RECALLS],
                way,
            )
            if looks < most:
                said = self._look(said, pool, of_pool, digest, looks)
        self.looked_at = positions
        return found

    def learn(self, reviewed: Pictures, asked: Embeddings) -> tuple[Votes, Way | None]:
        """Return the votes of a head that learned from reviewed pictures, too, and the way that it chose."""
        source = self._source
        if not len(reviewed.labels):
            return self._fit(self._request, source.labelled, source.background, None, asked), None
        labels = np.where(reviewed.labels < 0, len(self._tags), reviewed.labels)
        lesson = Reviewed(reviewed.embeddings, labels)
        way = choose_way(self._request, source.labelled, source.background, lesson, quiet, net_knows=source.net_knows)
        request, lesson, background = way.applied(self._request, lesson, source.background)
        return self._fit(request, source.labelled, background, lesson, asked), way

    def _look(self, said: pa.Table, pool: Pictures, votes: Votes, digest: str, looks: int) -> pa.Table:
        """Return all words, with those on the next pictures."""
        run = f"after-{looks}"
        frame = frame_of(run, digest, pool, votes, self._tags, said.column("position").to_numpy().astype(np.int64))
        drawn = next_pictures(frame, said, count=ROUND)
        labels = [int(pool.labels[each.position]) for each in drawn]
        words = {
            "position": [each.position for each in drawn],
            "verdict": [str(Verdict.NONE if label < 0 else Verdict.TAG) for label in labels],
            "tag": ["" if label < 0 else self._tags[label] for label in labels],
            "why": [str(each.why) for each in drawn],
        }
        same = {"picture": b"", "is_public": False, "shown_tag": "", "shown_confidence": -1, "reason": "", "undoes": 0}
        same |= {"number": looks // ROUND + 1, "corpus_digest": digest, "by": "simulated", "time": "", "run": run}
        columns = words | {name: [value] * len(drawn) for name, value in same.items()}
        return pa.concat_tables([said, pa.table(columns, schema=SCHEMA)])


def frame_of(run: str, digest: str, pool: Pictures, votes: Votes, tags: tuple[str, ...], learned: Numbers) -> Frame:
    """Return the frame of a run whose model gave these votes, as if it were read from the run's scored files."""
    decided = decide(votes, len(tags), THRESHOLD, 100)
    is_free = ~np.isin(np.arange(len(votes)), learned)
    kept, none = np.flatnonzero(decided.is_kept & is_free), np.flatnonzero(decided.is_none & is_free)
    below = np.flatnonzero(~decided.is_kept & ~decided.is_none & is_free)
    confidences = np.minimum(100, decided.won[kept]).astype(np.int16)
    record = Run(
        name=run,
        corpus="simulated",
        corpus_digest=digest,
        model="simulated",
        threshold=THRESHOLD,
        images=len(votes),
        blocks=1,
        collection="",
        created="",
    )
    passing = _Pass(record, Strata(tags, THRESHOLD), seed_of(digest))
    passing.add(_Block(0, kept, decided.winner[kept].astype(np.int64), confidences, none, below))

    def spread(positions: Numbers, blocks: Numbers) -> Numbers:
        places = np.full(len(positions), -1, dtype=np.int64)
        if len(positions):
            order = farthest_first(pool.embeddings[positions].astype(np.float32))
            places[order] = np.arange(len(order))
        return places

    return passing.frame(spread)


def precision_at(votes: Votes, labels: Labels, tags: int, recall: int) -> float:
    """Return how many percent of the surest pictures are right, where so many percent of the tagged ones are found.

    Pictures are ranked by the confidence of their best tag, whatever the threshold. 0 if that recall is not reached.
    """
    winner = votes[:, :tags].argmax(axis=1)
    order = np.argsort(-votes[np.arange(len(votes)), winner], kind="stable")
    right = np.cumsum((winner == labels)[order])
    reached = right >= recall / 100 * (labels >= 0).sum()
    return float(100 * (right / np.arange(1, len(right) + 1))[reached].max()) if reached.any() else 0.0


def fit_here(
    request: TrainRequest,
    labelled: LabelledFeatures,
    background: Chosen | None,
    reviewed: Reviewed | None,
    asked: Embeddings,
) -> Votes:
    """Fit with scikit-learn what Spark would be given, and correct how often none is expected, as the step does."""
    lesson = make_lesson(request, labelled, background, reviewed, has_none=True)
    rows, tags = lesson.rows, len(lesson.tags)
    weights = np.ones(len(rows.labels)) if rows.weights is None else rows.weights
    shares = predict_shares(
        rows.values.astype(np.float32),
        rows.labels,
        weights,
        request.regularization,
        asked.astype(np.float32),
        rows.classes,
    )
    is_none = rows.labels == tags
    none = weights[is_none].sum() - lesson.background
    intercepts = with_fair_none(np.zeros(tags + 1), weights[~is_none].sum(), lesson.background, none)
    shares = shares * np.exp(intercepts)
    votes: Votes = 100 * shares / shares.sum(axis=1, keepdims=True)
    return votes


def spark_fit(runtime: Runtime) -> Fit:
    """Return what fits by the training step's own part in Spark."""

    def fit(
        request: TrainRequest,
        labelled: LabelledFeatures,
        background: Chosen | None,
        reviewed: Reviewed | None,
        asked: Embeddings,
    ) -> Votes:
        lesson = make_lesson(request, labelled, background, reviewed, has_none=True)
        rows = lesson.rows
        identity = hashlib.sha256(rows.labels.tobytes() + rows.values[-len(rows.labels) // 50 :].tobytes()).hexdigest()
        fitted = fit_heads(request, lesson, identity[:16], runtime.storage, runtime.connect_spark, quiet)
        return head_votes(fitted.classifier.onnx_model, asked)

    return fit


@contextmanager
def engines(folder: Path) -> Iterator[Fit]:
    """Start HDFS and Spark, and stop them in the end."""
    os.environ["TINYTAGS_HOME"] = str(folder / "home")
    settings = services.up(load_settings(), engines=["hdfs", "spark"], standard_ports=False, die_with_parent=True)
    try:
        yield spark_fit(Runtime(settings))
    finally:
        services.down(load_settings())


def read_sources(folder: Path, caltech: Path | None) -> list[Source]:
    """Read the labelled set and the corpora, through the net that ships."""
    settings = load_settings()
    storage = LocalStorage(folder / "store")
    net = net_for(NET, storage)
    sight = sight_of(net, 32, 32, storage)
    data = settings.demo_source
    labelled = read_features(data / TRAIN_FILE, "train", CIFAR10_TAGS, sight, storage, quiet)
    test = read_features(data / TEST_FILE, "test", CIFAR10_TAGS, sight, storage, quiet)
    background = read_background(storage, net)
    chosen = choose_background(background, labelled, net.version)
    sources = [Source("other source", seen(sight, *other_sample(data / OTHER_FILE)), labelled, chosen)]
    if caltech:
        sources.append(
            Source(
                "third source", seen(sight, *unseen_sample(caltech, CALTECH_TAGS, MOST_A_CATEGORY)), labelled, chosen
            )
        )
    few = np.array([FEW_TAGS.index(tag) if tag in FEW_TAGS else -1 for tag in CIFAR10_TAGS])
    own = replace(labelled.part(few[labelled.labels] >= 0), tags=FEW_TAGS)
    own = replace(own, labels=few[labelled.labels][few[labelled.labels] >= 0])
    corpus = Pictures(test.values.astype(np.int8), few[test.labels])
    return [*sources, Source("same source", corpus, own, choose_background(background, own, net.version))]


def seen(sight: Sight, images: npt.NDArray[np.uint8], labels: Labels) -> Pictures:
    """Return pictures as the net sees them."""
    return Pictures(see(sight, images), labels)


def halves(labels: Labels, seed: int) -> list[tuple[Numbers, Numbers]]:
    """Return the places of two random halves of a corpus of which a tenth shows a tag, both ways round."""
    random = np.random.default_rng(seed)
    tagged, others = (random.permutation(np.flatnonzero(each)) for each in (labels >= 0, labels < 0))
    tagged = tagged[: round(len(others) * SHARE / (1 - SHARE))]
    order = random.permutation(np.concatenate([tagged, others]))
    one, other = order[: len(order) // 2], order[len(order) // 2 :]
    return [(one, other), (other, one)]


def measure(source: Source, fit: Fit, seeds: tuple[int, ...]) -> list[list[str]]:
    """Return a row for each number of looks."""
    began = time.monotonic()
    results = [
        Reviewer(source, fit, seed).review(source.corpus.part(pool), source.corpus.part(measured), max(LOOKS))
        for seed in seeds
        for pool, measured in halves(source.corpus.labels, seed)
    ]
    rows = []
    for looks in LOOKS:
        figures = np.array([result[looks][0] for result in results])
        ways = sorted({str(result[looks][1]) for result in results if result[looks][1]})
        means = [
            f"{mean:.0f} ({least:.0f} to {most:.0f})"
            for mean, least, most in zip(figures.mean(axis=0), figures.min(axis=0), figures.max(axis=0), strict=True)
        ]
        rows.append([source.name, f"{looks:,}", *means, "; ".join(ways)])
    print(f"{source.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure all sources."""
    arguments = [each for each in sys.argv[1:] if each != "--spark"]
    caltech = Path(arguments[0]).absolute() if arguments else None
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name, ExitStack() as stack:
        is_spark = "--spark" in sys.argv
        fit: Fit = stack.enter_context(engines(Path(name))) if is_spark else fit_here
        seeds = SEEDS[:1] if is_spark else SEEDS
        sources = read_sources(Path(name), caltech)
        print(f"## Reviews\n\n{describe_machine()}; `{NET}`; {'Spark' if is_spark else 'scikit-learn'}.\n")
        rows = [row for source in sources for row in measure(source, fit, seeds)]
    print_table(
        ("corpus", "looks", *(f"precision at recall {each} %" for each in RECALLS), "reviewed pictures count"), rows
    )


if __name__ == "__main__":
    main()
