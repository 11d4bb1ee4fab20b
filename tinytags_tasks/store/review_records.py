"""A person's word on a picture: what can be said, and how a request's words are stored."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout
from tinytags_tasks.store.record import Record
from tinytags_tasks.tags import check_tags, normal_tag

LONGEST_REASON = 200

PICTURE_BYTES = 16
"""How many bytes of a picture's sha256 a word keeps, to recognise the picture in another version of its corpus."""


def picture_hash(stored: bytes | memoryview) -> bytes:
    """Return how a word names a picture: the beginning of the sha256 of its bytes."""
    return hashlib.sha256(stored).digest()[:PICTURE_BYTES]


class Verdict(StrEnum):
    """What a person says of a picture.

    ``tag``, ``none``, ``wrong`` and ``unclear`` are opinions, of which the latest counts. ``wrong`` says only that the
    picture does not show a tag. ``takedown`` and ``restore`` decide whether it may be shown at all. ``undo`` takes back
    one earlier word on the same picture, which then never counts again.
    """

    TAG = "tag"
    NONE = "none"
    WRONG = "wrong"
    UNCLEAR = "unclear"
    TAKEDOWN = "takedown"
    RESTORE = "restore"
    UNDO = "undo"


OPINIONS = (Verdict.TAG, Verdict.NONE, Verdict.WRONG, Verdict.UNCLEAR)

SHOWING = (Verdict.TAKEDOWN, Verdict.RESTORE)
"""The verdicts that decide whether a picture may be shown at all."""


class Why(StrEnum):
    """Why a person was asked, or spoke unasked.

    Only a picture that was drawn to ``measure`` enters an estimate.
    """

    MEASURE = "measure"
    TEACH = "teach"
    CORRECTION = "correction"
    IMPORT = "import"


@dataclass(frozen=True)
class Word:
    """One person's word on one picture.

    Attributes
    ----------
    position
        The picture's position in the corpus.
    verdict
        What is said.
    tag
        With ``tag``: what it shows. With ``wrong``: what it does not show. Otherwise empty.
    picture
        The first :data:`PICTURE_BYTES` bytes of the sha256 of the picture's bytes.
    is_public
        Whether readers see it: a correction or take-down. Other words only measure and teach.
    why
        Why the person was asked.
    shown_tag, shown_confidence
        What the model said of it when it was shown; empty and -1 if the model dropped it, or nothing was shown.
    reason
        What the person says about it; required for a take-down.
    undoes
        With ``undo``: the number of the request whose word on this picture is taken back. Otherwise 0.

    Raises
    ------
    BadInputError
        If these do not fit each other.
    """

    position: int
    verdict: Verdict
    tag: str = ""
    picture: bytes = b""
    is_public: bool = False
    why: Why = Why.CORRECTION
    shown_tag: str = ""
    shown_confidence: int = -1
    reason: str = ""
    undoes: int = 0

    def __post_init__(self) -> None:
        """Write the tag as tags are stored, and refuse words that say nothing, or two things."""
        object.__setattr__(self, "tag", normal_tag(self.tag))
        if self.verdict in (Verdict.TAG, Verdict.WRONG):
            check_tags([self.tag], f"position {self.position}")
        elif self.tag:
            raise BadInputError(f"position {self.position}: {self.verdict} takes no tag (got {self.tag[:100]!r})")
        if self.verdict is Verdict.TAKEDOWN and not self.reason.strip():
            raise BadInputError(f"position {self.position}: a take-down needs a reason")
        if len(self.reason) > LONGEST_REASON:
            raise BadInputError(f"position {self.position}: a reason has at most {LONGEST_REASON} characters")
        if (self.verdict is Verdict.UNDO) != (self.undoes > 0):
            raise BadInputError(f"position {self.position}: to undo a word, give the number of its request")


SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("verdict", pa.string()),
        ("tag", pa.string()),
        ("picture", pa.binary()),
        ("is_public", pa.bool_()),
        ("why", pa.string()),
        ("shown_tag", pa.string()),
        ("shown_confidence", pa.int16()),
        ("reason", pa.string()),
        ("undoes", pa.int64()),
        ("number", pa.int64()),
        ("corpus_digest", pa.string()),
        ("by", pa.string()),
        ("time", pa.string()),
        ("run", pa.string()),
    ]
)
"""Columns of a review log: a word's own, then those of its request."""


class LogPart(Record):
    """The record of one file of a review log; it is kept in the file's metadata.

    Attributes
    ----------
    corpus
        The corpus.
    first, last
        Numbers of the first and last request in the file; the same unless it was merged.
    words
        How many words it has.
    sha256
        Hash of its rows, see :func:`tinytags_tasks.store.review_log.rows_sha256`.
    """

    corpus: str
    first: int
    last: int
    words: int
    sha256: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return what to do: a person's words cannot be made again."""
        name = layout.file_name(path)
        return (
            f"restore {name} from a copy, or rename it to {name}.damaged, so that nobody gets its number again: its "
            "words are then gone, and only they are"
        )


class CarriedWords(Record):
    """What is known of the words on other versions of a corpus: those up to a number were carried over to this one.

    Attributes
    ----------
    corpus, corpus_digest
        The corpus, and the version to which words were carried over.
    upto
        The number of the last request in the log that was looked at.
    """

    corpus: str
    corpus_digest: str
    upto: int

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes it again."""
        return f"delete it, then write it again with `tinytags reviews carry {layout.path_name(path)}`"
