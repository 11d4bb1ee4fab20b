"""Found pictures as a file: CSV, Parquet, WebDataset's tar, or a zip of PNGs; written as it is sent.

Memory hardly grows with the number of pictures. A file that broke off is no whole file of its kind: a Parquet file and
a zip lack their end, a tar its last blocks, and the sending itself is broken off, which browsers and programs report.
A CSV file has nothing at its end, so its name says how many rows it must have, as the names of the others do.
"""

import csv
import io
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.places import SourcePlace
from tinytags_tasks.document_fields import FIELDS, FieldValue, Shown
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.thumbnails import png_bytes

PIECE_BYTES = 128 * 1024
"""About how many bytes are sent at once."""

ROWS_PER_GROUP = 1_000
GROUP_BYTES = 8 * 2**20
"""Rows of a group of a Parquet file at most, and about how large their pictures are at most: it is kept in memory."""

LONGEST_FOLDER = 60
_FORMULA_STARTS = (
    *("=", "+", "-", "@", "\t", "\r", "\n"),
    *("\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}"),
    *("\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}"),
)
LISTING = "images.csv"
"""The member of a zip that lists the others."""

_LISTING_BYTES_IN_MEMORY = 4 * 2**20
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

Complete = Callable[[tuple[TaggedImage, ...]], tuple[TaggedImage, ...]]
"""Returns pictures with their pixels."""

FindPlaces = Callable[[tuple[TaggedImage, ...]], Mapping[str, SourcePlace]]
"""Returns where some of these pictures are in their sources, by id."""


class Format(StrEnum):
    """The kinds of files."""

    CSV = "csv"
    PARQUET = "parquet"
    TAR = "tar"
    ZIP = "zip"

    @property
    def mime(self) -> str:
        """Its media type."""
        return {
            Format.CSV: "text/csv; charset=utf-8",
            Format.PARQUET: "application/vnd.apache.parquet",
            Format.TAR: "application/x-tar",
            Format.ZIP: "application/zip",
        }[self]

    @property
    def has_pixels(self) -> bool:
        """Whether it holds the pictures themselves."""
        return self is not Format.CSV


@dataclass(frozen=True)
class Column:
    """A column of a file: its name, and its type as Solr calls it."""

    name: str
    type: str


SOURCE_FILE, SOURCE_MEMBER = "source_file", "source_member"
COLUMNS = (
    *(Column(field.name, field.type) for field in FIELDS if Shown.ANSWERS in field.shown),
    Column(SOURCE_FILE, "string"),
    Column(SOURCE_MEMBER, "string"),
)
"""What a file says of each picture; the last two are where it was in its corpus' source, if that is known."""


@dataclass(frozen=True)
class Export:
    """What is exported.

    Attributes
    ----------
    pages
        The pictures, some at a time.
    images
        How many there are.
    complete
        Returns some of them with their pixels.
    is_at_most
        Whether there may be fewer, because more pictures are hidden than Solr leaves out when it counts.
    places
        Returns where some of them are in their sources.
    report
        Called with the number of pictures that are written, whenever some more are.
    """

    pages: Iterable[tuple[TaggedImage, ...]]
    images: int
    complete: Complete
    is_at_most: bool = False
    places: FindPlaces = lambda _: {}
    report: Callable[[int], None] = lambda _: None


def write_export(export: Export, kind: Format) -> Iterator[bytes]:
    """Yield a file with all pictures.

    Raises
    ------
    CorruptError
        If there are more or fewer pictures than were counted, because what is published changed meanwhile; or if a
        picture cannot be read. What was yielded by then is no whole file.
    """
    write = {Format.CSV: _csv, Format.PARQUET: _parquet, Format.TAR: _tar, Format.ZIP: _zip}[kind]
    return _in_pieces(write(_pages(export, kind)))


def file_name(name: str, images: int, kind: Format) -> str:
    """Return the name of a file: safe on every system, and with the number of its pictures."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{'-'.join(part for part in ('tinytags', safe, str(images)) if part)}-images.{kind}"


def picture_name(image: TaggedImage) -> str:
    """Return a picture's name in an archive, which no other picture has and every system can store."""
    return f"{image.corpus}-{image.position:012d}"


def folder_name(tag: str) -> str:
    """Return the name of a folder for a tag, which every system can store.

    Windows refuses some characters, dots and blanks at the end, and the names of its devices; and some systems know no
    more than ASCII. Folders of two tags may have the same name: pictures' own names differ.
    """
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", tag).strip("_")[:LONGEST_FOLDER].lower()
    is_device = re.fullmatch(r"con|prn|aux|nul|com\d|lpt\d", safe)
    return f"tag-{safe}" if is_device or not safe else safe


def cell(value: FieldValue | None) -> FieldValue:
    """Return a value for a cell of a CSV file; text that a spreadsheet would compute gets an apostrophe before it.

    Spreadsheets take text that begins with some characters for a formula (OWASP, "CSV Injection").
    """
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value


def _pages(export: Export, kind: Format) -> Iterator[tuple[TaggedImage, ...]]:
    """Yield the pictures, with their pixels if the file has these, after checking that there are as many as counted."""
    seen = 0
    for page in export.pages:
        images = export.complete(page) if kind.has_pixels else page
        seen += len(images)
        if kind.has_pixels and (lacking := [image for image in images if image.image is None]):
            first = lacking[0]
            raise CorruptError(f"picture {first.id} cannot be exported: {first.missing or 'its pixels are missing'}")
        if seen > export.images:
            break
        places = export.places(images)
        yield tuple(_placed(image, places.get(image.id)) for image in images)
        export.report(seen)
    if seen > export.images or (seen < export.images and not export.is_at_most):
        there_are = "more" if seen > export.images else f"{seen:,}"
        raise CorruptError(
            f"{export.images:,} pictures were to be exported, and there are {there_are}: what is published changed "
            "meanwhile; export again"
        )


def _placed(image: TaggedImage, place: SourcePlace | None) -> TaggedImage:
    where = {SOURCE_FILE: place.path, SOURCE_MEMBER: place.name or None} if place else {}
    return replace(image, values={**image.values, **where})


def _in_pieces(content: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces that are worth sending."""
    waiting: list[bytes] = []
    size = 0
    for some in content:
        waiting.append(some)
        size += len(some)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _values(image: TaggedImage) -> list[FieldValue | None]:
    return [image.values.get(field.name) for field in COLUMNS]


def _csv_text(rows: Iterable[Iterable[FieldValue | None]]) -> bytes:
    sink = io.StringIO()
    csv.writer(sink).writerows([[cell(value) for value in row] for row in rows])
    return sink.getvalue().encode()


def _csv(pages: Iterator[tuple[TaggedImage, ...]]) -> Iterator[bytes]:
    yield _csv_text([[field.name for field in COLUMNS]])
    for images in pages:
        yield _csv_text(map(_values, images))


def _parquet(pages: Iterator[tuple[TaggedImage, ...]]) -> Iterator[bytes]:
    """Yield a Parquet file with a column ``image`` as on the Hugging Face hub, which TinyTags can ingest, too."""
    of_type = {"string": pa.string(), "int": pa.int32(), "long": pa.int64()}
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [*((field.name, of_type[field.type]) for field in COLUMNS), ("image", image_type)],
        {"huggingface": orjson.dumps({"info": {"features": _features()}})},
    )
    sink = _Sink()
    writer = pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True)
    rows: list[list[object]] = []
    size_bytes = 0
    for image in (image for images in pages for image in images):
        picture = png_bytes(_pixels(image))
        rows.append([*_values(image), {"bytes": picture, "path": f"{picture_name(image)}.png"}])
        size_bytes += len(picture)
        if len(rows) == ROWS_PER_GROUP or size_bytes >= GROUP_BYTES:
            writer.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema))
            rows, size_bytes = [], 0
            yield sink.take()
    if rows:
        writer.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema))
    writer.close()
    yield sink.take()


def _features() -> dict[str, object]:
    """Return the columns as the ``datasets`` library describes them, so that it decodes the pictures."""
    of_type = {"string": "string", "int": "int32", "long": "int64"}
    values: dict[str, object] = {field.name: {"dtype": of_type[field.type], "_type": "Value"} for field in COLUMNS}
    return values | {"image": {"_type": "Image"}}


class _Sink(io.RawIOBase):
    """A file that is only written to; what was written can be taken away."""

    def __init__(self) -> None:
        self._content: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: object) -> int:
        piece = bytes(memoryview(content))  # type: ignore[arg-type]
        self._content.append(piece)
        self._written += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        content = b"".join(self._content)
        self._content.clear()
        return content


def _tar(pages: Iterator[tuple[TaggedImage, ...]]) -> Iterator[bytes]:
    """Yield WebDataset's tar: of each picture a PNG, its tag as ``cls``, and all that is known as ``json``."""
    for images in pages:
        for image in images:
            name = picture_name(image)
            known = {field.name: value for field, value in zip(COLUMNS, _values(image), strict=True)}
            yield _tar_member(f"{name}.png", png_bytes(_pixels(image)))
            yield _tar_member(f"{name}.cls", str(image.values["tag"]).encode())
            yield _tar_member(f"{name}.json", orjson.dumps(known))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _zip(pages: Iterator[tuple[TaggedImage, ...]]) -> Iterator[bytes]:
    """Yield a zip with a folder for each tag, and a list of all pictures at the end."""
    sink = _Sink()
    with (
        zipfile.ZipFile(sink, "w") as archive,
        tempfile.SpooledTemporaryFile(_LISTING_BYTES_IN_MEMORY) as listing,
    ):
        listing.write(_csv_text([["file", *(field.name for field in COLUMNS)]]))
        for images in pages:
            for image in images:
                name = f"{folder_name(str(image.values['tag']))}/{picture_name(image)}.png"
                listing.write(_csv_text([[name, *_values(image)]]))
                archive.writestr(_member(name), png_bytes(_pixels(image)), zipfile.ZIP_DEFLATED, compresslevel=0)
                yield sink.take()
        listing.seek(0)
        with archive.open(_member(LISTING), "w", force_zip64=True) as member:
            shutil.copyfileobj(listing, member)
    # Only now, so that a file that broke off has no directory.
    yield sink.take()


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member of a zip.

    Its time is always the first that a zip knows, so that equal exports have equal bytes. It is deflated, PNGs at level
    0 because they do not shrink: a program that reads a zip as it comes sees only then where a member ends.
    """
    member = zipfile.ZipInfo(name, _ZIP_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o100644 << 16
    return member


def _pixels(image: TaggedImage) -> npt.NDArray[np.uint8]:
    if image.image is None:  # refused before
        raise CorruptError(f"picture {image.id} has no pixels")
    return image.image
