"""All that a search finds, counted picture by picture: whoever confirms what is done with it confirms just these."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.wanted import MovedError, Wanted, of_search
from tinytags_tasks.store.run_records import Run

SEEN = "seen"
"""The field of a form with the pictures that were counted when somebody was asked to confirm."""


@dataclass(frozen=True)
class Counted:
    """Pictures that were read one by one, so that their number is exact.

    Attributes
    ----------
    wanted
        What was asked for.
    images
        The pictures.
    run
        The run that they are of; None if there are none, or if they are of several corpora.
    """

    wanted: Wanted
    images: tuple[TaggedImage, ...]
    run: Run | None

    @property
    def corpora(self) -> list[str]:
        """The corpora that they are of."""
        return sorted({image.corpus for image in self.images})

    @property
    def seen(self) -> str:
        """What another count has, too, if it is of the same pictures of the same run, and people said the same of them.

        It begins with what :func:`name_pictures` calls them.
        """
        if self.run is None:
            return ""
        said = sorted((image.position, image.values.get("corrected") or 0) for image in self.images)
        return name_pictures(self.run.name, (image.position for image in self.images)) + _hash_of(said)


def count_found(context: PageContext, query: str, most: int) -> Counted:
    """Return what a search finds, ``most`` pictures at most, all of them of what was live at one moment.

    Raises
    ------
    BadInputError
        If it is no search.
    """
    try:
        return _count(context, of_search(context, query, most))
    except MovedError:
        return _count(context, of_search(context, query, most))


def _count(context: PageContext, wanted: Wanted) -> Counted:
    images = tuple(image for page in wanted.pages(False) for image in page)
    corpora = {image.corpus for image in images}
    return Counted(wanted, images, run_of(context, wanted, corpora.pop()) if len(corpora) == 1 else None)


def run_of(context: PageContext, wanted: Wanted, corpus: str) -> Run:
    """Return the run that pictures of a corpus are of."""
    return context.searches.chosen.get(wanted.run).run if wanted.run else context.live.run(corpus).run


def name_pictures(run: str, positions: Iterable[int]) -> str:
    """Return a name of pictures of a run, whatever their order."""
    return _hash_of([run, *sorted(positions)])


def _hash_of(values: object) -> str:
    return hashlib.sha256(orjson.dumps(values)).hexdigest()[:16]
