"""Keeps the logs of engines' standard output bounded while they run; the engines' own logs rotate by Log4j."""

import shutil
from pathlib import Path

from tinytags_tasks.services.engine import engines_folder
from tinytags_tasks.services.processes import log_file
from tinytags_tasks.settings import Settings

MOST_BYTES = 32 * 2**20
"""The size from which a log is cut. Its last half is kept beside it."""


def cut_grown_logs(settings: Settings, most_bytes: int = MOST_BYTES) -> list[Path]:
    """Cut the logs of engines that have grown too large; return which.

    An engine keeps its log open, so the file is copied and emptied. Lines written in between are lost.

    Parameters
    ----------
    settings
        The settings, with the engines' home.
    most_bytes
        How large a log may be.
    """
    engines = engines_folder(settings)
    logs = [log_file(folder) for folder in engines.iterdir() if folder.is_dir()] if engines.exists() else []
    return [log for log in logs if _cut(log, most_bytes)]


def _cut(log: Path, most_bytes: int) -> bool:
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return False
    if size <= most_bytes:
        return False
    kept, partial = log.with_suffix(".log.1"), log.with_suffix(".log.partial")
    with log.open("r+b") as grown:
        grown.seek(size - most_bytes // 2)
        try:
            with partial.open("wb") as copy:
                partial.chmod(0o600)
                shutil.copyfileobj(grown, copy)
            partial.replace(kept)
        except OSError:  # the disk is full
            partial.unlink(missing_ok=True)
            raise
        grown.truncate(0)
    return True
