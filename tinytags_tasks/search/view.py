"""What the template shows of a search, and the same for programs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.document_fields import FIELDS, DocumentField, Shown, describe, values_as_json
from tinytags_tasks.review.precision import Estimate, PrecisionTable
from tinytags_tasks.search.address import page_address
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import LAST_START, SearchRequest
from tinytags_tasks.search.thumbnails import encode_png, make_thumbnail

DRAWN = "drawn"
"""Corpora whose names start so hold generated pictures."""

Measured = Mapping[str, PrecisionTable | None]
"""What was measured of live runs, by corpus; None if nothing was."""

CONFIDENCE_STEPS = range(40, 101, 10)
ROW_CHOICES = (20, 60, 100)


def page_view(search: SearchRequest, page: SearchPage, alias: str, measured: Measured | None = None) -> dict[str, Any]:
    """Return what the template of the search page shows.

    Parameters
    ----------
    measured
        What was measured of each corpus' live run.
    """
    tables = measured or {}
    stated = {image.id: stated_precision(image, tables.get(image.corpus)) for image in page.images}
    return {
        "is_measured": any(tables.values()),
        "precision": {name: f"precision {found.percent:.0f} %" for name, found in stated.items() if found},
        "intervals": {
            name: f"measured by reviews: of images with this tag and confidence, {found.low:.0f} to {found.high:.0f} % "
            "have the tag rightly (95 % interval)"
            for name, found in stated.items()
            if found
        },
        "alias": alias,
        "search": search,
        "page": page,
        "fields": {field.name: field for field in FIELDS},
        "tags": _tag_choices(search, page),
        "steps": _confidence_choices(search, page),
        "images": [(image, make_thumbnail(image.image), _lines(image)) for image in page.images],
        "problems": sorted({image.missing for image in page.images if image.is_in_store and image.missing}),
        "is_drawn": any(corpus.startswith(DRAWN) for corpus in page.corpora),
        "longest_keyword": LONGEST,
        "row_choices": sorted({*ROW_CHOICES, search.rows}),
        "all_tags": page_address(search, tags=()),
        "milliseconds": round(page.seconds * 1000),
        **_pager(search, page.total),
    }


def stated_precision(image: TaggedImage, measured: PrecisionTable | None) -> Estimate | None:
    """Return what an image's confidence has meant for its tag; None if that was not measured, or a person said it."""
    if measured is None or image.values.get("corrected"):
        return None
    if (image.corpus, image.values["model"]) != (measured.corpus, measured.model):
        return None
    return measured.precision_of(str(image.values["tag"]), int(image.values["confidence"] or 0))


def search_as_json(page: SearchPage, search: SearchRequest, measured: Measured | None = None) -> dict[str, Any]:
    """Return a page as the API's JSON.

    Confidences are there under their former name as well, as in each image: see
    :func:`~tinytags_tasks.document_fields.values_as_json`.
    """
    tables = measured or {}
    return {
        "total": page.total,
        "images": [
            _image_as_json(image, search.with_pixels)
            | {"precision": _as_json(stated_precision(image, tables.get(image.corpus)))}
            for image in page.images
        ],
        "next_cursor": page.next_cursor,
        "tags": page.tag_counts,
        "confidences": page.confidence_counts,
        "accuracies": page.confidence_counts,
        "models": page.models,
        "corpora": page.corpora,
        "milliseconds": round(page.seconds * 1000),
    }


def _as_json(stated: Estimate | None) -> dict[str, float] | None:
    return None if stated is None else asdict(stated)


def _lines(image: TaggedImage) -> list[tuple[DocumentField, str]]:
    """Return the lines below an image; votes that only repeat the confidence, as percentages do, are left out."""
    repeats = image.values["votes"] == image.values["confidence"]
    return describe({**image.values, "votes": None} if repeats else image.values, Shown.CARDS)


def _image_as_json(image: TaggedImage, with_pixels: bool) -> dict[str, Any]:
    found: dict[str, Any] = values_as_json(image.values)
    if with_pixels:
        found["png"] = None if image.image is None else encode_png(image.image)
        if image.missing:
            found["missing"] = image.missing
    return found


def _tag_choices(search: SearchRequest, page: SearchPage) -> list[dict[str, Any]]:
    choices = []
    for tag in sorted({*page.tag_counts, *search.tags}):
        chosen = tag in search.tags
        others = tuple(other for other in search.tags if other != tag) if chosen else (*search.tags, tag)
        href = page_address(search, tags=others)
        choices.append({"label": tag, "count": page.tag_counts.get(tag, 0), "chosen": chosen, "href": href})
    return choices


def _confidence_choices(search: SearchRequest, page: SearchPage) -> list[dict[str, Any]]:
    choices = []
    for step in CONFIDENCE_STEPS:
        count = sum(found for confidence, found in page.confidence_counts.items() if confidence >= step)
        chosen = step == search.min_confidence
        href = page_address(search, min_confidence=0 if chosen else step)
        label = f"≥ {step} %" if step < 100 else "100 %"
        choices.append({"label": label, "count": count, "chosen": chosen, "href": href})
    return choices


def _pager(search: SearchRequest, total: int) -> dict[str, Any]:
    reachable = LAST_START // search.rows
    pages = max(1, -(-total // search.rows))
    number = search.start // search.rows + 1

    def link(target: int) -> str | None:
        is_there = 1 <= target <= min(pages, reachable)
        return page_address(search, start=(target - 1) * search.rows) if is_there else None

    return {
        "number": number,
        "pages": pages,
        "first": link(1) if number > 1 else None,
        "previous": link(number - 1) if number <= pages else link(pages),
        "next": link(number + 1),
        "is_cut": number == reachable < pages,
        "last_start": LAST_START,
    }
