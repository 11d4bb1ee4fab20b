"""What a source looks like, before anything of it is written into the store."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition
from tinytags_tasks.corpus.formats.encoded import ENDINGS
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.pictures.sheet import make_sheet
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.storage import temporary_name

SHOWN_IMAGES = 64
"""Images of a picture sheet at most."""

_ENDINGS = {
    "folder": ENDINGS,
    "parquet": (".parquet",),
    "webdataset": (".tar",),
    "records": (".bin",),
}
_CIFAR_PICKLES = re.compile(r"(?:data_batch_\d+|test_batch|train|test)\Z")
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_HEAD_BYTES = 512

_MOST_LOOKED_AT = 1_000
_MOST_LOOKED_AT_BYTES = 100_000_000
_RUNS, _RUN_IMAGES, _RUN_BYTES = 32, 10, 1_000_000

_SURELY_SMOOTHER = 1.3
_NOISE = 60  # of photographs neighbours differ by 10 to 20, of random bytes by 85
_UNEQUAL_AXES = 1.4
_ENOUGH_FOR_A_MEAN = 200
_SURELY_UPRIGHT = 2.0


@dataclass
class _Kind:
    """Files of a source that are alike by their names; the largest stands for them."""

    count: int = 0
    size_bytes: int = 0
    largest: SourceFile = field(default_factory=lambda: SourceFile("", -1, ""))

    def add(self, file: SourceFile) -> None:
        self.count += 1
        self.size_bytes += file.size_bytes
        if file.size_bytes > self.largest.size_bytes:
            self.largest = file


def guess_definition(
    files: SourceFiles, *, height: int = 32, width: int = 32
) -> tuple[CorpusDefinition, tuple[str, ...]]:
    """Return what a source seems to be, and what a person should know of the guess.

    Looked at are names, sizes, the first bytes of the largest file, and of a file of pixels some hundred images spread
    over it.

    Parameters
    ----------
    files
        The source.
    height, width
        Of the corpus' images, in pixels; of a raw source's images, too.

    Raises
    ------
    BadInputError
        When it is nothing that is known: it says what was looked at.
    """
    kinds: dict[str, _Kind] = {}
    for file in files.files():
        kinds.setdefault(_kind_by_name(file.path), _Kind()).add(file)
    if not kinds:
        raise BadInputError(f"{files.address}: holds no files; correct the source")
    kind = max(kinds, key=lambda kind: (kind != "other", kinds[kind].size_bytes))
    largest = kinds[kind].largest
    notes = [
        f"not read: {others.count:,} other file{'s' if others.count > 1 else ''}, such as {others.largest.path}"
        for name, others in kinds.items()
        if name != kind
    ]
    found: dict[str, object] = {"source": files.address, "height": height, "width": width}
    head = files.read(largest.path, 0, min(_HEAD_BYTES, largest.size_bytes))
    by_magic = _format_by_magic(files, largest, head)
    if kind == "folder":  # a broken picture makes no other format of it
        found["format"] = kind
    elif by_magic and kind in ("records", "other", by_magic):
        found["format"] = by_magic
    elif kind in ("records", "other"):
        record_format, more = _guess_records(files, largest, height, width)
        found |= record_format
        notes += more
    else:
        raise _nothing_fits(files, largest, head, f"its name says {kind}, its content does not")
    return make_definition(_name_of(files.source), found, where=files.address), tuple(notes)


def _kind_by_name(path: str) -> str:
    if _CIFAR_PICKLES.match(path.rpartition("/")[2]):
        return "cifar-pickle"
    return next((kind for kind, endings in _ENDINGS.items() if path.lower().endswith(endings)), "other")


def _name_of(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:100] or "corpus"


def _format_by_magic(files: SourceFiles, file: SourceFile, head: bytes) -> str:
    """Return the format that a file's bytes tell; empty when they tell none."""
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            raise BadInputError(f"{files.name(file.path)}: is packed with {packer}; unpack it and give what was in it")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar":
        return "webdataset"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "folder"
    # A dictionary, pickled: by protocol 2 to 5, where 4 and 5 begin with a frame, or by the textual protocol 0.
    if re.match(rb"\x80[\x02-\x05][}\x95]|\(d[p\n]", head) and files.read(file.path, file.size_bytes - 1, 1) == b".":
        return "cifar-pickle"
    return ""


def _nothing_fits(files: SourceFiles, file: SourceFile, head: bytes, why: str) -> BadInputError:
    return BadInputError(
        f"{files.name(file.path)}: is of no known format ({why}). Looked at: {file.size_bytes:,} bytes that begin with "
        f"{head[:8].hex(' ') or 'nothing'}; looked for: PAR1 (parquet), ustar at offset 257 (webdataset), a pickled "
        "dictionary (cifar-pickle), JPEG, PNG and WebP (folder), sizes that are multiples of 3,073 or 3,074 bytes with "
        "labels (cifar-binary) or of height x width x 3 (tiny-images, raw). Give the right --height and --width, or "
        "define the corpus with --format"
    )


def _guess_records(
    files: SourceFiles, file: SourceFile, height: int, width: int
) -> tuple[dict[str, object], list[str]]:
    """Tell what fixed-size images a file holds."""
    image_bytes = height * width * 3
    if (height, width) == (32, 32):
        for classes in ((10,), (20, 100)):  # CIFAR-10's label; CIFAR-100's coarse and fine one
            record_bytes = len(classes) + image_bytes
            if file.size_bytes and file.size_bytes % record_bytes == 0:
                labels = _sample(files, file, record_bytes)[:, : len(classes)]
                if (labels < np.array(classes)).all():
                    return {"format": "cifar-binary"}, []
    images, rest = divmod(file.size_bytes, image_bytes)
    if not images or rest:
        head = files.read(file.path, 0, min(_HEAD_BYTES, file.size_bytes))
        why = f"{images:,} images of {height}x{width}x3 and {rest:,} bytes too many at offset {images * image_bytes:,}"
        raise _nothing_fits(files, file, head, why if images else "smaller than one image")
    readings = _readings(_sample(files, file, image_bytes), height, width)
    roughness = {order: _roughness(images) for order, images in readings.items()}
    ranked = sorted(readings, key=lambda order: max(roughness[order]))
    order = ranked[0]
    told = ", ".join(f"{max(roughness[reading]):.1f} as {reading}" for reading in ranked)
    notes = [
        f"neighbours differ on average by {told}: taken for {order}",
        *_doubts(roughness[order], roughness[ranked[1]], height, width),
    ]
    if order == "planes" and height == width:
        order, reason = _guess_side(file, readings["planes"])
        other = "planes" if order == "columns" else "columns"
        notes.append(
            "whether a plane lies row after row or column after column cannot be told by smoothness: a picture on its "
            f"side is as smooth. {'Columns' if order == 'columns' else 'Rows'} are assumed ({reason}). Look at the "
            f"sheet: if the pictures lie on their side there, define the corpus with --format raw --pixel-order {other}"
        )
    if order == "columns" and (height, width) == (32, 32):
        if files.is_local and Path(files.name(file.path)).with_name("tiny_metadata.bin").is_file():
            notes.append("tiny_metadata.bin lies beside it: give its path to --keywords to make the nouns searchable")
        return {"format": "tiny-images"}, notes
    return {"format": "raw", "pixel_order": order}, notes


def _readings(pixels: npt.NDArray[np.uint8], height: int, width: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Return images of shape (images, height, width, 3) for each pixel order that smoothness can tell from others."""
    readings = {
        "hwc": pixels.reshape(-1, height, width, 3),
        "planes": pixels.reshape(-1, 3, height, width).transpose(0, 2, 3, 1),
    }
    if height != width:
        readings["columns"] = pixels.reshape(-1, 3, width, height).transpose(0, 3, 2, 1)
    return readings


def _sample(files: SourceFiles, file: SourceFile, record_bytes: int) -> npt.NDArray[np.uint8]:
    """Return some hundred records spread over a file, uint8 of shape (records, record bytes)."""
    records = file.size_bytes // record_bytes
    run = max(1, min(_RUN_IMAGES, records, _RUN_BYTES // record_bytes))
    starts = sorted({int(start) for start in np.linspace(0, records - run, _RUNS)})
    content = b"".join(files.read(file.path, start * record_bytes, run * record_bytes) for start in starts)
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, record_bytes)


def _roughness(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return by how much neighbours differ on average, below each other and beside each other."""
    below, beside = (
        float(np.abs(np.diff(images.astype(np.int16), axis=axis)).mean()) if images.shape[axis] > 1 else 0.0
        for axis in (1, 2)
    )
    return below, beside


def _doubts(best: tuple[float, float], second: tuple[float, float], height: int, width: int) -> Iterator[str]:
    """Yield what speaks against the smoothest reading."""
    if max(second) <= _SURELY_SMOOTHER * max(best):
        yield "another reading is about as smooth, so this is a weak guess: look at the sheet"
    if max(best) > _NOISE:
        yield "this looks like noise, not like pictures: is it really a file of pixels?"
    elif max(best) > _UNEQUAL_AXES * max(min(best), 1.0):
        yield (
            f"neighbours below each other differ by {best[0]:.1f}, beside each other by {best[1]:.1f}, where pictures "
            f"are mostly alike in both: are they {height}x{width}? Otherwise give --height and --width"
        )


def _guess_side(file: SourceFile, planes: npt.NDArray[np.uint8]) -> tuple[str, str]:
    """Return whether square planes lie as rows (``planes``) or as ``columns``, and why that is believed.

    The mean of many photographs is brighter above than below, and alike on the left and on the right.
    """
    if Path(file.path).name.lower().startswith("tiny_images"):
        return "columns", "as its name says"
    if len(planes) >= _ENOUGH_FOR_A_MEAN:
        mean = planes.mean(axis=(0, 3))
        down, across = (float(np.abs(line - line[::-1]).mean()) for line in (mean.mean(axis=1), mean.mean(axis=0)))
        if max(down, across) > _SURELY_UPRIGHT * min(down, across):
            return (
                "columns" if across > down else "planes",
                "their mean picture is then lit from above, as photographs are",
            )
    if planes.shape[1:3] == (32, 32):
        return "columns", "as in Tiny Images, the best-known file of this size; the pictures themselves do not tell"
    return "planes", "the pictures themselves do not tell"


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a source holds.

    Attributes
    ----------
    definition
        As what it was read.
    images, files, size_bytes
        Totals of the source.
    looked_at
        Images that were read: the first ones.
    first
        uint8, shape (up to 64, height, width, 3); unreadable ones are zeros.
    unreadable
        Why, by position, of those that were looked at.
    histogram
        int64, shape (3, 256): how often each byte occurs in R, G and B of the readable ones that were looked at.
    notes
        What a person should know.
    """

    definition: CorpusDefinition
    images: int
    files: int
    size_bytes: int
    looked_at: int
    first: npt.NDArray[np.uint8]
    unreadable: dict[int, str]
    histogram: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()


def inspect_source(definition: CorpusDefinition, files: SourceFiles, notes: tuple[str, ...] = ()) -> Inspection:
    """List a source to its end and read its first images.

    Raises
    ------
    BadInputError
        When it is not of the definition's format, or holds no images.
    """
    wanted = max(SHOWN_IMAGES, min(_MOST_LOOKED_AT, _MOST_LOOKED_AT_BYTES // definition.image_bytes))
    totals = _Totals()
    listed = totals.counted(list_items(files, definition))
    listing = MemoryListing(takewhile(lambda _: totals.images_before < wanted, listed))
    for _ in listed:
        pass
    if not totals.images:
        raise BadInputError(f"{files.address}: holds no images of the format {definition.format}; correct the source")
    looked_at = min(wanted, totals.images)
    first = np.zeros((min(SHOWN_IMAGES, looked_at), definition.height, definition.width, 3), dtype=np.uint8)
    unreadable: dict[int, str] = {}
    histogram = np.zeros((3, 256), dtype=np.int64)
    reader = open_reader(definition, files, listing)
    try:
        for batch in reader.batches(0, looked_at):
            assert batch.pixels is not None  # noqa: S101 - they were asked for
            shown = batch.pixels[: max(0, len(first) - batch.first)]
            first[batch.first : batch.first + len(shown)] = shown
            unreadable |= batch.unreadable
            readable = np.delete(batch.pixels, [position - batch.first for position in batch.unreadable], axis=0)
            for channel in range(3):
                histogram[channel] += np.bincount(readable[..., channel].ravel(), minlength=256)
    finally:
        reader.close()
    return Inspection(
        definition, totals.images, totals.files, totals.size_bytes, looked_at, first, unreadable, histogram, notes
    )


@dataclass
class _Totals:
    """Counts listed items as they pass."""

    images: int = 0
    images_before: int = 0
    files: int = 0
    size_bytes: int = 0

    def counted(self, items: Iterator[ListedItem]) -> Iterator[ListedItem]:
        last_path = ""
        for item in items:
            self.images_before = self.images
            self.images += item.images
            self.size_bytes += item.size_bytes
            self.files += item.path != last_path
            last_path = item.path
            yield item


def draw_sheet(found: Inspection, path: Path) -> None:
    """Write a picture sheet of an inspection as a PNG, whole or not at all.

    Raises
    ------
    BadInputError
        When it cannot be written there.
    """
    definition = found.definition
    title = (
        f"{definition.format}, {found.images:,} images of {definition.height}x{definition.width}; the first ones, and "
        f"how often each byte occurs in the first {found.looked_at:,}"
    )
    sheet = make_sheet(found.first, found.unreadable, found.histogram, title)
    temporary = path.with_name(temporary_name(path.name))
    try:
        sheet.save(temporary, "PNG")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise BadInputError(f"{path}: cannot be written ({error.strerror or error}); give another --sheet") from error
