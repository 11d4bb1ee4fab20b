"""Labelled sets and ONNX files at an address, such as ``hdfs:///labelled/pets``: copied here while they are read."""

import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.corpus.temporary_files import temporary_file_errors
from tinytags_tasks.errors import BadInputError, FinalError, TransientError, explained
from tinytags_tasks.secrecy import secret_part, without_secrets

OpenSource = Callable[[str], SourceFiles]
"""Opens the files at an address."""

UNFINISHED = "_temporary"
"""Where Spark and Hadoop write what is not finished yet."""

_AT_ONCE = 8
"""How many small files are read at the same time."""

_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class SetsHere:
    """Labelled sets, or ONNX files, as paths of this machine.

    Attributes
    ----------
    paths
        The paths, in the order in which they were given; None for one that was not.
    report
        Reports progress; copies are called by their addresses.
    """

    paths: tuple[str | None, ...]
    report: Callable[[str], None]


def is_address(given: str) -> bool:
    """Return whether a labelled set or a file is at an address, not a path of this machine."""
    return "://" in given


@contextmanager
def sets_here(
    *given: str | None, open_source: OpenSource, report: Callable[[str], None] = print
) -> Generator[SetsHere]:
    """Give labelled sets, or ONNX files, as paths of this machine: those at an address are copied while they are used.

    Parameters
    ----------
    given
        Paths, which stay as they are, or addresses.
    open_source
        Opens the files at an address.
    report
        Reports progress.

    Raises
    ------
    BadInputError
        If there is nothing at an address, it has a secret, or the set there is still being written.
    TransientError
        If its server does not answer, or a file changes while it is copied.
    FinalError
        If there is no room for the copy.
    """
    addresses: dict[str, str] = {}

    def named(text: str) -> str:
        for path, address in addresses.items():
            text = text.replace(path, address)
        return text

    with ExitStack() as copies:
        paths: list[str | None] = []
        for each in given:
            if each and is_address(each):
                folder = copies.enter_context(tempfile.TemporaryDirectory(prefix="tinytags-labelled-"))
                path = str(_copy(each, Path(folder), open_source, report))
                addresses[path] = each.rstrip("/")
                paths.append(path)
            else:
                paths.append(each)
        try:
            yield SetsHere(tuple(paths), lambda line: report(named(line)))
        except FinalError as error:
            if (message := named(str(error))) == str(error):
                raise
            raise explained(error, message) from error


def refuse_absent(address: str, open_source: OpenSource) -> None:
    """Refuse an address at which there is no labelled set, without reading one.

    Raises
    ------
    BadInputError
        If there are no files, it has a secret, or the set is still being written.
    TransientError
        If its server does not answer.
    """
    next(_files(address, open_source(_without_secret(address)), open_source))


def _files(address: str, files: SourceFiles, open_source: OpenSource) -> Iterator[SourceFile]:
    """Yield the files of a set that is complete."""
    name = _name(address)
    is_empty = True
    for file in files.files():
        if is_empty and not _is_file(file, name):
            _refuse_unfinished(address, open_source)
        is_empty = False
        yield file
    if is_empty:
        raise BadInputError(f"{address}: holds no files; give the address of a file, or of a folder with files")


def _refuse_unfinished(folder: str, open_source: OpenSource) -> None:
    below = f"{folder.rstrip('/')}/{UNFINISHED}"
    try:
        next(open_source(f"{below}/").files(), None)
    except BadInputError:
        return  # there is none
    raise BadInputError(f"{below}: the set is still being written; wait until it is complete, or remove this folder")


def _without_secret(address: str) -> str:
    if part := secret_part(address):
        raise BadInputError(
            f"{without_secrets(address)}: {part} is a secret, which would be stored with what comes of it; give fsspec "
            "the credentials in the environment (FSSPEC_S3_KEY, FSSPEC_S3_SECRET), or download the files"
        )
    return address


def _copy(address: str, folder: Path, open_source: OpenSource, report: Callable[[str], None]) -> Path:
    """Copy a set into a folder, and return the path of its file there, or of its folder, under its own name."""
    began = time.monotonic()
    name = _name(address)
    files = open_source(_without_secret(address))
    found = list(_files(address, files, open_source))
    top = folder / name
    is_file = len(found) == 1 and _is_file(found[0], name)

    def copy(file: SourceFile) -> None:
        path = top if is_file else top / file.path
        with temporary_file_errors(f"a copy of {address}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file_errors(f"a copy of {address}"), path.open("wb") as copied:
            for offset in range(0, file.size_bytes, _CHUNK_BYTES):
                copied.write(files.read(file.path, offset, min(_CHUNK_BYTES, file.size_bytes - offset)))
        if file.size_bytes > _CHUNK_BYTES and files.current(file.path) != file:
            raise TransientError(f"{files.name(file.path)}: changed while it was copied")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(copy, found))
    megabytes = sum(file.size_bytes for file in found) / 1e6
    report(f"copied {len(found):,} files ({megabytes:,.1f} MB) of {address} in {time.monotonic() - began:.1f} s")
    return top


def _is_file(file: SourceFile, name: str) -> bool:
    """Return whether a source with this file, perhaps with a query behind its name, is no folder."""
    return file.path.partition("?")[0] == name


def _name(address: str) -> str:
    name = address.partition("://")[2].partition("?")[0].rstrip("/").rpartition("/")[2]
    return "labelled" if name in ("", ".", "..") else name
