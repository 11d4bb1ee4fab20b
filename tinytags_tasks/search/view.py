"""What pages and programs are given of what a search found."""

from dataclasses import asdict
from typing import Any

from tinytags_tasks.document_fields import values_as_json
from tinytags_tasks.review.precision import Estimate
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.measured import Measured
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.thumbnails import encode_png


def stated_precision(image: TaggedImage, measured: Measured) -> Estimate | None:
    """Return what an image's confidence has meant for its tag; None if that was not measured, or a person said it."""
    table = measured.get(image.corpus)
    if table is None or image.values["model"] != table.model or image.values.get("corrected"):
        return None
    return table.precision_of(str(image.values["tag"]), int(image.values["confidence"] or 0))


def search_as_json(page: SearchPage, search: SearchRequest, measured: Measured) -> dict[str, Any]:
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


def _image_as_json(image: TaggedImage, with_pixels: bool) -> dict[str, Any]:
    found: dict[str, Any] = values_as_json(image.values)
    if with_pixels:
        found["png"] = None if image.image is None else encode_png(image.image)
        if image.missing:
            found["missing"] = image.missing
    return found
