"""Which engines should run: ``up`` adds them, ``down`` takes them out, and the keeper starts no others.

Whoever writes holds the lock of the home.
"""

import json
from collections.abc import Collection
from pathlib import Path

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services.engine import engines_folder
from tinytags_tasks.settings import Settings


def read_wanted(settings: Settings) -> list[str]:
    """Return the names of the groups that should run.

    Raises
    ------
    BadInputError
        If the record is damaged.
    """
    path = _file(settings)
    try:
        return [str(name) for name in json.loads(path.read_text())["groups"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is damaged ({error!r}): delete it, and run `tinytags up --keep`") from error


def add_wanted(settings: Settings, groups: Collection[str]) -> None:
    """Record that groups should run."""
    _write(settings, sorted({*read_wanted(settings), *groups}))


def remove_wanted(settings: Settings, groups: Collection[str] | None) -> list[str]:
    """Record that groups, or all, should no longer run; return those that still should."""
    left = [] if groups is None else [name for name in read_wanted(settings) if name not in groups]
    _write(settings, left)
    return left


def _write(settings: Settings, groups: list[str]) -> None:
    make_folder(_file(settings).parent)
    write_atomically(_file(settings), json.dumps({"groups": groups}, indent=2))


def _file(settings: Settings) -> Path:
    return engines_folder(settings) / "wanted.json"
