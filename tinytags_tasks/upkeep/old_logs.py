"""Delete the old log files of Dag runs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_PARSING = "dag_processor"
"""The folder of the logs of reading the Dags' files: a folder a day, and a file for each of these."""


@dataclass
class DeletedLogs:
    """How many files were deleted, and their size."""

    files: int = 0
    size_bytes: int = 0


def delete_old_logs(folder: Path, before: Mapping[str, str], *, report: Callable[[str], None] = print) -> DeletedLogs:
    """Delete the log files of TinyTags' Dags that were last written before a time, and folders left empty.

    Parameters
    ----------
    folder
        Airflow's folder of logs, with a folder ``dag_id=...`` for each Dag.
    before
        For each Dag the time, in ISO format with its offset from UTC.
    report
        Called with one line in the end.
    """
    deleted = DeletedLogs()
    times = {dag: datetime.fromisoformat(time).timestamp() for dag, time in before.items()}
    for dag, time in times.items():
        _delete_below(folder / f"dag_id={dag}", time, "", deleted)
    if times:
        _delete_below(folder / _PARSING, min(times.values()), "tinytags", deleted)
    report(f"deleted {deleted.files:,} log files of {deleted.size_bytes / 1e6:,.1f} MB below {folder}")
    return deleted


def _delete_below(folder: Path, time: float, prefix: str, deleted: DeletedLogs) -> None:
    """Delete a folder's old files whose name begins with the prefix; links are neither followed nor deleted."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        found = entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            _delete_below(Path(entry.path), time, prefix, deleted)
            if found.st_mtime < time:  # a task that begins now would find its new folder gone
                _remove_if_empty(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) and entry.name.startswith(prefix) and found.st_mtime < time:
            Path(entry.path).unlink(missing_ok=True)
            deleted.files += 1
            deleted.size_bytes += found.st_size


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError:
        if not any(folder.iterdir()):
            raise
