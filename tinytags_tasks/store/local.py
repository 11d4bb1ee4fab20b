"""A store in a folder on this machine."""

import errno
import os
import shutil
import stat
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.store.protocol import (
    Leftover,
    is_temporary,
    leftovers_among,
    lost_temporary,
    repeat_lost_write,
    temporary_name,
)


class LocalStorage:
    """Keeps the store in a local folder.

    Parameters
    ----------
    root
        The folder; the first write creates it.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Translate the operating system's errors into ours."""
        where = self.root / path
        try:
            yield
        except FileNotFoundError as error:
            raise MissingError(f"{where}: no such file in the store") from error
        except PermissionError as error:
            raise FinalError(f"{where}: permission denied; check who owns the store") from error
        except OSError as error:
            raise TransientError(f"{where}: the disk failed ({error.strerror or error})") from error

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See :meth:`Storage.read`."""
        with self._translated(path), (self.root / path).open("rb") as file:
            file.seek(offset)
            content = file.read(-1 if length is None else length)
        if length is not None and len(content) != length:
            raise CorruptError(f"{self.root / path}: ends at {offset + len(content):,}, not at {offset + length:,}")
        return content

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        """See :meth:`Storage.write`."""
        return repeat_lost_write(lambda: self._write_once(path, content, overwrite=overwrite), content)

    def _write_once(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool) -> bool:
        target = self.root / path
        temporary = self.root / temporary_name(path)
        with self._translated(path):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("wb")
        try:
            with file:
                for chunk in (content,) if isinstance(content, bytes) else content:
                    with self._translated(path):
                        file.write(chunk)
                with self._translated(path):
                    file.flush()
                    os.fsync(file.fileno())
            with self._translated(path):
                try:
                    if overwrite:
                        temporary.replace(target)
                    else:
                        os.link(temporary, target)  # unlike a rename, fails if the name is taken
                except FileExistsError:
                    return False
                except FileNotFoundError as error:
                    raise lost_temporary(path) from error
                return True
        finally:
            temporary.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """See :meth:`Storage.exists`."""
        with self._translated(path):
            return (self.root / path).exists()

    def size_bytes(self, path: str) -> int:
        """See :meth:`Storage.size_bytes`."""
        with self._translated(path):
            status = (self.root / path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise MissingError(f"{path}: is a folder, not a file")
        return status.st_size

    def checksum(self, path: str) -> str:
        """See :meth:`Storage.checksum`."""
        self.size_bytes(path)
        return ""

    def known_damage(self, path: str) -> str:
        """See :meth:`Storage.known_damage`."""
        self.size_bytes(path)
        return ""

    def free_bytes(self) -> int | None:
        """See :meth:`Storage.free_bytes`."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def sizes(self, path: str) -> dict[str, int]:
        """See :meth:`Storage.sizes`."""
        return {name: status.st_size for name, status in self._statuses(path).items()}

    def versions(self, path: str) -> dict[str, str]:
        """See :meth:`Storage.versions`: a file that replaces another by a rename has a different inode."""
        return {name: _version(status) for name, status in self._statuses(path).items()}

    def version(self, path: str) -> str:
        """See :meth:`Storage.version`."""
        with suppress(MissingError), self._translated(path):
            return _version((self.root / path).stat())
        return ""

    def changed_seconds(self, path: str) -> float:
        """See :meth:`Storage.changed_seconds`."""
        with suppress(MissingError), self._translated(path):
            return (self.root / path).stat().st_mtime
        return 0.0

    def _statuses(self, path: str) -> dict[str, os.stat_result]:
        found = {}
        for name in self.names(path):
            try:
                with self._translated(f"{path}/{name}"):
                    status = (self.root / path / name).stat()
            except MissingError:  # deleted by another process in the meantime, such as a lease
                continue
            if stat.S_ISREG(status.st_mode):
                found[name] = status
        return found

    def names(self, path: str) -> list[str]:
        """See :meth:`Storage.names`."""
        return sorted(name for name in self._all_names(path) if not is_temporary(name))

    def _all_names(self, path: str) -> list[str]:
        folder = self.root / path
        with suppress(MissingError), self._translated(path):  # deleted between the two
            if folder.is_dir():
                return [entry.name for entry in folder.iterdir()]
        return []

    def rename(self, source: str, target: str) -> bool:
        """See :meth:`Storage.rename`."""
        with self._translated(source):
            if not (self.root / source).exists():
                if is_temporary(PurePath(source).name):
                    raise lost_temporary(target)
                raise FileNotFoundError(self.root / source)
            if (self.root / target).exists():
                return False
            (self.root / target).parent.mkdir(parents=True, exist_ok=True)
            try:
                (self.root / source).rename(self.root / target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process was faster
                    raise
                return False
        return True

    def make_folder(self, path: str) -> None:
        """See :meth:`Storage.make_folder`."""
        with self._translated(path):
            (self.root / path).mkdir(parents=True, exist_ok=True)

    def delete(self, path: str) -> bool:
        """See :meth:`Storage.delete`."""
        target = self.root / path
        try:
            with self._translated(path):
                if not target.is_dir():
                    target.unlink()
                    return True
                if is_temporary(target.name):  # its writer may be about to move it: it moves all of it or nothing
                    target = target.rename(self.root / temporary_name(path))
                shutil.rmtree(target)
        except MissingError:
            return False
        return True

    def delete_leftovers(self, *paths: str, least_age_seconds: float = 0.0) -> int:
        """See :meth:`Storage.delete_leftovers`."""
        folder = paths[0].rpartition("/")[0]
        changed = {}
        for name in filter(is_temporary, self._all_names(folder)):
            with suppress(FileNotFoundError):  # its writer has just ended
                changed[name] = (self.root / folder / name).stat().st_mtime
        leftovers = leftovers_among(changed, paths, least_age_seconds)
        return sum(self.delete(f"{folder}/{leftover}") for leftover in leftovers)

    def leftovers(self, path: str) -> list[Leftover]:
        """See :meth:`Storage.leftovers`."""
        found = []
        with self._translated(path):
            for folder, folders, files in os.walk(self.root / path):
                for name in filter(is_temporary, (*folders, *files)):
                    with suppress(FileNotFoundError):  # its writer has just ended
                        status = Path(folder, name).stat()
                        size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
                        inside = Path(folder, name).relative_to(self.root).as_posix()
                        found.append(Leftover(inside, size_bytes, status.st_mtime))
                folders[:] = [name for name in folders if not is_temporary(name)]
        return found

    def url(self, path: str) -> str:
        """See :meth:`Storage.url`."""
        return (self.root / path).absolute().as_uri()


def _version(status: os.stat_result) -> str:
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
