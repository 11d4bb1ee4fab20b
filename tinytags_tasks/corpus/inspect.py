"""What a source contains, before any of it is written into the store."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition
from tinytags_tasks.corpus.formats.base import Format, Guess, Sample
from tinytags_tasks.corpus.formats.fixed_records import describe_size
from tinytags_tasks.corpus.formats.registry import all_formats, find_format, list_items
from tinytags_tasks.corpus.pictures.sheet import make_sheet, save_sheet
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sampling import (
    FoundKeywords,
    KeywordCounts,
    RandomSample,
    RangeSample,
    Seen,
    with_possible_keywords,
)
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.corpus.sources.left_out import LeftOutGroup
from tinytags_tasks.errors import BadInputError, one_line

SHOWN_IMAGES = 64
"""The most images on a picture sheet."""

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_MOST_LOOKED_AT = 1_000
_MOST_LOOKED_AT_BYTES = 100_000_000


@dataclass
class _Group:
    """Files of a source whose names fit the same formats; the largest represents them all."""

    formats: tuple[Format, ...]
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
    """Return what a source seems to be, and what a person should know about the guess.

    The guess is made from names, sizes, the first bytes of the largest file and, if it holds pixels, some hundred
    images spread over it.

    Parameters
    ----------
    files
        The source.
    height, width
        Of the corpus' images, in pixels; if the source holds pixels, also of its images.

    Raises
    ------
    BadInputError
        If no format fits: it says what was looked at.
    """
    formats = all_formats()
    groups: dict[tuple[str, ...], _Group] = {}
    for file in files.files():
        alike = tuple(known for known in formats if known.has_name(file.path))
        groups.setdefault(tuple(known.name for known in alike), _Group(alike)).add(file)
    if not groups:
        raise BadInputError(f"{files.address}: contains no files; correct the source{files.left_out}")
    main = max(groups.values(), key=lambda group: (bool(group.formats), group.size_bytes))
    notes = tuple(
        f"not read: {group.count:,} other file{'s' if group.count > 1 else ''}, such as {one_line(group.largest.path)}"
        for group in groups.values()
        if group is not main
    )
    sample = Sample(files, main.largest, height, width)
    found_format, guess = _guess_format(sample, main.formats, formats)
    fields = {"source": files.address, "height": height, "width": width, "format": found_format.name, **guess.fields}
    return make_definition(_name_of(files.source), fields, where=files.address), (*notes, *guess.notes)


def _name_of(source: str) -> str:
    stem = source.rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:100] or "corpus"


def _guess_format(sample: Sample, named: tuple[Format, ...], formats: list[Format]) -> tuple[Format, Guess]:
    """Return the format of a file whose name fits some formats.

    Raises
    ------
    BadInputError
        If no format fits, or the file is compressed.
    """
    where = sample.files.name(sample.file.path)
    for magic, packer in _PACKED.items():
        if sample.head.startswith(magic):
            raise BadInputError(f"{where}: is compressed with {packer}; unpack it and give its content")
    by_name = [known for known in named if known.is_named_reliably]
    for known in by_name or formats:
        if guess := known.guess(sample):
            return known, guess
    if by_name:
        why = f"its name says {' or '.join(known.name for known in by_name)}, its content does not"
    else:
        why = "smaller than one image"
        if sample.file.size_bytes >= sample.image_bytes:
            why = describe_size(sample.file.size_bytes, sample.image_bytes, f"{sample.height}x{sample.width}x3")
    looked_for = ", ".join(f"{known.recognised_by} ({known.name})" for known in formats)
    raise BadInputError(
        f"{where}: is of no known format ({why}). Looked at: {sample.file.size_bytes:,} bytes that begin with "
        f"{sample.head[:8].hex(' ') or 'nothing'}; looked for: {looked_for}. Give the right --height and --width, or "
        "define the corpus with --format"
    )


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in a source.

    Attributes
    ----------
    definition
        The definition that it was read by.
    images, files, size_bytes
        Totals of the source.
    looked_at
        How many images were read: the first ones, those from a position on, or some at random.
    first
        uint8, shape (up to 64, height, width, 3); unreadable images are zeros.
    unreadable
        Why images that were read are unreadable, by position.
    histogram
        int64, shape (3, 256): how often each byte occurs in R, G and B of the readable images.
    notes
        What a person should know.
    positions
        Of ``first``.
    sizes
        How many of the pictures that were looked at have a size of their own, such as ``640x480``; most frequent first.
    keywords
        What their keywords are or may be.
    left_out
        What is in the source's folders and does not belong to it.
    unreadable_files
        The files of the unreadable images, and the members' names in tars, by position.
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
    positions: tuple[int, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    keywords: FoundKeywords = field(default_factory=FoundKeywords)
    left_out: tuple[LeftOutGroup, ...] = ()
    unreadable_files: dict[int, str] = field(default_factory=dict)


def inspect_source(
    definition: CorpusDefinition,
    files: SourceFiles,
    notes: tuple[str, ...] = (),
    *,
    first: int = 0,
    is_random: bool = False,
) -> Inspection:
    """List a source to its end, and read its first images or a sample of others.

    Parameters
    ----------
    definition, files
        The corpus, and its source's files.
    notes
        What a person should know.
    first
        The position of the first image that is read.
    is_random
        Whether images at random positions are read instead.

    Raises
    ------
    BadInputError
        If it is not of the definition's format, or contains no images, or none at the position.
    """
    wanted = max(SHOWN_IMAGES, min(_MOST_LOOKED_AT, _MOST_LOOKED_AT_BYTES // definition.image_bytes))
    sample = RandomSample(SHOWN_IMAGES) if is_random else RangeSample(first, wanted)
    totals = _Totals()
    keywords = KeywordCounts()
    for item in list_items(files, definition):
        sample.add(totals.images, item)
        keywords.add_listed(definition, item)
        totals.add(item)
    left_out = tuple(files.left_out)
    if not totals.images:
        raise BadInputError(
            f"{files.address}: contains no images of the format {definition.format}; correct the source{files.left_out}"
        )
    if not sample.positions:
        raise BadInputError(f"{files.address}: has {totals.images:,} images, from 0, and none at {first:,}")
    possible = find_format(definition.format).possible_keywords(files)
    seen = Seen(definition, sample.positions[:SHOWN_IMAGES])
    try:
        seen.read(with_possible_keywords(definition, possible, keywords), files, sample)
    except BadInputError:  # perhaps the labels alone are unusual
        seen = Seen(definition, sample.positions[:SHOWN_IMAGES])
        seen.read(definition, files, sample)
    return Inspection(
        definition,
        totals.images,
        totals.files,
        totals.size_bytes,
        len(sample.positions),
        seen.shown,
        seen.unreadable,
        seen.histogram,
        notes,
        sample.positions[:SHOWN_IMAGES],
        dict(seen.sizes.most_common()),
        keywords.joined(seen.keywords, possible),
        left_out,
        {position: _file_of(sample, position) for position in seen.unreadable},
    )


def _file_of(sample: RandomSample | RangeSample, position: int) -> str:
    ((_, item),) = sample.items(position, 1)
    return f"{item.path}, member {item.member}" if item.member else item.path


@dataclass
class _Totals:
    """Counts listed items."""

    images: int = 0
    files: int = 0
    size_bytes: int = 0
    last_path: str = ""

    def add(self, item: ListedItem) -> None:
        self.images += item.images
        self.size_bytes += item.size_bytes
        self.files += item.path != self.last_path
        self.last_path = item.path


def choose_sheet(files: SourceFiles, name: str, given: Path | None) -> Path:
    """Return where the picture sheet is written: never into the source, of which it would become a part.

    Raises
    ------
    BadInputError
        If it is to be written there.
    """
    chosen = given or Path(f"{name}-sheet.png")
    if not files.is_local:
        return chosen
    source = Path(files.address)
    if "*" in files.address:
        folder = Path(files.address.partition("*")[0] + "x").parent
    else:
        folder = source if source.is_dir() else source / "no file is in a file"
    if not (chosen.resolve().is_relative_to(folder.resolve()) or chosen.resolve() == source.resolve()):
        return chosen
    if given:
        raise BadInputError(f"{given}: is in the source, of which the sheet would become a part; give another --sheet")
    return Path(tempfile.gettempdir()) / chosen.name


def draw_sheet(found: Inspection, path: Path) -> None:
    """Write a picture sheet of an inspection as a PNG, in one atomic step.

    Raises
    ------
    BadInputError
        If it cannot be written there.
    """
    definition = found.definition
    title = (
        f"{definition.format}, {found.images:,} images of {definition.height}x{definition.width}; {_which(found)}, and "
        f"how often each byte occurs in {found.looked_at:,}"
    )
    places = {position: place for place, position in enumerate(found.positions or range(len(found.first)))}
    crossed = {places[position]: reason for position, reason in found.unreadable.items() if position in places}
    save_sheet(make_sheet(found.first, crossed, found.histogram, title), path)


def _which(found: Inspection) -> str:
    positions = found.positions
    if not positions or positions == tuple(range(len(positions))):
        return "the first ones"
    if positions == tuple(range(positions[0], positions[-1] + 1)):
        return f"those from {positions[0]:,} on"
    return "some at random"
