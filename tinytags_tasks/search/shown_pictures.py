"""The pictures that readers may have, with their pixels: kept for a while, and fetched a page's worth at a time.

A page that shows thirty pictures has a browser ask for each of them. The first of these questions is answered for all.
"""

import asyncio
import hashlib
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache, TTLCache

from tinytags_tasks.errors import EngineDownError, MissingError, TransientError
from tinytags_tasks.search.documents import find_documents
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRun, LiveRuns
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.thumbnails import png_bytes, reduced
from tinytags_tasks.search.waiting import Waiting
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout

KEPT_SECONDS = 30.0
"""How long it counts as known that readers see a picture; words that this page hears of count at once."""

KEPT_BYTES = 64 * 2**20
MOST_EXPECTED = 20_000
"""Pictures of pages whose pictures were not all asked for yet."""

PATIENCE_SECONDS = 35.0
"""How long a request waits for another that fetches the same pictures: longer than Solr may take."""

FAILED_SECONDS = 5.0
"""How long a picture that could not be read is not asked for again, so that an absent store does not hang pages."""

QUICK_SECONDS = 2.0
"""How long any request waits for another: a page's requests are often answered by then. Only a few wait longer."""

GROUP_BYTES = 16 * 2**20
"""Pixels that are fetched at once, at most, except for a single picture that is larger."""

_USUAL_BYTES = 3_072
_ENTRY_BYTES = 2_000


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture that readers may have."""

    image: TaggedImage

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """Its pixels, uint8 of shape (height, width, 3).

        Raises
        ------
        TransientError
            If they cannot be read right now.
        """
        if self.image.image is None:
            raise TransientError(
                f"picture {self.image.position} of corpus {self.image.corpus} cannot be shown: {self.image.missing}"
            )
        return self.image.image

    @cached_property
    def png(self) -> bytes:
        """It as a PNG; raises as :attr:`pixels`."""
        return png_bytes(self.pixels)

    @cached_property
    def grid_png(self) -> bytes:
        """It as a PNG for a grid, scaled down if it is large; raises as :attr:`pixels`."""
        small = reduced(self.pixels)
        return self.png if small is self.pixels else png_bytes(small)

    @property
    def is_png_kept(self) -> bool:
        """Whether one of the two was made already."""
        return "png" in vars(self) or "grid_png" in vars(self)

    @cached_property
    def digest(self) -> str:
        """A hash of its pixels; raises as :attr:`pixels`."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()[:16]


_Key = tuple[Hashable, str]


class _Unknown:
    """Stands for a picture of which nothing is known; None is one that readers cannot find."""


_UNKNOWN: Final = _Unknown()


class ShownPictures:
    """Finds pictures that readers may have.

    Parameters
    ----------
    settings
        Say where Solr is.
    live
        Knows what is live.
    logs
        Know what was said of pictures.
    stored_images
        Has the pixels of documents without.
    """

    def __init__(self, settings: Settings, live: LiveRuns, logs: WordLogs, stored_images: StoredImages) -> None:
        self._settings = settings
        self._live = live
        self._logs = logs
        self._stored_images = stored_images
        self._lock = threading.Lock()
        self._kept: TTLCache[_Key, ShownPicture | None] = TTLCache(KEPT_BYTES, KEPT_SECONDS, getsizeof=_size_bytes)
        self._failed: TTLCache[_Key, ShownPicture] = TTLCache(MOST_EXPECTED, FAILED_SECONDS)
        self._expected: LRUCache[str, tuple[str, ...]] = LRUCache(MOST_EXPECTED)
        self._waiting = Waiting()
        self._asked: dict[_Key, Future[ShownPicture | None]] = {}

    def expect(self, images: Iterable[TaggedImage]) -> None:
        """Note that a page with these pictures was sent: whoever asks for one of them will ask for the others."""
        ids = tuple(image.id for image in images)
        with self._lock:
            self._expected.update(dict.fromkeys(ids, ids))

    def is_expected(self, corpus: str, position: int) -> bool:
        """Return whether a page with this picture was sent lately."""
        with self._lock:
            return layout.document_id(corpus, position) in self._expected

    def find(self, corpus: str, position: int, hidden: Hidden, chosen: LiveRun | None = None) -> ShownPicture:
        """Return a picture.

        Parameters
        ----------
        corpus, position
            Which.
        hidden
            What readers do not see.
        chosen
            The run that is searched; None searches what is live.

        Raises
        ------
        MissingError
            If readers cannot find it.
        TinyTagsError
            If Solr, or the list of what was taken down, cannot be read.
        """
        if hidden.hides(corpus, position):
            raise MissingError(f"picture {position} of corpus {corpus} was taken down")
        document = layout.document_id(corpus, position)
        runs = [run for run in ((chosen,) if chosen else self._live.runs()) if run.run.corpus == corpus]
        generation = self._generation(corpus, runs, self._logs.of(corpus).last_public)
        collection = chosen.run.collection if chosen else ""
        found = self._find(generation, document, hidden, collection, runs[0]) if runs else None
        if found is None:
            where = f"run {chosen.run.name} does not show it" if chosen else "no live run shows it"
            raise MissingError(f"readers cannot find picture {position} of corpus {corpus}: {where}")
        return found

    def kept(self, corpus: str, position: int) -> tuple[ShownPicture, Sequence[LiveRun]] | None:
        """Return a picture of what is live with the runs of its corpus, without waiting for anything.

        All that :meth:`find` checks is checked. None says no more than that :meth:`find` has to be asked.
        """
        if (current := self._current(corpus, position)) is None:
            return None
        key, runs = current
        with self._lock:
            known = self._kept.get(key)
        return None if known is None else (known, runs)

    async def arrive(self, corpus: str, position: int) -> None:
        """Wait for a picture that another request fetches just now: for a short time, and without a thread."""
        if (current := self._current(corpus, position)) is None:
            return
        with self._lock:
            asked = self._asked.get(current[0])
        if asked is not None:
            arriving = asyncio.wrap_future(asked)
            arriving.add_done_callback(_heed)
            await asyncio.wait((arriving,), timeout=QUICK_SECONDS)

    def _current(self, corpus: str, position: int) -> tuple[_Key, Sequence[LiveRun]] | None:
        """Return under which key a picture of what is live is kept, and the runs of its corpus.

        None if it is hidden, or if that cannot be said without asking.
        """
        live, logs = self._live.current, self._logs.current
        if live is None or logs is None or self._logs.hidden_in(logs).hides(corpus, position):
            return None
        runs = [run for run in live if run.run.corpus == corpus]
        generation = self._generation(corpus, runs, logs.of(corpus).last_public)
        return (generation, layout.document_id(corpus, position)), runs

    def _generation(self, corpus: str, runs: Sequence[LiveRun], last_public: int) -> Hashable:
        """Return what readers' pictures of a corpus depend on, beside its runs that are searched."""
        published = tuple((run.run.collection, run.publication and run.publication.time) for run in runs)
        return published, last_public, self._logs.applied(corpus)

    def _find(
        self, generation: Hashable, document: str, hidden: Hidden, collection: str, live: LiveRun
    ) -> ShownPicture | None:
        key = generation, document
        with self._lock:
            for cache in (self._kept, self._failed):
                known = cache.get(key, _UNKNOWN)  # asked once: it may expire between two questions
                if not isinstance(known, _Unknown):
                    return known
            waiting = self._asked.get(key)
            futures: dict[_Key, Future[ShownPicture | None]] = {}
            if waiting is None:
                image_bytes = live.corpus.image_bytes if live.corpus else _USUAL_BYTES
                group = ((generation, one) for one in self._group(document, max(1, GROUP_BYTES // image_bytes)))
                places = (self._kept, self._failed, self._asked)
                futures = {one: Future() for one in group if one == key or not any(one in place for place in places)}
                self._asked |= futures
        if waiting is not None:
            return self._wait(waiting)
        self._fetch(futures, hidden, collection, {live.run.corpus: live.run.corpus_digest})
        return futures[key].result()

    def _wait(self, asked: "Future[ShownPicture | None]") -> ShownPicture | None:
        """Return what another request fetches.

        Raises
        ------
        EngineDownError
            If that takes long, and too many others wait already: each holds one of the server's few threads.
        """
        with suppress(TimeoutError):
            return asked.result(QUICK_SECONDS)
        with self._waiting.seconds(PATIENCE_SECONDS) as seconds:
            try:
                return asked.result(seconds)
            except TimeoutError as error:
                raise EngineDownError("the picture takes long to read: load the page again") from error

    def _group(self, document: str, most: int) -> list[str]:
        """Return a document, with those of the same corpus that were sent on the same page: some, if all are many."""
        corpus = document.rpartition(":")[0]
        together = [one for one in self._expected.get(document, (document,)) if one.rpartition(":")[0] == corpus]
        start = together.index(document) // most * most
        return together[start : start + most]

    def _fetch(
        self,
        futures: dict[_Key, "Future[ShownPicture | None]"],
        hidden: Hidden,
        collection: str,
        digests: Mapping[str, str],
    ) -> None:
        """Fetch pictures, keep them, and tell whoever waits for them."""
        try:
            ids = [document for _, document in futures]
            found = find_documents(self._settings, ids, hidden, with_pixels=True, collection=collection)
            completed = self._stored_images.complete(list(found.values()), digests)
            whole = {image.id: ShownPicture(image) for image in completed}
        except BaseException as error:
            with self._lock:
                for key, future in futures.items():
                    self._asked.pop(key, None)
                    future.set_exception(error)
            raise
        with self._lock:
            for key, future in futures.items():
                shown = whole.get(key[1])
                self._asked.pop(key, None)
                if shown is not None and shown.image.image is None:
                    self._failed[key] = shown
                elif _size_bytes(shown) <= self._kept.maxsize:
                    self._kept[key] = shown
                future.set_result(shown)


def _heed(arriving: "asyncio.Future[ShownPicture | None]") -> None:
    """Take note of an error, which whoever fetches the picture reports; asyncio would log it once more."""
    if not arriving.cancelled():
        arriving.exception()


def _size_bytes(shown: ShownPicture | None) -> int:
    """Return about how much memory a picture takes, with its PNG."""
    image = None if shown is None else shown.image.image
    return _ENTRY_BYTES + (0 if image is None else 2 * image.nbytes)
