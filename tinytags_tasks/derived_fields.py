"""Values of a document that follow from its other values: words from the keyword, the shuffle from the position."""

import hashlib
import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
RandomNumbers = npt.NDArray[np.uint64]


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a text in the form in which they are searched: NFKC, folded case, in their order.

    A word is letters and digits with the marks on them; anything else separates words.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return tuple("".join(letter if _is_of_word(letter) else " " for letter in folded).split())


@lru_cache(100_000)
def keyword_words(keyword: str) -> tuple[str, ...]:
    """Return a keyword's words as documents have them, each once, in the order in which Solr returns them."""
    return tuple(sorted(set(split_words(keyword))))


def random_numbers(seed: int, positions: Numbers) -> RandomNumbers:
    """Return the permanent random number of each position: splitmix64 (Steele, Lea and Flood, 2014), with no state.

    Parameters
    ----------
    seed
        0 to 2**64 - 1.
    positions
        0 or more.
    """
    mixed = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def shuffle_numbers(corpus: str, positions: Numbers) -> list[int]:
    """Return each picture's place in random orders, 0 to 2**31 - 1; it is the same in every run of the corpus."""
    places: list[int] = (random_numbers(_seed(corpus), positions) >> np.uint64(33)).tolist()
    return places


@lru_cache(100)
def _seed(corpus: str) -> int:
    return int.from_bytes(hashlib.sha256(corpus.encode()).digest()[:8], "big")


def _is_of_word(letter: str) -> bool:
    return letter.isalnum() or unicodedata.category(letter).startswith("M")
