"""What a corpus format is: one object that says all that TinyTags needs to know of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.pictures.prepare import Filter, Resize
from tinytags_tasks.corpus.reader import ListedItem, Listing, Reader
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles

PixelOrder = Literal["hwc", "planes", "columns"]
"""The order of a raw image's pixels: row-major interleaved, row-major planes R, G, B, or column-major planes."""

DEFAULT_PIXEL_ORDER: PixelOrder = "hwc"

_HEAD_BYTES = 512
_RUNS, _RUN_IMAGES, _RUN_BYTES = 32, 10, 1_000_000


class Definition(Protocol):
    """What a format may read of a corpus' definition; :class:`tinytags_tasks.corpus.definition.CorpusDefinition`.

    It is declared here so that formats do not depend on definitions, which look up and ask their format.
    """

    @property
    def format(self) -> str:
        """The name of the format."""

    @property
    def height(self) -> int:
        """Height of the images in pixels."""

    @property
    def width(self) -> int:
        """Width of the images in pixels."""

    @property
    def pixel_order(self) -> PixelOrder:
        """The order of a raw image's pixels."""

    @property
    def resize(self) -> Resize:
        """How pictures of another size are fitted."""

    @property
    def filter(self) -> Filter:
        """The resampling filter."""

    @property
    def image_column(self) -> str:
        """The column of images; empty if the format finds it."""

    @property
    def keywords(self) -> str:
        """Where each image's keyword comes from; empty if there are no keywords."""

    @property
    def format_options(self) -> dict[str, Any]:
        """Options of a format from another package."""


@dataclass(frozen=True)
class Guess:
    """What a file seems to hold.

    Attributes
    ----------
    fields
        Fields of a definition that follow from the content, such as the pixel order.
    notes
        What a person should know about the guess.
    """

    fields: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Sample:
    """Parts of a file whose format is to be guessed.

    Parameters
    ----------
    files
        The source.
    file
        The file.
    height, width
        Size of the images in pixels, if the file holds pixels.

    Attributes
    ----------
    head
        The first 512 bytes, or the whole file if it is smaller.
    """

    def __init__(self, files: SourceFiles, file: SourceFile, height: int, width: int) -> None:
        self.files = files
        self.file = file
        self.height = height
        self.width = width
        self.head = files.read(file.path, 0, min(_HEAD_BYTES, file.size_bytes))
        self._records: dict[int, npt.NDArray[np.uint8]] = {}

    @property
    def image_bytes(self) -> int:
        """Bytes of one image, if the file holds pixels."""
        return self.height * self.width * 3

    def tail(self, length: int) -> bytes:
        """Return the last bytes of the file."""
        length = min(length, self.file.size_bytes)
        return self.files.read(self.file.path, self.file.size_bytes - length, length)

    def records(self, record_bytes: int) -> npt.NDArray[np.uint8]:
        """Return some hundred records spread over the file, uint8 of shape (records, record bytes)."""
        if record_bytes not in self._records:
            count = self.file.size_bytes // record_bytes
            run = max(1, min(_RUN_IMAGES, count, _RUN_BYTES // record_bytes))
            starts = sorted({int(start) for start in np.linspace(0, count - run, _RUNS)})
            runs = (self.files.read(self.file.path, start * record_bytes, run * record_bytes) for start in starts)
            self._records[record_bytes] = np.frombuffer(b"".join(runs), dtype=np.uint8).reshape(-1, record_bytes)
        return self._records[record_bytes]


class Format(ABC):
    """A corpus format.

    A package of your own can add one: subclass this, and name the class under the entry point group
    ``tinytags.formats``; see :mod:`tinytags_tasks.corpus.formats.registry`.

    Attributes
    ----------
    name
        What a definition's ``format`` says.
    recognised_by
        How its files are recognised, for people.
    endings
        How its files' names end, in lower case.
    is_named_reliably
        Whether a file with such a name is of this format, or damaged. If not, its content decides.
    holds_pixels
        Whether a position holds pixels that come unchanged from the source, so that equal pixels mean an equal source;
        else it holds an encoded picture.
    size
        Height and width in pixels, where the format fixes them.
    fields
        Which of a definition's fields that only some formats have it takes: ``pixel_order``, ``image_column``.
    keywords
        What a definition's ``keywords`` may be; None where the source decides. Empty if there are no keywords.
    keywords_are_a_file
        Whether ``keywords`` is the path of a file that holds them. The path may then change, the content may not.
    """

    name: ClassVar[str]
    recognised_by: ClassVar[str]
    endings: ClassVar[tuple[str, ...]] = ()
    is_named_reliably: ClassVar[bool] = True
    holds_pixels: ClassVar[bool] = False
    size: ClassVar[tuple[int, int] | None] = None
    fields: ClassVar[frozenset[str]] = frozenset()
    keywords: ClassVar[tuple[str, ...] | None] = None
    keywords_are_a_file: ClassVar[bool] = False

    def has_name(self, path: str) -> bool:
        """Tell whether a file's name looks like this format."""
        return path.lower().endswith(self.endings)

    def check(self, definition: Definition) -> None:
        """Refuse a definition that does not fit the format.

        A format with options of its own overrides this, checks ``definition.format_options``, and calls
        :meth:`check_common` for the rest.

        Raises
        ------
        ValueError
            What is wrong, and the remedy.
        """
        if definition.format_options:
            raise ValueError(f"the format {self.name} has no format_options: leave them out")
        self.check_common(definition)

    def check_common(self, definition: Definition) -> None:
        """Refuse a definition whose size, keywords or fields do not fit the format.

        Raises
        ------
        ValueError
            What is wrong, and the remedy.
        """
        if self.size is not None and (definition.height, definition.width) != self.size:
            height, width = self.size
            raise ValueError(f"images of the format {self.name} are {height}x{width}; leave height and width out")
        given = {
            "pixel_order": definition.pixel_order != DEFAULT_PIXEL_ORDER,
            "image_column": bool(definition.image_column),
        }
        for field_name, is_given in given.items():
            if is_given and field_name not in self.fields:
                raise ValueError(f"{field_name} does not apply to the format {self.name}: leave it out")
        if definition.keywords and self.keywords is not None and definition.keywords not in self.keywords:
            if not self.keywords:
                raise ValueError(f"the format {self.name} has no keywords; leave them out")
            allowed = " or ".join(self.keywords)
            raise ValueError(f"keywords of the format {self.name} may be {allowed}; correct them, or leave them out")

    def possible_keywords(self, files: SourceFiles) -> tuple[str, ...]:
        """Return what ``keywords`` may be for a source, as far as that is known without reading all of it."""
        return self.keywords or ()

    @abstractmethod
    def guess(self, sample: Sample) -> Guess | None:
        """Return what a file holds; None if it is not of this format."""

    @abstractmethod
    def preparation(self, definition: Definition) -> str:
        """Return how a corpus' images are prepared, for manifests and model cards."""

    @abstractmethod
    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """Yield what a source holds, in the order of the positions.

        Raises
        ------
        BadInputError
            If the source is not of this format: which file, and where.
        """

    @abstractmethod
    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> Reader:
        """Return a reader of what was listed."""
