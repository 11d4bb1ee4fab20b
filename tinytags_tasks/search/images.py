"""An image that a search found, as Solr's document describes it."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytags_tasks.document_fields import PIXEL_FIELDS, FieldValue, Shown, fields_shown, solr_names
from tinytags_tasks.errors import CorruptError

DAMAGED = "unreadable"
"""Why an image is missing although its document holds bytes."""

_DEFAULT_WIDTH = 32
"""Width of images in documents from before the field ``width``: all of these are 32x32."""

_EVERYWHERE_SHOWN = fields_shown(~Shown.NOWHERE)


@dataclass(frozen=True, eq=False)
class TaggedImage:
    """One published image.

    Attributes
    ----------
    values
        Value of each field that people see, by the field's name; None where the image has none.
    image
        uint8, shape (height, width, 3); None if not asked for, or missing.
    is_in_store
        Whether its document has no pixels, so that they must be read from the store.
    missing
        Why there is no image although it was asked for.
    """

    values: Mapping[str, FieldValue | None]
    image: npt.NDArray[np.uint8] | None = None
    is_in_store: bool = False
    missing: str = ""

    @property
    def id(self) -> str:
        """Its document's id."""
        return str(self.values["id"])

    @property
    def corpus(self) -> str:
        """Its corpus' name."""
        return str(self.values["corpus"])

    @property
    def block(self) -> int:
        """Its block's number."""
        return int(self.values["block"] or 0)

    @property
    def position(self) -> int:
        """Its number in its corpus."""
        return int(self.values["position"] or 0)


def read_fields(with_pixels: bool) -> tuple[str, ...]:
    """Return the names in Solr of the fields that :func:`read_document` reads."""
    names = tuple(field.solr_name for field in _EVERYWHERE_SHOWN)
    return (*names, *solr_names(PIXEL_FIELDS)) if with_pixels else names


def read_document(document: dict[str, Any], with_pixels: bool) -> TaggedImage:
    """Return the image that a document describes.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is not a document of TinyTags.
    """
    image = None
    has_pixels = with_pixels and "data" in document
    if has_pixels:
        image = _decode_pixels(document["data"], int(document.get("width", _DEFAULT_WIDTH)))
    return TaggedImage(
        values={field.name: field.read(document) for field in _EVERYWHERE_SHOWN},
        image=image,
        is_in_store=with_pixels and not has_pixels,
        missing=DAMAGED if has_pixels and image is None else "",
    )


def foreign_documents(where: str, error: Exception) -> CorruptError:
    """Return the error for documents that :func:`read_document`, or whatever reads their fields, cannot read."""
    return CorruptError(
        f"{where} holds documents that TinyTags did not write ({type(error).__name__}: {error}): set TINYTAGS_ALIAS to "
        "the alias of a TinyTags run"
    )


def _decode_pixels(stored: object, width: int) -> npt.NDArray[np.uint8] | None:
    if not isinstance(stored, str):
        return None
    try:
        pixels = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not pixels or width < 1 or len(pixels) % (3 * width):
        return None
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, width, 3)
