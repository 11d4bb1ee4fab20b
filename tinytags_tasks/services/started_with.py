"""The environment with which ``up`` started a group of engines: the keeper starts them again with that, not its own.

It holds what configures them, secrets too, in a file that only the user may read.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services.engine import engines_folder
from tinytags_tasks.services.keeper_process import environment
from tinytags_tasks.settings import Settings

Variables = dict[str, str]


def record_environment(settings: Settings, group: str) -> None:
    """Record the environment of this process as the one with which engines of a group are started."""
    make_folder(_file(settings, group).parent)
    write_atomically(_file(settings, group), json.dumps(environment(settings), indent=2))


def recorded_environment(settings: Settings, group: str) -> Variables | None:
    """Return the environment with which ``up`` last started engines of a group; None if there is no record.

    Raises
    ------
    BadInputError
        If the record is damaged.
    """
    path = _file(settings, group)
    try:
        variables = {str(name): str(value) for name, value in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError) as error:  # not shown: it may quote a secret
        raise BadInputError(f"{path} is damaged: `tinytags down {group}` deletes it; then `tinytags up`") from error
    return {**variables, "TINYTAGS_HOME": str(settings.home)}  # it may have been moved


def forget_environment(settings: Settings, group: str) -> None:
    """Delete the record of a group that should no longer run."""
    _file(settings, group).unlink(missing_ok=True)


@contextmanager
def environment_of(variables: Variables | None) -> Iterator[None]:
    """Replace the environment of this process, with all its threads, while the block runs; None leaves it."""
    before = dict(os.environ)
    _set_environment(before if variables is None else variables)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: Variables) -> None:
    for name in [name for name in os.environ if name not in variables]:
        del os.environ[name]
    os.environ.update(variables)


def _file(settings: Settings, group: str) -> Path:
    return engines_folder(settings) / "started_with" / f"{group}.json"
