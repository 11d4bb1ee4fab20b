"""What the template shows of a search, and the same for programs."""

from dataclasses import asdict
from typing import Any

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.document_fields import FIELDS, DocumentField, Shown, describe, values_as_json
from tinytags_tasks.review.precision import Estimate, PrecisionTable
from tinytags_tasks.search.address import page_address
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.thumbnails import encode_png, make_thumbnail

DRAWN = "drawn"
"""Corpora whose names start so hold generated pictures."""

CONFIDENCE_STEPS = range(40, 101, 10)
ROW_CHOICES = (30, 60, 100)


def page_view(
    search: SearchRequest, page: SearchPage, alias: str, measured: PrecisionTable | None = None
) -> dict[str, Any]:
    """Return what the template of the search page shows.

    Parameters
    ----------
    measured
        What was measured of the live run; None if nothing was.
    """
    stated = {image.id: stated_precision(image, measured) for image in page.images}
    return {
        "is_measured": measured is not None,
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
        **_pager(search, page),
    }


def stated_precision(image: TaggedImage, measured: PrecisionTable | None) -> Estimate | None:
    """Return what an image's confidence has meant for its tag; None if that was not measured, or a person said it."""
    if measured is None or image.values.get("corrected"):
        return None
    if (image.corpus, image.values["model"]) != (measured.corpus, measured.model):
        return None
    return measured.precision_of(str(image.values["tag"]), int(image.values["confidence"] or 0))


def search_as_json(page: SearchPage, search: SearchRequest, measured: PrecisionTable | None = None) -> dict[str, Any]:
    """Return a page as the API's JSON.

    Confidences are there under their former name as well, as in each image: see
    :func:`~tinytags_tasks.document_fields.values_as_json`.
    """
    return {
        "total": page.total,
        "images": [
            _image_as_json(image, search.with_pixels) | {"precision": _as_json(stated_precision(image, measured))}
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


def _pager(search: SearchRequest, page: SearchPage) -> dict[str, str | None]:
    def link(cursor: str | None) -> str | None:
        return page_address(search, cursor=cursor) if cursor else None

    return {
        "first": page_address(search) if search.cursor or search.start else None,
        "previous": link(page.previous_cursor),
        "next": link(page.next_cursor),
    }
