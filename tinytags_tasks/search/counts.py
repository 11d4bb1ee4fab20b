"""Counts of what is found, kept: a published collection hardly changes, so nothing is counted at each view.

Each count is kept by what it follows from: the collections, how many words on their pictures readers see, and the
filters that it is subject to. So the tags of everything are counted once, whichever tag people then choose. A count
that has become old is given out once more, and counted again in the background.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from cachetools import LRUCache

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.search.request import MOST_TAGS
from tinytags_tasks.search.solr_filters import ASKED, BY_CONFIDENCE, BY_TAG, CONFIDENCE, Filter, solr_filters
from tinytags_tasks.search.solr_reader import Parameters

KEPT_SECONDS = 120.0
"""How long a count is given out without counting again: another process may have changed documents."""

MOST_BYTES = 64 * 2**20
"""How much memory all counts take at most."""

Count = tuple[tuple[str | int, int], ...]
"""Values with their numbers of images, by value."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facet:
    """What is counted.

    Attributes
    ----------
    field
        The field in Solr.
    limit
        Values at most.
    regardless_of
        Names of the filters that make no difference, so that another value can be chosen.
    """

    field: str
    limit: int
    regardless_of: tuple[str, ...]

    def key(self, filters: Sequence[Filter]) -> Hashable:
        """Return what the count follows from, besides the documents."""
        return self.field, *(each.key for each in filters if each.name not in self.regardless_of)

    @property
    def as_json(self) -> dict[str, Any]:
        """It as Solr's JSON."""
        domain = {"excludeTags": list(self.regardless_of)}
        return {"type": "terms", "field": self.field, "limit": self.limit, "sort": "index asc", "domain": domain}


FACETS = {
    "tags": Facet("tag", MOST_TAGS, (BY_TAG,)),
    "confidences": Facet(CONFIDENCE, 101, (BY_CONFIDENCE,)),
    "models": Facet("model", 20, ASKED),
    "corpora": Facet("corpus", 20, ASKED),
}


@dataclass(frozen=True)
class _Kept:
    count: Count
    until: float


def _bytes_of(kept: _Kept) -> int:
    """Return about how much memory a count takes, with its key."""
    return 400 + sum(160 + 4 * len(str(value)) for value, _ in kept.count)


def _digest(key: Hashable) -> bytes:
    """Return what stands for a key, which can be as long as a list of all pictures that are hidden."""
    return hashlib.sha256(repr(key).encode()).digest()


class _Lock:
    """A lock that lives as long as somebody holds or awaits it; whoever awaited a failure need not fail once more."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.failures: list[TinyTagsError] = []


class Counts:
    """Keeps counts; one thread at a time counts the same."""

    def __init__(self, kept_seconds: float = KEPT_SECONDS) -> None:
        self._kept_seconds = kept_seconds
        self._kept: LRUCache[bytes, _Kept] = LRUCache(MOST_BYTES, _bytes_of)
        self._lock = threading.Lock()
        self._counting: WeakValueDictionary[tuple[bytes, ...], _Lock] = WeakValueDictionary()

    def get(
        self,
        documents: Hashable,
        filters: tuple[Filter, ...],
        ask: Callable[[Parameters], dict[str, Any]],
        names: Sequence[str] = tuple(FACETS),
        *,
        is_fresh: bool = False,
    ) -> dict[str, Count]:
        """Return counts, by their name in :data:`FACETS`.

        Parameters
        ----------
        documents
            What documents are counted: the same ones if this is the same.
        filters
            The filters of the search.
        ask
            Asks Solr.
        names
            Which counts.
        is_fresh
            Whether to count again, whatever is known.

        Raises
        ------
        TinyTagsError
            If Solr does not count.
        KeyError, TypeError, ValueError, AttributeError
            If the documents are not TinyTags' own.
        """
        keys = {name: _digest((documents, FACETS[name].key(filters))) for name in names}
        if is_fresh:
            return self._count(tuple(names), keys, filters, ask)
        found, old = self._known(keys)
        if missing := tuple(name for name in names if name not in found):
            wanted = tuple(keys[name] for name in missing)
            with self._lock:
                own = self._counting.setdefault(wanted, _Lock())
            failures = len(own.failures)
            with own.lock:
                found |= self._known({name: keys[name] for name in missing})[0]
                if missing := tuple(name for name in missing if name not in found):
                    if len(own.failures) > failures:  # while this one waited; a Solr that hangs takes long to fail
                        raise own.failures[-1]
                    try:
                        found |= self._count(missing, keys, filters, ask)
                    except TinyTagsError as error:
                        own.failures.append(error)
                        raise
        if old:
            threading.Thread(
                target=self._count_again, args=(old, keys, filters, ask), name="count again", daemon=True
            ).start()
        return found

    def _known(self, keys: Mapping[str, bytes]) -> tuple[dict[str, Count], tuple[str, ...]]:
        """Return the counts that are kept, and the names of those that have just become old."""
        now = time.monotonic()
        found: dict[str, Count] = {}
        old: list[str] = []
        with self._lock:
            for name, key in keys.items():
                kept = self._kept.get(key)
                if kept is None:
                    continue
                found[name] = kept.count
                if kept.until < now:  # others go on with it while it is counted again
                    self._kept[key] = _Kept(kept.count, now + self._kept_seconds)
                    old.append(name)
        return found, tuple(old)

    def _count(
        self,
        names: Sequence[str],
        keys: Mapping[str, bytes],
        filters: tuple[Filter, ...],
        ask: Callable[[Parameters], dict[str, Any]],
    ) -> dict[str, Count]:
        # Filters that no count is subject to would only cost time.
        needless = set.intersection(*(set(FACETS[name].regardless_of) for name in names))
        parameters: Parameters = {
            "q": "*:*",
            "rows": 0,
            **solr_filters(tuple(each for each in filters if each.name not in needless)),
            "json.facet": json.dumps({name: FACETS[name].as_json for name in names}),
        }
        facets = ask(parameters).get("facets", {})
        found: dict[str, Count] = {
            name: tuple((bucket["val"], int(bucket["count"])) for bucket in facets.get(name, {}).get("buckets", ()))
            for name in names
        }
        until = time.monotonic() + self._kept_seconds
        with self._lock:
            for name, count in found.items():
                self._kept[keys[name]] = _Kept(count, until)
        return found

    def _count_again(
        self,
        names: Sequence[str],
        keys: Mapping[str, bytes],
        filters: tuple[Filter, ...],
        ask: Callable[[Parameters], dict[str, Any]],
    ) -> None:
        try:
            self._count(names, keys, filters, ask)
        except (TinyTagsError, KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("counts were not counted again, the last ones count: %s", error)
