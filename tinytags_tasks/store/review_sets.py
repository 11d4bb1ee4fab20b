"""Pictures that somebody chose by hand, so that people look at them: looks at them teach and measure nothing.

A set is one file, written once; how far its review is follows from the review log. So a kill loses nothing of either.
"""

import hashlib

import orjson

from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Storage
from tinytags_tasks.store.record import Part, Record

MOST_CHOSEN = 1_000
"""Pictures of a set, at most."""


class ChosenPicture(Part):
    """A picture of a set, with what the run says of it.

    Attributes
    ----------
    position, block
        Where it is in the corpus.
    tag, confidence
        The run's.
    """

    position: int
    block: int
    tag: str
    confidence: int


class ReviewSet(Record):
    """The pictures of a run that somebody sent to review, in the order in which they were shown.

    Attributes
    ----------
    run, corpus, corpus_digest
        Whose pictures they are.
    pictures
        The pictures.
    asked
        How many were chosen: of the others, people had spoken already, or readers could not find them any more.
    by, created
        Who chose them first, and when.
    """

    run: str
    corpus: str
    corpus_digest: str
    pictures: tuple[ChosenPicture, ...]
    asked: int
    by: str
    created: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return what to do: only the looks matter, and these are in the review log."""
        return "delete it and send the pictures to review again; the looks are kept"

    @property
    def name(self) -> str:
        """What it is called: the same pictures of the same run always get the same name."""
        pictures = sorted((each.position, each.block, each.tag, each.confidence) for each in self.pictures)
        return hashlib.sha256(orjson.dumps([self.run, self.corpus_digest, pictures])).hexdigest()[:16]

    def keep(self, storage: Storage) -> str:
        """Write it in one atomic step, unless it is there already; return its name."""
        path = layout.review_set_file(self.corpus, self.name)
        storage.delete_leftovers(path, least_age_seconds=LEFTOVER_SECONDS)
        self.save(storage, path, overwrite=False)
        return self.name
