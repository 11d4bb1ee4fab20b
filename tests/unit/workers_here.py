"""A session of Spark whose workers are this process."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa


class Session:
    """Runs what executors would run in this process, and records what it is sent.

    Parameters
    ----------
    folder
        Where code that is sent is kept, to be imported from there as executors do; None keeps and imports nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.options, self.sent, self.jobs, self._folder = {}, [], 0, folder
        self.conf = SimpleNamespace(get=self.options.get, set=self.options.__setitem__)

    def range(self, start, end, step, numPartitions):
        return SimpleNamespace(mapInArrow=lambda work, schema: SimpleNamespace(collect=lambda: self._run(work, end)))

    def _run(self, work, rows):
        self.jobs += 1
        batch = pa.RecordBatch.from_pydict({"id": list(range(rows))})
        return [row for found in work(iter([batch])) for row in found.to_pylist()]

    def addArtifacts(self, path, **kind):
        self.sent.append((path, kind))
        if self._folder and kind.get("pyfile"):
            sys.path.insert(0, shutil.copy(path, self._folder))
