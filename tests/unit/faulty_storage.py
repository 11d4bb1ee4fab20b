"""A storage that fails or dies at the n-th call that changes something."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

from tinytags_tasks.errors import TransientError
from tinytags_tasks.store.protocol import Leftover, Storage, temporary_name

Mode = Literal["before", "during", "after"]
Outcome = TypeVar("Outcome")
MODES: tuple[Mode, ...] = ("before", "during", "after")


class Killed(BaseException):
    """The process was killed: nothing may catch this and continue."""


class FaultyStorage:
    """Forwards every call to another storage, and fails at one of the calls that change something.

    Parameters
    ----------
    inner
        The storage that does the work.
    fail_at
        Which write, rename or delete fails, counted from 1; if the number is never reached, nothing fails.
    mode
        Whether the call fails before or after it took effect, or, for a write, in the middle, which leaves half a file
        under a temporary name.
    fault
        The exception to raise; :class:`Killed` stands for a killed process.
    """

    def __init__(
        self, inner: Storage, fail_at: int, mode: Mode = "before", fault: type[BaseException] = TransientError
    ) -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.mode = mode
        self.fault = fault
        self.calls = 0

    def _change(self, what: str, act: Callable[[], Outcome]) -> Outcome:
        self.calls += 1
        fails = self.calls == self.fail_at
        if fails and self.mode != "after":
            if self.mode == "during" and what.startswith("write "):
                self.inner.write(temporary_name(what.removeprefix("write ")), b"half a fi")
            raise self.fault(f"{what}: fault {self.mode} call {self.calls}")
        outcome = act()
        if fails:
            raise self.fault(f"{what}: fault after call {self.calls}")
        return outcome

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        return self._change(f"write {path}", lambda: self.inner.write(path, content, overwrite=overwrite))

    def rename(self, source: str, target: str) -> bool:
        return self._change(f"rename {source}", lambda: self.inner.rename(source, target))

    def delete(self, path: str) -> bool:
        return self._change(f"delete {path}", lambda: self.inner.delete(path))

    def make_folder(self, path: str) -> None:
        self._change(f"make folder {path}", lambda: self.inner.make_folder(path))

    def delete_leftovers(self, *paths: str, least_age_seconds: float = 0.0) -> int:
        return self.inner.delete_leftovers(*paths, least_age_seconds=least_age_seconds)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.read(path, offset, length)

    def exists(self, path: str) -> bool:
        return self.inner.exists(path)

    def size_bytes(self, path: str) -> int:
        return self.inner.size_bytes(path)

    def checksum(self, path: str) -> str:
        return self.inner.checksum(path)

    def known_damage(self, path: str) -> str:
        return self.inner.known_damage(path)

    def free_bytes(self) -> int | None:
        return self.inner.free_bytes()

    def sizes(self, path: str) -> dict[str, int]:
        return self.inner.sizes(path)

    def versions(self, path: str) -> dict[str, str]:
        return self.inner.versions(path)

    def version(self, path: str) -> str:
        return self.inner.version(path)

    def changed_seconds(self, path: str) -> float:
        return self.inner.changed_seconds(path)

    def names(self, path: str) -> list[str]:
        return self.inner.names(path)

    def leftovers(self, path: str) -> list[Leftover]:
        return self.inner.leftovers(path)

    def url(self, path: str) -> str:
        return self.inner.url(path)


def files_under(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, including temporary ones, by its path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
