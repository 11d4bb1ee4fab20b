"""Picture sheets: images side by side, with how often each byte occurs in them, or with words below each."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.protocol import temporary_name

_COLUMNS = _ROWS = 8
_CELL_PIXELS = 96
"""The size that small images are enlarged to, or a little less."""

_WORDS_PIXELS = 112
"""The least width of a caption: that of "-> automobile 70 %"."""

_MOST_WIDTH = 1_600
_GAP, _LINE, _MARGIN = 8, 16, 16
_BAR_PIXELS, _HISTOGRAM_HEIGHT = 2, 100
_TEXT = ImageFont.load_default(12)
_INK, _PAPER, _EMPTY, _CROSS = (40, 40, 40), (255, 255, 255), (225, 225, 225), (200, 30, 30)
_CHANNELS = (("R", (200, 40, 40)), ("G", (30, 140, 50)), ("B", (40, 70, 200)))


def make_sheet(
    images: npt.NDArray[np.uint8], unreadable: Collection[int], histogram: npt.NDArray[np.int64], title: str
) -> Image.Image:
    """Return a picture sheet.

    Parameters
    ----------
    images
        uint8, shape (images, row, column, 3); as many as fit are shown, at most 64, enlarged by a whole factor without
        smoothing, so that every pixel is visible.
    unreadable
        Positions of the images that are crossed out.
    histogram
        int64, shape (3, 256): how often each byte occurs in R, G and B.
    title
        The line at the top.
    """
    height, width = images.shape[1:3]
    factor = max(1, _CELL_PIXELS // max(height, width))
    cell_width, cell_height = max(width * factor, 32) + _GAP, height * factor + _LINE + _GAP
    columns = max(1, min(_COLUMNS, _MOST_WIDTH // cell_width))
    shown = images[: columns * _ROWS]
    rows = -(-len(shown) // columns)
    grid_top = _MARGIN + 2 * _LINE
    histogram_top = grid_top + rows * cell_height + _LINE
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + max(columns * cell_width, 256 * _BAR_PIXELS + 2 * _LINE, int(_TEXT.getlength(title))),
            histogram_top + len(_CHANNELS) * (_HISTOGRAM_HEIGHT + _LINE + _GAP) + _MARGIN,
        ),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, _TEXT)
    for position, image in enumerate(shown):
        row, column = divmod(position, columns)
        left, top = _MARGIN + column * cell_width, grid_top + row * cell_height
        picture = _enlarge(image, factor)
        sheet.paste(picture, (left, top))
        if position in unreadable:
            _cross_out(pen, left, top, left + picture.width - 1, top + picture.height - 1)
        pen.text((left, top + picture.height + 1), str(position), _INK, _TEXT)
    for (name, colour), counts in zip(_CHANNELS, histogram, strict=True):
        _draw_histogram(pen, histogram_top, name, colour, counts)
        histogram_top += _HISTOGRAM_HEIGHT + _LINE + _GAP
    return sheet


def make_labelled_sheet(
    sections: Sequence[tuple[str, Sequence[tuple[npt.NDArray[np.uint8], str]]]], title: str
) -> Image.Image:
    """Return a picture sheet of images with captions.

    Parameters
    ----------
    sections
        Headings, each with its images and captions: uint8, shape (row, column, 3), all of one size. A caption has up to
        two lines, each cut to fit.
    title
        The line at the top.
    """
    height, width = next((image.shape[:2] for _, pictures in sections for image, _ in pictures), (32, 32))
    factor = max(1, _CELL_PIXELS // max(height, width))
    cell_width, cell_height = max(width * factor, _WORDS_PIXELS) + _GAP, height * factor + 2 * _LINE + _GAP
    columns = max(1, min(_COLUMNS, _MOST_WIDTH // cell_width))
    rows = sum(-(-len(pictures) // columns) for _, pictures in sections)
    texts = (title, *(heading for heading, _ in sections))
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + max(columns * cell_width, *(int(_TEXT.getlength(text)) for text in texts)),
            2 * _MARGIN + 2 * _LINE + rows * cell_height + 3 * _LINE * len(sections),
        ),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), title, _INK, _TEXT)
    top = _MARGIN + 2 * _LINE
    for heading, pictures in sections:
        pen.text((_MARGIN, top), heading, _INK, _TEXT)
        top += _LINE + _GAP
        for number, (image, words) in enumerate(pictures):
            row, column = divmod(number, columns)
            left, upper = _MARGIN + column * cell_width, top + row * cell_height
            sheet.paste(_enlarge(image, factor), (left, upper))
            for line, text in enumerate(words.split("\n")[:2]):
                pen.text((left, upper + height * factor + 1 + line * _LINE), _cut(text, cell_width - _GAP), _INK, _TEXT)
        top += -(-len(pictures) // columns) * cell_height + 2 * _LINE - _GAP
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a picture sheet as a PNG, in one atomic step.

    Raises
    ------
    BadInputError
        If it cannot be written there.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        sheet.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise BadInputError(
            f"{path.absolute()}: cannot be written ({error.strerror or error}); make that folder writable, or "
            "give another --sheet"
        ) from error


def _enlarge(image: npt.NDArray[np.uint8], factor: int) -> Image.Image:
    height, width = image.shape[:2]
    return Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.NEAREST)


def _cut(text: str, pixels: int) -> str:
    """Return as much of a line as fits."""
    if _TEXT.getlength(text) <= pixels:
        return text
    while text and _TEXT.getlength(text + "…") > pixels:
        text = text[:-1]
    return text + "…"


def _cross_out(pen: ImageDraw.ImageDraw, left: int, top: int, right: int, bottom: int) -> None:
    pen.rectangle((left, top, right, bottom), _EMPTY, _CROSS)
    pen.line((left, top, right, bottom), _CROSS, 2)
    pen.line((left, bottom, right, top), _CROSS, 2)


def _draw_histogram(
    pen: ImageDraw.ImageDraw, top: int, name: str, colour: tuple[int, int, int], counts: npt.NDArray[np.int64]
) -> None:
    left, bottom = _MARGIN + _LINE, top + _HISTOGRAM_HEIGHT
    # Black and white are often so frequent that all other bars would be flat: theirs are cut off.
    highest = int(counts[1:-1].max()) or int(counts.max()) or 1
    for value, count in enumerate(counts.tolist()):
        size = min(_HISTOGRAM_HEIGHT, -(-count * _HISTOGRAM_HEIGHT // highest))
        if size:
            at = left + value * _BAR_PIXELS
            pen.rectangle((at, bottom - size, at + _BAR_PIXELS - 1, bottom - 1), colour)
    pen.line((left, bottom, left + 256 * _BAR_PIXELS, bottom), _INK)
    pen.text((_MARGIN, top), name, colour, _TEXT)
    for value in (0, 64, 128, 192, 255):
        pen.text((left + value * _BAR_PIXELS, bottom + 1), str(value), _INK, _TEXT)
