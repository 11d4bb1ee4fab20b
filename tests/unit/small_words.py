"""People's words on the pictures of :mod:`small_run`, for tests."""

from collections.abc import Sequence

import pyarrow as pa
from small_run import BLOCKS_PER_SHARD, CORPUS, SHARD_IMAGES, VOTES

from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, Source
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import SCHEMA, Verdict, Word

DIGEST = "d" * 64

SOURCE = Source(
    path="/pets", format="raw", files=1, size_bytes=1, images=1, listing_sha256="l", head_sha256="h", tail_sha256="t"
)


def bare_corpus(images: int = len(VOTES)) -> Corpus:
    """Return the record of a corpus, divided as :mod:`small_run` divides it, without anything in the store."""
    return Corpus(
        name=CORPUS,
        images=images,
        shard_images=SHARD_IMAGES,
        blocks_per_shard=BLOCKS_PER_SHARD,
        height=32,
        width=32,
        preparation="",
        source=SOURCE,
        unreadable=0,
        digest=DIGEST,
        created="2026-11-27T00:00:00+00:00",
    )


def say(storage: Storage, *words: Word, by: str = "ann") -> int:
    """Append words to the log of the corpus that the store holds, as one request; return its number."""
    return append_words(Corpus.load(storage, layout.corpus_file(CORPUS)), words, by=by, storage=storage)


def tag(position: int, name: str) -> Word:
    """Return the public word that a picture shows a tag."""
    return Word(position, Verdict.TAG, name, is_public=True)


def none(position: int) -> Word:
    """Return the public word that a picture shows none of the tags."""
    return Word(position, Verdict.NONE, is_public=True)


def wrong(position: int, name: str) -> Word:
    """Return the public word that a picture does not show a tag."""
    return Word(position, Verdict.WRONG, name, is_public=True)


def takedown(position: int) -> Word:
    """Return the public word that a picture must not be shown."""
    return Word(position, Verdict.TAKEDOWN, is_public=True, reason="the owner asked")


def restore(position: int) -> Word:
    """Return the public word that a picture may be shown again."""
    return Word(position, Verdict.RESTORE, is_public=True)


def undo(position: int, number: int, *, is_public: bool = True) -> Word:
    """Return the word that takes back what a request said of a picture."""
    return Word(position, Verdict.UNDO, is_public=is_public, undoes=number)


def as_log(requests: Sequence[Sequence[Word]], digest: str = DIGEST) -> pa.Table:
    """Return the log that these requests make, numbered from 1."""
    rows = [
        {
            **{name: getattr(word, name) for name in SCHEMA.names if hasattr(word, name)},
            **{"number": number, "corpus_digest": digest, "by": "ann", "time": "2026-11-27T00:00:00+00:00", "run": ""},
        }
        for number, words in enumerate(requests, 1)
        for word in words
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
