"""The pictures of a run that people chose by hand, as its review shows them."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from cachetools import LRUCache

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_records import Why
from tinytags_tasks.store.review_sets import ReviewSet
from tinytags_tasks.store.run_records import Run

BY_HAND = ""
"""The stratum of a picture that was chosen by hand: it was drawn from none."""

_MOST_KEPT = 50


@dataclass(frozen=True)
class Chosen:
    """A set, and its pictures by position: looks at them teach, whatever else they were drawn for."""

    record: ReviewSet
    pictures: Mapping[int, Drawn]


class ReviewSets:
    """Reads a run's sets, which never change.

    Parameters
    ----------
    run, storage
        The run, and the store.
    """

    def __init__(self, run: Run, storage: Storage) -> None:
        self._run = run
        self._storage = storage
        self._known: LRUCache[str, Chosen] = LRUCache(_MOST_KEPT)
        self._lock = threading.Lock()

    def get(self, name: str) -> Chosen:
        """Return a set.

        Raises
        ------
        BadInputError
            If that cannot be its name, or it is of another run.
        MissingError
            If it is not there.
        """
        with self._lock:
            found: Chosen | None = self._known.get(name)
        if found is not None:
            return found
        if not re.fullmatch("[0-9a-f]{16}", name):
            raise BadInputError(f"{name[:40]!r} names no selection: send the pictures to review again")
        path = layout.review_set_file(self._run.corpus, name)
        try:
            record = ReviewSet.load(self._storage, path)
        except MissingError as error:
            raise MissingError(f"there is no selection {name}: send its pictures to review again") from error
        if (record.run, record.corpus_digest) != (self._run.name, self._run.corpus_digest):
            raise BadInputError(f"selection {name} is of run {record.run}: review it there")
        pictures = {
            each.position: Drawn(each.position, each.block, each.tag, each.confidence, Why.TEACH, BY_HAND, 0.0)
            for each in record.pictures
        }
        with self._lock:
            found = self._known[name] = Chosen(record, pictures)
        return found
