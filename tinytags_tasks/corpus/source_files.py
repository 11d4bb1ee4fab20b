"""The files of a source: of this machine, or behind an address that fsspec understands."""

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from tinytags_tasks.errors import BadInputError, EngineDownError, TransientError

END_BYTES = 65_536
"""Bytes of a source's head and tail that are hashed."""


@dataclass(frozen=True)
class SourceFile:
    """A file: its path relative to the source, its size, and what tells that it has changed."""

    path: str
    size_bytes: int
    version: str


class SourceFiles:
    """Reads the files of one source.

    Parameters
    ----------
    source
        A file, a folder or a pattern with ``*``; a path of this machine or an address.
    options
        What fsspec's file system takes.
    webhdfs_url, hdfs_user
        Where ``hdfs:///path`` lies, and as whom it is read.
    """

    def __init__(
        self,
        source: str,
        options: Mapping[str, Any] | None = None,
        *,
        webhdfs_url: str | None = None,
        hdfs_user: str | None = None,
    ) -> None:
        self.source = source
        self._surroundings: dict[str, Any] = {"options": options, "webhdfs_url": webhdfs_url, "hdfs_user": hdfs_user}
        scheme = urlsplit(source).scheme if "://" in source else ""
        self._remote: Any = None
        if scheme in ("", "file"):
            root = source.removeprefix("file://")
            self._root = str(Path(root).expanduser().absolute())
        else:
            import fsspec

            address, options = source, dict(options or {})
            if scheme in ("hdfs", "webhdfs"):
                address, options = _webhdfs(source, options, webhdfs_url, hdfs_user)
            with self._translated(source):
                self._remote, self._root = fsspec.url_to_fs(address, **options)
        self._open_files: dict[str, int] = {}

    @property
    def is_local(self) -> bool:
        """Whether the files are of this machine."""
        return self._remote is None

    @property
    def address(self) -> str:
        """The source, as it may be found again from elsewhere."""
        return self._root if self.is_local else self.source

    def beside(self, source: str) -> "SourceFiles":
        """Return the files of another source that is reached in the same way."""
        return SourceFiles(source, **self._surroundings)

    def only_file(self) -> SourceFile:
        """Return the source's file.

        Raises
        ------
        BadInputError
            When it has none, or several.
        """
        found = list(self.files())
        if len(found) != 1:
            raise BadInputError(f"{self.source}: {len(found):,} files where one is needed; name the file")
        return found[0]

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Turn the errors of file systems into ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise BadInputError(f"{path}: no such file or folder; correct the corpus' source") from error
        except PermissionError as error:
            raise BadInputError(f"{path}: may not be read ({error}); check its permissions") from error
        except (ImportError, ValueError, NotImplementedError) as error:
            raise BadInputError(
                f"{path}: cannot be read ({error}); use a path, or an hdfs, http(s) or s3 address"
            ) from error
        except ConnectionError as error:
            raise EngineDownError(f"{path}: the source does not answer ({error})") from error
        except (OSError, RuntimeError) as error:
            if self.is_local and isinstance(error, OSError):
                raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from error
            raise TransientError(f"{path}: cannot be read now ({type(error).__name__}: {error})") from error
        except Exception as error:
            if type(error).__module__.split(".")[0] in ("aiohttp", "botocore", "aiobotocore", "requests", "urllib3"):
                raise TransientError(f"{path}: cannot be read now ({type(error).__name__}: {error})") from error
            raise

    def files(self, *endings: str) -> Iterator[SourceFile]:
        """Yield the source's files in an order that is the same on every machine.

        Parameters
        ----------
        endings
            Only files whose lower-case name ends so; all when none is given. A source that is one file, or a pattern,
            is taken as it is.

        Raises
        ------
        BadInputError
            When there is no such file, folder or match.
        """
        if self.is_local:
            root = Path(self._root)
            if root.is_dir():
                yield from self._walk(root, endings)
            elif "*" in root.name:
                yield from (self.current(path.name) for path in sorted(root.parent.glob(root.name)) if path.is_file())
            else:
                yield self.current(root.name)
            return
        with self._translated(self.source):
            if "*" in self._root:
                found = self._remote.glob(self._root, detail=True)
            elif self._remote.isdir(self._root):
                found = {
                    path: info
                    for path, info in self._remote.find(self._root, detail=True).items()
                    if not endings or path.lower().endswith(endings)
                }
            else:
                found = {self._root: self._remote.info(self._root)}
        for path in sorted(found, key=lambda path: path.split("/")):
            if found[path].get("type") != "directory":
                yield self._described(self._relative(path), found[path])

    def _walk(self, folder: Path, endings: tuple[str, ...]) -> Iterator[SourceFile]:
        with self._translated(str(folder)):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(Path(entry.path), endings)
            elif entry.is_file() and (not endings or entry.name.lower().endswith(endings)):
                with self._translated(entry.path):
                    status = entry.stat()
                path = Path(entry.path).relative_to(self._root).as_posix()
                yield SourceFile(path, status.st_size, str(status.st_mtime_ns))

    @cached_property
    def _folder(self) -> str:
        """What the files' paths are relative to."""
        if self.is_local:
            return self._root if Path(self._root).is_dir() else str(Path(self._root).parent)
        parts = self._root.split("*")[0]
        with self._translated(self.source):
            is_folder = self._root == parts and self._remote.isdir(self._root)
            return parts.rstrip("/") if is_folder else parts.rpartition("/")[0]

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._folder).lstrip("/")

    def name(self, path: str) -> str:
        """Return a file's whole name."""
        return f"{self._folder.rstrip('/')}/{path}"

    def _described(self, path: str, info: Mapping[str, Any]) -> SourceFile:
        size = info.get("size")
        if size is None:
            raise BadInputError(
                f"{self.name(path)}: its server does not tell its size; download it and ingest the copy"
            )
        names = ("ETag", "etag", "LastModified", "mtime", "modificationTime", "last_modified")
        version = next((str(info[name]) for name in names if info.get(name)), "")
        return SourceFile(path, int(size), version.strip('"'))

    def current(self, path: str) -> SourceFile:
        """Return a file as it is now.

        Raises
        ------
        BadInputError
            When it is not there, or may not be read.
        """
        whole = self.name(path)
        with self._translated(whole):
            if self.is_local:
                status = os.stat(whole)  # noqa: PTH116 (paths here are text, by the hundred thousand)
                return SourceFile(path, status.st_size, str(status.st_mtime_ns))
            self._remote.invalidate_cache(whole)
            return self._described(path, self._remote.info(whole))

    def check_unchanged(self, path: str, size_bytes: int, version: str) -> None:
        """Refuse a file that is not as it was listed.

        Raises
        ------
        BadInputError
            When its size or version is another.
        """
        now = self.current(path)
        if (now.size_bytes, now.version) != (size_bytes, version):
            raise BadInputError(
                f"{self.name(path)}: has changed since it was listed ({size_bytes:,} bytes then, {now.size_bytes:,} "
                "now); restore it, or remove the corpus with `tinytags corpus remove` and ingest it anew"
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
            As it was listed; a file of this machine that has another one is refused when it is opened.

        Raises
        ------
        BadInputError
            When the file ends before ``offset + length``, or its server sends no ranges.
        TransientError
            When a remote source does not answer now.
        """
        whole = self.name(path)
        with self._translated(whole):
            if self.is_local:
                descriptor = self._descriptor(whole, version)
                content = os.pread(descriptor, length, offset)
                while 0 < len(content) < length:  # the kernel gives 2 GiB at most
                    more = os.pread(descriptor, length - len(content), offset + len(content))
                    if not more:
                        break
                    content += more
            else:
                content = self._remote.cat_file(whole, start=offset, end=offset + length) if length else b""
        if len(content) > length:
            raise BadInputError(f"{whole}: its server sends no ranges; download it and ingest the copy")
        if len(content) < length:
            raise BadInputError(
                f"{whole}: ends at offset {offset + len(content):,}, where {offset + length:,} was expected; "
                "it became shorter while it was read"
            )
        return bytes(content)

    def _descriptor(self, whole: str, version: str | None) -> int:
        """Return the file's descriptor; only the last file stays open."""
        if whole not in self._open_files:
            self.close()
            descriptor = os.open(whole, os.O_RDONLY)
            self._open_files[whole] = descriptor
            if version is not None and str(os.fstat(descriptor).st_mtime_ns) != version:
                raise BadInputError(
                    f"{whole}: has changed since it was listed; restore it, or remove the corpus with `tinytags corpus "
                    "remove` and ingest it anew"
                )
        return self._open_files[whole]

    def open(self, path: str) -> BinaryIO:
        """Open a file to read and seek in.

        Raises
        ------
        BadInputError
            When it cannot be opened.
        """
        whole = self.name(path)
        with self._translated(whole):
            if self.is_local:
                return Path(whole).open("rb")
            return cast("BinaryIO", self._remote.open(whole, "rb", block_size=8_000_000, cache_type="readahead"))

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._open_files.values():
            os.close(descriptor)
        self._open_files.clear()


def hash_ends(files: SourceFiles, first: SourceFile, last: SourceFile) -> tuple[str, str]:
    """Return the sha256 of the first file's head and of the last file's tail."""
    head = files.read(first.path, 0, min(END_BYTES, first.size_bytes))
    tail = files.read(last.path, max(0, last.size_bytes - END_BYTES), min(END_BYTES, last.size_bytes))
    return hashlib.sha256(head).hexdigest(), hashlib.sha256(tail).hexdigest()


def _webhdfs(
    source: str, options: dict[str, Any], webhdfs_url: str | None, hdfs_user: str | None
) -> tuple[str, dict[str, Any]]:
    """Turn an HDFS address into one of its HTTP door, as the store itself uses it."""
    parts = urlsplit(source)
    if parts.scheme == "hdfs" and parts.netloc:
        raise BadInputError(
            f"{source}: write hdfs:///path for the HDFS that TinyTags keeps its store in, or webhdfs://host:9870/path "
            "for another one"
        )
    netloc = parts.netloc or urlsplit(webhdfs_url or "").netloc
    if not netloc:
        raise BadInputError(
            f"{source}: no HDFS is known; start one with `tinytags up hdfs`, or set TINYTAGS_WEBHDFS_URL"
        )
    options.setdefault("user", hdfs_user)
    return f"webhdfs://{netloc}{parts.path}", options
