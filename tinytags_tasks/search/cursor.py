"""Where a page begins or ends: cursors that go on in both directions, at any depth and after publications.

A cursor holds what its edge is sorted by, so that the next picture follows from it alone: Solr skips what comes
before without collecting it, and a page far behind costs what the first one does. Solr itself makes such marks for one
direction only. A mark is base64 of Solr's binary format, so we write them ourselves.

The text is base64 of JSON. Nothing in it is trusted: its values are checked, and none becomes part of a query's text.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytags_tasks.derived_fields import shuffle_numbers
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.index.javabin import encode_sort_values
from tinytags_tasks.search.request import FIRST_CURSOR, LAST_SEED, SearchRequest, Sort
from tinytags_tasks.search.solr_filters import CONFIDENCE

Values = tuple[int | str, ...]
"""What a picture is sorted by: as many values as its order has fields."""

_DESCENDING = {CONFIDENCE}
_FIELDS = {
    Sort.CONFIDENCE: (CONFIDENCE, "position", "id"),
    Sort.POSITION: ("position", "id"),
    Sort.RANDOM: ("shuffle", "position", "id"),
}
_LONG = {"position"}
_MOST = {CONFIDENCE: 100, "shuffle": LAST_SEED, "position": 2**55}


@dataclass(frozen=True)
class Order:
    """An order, in one of its directions.

    Attributes
    ----------
    sort
        The order.
    begin
        Where a random order begins: all pictures have a place on a circle.
    is_forward
        Whether in the direction in which people read.
    """

    sort: Sort
    begin: int = 0
    is_forward: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in Solr that pictures are sorted by."""
        return _FIELDS.get(self.sort, _FIELDS[Sort.CONFIDENCE])

    @property
    def solr_sort(self) -> str:
        """The order as Solr's parameter ``sort``."""
        return ", ".join(
            f"{name} {'desc' if (name in _DESCENDING) is self.is_forward else 'asc'}" for name in self.fields
        )

    def parts_from(self, edge: Values | None) -> list[tuple[Values | None, bool]]:
        """Return what is to be read one after the other to get what comes after an edge.

        A random order is a circle that begins somewhere: what lies above that comes first, then what lies below.

        Parameters
        ----------
        edge
            What a picture is sorted by; None reads from the beginning.

        Returns
        -------
        list
            Of each part the edge after which it begins, and whether it is above the beginning; see :meth:`is_in`.
        """
        if self.sort is not Sort.RANDOM or not self.begin:
            return [(edge, True)]
        if self.is_forward:
            parts: list[tuple[Values | None, bool]] = [((self.begin - 1, _MOST["position"], ""), True), (None, False)]
        else:
            parts = [((self.begin, 0, ""), False), (None, True)]
        if edge is None:
            return parts
        own = int(edge[0]) >= self.begin
        return [(edge, own), *parts[1:]] if own is parts[0][1] else [(edge, own)]

    def is_in(self, document: Mapping[str, Any], is_above: bool) -> bool:
        """Return whether a document belongs to the part of a random order that is above its beginning, or below it."""
        return self.sort is not Sort.RANDOM or (int(document["shuffle"]) >= self.begin) is is_above

    def mark(self, edge: Values | None) -> str:
        """Return Solr's cursor mark for what comes after an edge."""
        if edge is None:
            return FIRST_CURSOR
        return base64.b64encode(
            encode_sort_values([(value, name in _LONG) for name, value in zip(self.fields, edge, strict=True)])
        ).decode()

    def edge_of(self, document: Mapping[str, Any]) -> Values:
        """Return what a document is sorted by.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is not a document of TinyTags.
        """
        return tuple(str(document[name]) if name == "id" else int(document[name]) for name in self.fields)


@dataclass(frozen=True)
class Cursor:
    """What the text of a cursor says.

    Attributes
    ----------
    searched
        A hash of the collections that its page was of.
    order
        The order, in the direction in which it goes on.
    edge
        What the picture at the edge is sorted by.
    """

    searched: str
    order: Order
    edge: Values

    def write(self) -> str:
        """Return it as a text that is fit for addresses."""
        order = self.order
        said = [self.searched, order.sort.value, order.begin, int(order.is_forward), *self.edge]
        return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")


def read_cursor(request: SearchRequest) -> Cursor | None:
    """Return the cursor of a request; None on its first page.

    Raises
    ------
    BadInputError
        If it is not a cursor, or one of another order.
    """
    if request.cursor in (None, FIRST_CURSOR):
        return None
    assert request.cursor is not None  # noqa: S101 - see above
    try:
        said = json.loads(base64.urlsafe_b64decode(request.cursor + "=" * (-len(request.cursor) % 4)))
        searched, sort, begin, is_forward, *edge = said
        order = Order(Sort(sort), begin, is_forward == 1)
        cursor = Cursor(searched, order, tuple(edge))
        _check(cursor)
    except (binascii.Error, ValueError, TypeError, RecursionError) as error:
        raise BadInputError("this is not a cursor of this search: begin again without one") from error
    own = order_of(request)
    if (order.sort, order.begin) != (own.sort, own.begin):
        raise BadInputError("this cursor is of a search in another order: begin again without one")
    return cursor


def order_of(request: SearchRequest) -> Order:
    """Return the order that a request asks for, from its beginning."""
    if request.sort is not Sort.RANDOM:
        return Order(request.sort)
    # Seeds that follow each other begin far from each other.
    return Order(request.sort, shuffle_numbers("", np.array([request.seed]))[0])


def hash_of(collections: Sequence[str]) -> str:
    """Return how a cursor names collections; their order makes no difference."""
    return hashlib.sha256("\n".join(sorted(collections)).encode()).hexdigest()[:12]


def _check(cursor: Cursor) -> None:
    """Refuse a cursor with values that no picture is sorted by."""
    order = cursor.order
    is_begin = type(order.begin) is int and 0 <= order.begin <= LAST_SEED
    if not (is_begin and isinstance(cursor.searched, str) and len(cursor.edge) == len(order.fields)):
        raise ValueError
    for name, value in zip(order.fields, cursor.edge, strict=True):
        if name == "id":
            if not (isinstance(value, str) and 1 <= len(value) <= 500 and value.isprintable()):
                raise ValueError
        elif not (type(value) is int and 0 <= value <= _MOST[name]):
            raise ValueError
