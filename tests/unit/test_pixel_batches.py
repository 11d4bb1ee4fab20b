"""A block of large pictures is read, embedded and scored in batches: in bounded memory, with the same results."""

import hashlib
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from small_nets import means_net, means_of, small_card
from small_run import CORPUS, MODEL, TAGS, TREES, VOTES, address_of, card, forest, make_corpus, make_run

from tinytags_tasks.embed.block import BlockTask as EmbedTask
from tinytags_tasks.embed.block import embed_block
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.index import posting
from tinytags_tasks.look import looks
from tinytags_tasks.nets.catalogue import net_version, publish_net
from tinytags_tasks.nets.running import CPU
from tinytags_tasks.score.block import BlockTask as ScoreTask
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import (
    BATCH_BYTES,
    BlockSource,
    images_per_batch,
    read_pixel_batches,
    read_pixels,
    read_scored,
)
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embeddings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.models import model_version, publish_model
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.forest_trees import forest_to_onnx

SIDE, IMAGES = 512, 200
IMAGE_BYTES = SIDE * SIDE * 3


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """157 MB of pictures, whose votes are those of the small run, again and again."""
    drawn = np.random.default_rng(0).integers(0, 256, (IMAGES, IMAGE_BYTES), dtype=np.uint8)
    for position in range(IMAGES):
        drawn[position, :TREES] = np.repeat(np.array([0, 128, 255], dtype=np.uint8), VOTES[position % len(VOTES)])
    return drawn


@pytest.fixture
def large(storage: LocalStorage, pixels: np.ndarray) -> BlockSource:
    """A block of large pictures, in the store."""
    storage.write(layout.shard_file("large", 0), pixels.tobytes())
    sha256 = hashlib.sha256(pixels).hexdigest()
    return BlockSource("large", 0, 0, 0, IMAGES, 0, IMAGE_BYTES, SIDE, sha256, None, ())


def peak_bytes(work: Callable[[], object]) -> int:
    """Return how much memory Python and NumPy had at most while something was done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_embedding_large_pictures_takes_bounded_memory_and_gives_the_same(storage, large, pixels) -> None:
    net = means_net(SIDE)
    version = net_version("means", net)
    publish_net(small_card(net, version=version, height=SIDE, width=SIDE, dimensions=3, scale=2.0), net, None, storage)
    used = peak_bytes(lambda: embed_block(EmbedTask(large, version), address_of(storage), (CPU,)))
    embeddings, _ = read_embeddings(storage, large, version)
    assert (embeddings == means_of(pixels)).all()
    assert used < 2.5 * BATCH_BYTES < pixels.nbytes / 1.8


def test_scoring_large_pictures_takes_bounded_memory_and_gives_the_same(storage, large, pixels) -> None:
    model = forest_to_onnx(forest(), IMAGE_BYTES, TAGS, {})
    version = model_version("forest", model)
    publish_model(card(version=version, height=SIDE, width=SIDE), model, "", storage)
    task = ScoreTask(large, "large-run", version, TAGS, TREES, 0, PIXELS, IMAGE_BYTES, none=False)
    used = peak_bytes(lambda: score_block(task, address_of(storage)))
    rows = read_scored(storage, "large-run", 0)[0].to_pylist()
    expected = [VOTES[position % len(VOTES)] for position in range(IMAGES)]
    assert [(row["tag"], row["votes"]) for row in rows] == [
        (TAGS[each.index(max(each))], max(each)) for each in expected
    ]
    assert used < 2.5 * BATCH_BYTES < pixels.nbytes / 1.8


def test_looks_of_large_pictures_are_read_in_bounded_memory(storage, large, pixels) -> None:
    kept, found = np.arange(3, IMAGES, 5), []
    used = peak_bytes(lambda: found.append(posting._read_looks(storage, large, kept)))
    assert (found[0][kept] == looks(pixels[kept], SIDE)).all()
    assert used < 4 * BATCH_BYTES < pixels.nbytes


def test_batches_are_the_block_and_the_last_proves_it(storage) -> None:
    make_corpus(storage)
    path = layout.shard_file(CORPUS, 0)
    sha256 = hashlib.sha256(storage.read(path)).hexdigest()
    source = BlockSource(CORPUS, 0, 0, 0, 6, 0, 3_072, 32, sha256, None, ())
    batches = list(read_pixel_batches(storage, source, 4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert (np.concatenate(batches) == read_pixels(storage, source)).all()
    storage.write(path, b"\7" + storage.read(path)[1:])
    damaged = read_pixel_batches(storage, source, 4)
    next(damaged)
    with pytest.raises(CorruptError, match=r"block 0 .* is not what was ingested"):
        next(damaged)


def test_a_batch_is_a_multiple_of_what_is_computed_at_once() -> None:
    assert images_per_batch(3_072, 5_000) == 10_000
    assert images_per_batch(224 * 224 * 3, 100) == 200
    assert images_per_batch(2 * BATCH_BYTES, 1) == 1


def test_large_pictures_are_kept_in_the_store_only(storage) -> None:
    make_run(storage)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    path = layout.corpus_file("large")
    corpus.replaced(name="large", height=128, width=128).save(storage, path)
    publish_model(card(version="forest-000000000001", height=128, width=128), b"", "", storage)
    said: list[str] = []
    planned = plan_run(PlanRequest("large", "forest-000000000001"), storage=storage, report=said.append)
    assert Run.load(storage, layout.run_file(planned.run)).thumbnails == "store"
    assert said[-1] == "images of corpus large have 49,152 bytes, so they are kept in the store only"
    assert (
        Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run)).thumbnails
        == "solr"
    )
