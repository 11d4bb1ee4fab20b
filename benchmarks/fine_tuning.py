"""Measure what fine-tuning a net with reviews buys, over a head that learns from the same reviews.

``python benchmarks/fine_tuning.py [--general TINY-IMAGENET] [CALTECH-101]`` prints Markdown. It needs PyTorch, and days
without a GPU. Corpora, halves, the simulated reviewer and the heads are those of ``review.py``: the head on the net
that ships chooses what is looked at. ``--general`` is the folder that ``tinytags nets train`` takes, so that a
fine-tuned net has a background, too.
"""

import argparse
import importlib.util
import io
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import describe_machine, print_table, quiet
from PIL import Image
from review import FEW_TAGS, LOOKS, Pictures, Reviewer, Source, fit_here, halves, precision_at
from sklearn.metrics import roc_auc_score
from tags import NET, Labels, other_sample, unseen_sample

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS
from tinytags_tasks.corpus.demo.make import OTHER_FILE, TEST_FILE, TRAIN_FILE
from tinytags_tasks.nets.catalogue import net_for, read_background
from tinytags_tasks.nets.recipe.base import find_base
from tinytags_tasks.nets.recipe.evaluate import CALTECH_TAGS, MOST_A_CATEGORY
from tinytags_tasks.nets.recipe.make_net import Sources, make_net
from tinytags_tasks.nets.recipe.pictures import read_folder, wordnet_names
from tinytags_tasks.nets.recipe.reviewed import ReviewedPictures
from tinytags_tasks.nets.recipe.training import NamedPictures
from tinytags_tasks.nets.recipe.tuning import NetTuning
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.encoded_pictures import read_encoded
from tinytags_tasks.train.features import LabelledFeatures, see, sight_of
from tinytags_tasks.train.images import read_labelled
from tinytags_tasks.train.none import choose_background

SEEDS = (0, 1, 2)
RECALLS = (20, 40, 60, 80)
WEIGHT = 20
"""How many times as often as a labelled picture a reviewed one is drawn: the command's default."""

Numbers = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """Pictures, with the tag of each, or -1 for none; ``encoded`` are those that a net learns from."""

    pixels: Pixels
    labels: Labels
    encoded: tuple[bytes, ...] = ()

    def part(self, chosen: Numbers) -> "Shown":
        """Return some of them, without their encoded form."""
        return Shown(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Corpus:
    """A corpus, and the labelled set and test pictures of its tags."""

    name: str
    tags: tuple[str, ...]
    shown: Shown
    labelled: Shown
    test: Shown

    def named(self, shown: Shown, part: str) -> NamedPictures:
        """Return pictures as a net is taught with them."""
        return NamedPictures(part, f"{self.name} {part}", list(shown.encoded), shown.labels, self.tags)


@dataclass(frozen=True)
class General:
    """General pictures, and what their classes are called."""

    pictures: NamedPictures
    names: dict[str, str]


def read_corpora(caltech: Path | None) -> list[Corpus]:
    """Read the corpora of ``review.py``."""
    data = load_settings().demo_source
    labelled, test = (read_shown(data / name) for name in (TRAIN_FILE, TEST_FILE))
    corpora = [Corpus("other source", CIFAR10_TAGS, Shown(*other_sample(data / OTHER_FILE)), labelled, test)]
    if caltech:
        third = Shown(*unseen_sample(caltech, CALTECH_TAGS, MOST_A_CATEGORY))
        corpora.append(Corpus("third source", CIFAR10_TAGS, third, labelled, test))
    few = np.array([FEW_TAGS.index(tag) if tag in FEW_TAGS else -1 for tag in CIFAR10_TAGS])
    own, of_few = (replace(each, labels=few[each.labels]) for each in (labelled, test))
    return [*corpora, Corpus("same source", FEW_TAGS, of_few, only_tagged(own), only_tagged(of_few))]


def read_shown(path: Path) -> Shown:
    encoded, labels, _ = read_encoded(path, CIFAR10_TAGS)
    return Shown(read_labelled(path, CIFAR10_TAGS, 32, 32).images, labels, tuple(encoded))


def only_tagged(shown: Shown) -> Shown:
    places = np.flatnonzero(shown.labels >= 0)
    return replace(shown.part(places), encoded=tuple(shown.encoded[place] for place in places))


def tune(
    corpus: Corpus, reviewed: Shown, general: General | None, seed: int, storage: Storage, folder: Path
) -> NetCard:
    """Fine-tune the net that ships with labelled and reviewed pictures, as ``tinytags nets train --reviews`` does."""
    tags = len(corpus.tags)
    labels = np.where(reviewed.labels < 0, tags, reviewed.labels)
    counts = np.bincount(labels, minlength=tags + 1).tolist()
    use = NetReviews(
        corpus=corpus.name,
        corpus_digest="simulated",
        upto=1,
        words=len(labels),
        weight=WEIGHT,
        tags=corpus.tags,
        of_tags=tuple(counts[:-1]),
        none=counts[-1],
        other_tags={},
        positions_sha256="",
    )
    base = find_base(NET, storage)
    sources = Sources(
        labelled=corpus.named(corpus.labelled, "labelled"),
        general=general.pictures if general else None,
        general_names=general.names if general else {},
        test=corpus.named(corpus.test, "test"),
        base=base,
        reviewed=(ReviewedPictures(use, "simulated", [encode(each) for each in reviewed.pixels], labels),),
    )
    training = NetTuning(name="tuned", base=base.card.version, seed=seed)
    with tempfile.TemporaryDirectory(dir=folder) as work:  # a bank of pictures is a gigabyte
        return make_net(training, sources, folder=lambda _: Path(work), storage=storage, report=quiet, eager=True)


def encode(pixels: Pixels) -> bytes:
    """Return a picture without loss, as reviewed ones come."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Seen:
    """A corpus as a net sees it."""

    def __init__(self, corpus: Corpus, net: NetCard, storage: Storage) -> None:
        self._sight = sight_of(net, 32, 32, storage)
        labels, images = corpus.labelled.labels, corpus.labelled.pixels
        labelled = LabelledFeatures(Path(corpus.name), "", corpus.tags, labels, see(self._sight, images))
        background = read_background(storage, net) if net.background_sha256 else None
        chosen = choose_background(background, labelled, net.version) if background else None
        self.source = Source(corpus.name, self._see(corpus.shown), labelled, chosen, net_knows=bool(net.reviews))
        self._test = self._see(corpus.test)

    def _see(self, shown: Shown) -> Pictures:
        return Pictures(see(self._sight, shown.pixels), shown.labels)

    def looked_at(self, pool: Numbers, measured: Numbers, seed: int) -> Numbers:
        """Return the places of the pictures of a pool that are looked at, in order."""
        reviewer, corpus = Reviewer(self.source, fit_here, seed), self.source.corpus
        reviewer.review(corpus.part(pool), corpus.part(measured), max(LOOKS))
        return pool[reviewer.looked_at]

    def figures(self, looked_at: Numbers, measured: Numbers, seed: int) -> tuple[list[float], str]:
        """Return the figures of a head that learns from what was looked at, in percent, and how much that counts.

        Precision at each recall and AUROC (tag against none) of the measured pictures, and test pictures right.
        """
        corpus, tags = self.source.corpus, len(self.source.labelled.tags)
        asked = corpus.part(measured)
        both = np.concatenate([asked.embeddings, self._test.embeddings])
        votes, way = Reviewer(self.source, fit_here, seed).learn(corpus.part(np.sort(looked_at)), both)
        of_measured, of_test = votes[: len(measured)], votes[len(measured) :]
        precision = [precision_at(of_measured, asked.labels, tags, each) for each in RECALLS]
        auroc = 100 * roc_auc_score(asked.labels >= 0, of_measured[:, :tags].max(axis=1))
        right = 100 * float((of_test.argmax(axis=1) == self._test.labels).mean())
        return [*precision, auroc, right], str(way or "")


@dataclass(frozen=True)
class Result:
    """What a head is worth after some looks; how much reviewed pictures count in it, and the seconds of fine-tuning."""

    looks: int
    net: str
    figures: list[float]
    way: str
    seconds: float = 0.0


def measure(corpus: Corpus, general: General | None, storage: Storage, folder: Path) -> list[Result]:
    """Return the results of all seeds: half of a corpus is looked at, the other half measured."""
    ways = {"fine-tuned": None} | ({"fine-tuned, with general pictures": general} if general else {})
    shipped, results = Seen(corpus, net_for(NET, storage), storage), list[Result]()
    for seed in SEEDS:
        pool, measured = halves(corpus.shown.labels, seed)[seed % 2]
        in_order = shipped.looked_at(pool, measured, seed)
        for looks in LOOKS:
            looked_at = in_order[:looks]
            results.append(Result(looks, NET, *shipped.figures(looked_at, measured, seed)))
            for name, pictures in ways.items() if looks else ():
                began = time.monotonic()
                net = tune(corpus, corpus.shown.part(np.sort(looked_at)), pictures, seed, storage, folder)
                seconds = time.monotonic() - began
                found = Seen(corpus, net, storage).figures(looked_at, measured, seed)
                results.append(Result(looks, name, *found, seconds))
                print(corpus.name, seed, results[-1], file=sys.stderr, flush=True)
    return results


def rows_of(corpus: str, results: list[Result]) -> list[list[str]]:
    """Return a row for each number of looks and net: mean and range of each figure."""
    rows = []
    for looks, net in sorted({(each.looks, each.net) for each in results}, key=lambda each: (each[0], each[1] != NET)):
        found = [each for each in results if (each.looks, each.net) == (looks, net)]
        figures = np.array([each.figures for each in found])
        cells = [f"{each.mean():.1f} ({each.min():.1f} to {each.max():.1f})" for each in figures.T]
        seconds = f"{np.median([each.seconds for each in found]):.0f}" if net != NET else ""
        rows.append([corpus, f"{looks:,}", net, *cells, "; ".join(sorted({each.way for each in found})), seconds])
    return rows


def main() -> None:
    """Measure all corpora."""
    parser = argparse.ArgumentParser(description="measure what fine-tuning a net with reviews buys")
    parser.add_argument("caltech", nargs="?", type=Path)
    parser.add_argument("--general", type=Path)
    arguments = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit("fine-tuning needs PyTorch, which is not installed: pip install 'tinytags[nets]'")
    folder, rows = arguments.general, []
    general = General(read_folder(folder), wordnet_names(folder)) if folder else None
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        storage = LocalStorage(Path(name) / "store")
        for corpus in read_corpora(arguments.caltech):
            rows += rows_of(corpus.name, measure(corpus, general, storage, Path(name)))
    print(f"## Fine-tuning\n\n{describe_machine()}; `{NET}`; scikit-learn.\n")
    precision = [f"precision at recall {each} %" for each in RECALLS]
    columns = ("corpus", "looks", "net", *precision, "AUROC, %", "test pictures right, %")
    print_table((*columns, "reviewed pictures count", "seconds to fine-tune"), rows)


if __name__ == "__main__":
    main()
