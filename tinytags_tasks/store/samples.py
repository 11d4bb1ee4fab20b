"""A sample of a corpus' images, for what needs to see only some of them."""

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.protocol import Storage

_PLACES = 20
"""How many places a sample is read from: neighbours in a source resemble each other, and each read takes its time."""


def sample_images(storage: Storage, corpus: Corpus, most: int) -> npt.NDArray[np.uint8]:
    """Return some of a corpus' images, from places that are evenly spread over it; the same ones at each call.

    Only these images' bytes are read, so they are not compared with their blocks' hashes.

    Parameters
    ----------
    storage
        The store.
    corpus
        The corpus.
    most
        How many images at most; unreadable ones are left out.

    Returns
    -------
    numpy.ndarray
        uint8, shape (images, height, width, channels).

    Raises
    ------
    MissingError, CorruptError
        If a shard or its manifest is missing or damaged.
    """
    shape = (-1, corpus.height, corpus.width, corpus.channels)
    found = [np.zeros((0, *shape[1:]), dtype=np.uint8)]
    manifests: dict[int, ShardManifest] = {}
    for place in range(_PLACES):
        first, end = (corpus.images * number // _PLACES for number in (place, place + 1))
        shard, offset = corpus.partition.place(first)
        wanted = most * (place + 1) // _PLACES - most * place // _PLACES
        images = min(wanted, end - first, corpus.partition.images_in_shard(shard) - offset)
        if not images:
            continue
        if shard not in manifests:
            manifests[shard] = ShardManifest.load(storage, layout.shard_manifest_file(corpus.name, shard))
        stored = _read_images(storage, corpus, shard, offset, images)
        unreadable = [image.position - first for image in manifests[shard].unreadable]
        read = np.frombuffer(stored, dtype=np.uint8).reshape(shape)
        found.append(np.delete(read, [at for at in unreadable if 0 <= at < images], axis=0))
    return np.concatenate(found)


def _read_images(storage: Storage, corpus: Corpus, shard: int, offset: int, images: int) -> bytes:
    path = layout.shard_file(corpus.name, shard)
    try:
        return storage.read(path, offset * corpus.image_bytes, images * corpus.image_bytes)
    except MissingError as error:
        raise MissingError(
            f"{path}: is missing although its manifest exists; ingest the corpus again with `tinytags ingest "
            f"{corpus.name}`"
        ) from error
    except CorruptError as error:
        raise CorruptError(
            f"{path}: {images} images from byte {offset * corpus.image_bytes:,} cannot be read ({error}); write the "
            f"shard again with `tinytags ingest {corpus.name} --redo {shard}`"
        ) from error
