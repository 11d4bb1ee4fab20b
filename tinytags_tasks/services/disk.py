"""Whether the disk of the engines' home has room."""

import shutil
from pathlib import Path

FULL_BYTES = 200_000_000
"""With less, engines break: a NameNode stops writing at 100 MB, SQLite and Solr at the next write."""

LOW_BYTES = 2_000_000_000
"""With less, it is time to make room: a shard and Solr's merges need this much for a moment."""


def disk_is_full(home: Path) -> str | None:
    """Return that the disk is full, with its path and what is free; None if it has room."""
    free = _free_bytes(home)
    return None if free >= FULL_BYTES else f"the disk is full: {home} has {free / 1e6:,.0f} MB free. Make room"


def disk_is_low(home: Path) -> str | None:
    """Return that the disk is full or will be soon, with its path and what is free; None if it has room."""
    free = _free_bytes(home)
    if free >= LOW_BYTES:
        return None
    return disk_is_full(home) or f"the disk is almost full: {home} has {free / 1e6:,.0f} MB free. Make room"


def _free_bytes(home: Path) -> int:
    existing = next(path for path in (home, *home.parents) if path.exists())
    return shutil.disk_usage(existing).free
