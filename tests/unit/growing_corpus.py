"""A corpus of a folder that grows, for tests: each picture has one colour, which says which picture it is."""

import numpy as np
from PIL import Image
from small_run import quiet

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.image_ranges import read_images

OLD = ("b/one.png", "b/two.png", "d/three.png", "d/four.png", "f/five.png")
NEW = ("a/six.png", "b/seven.png", "z/eight.png")
"""New files stand before, between and after the old ones in the order of the source."""


def draw(path, number):
    """Write a picture of one colour, which says which picture it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), number * 10 + 5, dtype=np.uint8)).save(path)


def add_new(folder, names=NEW):
    for number, name in enumerate(names, start=len(OLD)):
        draw(folder / name, number)


def define(folder, **fields):
    cut = {"height": 4, "width": 4, "shard_images": 3, "blocks_per_shard": 2}
    return make_definition("pets", {"source": str(folder), "format": "folder", **cut, **fields})


def ingest(storage, folder, *, grow=False, least_new=1, report=quiet, redo=(), **fields):
    definition = define(folder, **fields)
    return ingest_corpus(definition, storage=storage, grow=grow, least_new=least_new, report=report, redo=redo)


def corpus_of(storage):
    return Corpus.load(storage, layout.corpus_file("pets"))


def pictures_of(storage):
    """Return which picture is at each position."""
    corpus = corpus_of(storage)
    return [(stored[0] - 5) // 10 for _, stored in read_images(corpus, range(corpus.images), storage)]
