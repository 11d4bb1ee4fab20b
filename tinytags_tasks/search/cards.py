"""Pictures as pages show them in a grid: where they are, and what is said of them."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import quote, urlencode

from tinytags_tasks.document_fields import DocumentField, Shown, describe
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.review.precision import Estimate
from tinytags_tasks.search import corrections
from tinytags_tasks.search.address import page_address
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.measured import Measured
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.search.thumbnails import ENLARGED_BELOW, LONGEST_SIDE
from tinytags_tasks.search.view import stated_precision
from tinytags_tasks.store.run_records import Run

_USUAL_SIDE = 32
"""Pixels a side of the pictures of a corpus that is not in the store."""

VERSION_LENGTH = 16
GRID = "grid"
"""The size, in the address of a picture, of one that is scaled down for a grid."""


@dataclass(frozen=True)
class Frame:
    """What all pictures of a corpus have in common.

    Attributes
    ----------
    version
        Of the corpus, as addresses of its pictures name it; empty if it is not known.
    width, height
        As a page shows them, in pixels.
    is_enlarged
        Whether their pixels are to be seen.
    has_similar
        Whether pictures that look like them can be searched for.
    run
        The run that is searched, as addresses name it; empty if that is what is live.
    is_reduced
        Whether their pixels are sent scaled down, because they are larger than a grid shows.
    """

    version: str = ""
    width: int = _USUAL_SIDE
    height: int = _USUAL_SIDE
    is_enlarged: bool = True
    has_similar: bool = False
    run: str = ""
    is_reduced: bool = False


@dataclass(frozen=True)
class Card:
    """A picture in a grid; see :class:`Frame` for those of the attributes that are not of this picture alone.

    Attributes
    ----------
    address, source
        Of its page and of its pixels.
    details
        The lines below it, each with the field that it is of.
    precision, interval
        What its confidence has meant for its tag, and how certain that is; empty if that was not measured.
    corrected_by
        Who decided its tag, and when; empty if no person did.
    named
        How forms name it.
    similar
        The address of the pictures that are like it; empty if they cannot be searched for.
    """

    id: str
    corpus: str
    position: int
    tag: str
    confidence: int
    address: str
    source: str
    width: int
    height: int
    is_enlarged: bool
    details: tuple[tuple[DocumentField, str], ...]
    precision: str
    interval: str
    corrected: int | None
    corrected_by: str
    named: corrections.Picture
    similar: str = ""


def picture_address(corpus: str, position: int, run: str = "") -> str:
    """Return the path of a picture's page: of what a run found, or of what is live."""
    return f"/pictures/{quote(corpus)}/{position}" + (f"?{urlencode({'run': run})}" if run else "")


def picture_source(corpus: str, position: int, frame: Frame) -> str:
    """Return the path of a picture's pixels, which changes with the version of its corpus."""
    parameters = ("version", frame.version), ("run", frame.run), ("size", GRID if frame.is_reduced else "")
    query = {name: value for name, value in parameters if value}
    return f"{picture_address(corpus, position)}.png" + (f"?{urlencode(query)}" if query else "")


def frames_of(context: PageContext, run: str = "") -> dict[str, Frame]:
    """Return the frames of the live corpora by name; of the corpus of one run if a search chose that."""
    found: dict[str, Frame] = {}
    with suppress(TinyTagsError):  # what is live need not be known to show what was found
        for live in context.live.runs():
            width, height = (live.corpus.width, live.corpus.height) if live.corpus else (_USUAL_SIDE, _USUAL_SIDE)
            found[live.run.corpus] = _frame(live.run, width, height)
        if run:
            chosen = context.searches.chosen.get(run)
            width, height = (chosen.corpus.width, chosen.corpus.height) if chosen.corpus else (_USUAL_SIDE, _USUAL_SIDE)
            found[chosen.run.corpus] = replace(_frame(chosen.run, width, height), has_similar=False, run=run)
    return found


def _frame(run: Run, width: int, height: int) -> Frame:
    longest = max(width, height)
    if longest > LONGEST_SIDE:
        width, height = max(1, width * LONGEST_SIDE // longest), max(1, height * LONGEST_SIDE // longest)
    version, is_enlarged = run.corpus_digest[:VERSION_LENGTH], longest < ENLARGED_BELOW
    return Frame(version, width, height, is_enlarged, bool(run.similar), is_reduced=longest > LONGEST_SIDE)


def make_cards(
    context: PageContext, images: Iterable[TaggedImage], frames: Mapping[str, Frame], measured: Measured
) -> list[Card]:
    """Return pictures as a grid shows them; a browser will ask for all of them.

    Raises
    ------
    EngineDownError
        If what people said of them cannot be read.
    """
    images = tuple(images)
    context.pictures.expect(images)
    corrected_by = corrections.corrected_by(context, images)
    return [
        _make_card(image, frames.get(image.corpus, Frame()), measured, corrected_by.get(image.id, ""))
        for image in images
    ]


def _make_card(image: TaggedImage, frame: Frame, measured: Measured, corrected_by: str) -> Card:
    stated = stated_precision(image, measured)
    corrected = image.values.get("corrected")
    return Card(
        id=image.id,
        corpus=image.corpus,
        position=image.position,
        tag=str(image.values["tag"]),
        confidence=int(image.values["confidence"] or 0),
        address=picture_address(image.corpus, image.position, frame.run),
        source=picture_source(image.corpus, image.position, frame),
        width=frame.width,
        height=frame.height,
        is_enlarged=frame.is_enlarged,
        details=tuple(_lines(image)),
        precision=f"precision {stated.percent:.0f} %" if stated else "",
        interval=_interval(stated) if stated else "",
        corrected=int(corrected) if corrected else None,
        corrected_by=corrected_by,
        named=corrections.Picture.of(image),
        similar=_similar_address(image.id) if frame.has_similar else "",
    )


@lru_cache(10_000)
def _similar_address(document: str) -> str:
    return page_address(SearchRequest(similar_to=document, sort=Sort.SIMILAR))


def _interval(stated: Estimate) -> str:
    return (
        f"measured by reviews: of images with this tag and confidence, {stated.low:.0f} to {stated.high:.0f} % have "
        "the tag rightly (95 % interval)"
    )


def _lines(image: TaggedImage) -> list[tuple[DocumentField, str]]:
    """Return the lines below an image; votes that only repeat the confidence, as percentages do, are left out."""
    repeats = image.values["votes"] == image.values["confidence"]
    return describe({**image.values, "votes": None} if repeats else image.values, Shown.CARDS)
