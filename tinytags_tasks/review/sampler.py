"""Permanent random numbers of pictures, and a sample of each stratum by them, in one pass and flat memory."""

import hashlib

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
RandomNumbers = npt.NDArray[np.uint64]

_LARGEST = np.uint64(2**64 - 1)


def seed_of(corpus_digest: str) -> int:
    """Return the seed of a corpus' random numbers."""
    return int.from_bytes(hashlib.sha256(corpus_digest.encode()).digest()[:8], "big")


class Sampler:
    """Keeps the pictures with the smallest keys of each stratum, of however many are added.

    Parameters
    ----------
    strata
        How many strata there are.
    most
        For each stratum, how many pictures are kept.
    """

    def __init__(self, most: Numbers) -> None:
        self._most = most
        self._limits = np.full(len(most), _LARGEST, dtype=np.uint64)
        self._parts: list[tuple[npt.NDArray[np.generic], ...]] = []
        self._waiting = 0
        self._room = 2 * int(most.sum()) + 100_000

    def add(self, strata: Numbers, keys: RandomNumbers, *columns: npt.NDArray[np.generic]) -> None:
        """Add pictures: their strata, keys, and what else is to be kept of them."""
        fits = keys <= self._limits[strata]
        self._parts.append((strata[fits], keys[fits], *(column[fits] for column in columns)))
        self._waiting += int(fits.sum())
        if self._waiting > self._room:
            self.result()

    def result(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return strata, places in their stratum (from 0), keys and the other columns, by stratum and key."""
        if not self._parts:
            return ()
        strata, keys, *columns = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        order = np.lexsort((keys, strata))
        strata, keys, columns = strata[order], keys[order], [column[order] for column in columns]
        firsts = np.searchsorted(strata, np.arange(len(self._most)))
        places = np.arange(len(strata)) - firsts[strata]
        is_kept = places < self._most[strata]
        is_last = places == self._most[strata] - 1
        self._limits[strata[is_last]] = keys[is_last]
        kept = (strata[is_kept], keys[is_kept], *(column[is_kept] for column in columns))
        self._parts, self._waiting = [kept], int(is_kept.sum())
        return (kept[0], places[is_kept], *kept[1:])
