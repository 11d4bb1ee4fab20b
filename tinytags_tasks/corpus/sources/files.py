"""The files of a source: on this machine, or at an address that fsspec understands."""

import hashlib
import os
import re
import stat
import weakref
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tinytags_tasks.corpus.sources.escaped_names import escaped, found_by
from tinytags_tasks.corpus.sources.left_out import FORBIDDEN, LINKS, WEB_PAGES, LeftOut, why_left_out
from tinytags_tasks.corpus.sources.remote import ForbiddenError, WebPageError, open_remote, read_range, remote_error
from tinytags_tasks.corpus.sources.sorted_names import Name, sorted_names
from tinytags_tasks.corpus.sources.tables import can_read_delta, delta_files, refuse_iceberg, refuse_table_log
from tinytags_tasks.errors import BadInputError, TinyTagsError
from tinytags_tasks.secrecy import secret_part, without_secrets
from tinytags_tasks.store.quoting import quoted

_CHANGED = (
    "restore it, or remove the corpus with `tinytags corpus remove NAME --data`; if only its time has changed, "
    "`tinytags ingest NAME` goes on with it"
)

END_BYTES = 65_536
"""Bytes of a source's head and tail that are hashed."""

_VERSIONS = ("ETag", "etag", "LastModified", "Last-Modified", "mtime", "modificationTime", "last_modified")
"""What remote file systems call the value that changes when a file changes."""


@dataclass(frozen=True)
class SourceFile:
    """A file: its path relative to the source, its size, and a value that changes when the file changes."""

    path: str
    size_bytes: int
    version: str

    @property
    def identity(self) -> str:
        """What the hash of a source with such a file beside it is made of; see ``docs/adr/0017-identities.md``."""
        return f"SourceFile(path={quoted(self.path)}, size_bytes={self.size_bytes}, version={quoted(self.version)})"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file or folder in a folder; ``found`` is what a remote file system says of it, None on this machine."""

    name: str
    path: str
    is_folder: bool
    found: Mapping[str, Any] | None


class SourceFiles:
    """Reads the files of one source.

    A folder's files are all those in it and in its subfolders, in the order of their paths, part by part, without those
    that do not belong to a source; see :func:`~tinytags_tasks.corpus.sources.left_out.why_left_out`. The ``*`` of a
    pattern matches any part of one name.

    Parameters
    ----------
    source
        A file, a folder or a pattern: a path on this machine, or an address. An http(s) address that ends in ``/`` is
        a folder.
    options
        Options of the source's file system. That of this machine takes ``follow_links``: whether links are followed
        out of the folder that is the source.
    webhdfs_url, hdfs_user, hdfs_kerberos
        Where ``hdfs:///path`` is, the user who reads it, and whether it asks for a Kerberos ticket instead.

    Attributes
    ----------
    left_out
        What the latest listing left out.

    Raises
    ------
    BadInputError
        If the address is incomplete, or an option is wrong.
    """

    def __init__(
        self,
        source: str,
        options: Mapping[str, Any] | None = None,
        *,
        webhdfs_url: str | None = None,
        hdfs_user: str | None = None,
        hdfs_kerberos: bool = False,
    ) -> None:
        self.source = source
        self.left_out = LeftOut()
        self._follows_links = bool((options or {}).get("follow_links"))
        access: dict[str, Any] = {
            "webhdfs_url": webhdfs_url,
            "hdfs_user": hdfs_user,
            "hdfs_kerberos": hdfs_kerberos,
        }
        self._access = {"options": options, **access}
        scheme = re.match(r"([a-z][a-z0-9+.-]*)://", source, re.IGNORECASE)
        self._is_local = scheme is None or scheme[1] == "file"
        self._prefix = ""
        self._urls: tuple[str, ...] = ()
        self._open_files: dict[str, int] = {}
        weakref.finalize(self, _close, self._open_files)  # whoever is refused does not get as far as to close it
        with self._translated(source):
            if self._is_local:
                self._root = str(Path(source.removeprefix("file://")).expanduser().absolute())
            else:
                self._remote, self._root = open_remote(source, options or {}, **access)
                self._urls = getattr(self._remote, "urls", ())
                self._prefix = source.rstrip("/").removesuffix(self._root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether the files are on this machine."""
        return self._is_local

    @property
    def address(self) -> str:
        """The source, as an absolute path or an address."""
        return self._root if self.is_local else self.source

    def with_source(self, source: str) -> "SourceFiles":
        """Return the files of another source, with the same options and the same access."""
        return SourceFiles(source, **self._access)

    def only_file(self) -> SourceFile:
        """Return the only file of the source.

        Raises
        ------
        BadInputError
            If it has none, or several.
        """
        found = list(self.files())
        if len(found) != 1:
            raise BadInputError(f"{self.source}: {len(found):,} files where one is needed; name the file")
        return found[0]

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Translate the errors of file systems into ours."""
        try:
            yield
        except TinyTagsError:
            raise
        except Exception as error:
            where = path if path == self.source else self._named(path)
            translated = _local_error(error, where) if self.is_local else remote_error(error, where, self._urls)
            if translated is None:
                raise
            raise translated from error

    @cached_property
    def _place(self) -> tuple[str, tuple[str, ...]]:
        """The folder that paths are relative to, and the names or patterns below it; none means the whole folder."""
        root = self._root
        with self._translated(self.source):
            if self.is_local:
                is_folder = Path(root).is_dir()
            elif root.startswith(("http://", "https://")):  # if asked to list it, a server might send the file
                is_folder = root.endswith("/")
            elif is_folder := "*" not in root:
                self._remote.invalidate_cache()
                is_folder = self._remote.info(root)["type"] == "directory"
        if is_folder:
            return root.rstrip("/"), ()
        folder = root.partition("*")[0].rpartition("/")[0]
        return folder, tuple(root[len(folder) :].lstrip("/").split("/"))

    def files(self, *endings: str) -> Iterator[SourceFile]:
        """Yield the source's files, in an order that is the same on every machine.

        Parameters
        ----------
        endings
            In a folder, only files whose lower-case name ends with one of these are taken; all if none is given. A
            source that is one file, or a pattern, is taken as it is.

        Raises
        ------
        BadInputError
            If the file or folder does not exist, nothing matches, or a file cannot be read.
        """
        folder, parts = self._place
        self.left_out = LeftOut()
        if not self.is_local:
            self._remote.invalidate_cache()
        if parts and "*" not in "".join(parts):
            named = "/".join(parts)
            yield self.current(escaped(named) if self.is_local else named)
            return
        if not parts and self.is_local and can_read_delta(folder):
            yield from map(self.current, delta_files(folder))
            return
        found = False
        for file in self._matching(folder, parts) if parts else self._walk(folder, endings, ()):
            found = True
            yield file
        if not found and self.left_out.has(FORBIDDEN):
            raise BadInputError(
                f"{self.source}: permission denied; check its permissions and those of its folders{self.left_out}"
            )
        if not found and parts:
            raise BadInputError(f"{self.source}: no file matches; correct the corpus' source{self.left_out}")

    def _walk(self, folder: str, endings: tuple[str, ...], above: tuple[str, ...]) -> Iterator[SourceFile]:
        if self.is_local:
            real = os.path.realpath(folder or "/")
            if real in above:
                raise BadInputError(f"{folder}: a link to a folder that contains it; remove it")
            above = (*above, real)
        for entry in self._visible(folder):
            if entry.is_folder:
                yield from self._walk(entry.path, endings, above)
            elif endings and not entry.name.lower().endswith(endings):
                self.left_out.add_ending(self._below(entry.path))
            elif file := self._file(entry):
                yield file

    def _matching(self, folder: str, parts: tuple[str, ...]) -> Iterator[SourceFile]:
        pattern = re.compile(".*".join(map(re.escape, parts[0].split("*"))), re.DOTALL)
        for entry in self._visible(folder, names_hidden=parts[0].startswith("_")):
            if not pattern.fullmatch(entry.name) or entry.is_folder is (len(parts) == 1):
                continue
            if entry.is_folder:
                yield from self._matching(entry.path, parts[1:])
            elif file := self._file(entry):
                yield file

    def _visible(self, folder: str, *, names_hidden: bool = False) -> Iterator[_Entry]:
        """Yield what is in a folder and belongs to the source, and count the rest."""
        has_data = False
        try:
            for entry in self._entries(folder):
                if entry.is_folder:
                    refuse_table_log(entry.name, self._named(folder), is_local=self.is_local)
                    has_data = has_data or entry.name == "data"
                    if has_data and entry.name == "metadata":
                        with suppress(ForbiddenError):  # whoever walks into it counts it
                            refuse_iceberg((below.name for below in self._entries(entry.path)), self._named(folder))
                reason = why_left_out(entry.name, is_folder=entry.is_folder)
                if reason and not (names_hidden and entry.name.startswith("_")):
                    self.left_out.add(reason, self._below(entry.path) + "/" * entry.is_folder)
                else:
                    yield entry
        except ForbiddenError:
            if folder == self._place[0]:
                raise
            self.left_out.add(FORBIDDEN, f"{self._below(folder)}/")

    def _entries(self, folder: str) -> Iterator[_Entry]:
        if self.is_local:
            for name in sorted_names(self._local_names(folder)):
                yield _Entry(name.name, f"{folder.rstrip('/')}/{name.name}", name.is_folder, None)
            return
        with self._translated(folder):
            entries = list(self._remote_entries(folder))
        yield from sorted(entries, key=lambda entry: (entry.name, entry.is_folder))

    def _local_names(self, folder: str) -> Iterator[Name]:
        with self._translated(folder), os.scandir(folder or "/") as found:
            for entry in found:
                if entry.is_symlink() and self._leads_out(entry.path):
                    self.left_out.add(LINKS, self._below(entry.path))
                else:
                    yield Name(entry.name, _is_folder(entry))

    def _leads_out(self, link: str) -> bool:
        return not (self._follows_links or os.path.realpath(link).startswith(self._real_folder))

    @cached_property
    def _real_folder(self) -> str:
        return os.path.realpath(self._place[0] or "/").rstrip("/") + "/"

    def _remote_entries(self, folder: str) -> Iterator[_Entry]:
        is_http = folder.startswith(("http://", "https://"))
        bare_folder = folder.rstrip("/")
        for info in self._remote.ls(f"{bare_folder}/" if is_http else folder, detail=True):
            path, is_folder = str(info["name"]), info.get("type") == "directory"
            if is_http and (part := secret_part(path)):
                raise BadInputError(
                    f"{without_secrets(path)}: its server's list has addresses with a secret ({part}), which would be "
                    "stored with the corpus; download the files"
                )
            bare = path.rstrip("/")
            name = bare.rpartition("/")[2]
            if is_http and name.startswith(("?", "#")):
                continue  # an index page's links to itself in another order
            if bare != bare_folder:
                yield _Entry(unquote(name) if is_http else name, path, is_folder, info)
            elif is_folder and not is_http:
                raise BadInputError(f"{self._prefix}{path}/: a folder without a name; move its content")
            # else a page's link to itself, or the object "folder/", which represents a folder in S3

    def _file(self, entry: _Entry) -> SourceFile | None:
        """Return a folder's entry as a file; None if it is neither a file nor a link."""
        path = self._below(entry.path)
        try:
            if entry.found is not None:
                return self._described(path, entry.found)
            with self._translated(entry.path):
                status = os.stat(entry.path)  # noqa: PTH116 (called by the million)
        except ForbiddenError:
            self.left_out.add(FORBIDDEN, path)
            return None
        except WebPageError:
            self.left_out.add(WEB_PAGES, path)
            return None
        except BadInputError as error:
            if isinstance(error.__cause__, FileNotFoundError) and Path(entry.path).is_symlink():
                raise BadInputError(f"{escaped(entry.path)}: a broken link; fix it or remove it") from error
            raise
        return _local_file(path, status, entry.path) if stat.S_ISREG(status.st_mode) else None

    def _below(self, path: str) -> str:
        """Return a path of the file system as one of the source."""
        below = path[len(self._place[0]) :].lstrip("/")
        return escaped(below) if self.is_local else below

    def _named(self, path: str) -> str:
        """Return a path of the file system for people."""
        return escaped(path) if self.is_local else f"{self._prefix}{path}"

    def name(self, path: str) -> str:
        """Return the full name of a file, for people: its path, or its address."""
        return f"{self._prefix}{self._place[0]}/{path}"

    def _whole(self, path: str) -> str:
        """Return the path of a file in its file system."""
        return found_by(self._place[0], path) if self.is_local else f"{self._place[0]}/{path}"

    def _described(self, path: str, info: Mapping[str, Any]) -> SourceFile:
        whole = self._whole(path)
        if info.get("size") is None:
            with self._translated(whole):
                info = self._remote.info(whole)
        if info.get("mimetype") == "text/html":
            raise WebPageError(
                f"{self.name(path)}: a web page, not a file; end the address of a folder with a /, or name a file"
            )
        size = info.get("size")
        if size is None:
            raise BadInputError(
                f"{self.name(path)}: its server does not report its size; download it and ingest the copy"
            )
        version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
        return SourceFile(path, int(size), version.strip('"'))

    def current(self, path: str) -> SourceFile:
        """Return a file as it is now.

        Raises
        ------
        BadInputError
            If it does not exist, is not a file, or cannot be read.
        """
        whole = self._whole(path)
        with self._translated(whole):
            if self.is_local:
                return _local_file(path, os.stat(whole), whole)  # noqa: PTH116 (called by the hundred thousand)
            self._remote.invalidate_cache(whole)
            info = self._remote.info(whole)
        if info.get("type") == "directory":
            raise BadInputError(f"{self.name(path)}: a folder, not a file; name the file")
        return self._described(path, info)

    def check_unchanged(self, path: str, size_bytes: int, version: str) -> None:
        """Refuse a file that has changed since it was listed.

        Raises
        ------
        BadInputError
            If its size or version differs.
        """
        now = self.current(path)
        if (now.size_bytes, now.version) != (size_bytes, version):
            raise BadInputError(
                f"{self.name(path)}: has changed since it was listed ({size_bytes:,} bytes then, {now.size_bytes:,} "
                f"now); {_CHANGED}"
            )

    def read(self, path: str, offset: int, length: int, version: str | None = None) -> bytes:
        """Return bytes of a file.

        Parameters
        ----------
        path
            The file.
        offset, length
            Which bytes.
        version
            As it was listed; a file on this machine that has another version is refused when it is opened.

        Raises
        ------
        BadInputError
            If the file ends before ``offset + length``, or its server does not support ranges.
        TransientError
            If a remote source does not answer.
        """
        whole = self._whole(path)
        with self._translated(whole):
            if self.is_local:
                descriptor = self._descriptor(whole, version)
                content = os.pread(descriptor, length, offset)
                while 0 < len(content) < length:  # the kernel returns at most 2 GiB
                    more = os.pread(descriptor, length - len(content), offset + len(content))
                    if not more:
                        break
                    content += more
            else:
                content = read_range(self._remote, whole, offset, length) if length else b""
        if len(content) < length:
            raise BadInputError(
                f"{self.name(path)}: ends at offset {offset + len(content):,}, where {offset + length:,} was expected; "
                "it was truncated while it was read"
            )
        return bytes(content)

    def _descriptor(self, whole: str, version: str | None) -> int:
        """Return the descriptor of a file; only the last file stays open."""
        if whole not in self._open_files:
            self.close()
            descriptor = os.open(whole, os.O_RDONLY)
            self._open_files[whole] = descriptor
            if version is not None and str(os.fstat(descriptor).st_mtime_ns) != version:
                raise BadInputError(f"{escaped(whole)}: has changed since it was listed; {_CHANGED}")
        return self._open_files[whole]

    def close(self) -> None:
        """Close the open file."""
        _close(self._open_files)


def _close(open_files: dict[str, int]) -> None:
    while open_files:
        os.close(open_files.popitem()[1])


def hash_ends(files: SourceFiles, first: SourceFile, last: SourceFile) -> tuple[str, str]:
    """Return the SHA-256 of the first file's head and of the last file's tail."""
    head = files.read(first.path, 0, min(END_BYTES, first.size_bytes))
    tail = files.read(last.path, max(0, last.size_bytes - END_BYTES), min(END_BYTES, last.size_bytes))
    return hashlib.sha256(head).hexdigest(), hashlib.sha256(tail).hexdigest()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:  # of a link's target; reading it as a file fails, too
        return False


def _local_file(path: str, status: os.stat_result, whole: str) -> SourceFile:
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{escaped(whole)}: not a file; name a file, or the folder it is in")
    return SourceFile(path, status.st_size, str(status.st_mtime_ns))


def _local_error(error: Exception, path: str) -> BadInputError | None:
    if isinstance(error, FileNotFoundError):
        return BadInputError(f"{path}: no such file or folder; correct the corpus' source")
    if isinstance(error, PermissionError):
        return ForbiddenError(f"{path}: permission denied; check its permissions")
    if isinstance(error, OSError | ValueError | RuntimeError):
        return BadInputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")
    return None
