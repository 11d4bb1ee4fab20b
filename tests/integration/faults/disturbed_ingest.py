"""The command line, disturbed at a chosen moment: ``python disturbed_ingest.py MOMENT ARGUMENT...``.

It kills itself, as a power cut would, or waits for another ingestion; the product itself has no such hooks.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from tinytags_tasks.cli import main
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.store.hdfs import HdfsStorage


def die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def at_read(number: int) -> None:
    """Die when the source is read for the n-th time."""
    genuine, reads = SourceFiles.read, iter(range(1, 1_000))

    def read(self: SourceFiles, *arguments: object) -> bytes:
        if next(reads) == number:
            die()
        return genuine(self, *arguments)

    SourceFiles.read = read


def at_chunk(file: str, number: int, act: Callable[[], object]) -> None:
    """Act once a number of chunks of a file have been sent."""
    genuine = HdfsStorage.write

    def write(self: HdfsStorage, path: str, content: Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        def passed() -> Iterator[bytes | memoryview]:
            for count, chunk in enumerate(content):
                if count == number:
                    act()
                yield chunk

        return genuine(self, path, passed() if path.endswith(file) else content, overwrite=overwrite)

    HdfsStorage.write = write


def go_on(_: str) -> None:
    """Do nothing."""


def at_rename(file: str, *, before: Callable[[str], object] = go_on, after: Callable[[str], object] = go_on) -> None:
    """Act before or after a file gets its final name."""
    genuine = HdfsStorage._rename

    def rename(self: HdfsStorage, source: str, target: str, *, overwrite: bool) -> bool:
        if not target.endswith(file):
            return genuine(self, source, target, overwrite=overwrite)
        before(target)
        renamed = genuine(self, source, target, overwrite=overwrite)
        after(target)
        return renamed

    HdfsStorage._rename = rename


def meet(folder: Path, place: str) -> None:
    """Wait until another process is at the same place."""
    (folder / f"{place}-{os.getpid()}").touch()
    while len(list(folder.glob(f"{place}-*"))) < 2:
        time.sleep(0.01)


def beside_another(folder: Path) -> None:
    """Start the first shard, and rename the totals, at the same time as another process; print each shard written."""
    at_chunk(".bin", 0, lambda: meet(folder, "shard"))
    at_rename("corpus.json", before=lambda _: meet(folder, "totals"))
    at_rename(".bin", after=lambda target: print("wrote", target.rpartition("/")[2]))


MOMENTS: dict[str, Callable[[], object]] = {
    "planned, not yet said so": lambda: at_rename("plan.json", before=die),
    "reading": lambda: at_read(9),
    "uploading": lambda: at_chunk("00001.bin", 20, die),
    "before the rename": lambda: at_rename("00001.bin", before=die),
    "after the rename": lambda: at_rename("00001.bin", after=die),
    "after the manifest": lambda: at_rename("00001.json", after=die),
    "before the totals": lambda: at_rename("corpus.json", before=die),
}

if __name__ == "__main__":
    moment = sys.argv.pop(1)
    if moment in MOMENTS:
        MOMENTS[moment]()
    else:
        beside_another(Path(moment))
    main()
