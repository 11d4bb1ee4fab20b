"""A store in a folder of this machine."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.storage.base import is_temporary, leftovers_among, temporary_name


class LocalStorage:
    """Keeps the store under one folder.

    Parameters
    ----------
    root
        The folder; made at the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See :meth:`Storage.read`."""
        try:
            with (self.root / path).open("rb") as file:
                file.seek(offset)
                content = file.read(-1 if length is None else length)
        except FileNotFoundError as error:
            raise MissingError(f"{self.root / path}: no such file in the store") from error
        if length is not None and len(content) != length:
            raise CorruptError(f"{self.root / path}: ends at {offset + len(content):,}, not at {offset + length:,}")
        return content

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        """See :meth:`Storage.write`."""
        target = self.root / path
        temporary = self.root / temporary_name(path)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                for chunk in (content,) if isinstance(content, bytes) else content:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                temporary.replace(target)
                return True
            try:
                os.link(temporary, target)  # unlike rename, refuses a name that is taken
            except FileExistsError:
                return False
            return True
        finally:
            temporary.unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """See :meth:`Storage.exists`."""
        return (self.root / path).exists()

    def size_bytes(self, path: str) -> int:
        """See :meth:`Storage.size_bytes`."""
        try:
            return (self.root / path).stat().st_size
        except FileNotFoundError as error:
            raise MissingError(f"{self.root / path}: no such file in the store") from error

    def checksum(self, path: str) -> str:
        """See :meth:`Storage.checksum`."""
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
        return {name: (self.root / path / name).stat().st_size for name in self.names(path)}

    def names(self, path: str) -> list[str]:
        """See :meth:`Storage.names`."""
        folder = self.root / path
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if not is_temporary(entry.name))

    def rename(self, source: str, target: str) -> bool:
        """See :meth:`Storage.rename`."""
        if not (self.root / source).exists():
            raise MissingError(f"{self.root / source}: no such file in the store")
        if (self.root / target).exists():
            return False
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        (self.root / source).rename(self.root / target)
        return True

    def delete(self, path: str) -> bool:
        """See :meth:`Storage.delete`."""
        target = self.root / path
        if not target.exists():
            return False
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink()
        return True

    def delete_leftovers(self, *paths: str) -> int:
        """See :meth:`Storage.delete_leftovers`."""
        folder = (self.root / paths[0]).parent
        if not folder.is_dir():
            return 0
        leftovers = leftovers_among((entry.name for entry in folder.iterdir()), paths)
        for leftover in leftovers:
            self.delete(str((folder / leftover).relative_to(self.root)))
        return len(leftovers)

    def url(self, path: str) -> str:
        """See :meth:`Storage.url`."""
        return (self.root / path).absolute().as_uri()
