"""The fields of a document, declared in one place: what Solr stores for an image, and how people see it.

To add a field, add it to :data:`FIELDS` (with ``is_required=False, is_later=True``), declare it in
``solr/tinytags/conf/schema.xml`` and fill it in :mod:`tinytags_tasks.index.documents`. Searches, the API, the command
line and the pages then pick it up. ``docs/extending.md`` has all steps; ``tests/unit/test_document_fields.py`` fails if
one is forgotten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache
from typing import Literal

FieldValue = int | str
FieldType = Literal["string", "int", "long", "binary", "vector"]


class Shown(Flag):
    """Where a field is shown; searches do not fetch a field that is shown nowhere."""

    NOWHERE = 0
    ANSWERS = auto()
    """In JSON, from the API and from commands."""
    TABLES = auto()
    """As a column in the tables that commands print."""
    CARDS = auto()
    """As a line below an image."""


EVERYWHERE = Shown.ANSWERS | Shown.TABLES | Shown.CARDS


@dataclass(frozen=True)
class DocumentField:
    """A field.

    Attributes
    ----------
    name
        Its name in code, pages, commands and JSON.
    type
        Its type in Solr.
    meaning
        What it says about the image: a sentence for people.
    shown
        Where people see it.
    phrase
        Formats a value for people; None shows the value as it is.
    alias
        Its name in Solr and its second name in JSON, if that is not ``name``.
    is_searchable, is_stored, is_countable
        Solr's ``indexed``, ``stored`` and ``docValues``: whether documents can be filtered by it, whether its value is
        stored, and whether documents can be sorted and counted by it.
    is_required
        Whether every document has it.
    is_later
        Whether it was added after the first version, so that older collections lack it. It must not be required then.
    is_multivalued
        Whether a document may have several values: Solr's ``multiValued``. It is shown nowhere then.
    """

    name: str
    type: FieldType
    meaning: str
    shown: Shown = Shown.NOWHERE
    phrase: Callable[[FieldValue], str] | None = None
    alias: str = ""
    is_searchable: bool = True
    is_stored: bool = True
    is_countable: bool = True
    is_required: bool = True
    is_later: bool = False
    is_multivalued: bool = False

    @property
    def solr_name(self) -> str:
        """Its name in Solr."""
        return self.alias or self.name

    def say(self, value: FieldValue) -> str:
        """Return a value in a form for people."""
        return str(value) if self.phrase is None else self.phrase(value)

    def read(self, document: Mapping[str, object]) -> FieldValue | None:
        """Return the field's value in a Solr document; None if an optional field is missing.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a required field is missing, or the value has the wrong type.
        """
        if not self.is_required and self.solr_name not in document:
            return None
        value = document[self.solr_name]
        return int(str(value)) if self.type in ("int", "long") else str(value)


def _votes(value: FieldValue) -> str:
    return "1 vote" if value == 1 else f"{value} votes"


FIELDS = (
    DocumentField(
        "id",
        "string",
        "Corpus and position, which identify an image permanently.",
        shown=Shown.ANSWERS | Shown.TABLES,
    ),
    DocumentField(
        "tag",
        "string",
        "What the model says the image shows.",
        shown=Shown.ANSWERS | Shown.TABLES,
    ),
    DocumentField(
        "confidence",
        "int",
        "Share of the model's votes that this tag got, in percent. It is the model's own opinion of this image, not "
        "the chance that the tag is right. The share of tags that are right is the precision in the model's report.",
        shown=Shown.ANSWERS | Shown.TABLES,
        phrase=lambda value: f"{value} %",
        alias="accuracy",  # its name in the original system
    ),
    DocumentField(
        "keyword",
        "string",
        "What the corpus' source called the image.",
        shown=EVERYWHERE,
        is_required=False,
        is_later=True,
    ),
    DocumentField(
        "votes",
        "int",
        "How many votes the tag got: trees of the forest, or percent if the model gives probabilities.",
        shown=EVERYWHERE,
        phrase=_votes,
    ),
    DocumentField(
        "block",
        "int",
        "The part of the corpus that was scored and indexed together with this image.",
        shown=EVERYWHERE,
        phrase=lambda value: f"block {value}",
    ),
    DocumentField(
        "position",
        "long",
        "The image's number in its corpus, from 0.",
        shown=EVERYWHERE,
        phrase=lambda value: f"image {value:,}",
    ),
    DocumentField(
        "model",
        "string",
        "The version of the model that chose the tag.",
        shown=Shown.ANSWERS | Shown.TABLES,
    ),
    DocumentField(
        "corrected",
        "long",
        "The number of the request by which a person decided the tag; missing if the model did.",
        shown=Shown.ANSWERS | Shown.CARDS,
        phrase=lambda value: "tag from a person",
        is_required=False,
        is_later=True,
    ),
    DocumentField("corpus", "string", "The set of images that this image belongs to.", shown=Shown.ANSWERS),
    DocumentField("shard", "int", "The file of the corpus that contains the image."),
    DocumentField(
        "word",
        "string",
        "The words of the keyword, in folded case, by which keywords are searched.",
        is_stored=False,
        is_required=False,
        is_later=True,
        is_multivalued=True,
    ),
    DocumentField(
        "shuffle",
        "int",
        "The image's place in random orders: a number that follows from its position.",
        is_stored=False,
        is_required=False,
        is_later=True,
    ),
    DocumentField(
        "width",
        "int",
        "Pixels per row; together with the number of bytes, this gives the height.",
        is_searchable=False,
        is_stored=False,
        is_required=False,
        is_later=True,
    ),
    *(
        DocumentField(
            name,
            "int",
            "A number that copies of the same picture share; compressed and resized ones mostly share one of the two.",
            is_searchable=False,
            is_stored=False,
            is_required=False,
            is_later=True,
        )
        for name in ("look", "other_look")
    ),
    DocumentField(
        "vector",
        "vector",
        "The picture's embedding, by which similar ones are found; missing if the run has none.",
        is_countable=False,
        is_required=False,
        is_later=True,
    ),
    DocumentField(
        "data",
        "binary",
        "The image's bytes, row-major HWC; missing if they are kept only in the store.",
        is_searchable=False,
        is_countable=False,
        is_required=False,
    ),
)
"""All fields, in the order in which they are shown."""

LOOK_FIELDS = ("look", "other_look")
"""What the picture looks like, in the order of :func:`tinytags_tasks.look.looks`."""

VECTOR_FIELD = "vector"
VECTOR_NUMBERS = 256
"""How many numbers a vector has: the schema fixes it. A shorter embedding is filled up with zeros."""

PIXEL_FIELDS = ("width", "data")
"""The fields that make up an image; they are fetched only if pixels are needed."""

FIRST_CHECKSUM_FIELDS = ("id", "tag", "votes", "confidence", "model")
"""What the first version of a block's checksum covers; see :mod:`tinytags_tasks.store.block_documents`."""

LATER_FIELDS = frozenset(field.solr_name for field in FIELDS if field.is_later)
"""Names in Solr of the fields that older collections lack."""

PICTURE_FIELDS = ("data", *LOOK_FIELDS, VECTOR_FIELD)
"""What says how an image looks. It is compared with the picture itself."""

CHECKSUM_FIELDS = tuple(field.name for field in FIELDS if field.name not in PICTURE_FIELDS)
"""What the checksum of a block's documents covers: everything but what says how an image looks.

A field that is added leaves older checksums valid, because documents of older collections lack it.
"""

_BY_NAME = {field.name: field for field in FIELDS}


def document_field(name: str) -> DocumentField:
    """Return the field with this name."""
    return _BY_NAME[name]


def solr_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of fields in Solr."""
    return tuple(_BY_NAME[name].solr_name for name in names)


@cache
def fields_shown(where: Shown) -> tuple[DocumentField, ...]:
    """Return the fields that are shown in a place."""
    return tuple(field for field in FIELDS if where & field.shown)


def describe(values: Mapping[str, FieldValue | None], where: Shown) -> list[tuple[DocumentField, str]]:
    """Return the fields that are shown in a place and have a value, each with its value in a form for people."""
    found = ((field, values.get(field.name)) for field in fields_shown(where))
    return [(field, field.say(value)) for field, value in found if value not in (None, "")]


def values_as_json(values: Mapping[str, FieldValue | None]) -> dict[str, FieldValue | None]:
    """Return an image's values by name, for JSON.

    A field with an alias is written under both names, so that programs that read ``accuracy``, the old name of
    confidence, still work.
    """
    found: dict[str, FieldValue | None] = {}
    for field in fields_shown(Shown.ANSWERS):
        value = values.get(field.name)
        found[field.name] = value
        if field.alias:
            found[field.alias] = value
    return found
