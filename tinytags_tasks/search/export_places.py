"""Where an export's pictures are in the files of their corpora, however many files there are.

A search finds pictures in another order than a listing has them. To look each page's places up would read most of a
long listing again for every page. So the positions of all pictures are gathered first and sorted, and the listing is
read once, from front to back.
"""

import tempfile
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import orjson

from tinytags_tasks.corpus.listing import GROUPS_IN_MEMORY
from tinytags_tasks.corpus.places import ListedPlaces, SourcePlace
from tinytags_tasks.errors import FinalError, TransientError
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.wanted import PAUSES_SECONDS
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage

PLACES_A_STEP = 1_000


def are_long(corpora: Iterable[Corpus], storage: Storage) -> bool:
    """Return whether one of the corpora has a listing that does not stay in memory."""
    return any(_groups(corpus, storage) > GROUPS_IN_MEMORY for corpus in corpora)


class GatheredPlaces:
    """The places of an export's pictures, in a temporary file; 16 bytes of memory a picture.

    Parameters
    ----------
    corpora
        The corpora by name, of the version that was searched.
    storage
        The store.
    """

    def __init__(self, corpora: Mapping[str, Corpus], storage: Storage) -> None:
        self._corpora = corpora
        self._storage = storage
        self._found: dict[str, _Places] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the temporary file."""
        self._file.close()

    def gather(self, pages: Iterable[tuple[TaggedImage, ...]]) -> Iterator[int]:
        """Look the pictures of these pages up; yield how many were, at every step, so that others can stop it.

        Raises
        ------
        TransientError
            If the store does not answer.
        """
        positions: dict[str, array[int]] = {}
        for page in pages:
            for image in page:
                if image.corpus in self._corpora:
                    positions.setdefault(image.corpus, array("q")).append(image.position)
            yield 0
        done = 0
        for name in list(positions):
            wanted = np.unique(np.frombuffer(positions.pop(name), np.int64))
            places = self._found[name] = _Places(wanted, np.zeros(len(wanted) + 1, np.int64))
            for _ in self._walk(self._corpora[name], places):
                done += 1
                if done % PLACES_A_STEP == 0:
                    yield done

    def of(self, images: Iterable[TaggedImage]) -> dict[str, SourcePlace]:
        """Return the places of some of these pictures, by the id of their documents; without those not known."""
        found = {}
        for image in images:
            if (places := self._found.get(image.corpus)) and (span := places.span(image.position)):
                self._file.seek(span[0])
                found[image.id] = SourcePlace(**orjson.loads(self._file.read(span[1] - span[0])))
        return found

    def _walk(self, corpus: Corpus, places: "_Places") -> Iterator[None]:
        """Write places to the file, one after the other; if the store stumbles, go on with those that lack."""
        index = 0
        pauses = iter(PAUSES_SECONDS)
        self._file.seek(0, 2)
        places.ends[0] = self._file.tell()
        while True:
            try:
                for position, place in _listed(corpus, self._storage).walk(places.positions[index:]):
                    at = int(np.searchsorted(places.positions, position))
                    places.ends[index + 1 : at + 1] = places.ends[index]
                    places.ends[at + 1] = places.ends[at] + self._file.write(orjson.dumps(place))
                    index = at + 1
                    yield
            except FinalError:
                pass  # a corpus of an older TinyTags has no listing; what is not known stays empty
            except TransientError:
                if (pause := next(pauses, None)) is None:
                    raise
                time.sleep(pause)
                continue
            places.ends[index + 1 :] = places.ends[index]
            return


@dataclass(frozen=True)
class _Places:
    """Where the place of each position is in the file: from the end of the one before it to its own."""

    positions: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def span(self, position: int) -> tuple[int, int] | None:
        at = int(np.searchsorted(self.positions, position))
        if at == len(self.positions) or self.positions[at] != position or self.ends[at] == self.ends[at + 1]:
            return None
        return int(self.ends[at]), int(self.ends[at + 1])


def _listed(corpus: Corpus, storage: Storage) -> ListedPlaces:
    return ListedPlaces(storage, corpus.name, corpus.sources)


def _groups(corpus: Corpus, storage: Storage) -> int:
    try:
        return _listed(corpus, storage).groups
    except FinalError:
        return 0
