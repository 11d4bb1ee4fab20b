"""Finds and drops the pictures that somebody sent to review, once nobody needs the set: what was said of them is kept.

A set is needed until people have looked at all of its pictures, and some days longer, because its address may be open
somewhere. It is not if its run cannot be reviewed any more: the run was removed or pruned, or is of another version of
the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tinytags_tasks.errors import FinalError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import ReviewLog, of_version, positions_taken_down, standing_words
from tinytags_tasks.store.review_sets import ReviewSet
from tinytags_tasks.store.run_records import Run

KEPT_DAYS = 7
"""How long a set is kept after it was made, although all of its pictures were looked at."""


@dataclass(frozen=True)
class PrunableSet:
    """A set that may be dropped.

    Attributes
    ----------
    corpus, name
        Which set.
    pictures
        How many pictures it has.
    reason
        Why nobody needs it.
    """

    corpus: str
    name: str
    pictures: int
    reason: str

    @property
    def key(self) -> str:
        """What it is called where a person chooses it."""
        return f"{self.corpus}/{self.name}"

    def line(self, verb: str) -> str:
        """Return a readable line for a set that is dropped."""
        return f"{verb} review set {self.name} of corpus {self.corpus} ({self.pictures:,} pictures): {self.reason}"


def find_review_sets(storage: Storage) -> tuple[tuple[PrunableSet, ...], dict[str, str]]:
    """Return the sets that may be dropped, and those that cannot be read, each with the reason."""
    drop: list[PrunableSet] = []
    kept: dict[str, str] = {}
    for corpus in storage.names(layout.REVIEWS):
        read = []
        for path in _sets(corpus, storage):
            try:
                read.append(ReviewSet.load(storage, path))
            except MissingError:
                continue  # dropped by another process
            except FinalError as error:
                kept[path] = str(error)
        if read:
            drop += _unneeded(corpus, read, storage)
    return tuple(drop), kept


def drop_review_set(found: PrunableSet, storage: Storage) -> None:
    """Drop a set, in one step."""
    storage.delete(layout.review_set_file(found.corpus, found.name))


def _sets(corpus: str, storage: Storage) -> Iterator[str]:
    folder = layout.review_sets_folder(corpus)
    for name in storage.names(folder):
        if name.endswith(".json") and not name.startswith("."):
            yield f"{folder}/{name}"


def _unneeded(corpus: str, sets: Sequence[ReviewSet], storage: Storage) -> Iterator[PrunableSet]:
    try:
        digest = Corpus.load(storage, layout.corpus_file(corpus)).digest
    except FinalError:  # it may be there again tomorrow
        digest = ""
    done: set[int] | None = None
    for each in sets:
        reason = _run_is_gone(each, storage)
        if not reason and digest and each.corpus_digest != digest:
            reason = "its corpus was ingested again, with other pictures"
        if not reason and digest and _is_old(each):
            done = _done(corpus, digest, storage) if done is None else done
            if all(picture.position in done for picture in each.pictures):
                reason = "people have looked at all of them"
        if reason:
            yield PrunableSet(corpus, each.name, len(each.pictures), reason)


def _run_is_gone(each: ReviewSet, storage: Storage) -> str:
    """Return why a set's run cannot be reviewed; empty if it can, or nobody knows."""
    try:
        run = Run.load(storage, layout.run_file(each.run))
    except MissingError:
        return f"run {each.run} was removed"
    except FinalError:
        return ""
    return f"run {each.run} was pruned" if run.pruned else ""


def _is_old(each: ReviewSet) -> bool:
    # Both are UTC to the second, like all times in records, so they can be compared as text.
    return each.created < (datetime.now(UTC) - timedelta(days=KEPT_DAYS)).isoformat(timespec="seconds")


def _done(corpus: str, digest: str, storage: Storage) -> set[int]:
    """Return the positions that need no look any more."""
    words = of_version(ReviewLog(corpus, storage).read(), digest)
    looked_at = standing_words(words).column("position").to_pylist()
    return {*looked_at, *positions_taken_down(words).tolist()}
