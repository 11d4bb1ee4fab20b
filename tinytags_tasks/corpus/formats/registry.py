"""The corpus formats: those of TinyTags, and those of other packages.

A package adds a format by an entry point of the group ``tinytags.formats``, whose name is the format's and whose object
is a subclass of :class:`tinytags_tasks.corpus.formats.base.Format`::

    [project.entry-points."tinytags.formats"]
    my-format = "my_package.formats:MyFormat"

It is loaded only when the format is asked for, so a broken package stops no corpus of another format.
"""

from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from tinytags_tasks.corpus.formats.base import Definition, Format
from tinytags_tasks.corpus.formats.cifar_binary import CifarBinary
from tinytags_tasks.corpus.formats.cifar_pickle import CifarPickle
from tinytags_tasks.corpus.formats.folder import Folder
from tinytags_tasks.corpus.formats.parquet import Parquet
from tinytags_tasks.corpus.formats.raw import Raw
from tinytags_tasks.corpus.formats.tiny_images import TinyImages
from tinytags_tasks.corpus.formats.webdataset import WebDataset
from tinytags_tasks.corpus.reader import ListedItem, Listing, Reader
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

GROUP = "tinytags.formats"
"""The entry points' group."""

# Formats with a signature come first: any file whose size fits may hold plain pixels.
_BUILT_IN: tuple[type[Format], ...] = (Parquet, WebDataset, Folder, CifarPickle, CifarBinary, TinyImages, Raw)


def format_names() -> list[str]:
    """Return the names of all formats; those of other packages are not loaded."""
    return [*_external(), *(format_class.name for format_class in _BUILT_IN)]


def all_formats() -> list[Format]:
    """Return all formats, in the order in which a file's format is guessed: other packages' formats come first.

    Raises
    ------
    BadInputError
        If a package's format cannot be used: which package, and the remedy.
    """
    return [find_format(name) for name in format_names()]


@cache
def find_format(name: str) -> Format:
    """Return a format.

    Raises
    ------
    BadInputError
        If there is no such format, or another package's format cannot be used: which package, and the remedy.
    """
    built_in = {format_class.name: format_class for format_class in _BUILT_IN}
    points = _external().get(name, [])
    if name in built_in and not points:
        return built_in[name]()
    if not points:
        known = ", ".join(format_names())
        raise BadInputError(
            f"there is no format {name} (formats are {known}); correct it, or install the package that provides it"
        )
    if name in built_in or len(points) > 1:
        owners = [_package(point) for point in points] + (["TinyTags itself"] if name in built_in else [])
        raise BadInputError(
            f"the format {name} is provided by {' and by '.join(owners)}; uninstall all packages but one of them"
        )
    return _load(points[0])


@cache
def _external() -> dict[str, list[EntryPoint]]:
    """Return other packages' entry points by the format's name."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, _package(point))):
        same_name = found.setdefault(point.name, [])
        if point not in same_name:  # a package may be found twice, such as one installed in place
            same_name.append(point)
    return found


def _load(point: EntryPoint) -> Format:
    where = f"format {point.name} of {_package(point)} ({point.value})"
    remedy = "update or uninstall the package"
    try:
        format_class = point.load()
    except Exception as error:  # whatever the package's code raises
        raise BadInputError(f"{where} cannot be loaded ({type(error).__name__}: {error}); {remedy}") from error
    if not (isinstance(format_class, type) and issubclass(format_class, Format)):
        raise BadInputError(f"{where} is not a subclass of {Format.__module__}.{Format.__qualname__}; {remedy}")
    if getattr(format_class, "name", None) != point.name:
        raise BadInputError(f"{where} calls itself {getattr(format_class, 'name', None)!r}; {remedy}")
    try:
        return format_class()
    except TypeError as error:  # an abstract method is missing
        raise BadInputError(f"{where} cannot be used ({error}); {remedy}") from error


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def list_items(files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
    """Yield what a source holds, in the order of the positions.

    Raises
    ------
    BadInputError
        If the source is not of the definition's format: which file, and where.
    """
    return find_format(definition.format).list_items(files, definition)


def open_reader(definition: Definition, files: SourceFiles, listing: Listing) -> Reader:
    """Return a reader of what was listed."""
    return find_format(definition.format).open_reader(definition, files, listing)
