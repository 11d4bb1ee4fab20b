"""The images of documents without pixels, read from the store's shards, a page at a time.

If the store does not answer, the page is shown without these pictures: each image then says why it is missing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from tinytags_tasks.errors import TinyTagsError, TransientError
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.image_ranges import LARGEST_GAP_BYTES, ImageRange, image_ranges
from tinytags_tasks.store.protocol import Storage

CONNECTIONS = 4
"""Connections to the store at most, however many pages are asked for."""

PATIENCE_SECONDS = 5.0
"""How long a page waits for its images."""

KEPT_IMAGE_BYTES = 32 * 2**20
KEPT_SOURCES = 4_096

K = TypeVar("K")
V = TypeVar("V")


class StoredImages:
    """Reads images from the store, for several pages at the same time.

    Parameters
    ----------
    open_storage
        Returns the store; called when the first image is needed.
    """

    def __init__(self, open_storage: Callable[[], Storage]) -> None:
        self._open_storage = open_storage
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="stored-images")
        # By the corpus' digest, so that an image of a corpus that was replaced under the same name is never shown.
        self._sources: LRUCache[tuple[str, int], BlockSource] = LRUCache(KEPT_SOURCES)
        self._images: LRUCache[tuple[str, int], npt.NDArray[np.uint8]] = LRUCache(
            KEPT_IMAGE_BYTES, getsizeof=lambda image: image.nbytes
        )
        self._lock = threading.Lock()  # cachetools leaves locking to its users

    def complete(
        self, images: Sequence[TaggedImage], digests: Mapping[str, str] | None = None
    ) -> tuple[TaggedImage, ...]:
        """Return a page's images; those in the store get their pixels, or the reason why these are missing.

        Parameters
        ----------
        images
            The images.
        digests
            By corpus, the digest of the version that was indexed: at the same position of another version is another
            picture. A corpus that is missing here is not checked.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        found: dict[str, npt.NDArray[np.uint8]] = {}
        missing: dict[str, str] = {}
        stored = [image for image in images if image.is_in_store]
        corpora, away = self._gather({image.corpus: self._corpus_reader(image.corpus) for image in stored}, deadline)
        missing |= {image.id: away[image.corpus] for image in stored if image.corpus in away}
        for name, corpus in corpora.items():
            own = [image for image in stored if image.corpus == name]
            if digests and digests.get(name, corpus.digest) != corpus.digest:
                reason = f"corpus {name} was ingested again after it was indexed, and its pictures are other ones now"
                missing |= {image.id: reason for image in own}
                continue
            pixels, reasons = self._read(corpus, {image.position: image.block for image in own}, deadline)
            found |= {image.id: pixels[image.position] for image in own if image.position in pixels}
            missing |= {image.id: reasons[image.position] for image in own if image.position in reasons}
        return tuple(
            replace(image, image=found.get(image.id), missing=missing.get(image.id, "")) if image.is_in_store else image
            for image in images
        )

    def read(self, corpus: Corpus, position: int) -> npt.NDArray[np.uint8]:
        """Return one image of a corpus, uint8 of shape (height, width, channels).

        Raises
        ------
        TransientError
            If it cannot be read at the moment.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        found, reasons = self._read(corpus, {position: corpus.partition.block_at(position)}, deadline)
        if position not in found:
            raise TransientError(f"picture {position} of corpus {corpus.name} cannot be shown: {reasons[position]}")
        return found[position]

    def _read(
        self, corpus: Corpus, blocks: Mapping[int, int], deadline: float
    ) -> tuple[dict[int, npt.NDArray[np.uint8]], dict[int, str]]:
        """Return images by position, and why others are missing.

        Parameters
        ----------
        blocks
            The block of each position.
        """
        found = self._kept(self._images, corpus, blocks)
        wanted = {position: block for position, block in blocks.items() if position not in found}
        sources, reasons_by_block = self._find_blocks(corpus, set(wanted.values()), deadline)
        reasons = {position: reasons_by_block[block] for position, block in wanted.items() if block in reasons_by_block}
        places = {position: sources[block] for position, block in wanted.items() if block in sources}
        for position, source in list(places.items()):
            if not source.first <= position < source.first + source.images:
                reasons[position] = f"corpus {corpus.name} is not the one that was indexed: position {position} moved"
                del places[position]
        ranges = list(image_ranges(corpus, places, LARGEST_GAP_BYTES))
        contents, away = self._gather(
            {number: self._range_reader(ranges[number]) for number in range(len(ranges))}, deadline
        )
        for number, read in enumerate(ranges):
            for position, start in read.images.items():
                if number in away:
                    reasons[position] = away[number]
                    continue
                pixels = np.frombuffer(contents[number], np.uint8, corpus.image_bytes, start).copy()
                found[position] = pixels.reshape(corpus.height, corpus.width, corpus.channels)
                self._keep(self._images, corpus, position, found[position])
        return found, reasons

    def _find_blocks(
        self, corpus: Corpus, blocks: set[int], deadline: float
    ) -> tuple[dict[int, BlockSource], dict[int, str]]:
        known = self._kept(self._sources, corpus, blocks)
        unknown: dict[int, list[int]] = {}
        for block in blocks - set(known):
            unknown.setdefault(block // corpus.blocks_per_shard, []).append(block)
        looked_up, away = self._gather(
            {shard: self._source_reader(corpus, unknown[shard]) for shard in unknown}, deadline
        )
        for source in (source for sources in looked_up.values() for source in sources):
            known[source.block] = source
            self._keep(self._sources, corpus, source.block, source)
        return known, {block: reason for shard, reason in away.items() for block in unknown[shard]}

    def _kept(self, cache: MutableMapping[tuple[str, int], V], corpus: Corpus, numbers: Iterable[int]) -> dict[int, V]:
        """Return what a cache has of these images or blocks of a corpus."""
        with self._lock:
            found = {number: cache.get((corpus.digest, number)) for number in numbers}
        return {number: value for number, value in found.items() if value is not None}

    def _keep(self, cache: MutableMapping[tuple[str, int], V], corpus: Corpus, number: int, value: V) -> None:
        with self._lock, suppress(ValueError):  # larger than the whole cache: not kept
            cache[corpus.digest, number] = value

    def _corpus_reader(self, name: str) -> Callable[[], Corpus]:
        return lambda: Corpus.load(self._open_storage(), layout.corpus_file(name))

    def _source_reader(self, corpus: Corpus, blocks: Sequence[int]) -> Callable[[], list[BlockSource]]:
        return lambda: block_sources(self._open_storage(), corpus, blocks)

    def _range_reader(self, read: ImageRange) -> Callable[[], bytes]:
        return lambda: self._open_storage().read(read.path, read.offset, read.length)

    def _gather(self, calls: Mapping[K, Callable[[], V]], deadline: float) -> tuple[dict[K, V], dict[K, str]]:
        """Make calls side by side; return the results, and the reasons of those that failed."""
        futures = {key: self._pool.submit(call) for key, call in calls.items()}
        wait(futures.values(), timeout=max(0.0, deadline - time.monotonic()))
        results: dict[K, V] = {}
        problems: dict[K, str] = {}
        for key, future in futures.items():
            if not future.done():
                future.cancel()
                problems[key] = f"the store did not answer within {PATIENCE_SECONDS:g} s"
                continue
            try:
                results[key] = future.result()
            except TinyTagsError as error:
                problems[key] = str(error)
        return results, problems
