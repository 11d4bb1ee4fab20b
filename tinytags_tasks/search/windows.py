"""Keeps Solr from sorting everything for one page: it is asked for ever larger beginnings of what is left to read.

Solr sorts all that matches, about 20 ns a document, however few it returns. Each window holds a beginning of what comes
after an edge, so the first one with enough pictures has the page; the last one holds all that is left. Counts only say
how large to begin: if they are old, one more question is asked, and nothing is missed.
"""

from collections.abc import Iterator, Mapping

from tinytags_tasks.search.cursor import Order, Values
from tinytags_tasks.search.request import LAST_SEED, Sort
from tinytags_tasks.search.solr_filters import CONFIDENCE

FEW = 150_000
"""So many documents are sorted in a few milliseconds."""

_UNCACHED = "{!cache=false}"
_GROWTH = 16
_LONGEST = 2**32


def windows(
    order: Order, edge: Values | None, confidences: Mapping[int, int], documents: int, wanted: int
) -> Iterator[tuple[str, ...]]:
    """Yield filters, each of a longer beginning of what comes after an edge; without any, it is everything.

    Parameters
    ----------
    order
        The order, and its direction.
    edge
        What the last picture that was read is sorted by; None reads from the beginning.
    confidences
        How many documents match, by confidence.
    documents
        How many documents there are, whether they match or not.
    wanted
        How many are to be read.
    """
    matching = sum(confidences.values())
    if matching > FEW:
        # Four times as many as are wanted, on average: mostly the first window has enough.
        sparseness = 4 * wanted * max(1.0, documents / matching)
        if order.sort is Sort.RANDOM:
            here = int(edge[0]) if edge else (0 if order.is_forward else LAST_SEED)
            for length in _lengths(int(sparseness * (LAST_SEED / max(documents, 1)))):
                yield (_UNCACHED + _range("shuffle", here, length, order.is_forward),)
        elif order.sort is Sort.POSITION:
            if edge or order.is_forward:
                for length in _lengths(int(sparseness)):
                    yield (_UNCACHED + _range("position", int(edge[0]) if edge else 0, length, order.is_forward),)
        else:
            yield from _by_confidence(order, edge, confidences, documents, wanted)
            return
    yield ()


def _by_confidence(
    order: Order, edge: Values | None, confidences: Mapping[int, int], documents: int, wanted: int
) -> Iterator[tuple[str, ...]]:
    end = 0 if order.is_forward else 100
    first = int(edge[0]) if edge else 100 - end
    left = {value: count for value, count in confidences.items() if count and (value <= first) is order.is_forward}
    left |= {first: confidences[first]} if confidences.get(first) else {}
    if not left:
        yield ()
        return
    before, unread = 0, 0
    for value in sorted(left, reverse=order.is_forward):
        is_partly_read = edge is not None and value == first
        # If many have the same confidence, their positions narrow it further.
        if left[value] > FEW >= before and (order.is_forward or is_partly_read):
            here = int(edge[1]) if edge is not None and is_partly_read else 0
            for length in _lengths(int(4 * wanted * max(1.0, documents / left[value]))):
                own = f"(+{_confidence(value, value)} +{_range('position', here, length, order.is_forward)})"
                others = "" if value == first else f"{_confidence(first, value + (1 if order.is_forward else -1))} OR "
                yield (f"{_UNCACHED}{others}{own}",)
        before += left[value]
        unread += 0 if is_partly_read else left[value]
        if unread >= 2 * wanted:
            yield (_UNCACHED + _confidence(first, value),)
            break
    # A range is worth it only if it leaves much out: Solr first looks up all that is in it.
    yield (_UNCACHED + _confidence(first, end),) if edge and 2 * sum(left.values()) < sum(confidences.values()) else ()


def _confidence(one: int, other: int) -> str:
    return f"{CONFIDENCE}:[{min(one, other):d} TO {max(one, other):d}]"


def _lengths(first: int) -> Iterator[int]:
    length = max(first, 1)
    while length < _LONGEST:
        yield length
        length *= _GROWTH


def _range(field: str, here: int, length: int, is_forward: bool) -> str:
    most = LAST_SEED if field == "shuffle" else _LONGEST**2 // 2 - 1  # of an int and of a long
    low, high = (here, min(here + length, most)) if is_forward else (max(0, here - length), here)
    return f"{field}:[{low:d} TO {high:d}]"
