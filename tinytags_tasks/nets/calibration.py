"""Pictures that a net is calibrated on: a sample of a corpus, in the size that the net takes."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage

PICTURES = 512
"""How many are taken: half of them calibrate, half are held back to measure the ranking."""

_BLOCKS = 8

Pixels = npt.NDArray[np.uint8]


def corpus_pictures(storage: Storage, corpus: str, most: int = PICTURES) -> Pixels:
    """Return pictures from some blocks all over a corpus, always the same: uint8 (pictures, height, width, 3).

    Raises
    ------
    MissingError, CorruptError
        If the corpus was not ingested, or a block is damaged.
    """
    record = Corpus.load(storage, layout.corpus_file(corpus))
    blocks = record.partition.blocks
    enough = max(_BLOCKS, -(-most * blocks // max(1, record.images)))  # a small corpus has few images in a block
    chosen = sorted({round(place) for place in np.linspace(0, blocks - 1, min(blocks, enough))})
    found = []
    for source in block_sources(storage, record, chosen):
        unreadable = {position - source.first for position in source.unreadable}
        readable = [place for place in range(source.images) if place not in unreadable]
        wanted = -(-most // len(chosen))
        places = [readable[round(at)] for at in np.linspace(0, len(readable) - 1, min(wanted, len(readable)))]
        found.append(read_pixels(storage, source)[places])
    pixels = np.concatenate(found)[:most]
    return pixels.reshape(len(pixels), record.height, record.width, record.channels)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return pictures in the size that a net takes, resized as :mod:`.resize` does it inside a graph."""
    if pixels.shape[1:3] == (height, width):
        return pixels
    return np.stack([_resized(picture, height, width) for picture in pixels])


def _resized(picture: Pixels, height: int, width: int) -> Pixels:
    image = Image.fromarray(picture)
    for size in ((width, image.height), (width, height)):
        shrinks = size[0] < image.width or size[1] < image.height
        image = image.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    return np.asarray(image)
