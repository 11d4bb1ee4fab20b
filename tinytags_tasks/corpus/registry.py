"""The corpora that are defined: a folder of TOML files, which may be kept in a repository of the user's own."""

import os
from pathlib import Path

from tinytags_tasks import layout
from tinytags_tasks.corpus.definition import CorpusDefinition, definition_toml, read_definition
from tinytags_tasks.errors import BadInputError


def list_definitions(folder: Path) -> list[str]:
    """Return the names of the corpora that are defined, sorted; nothing is read."""
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.glob("*.toml") if not path.name.startswith("."))


def load_definition(folder: Path, name: str) -> CorpusDefinition:
    """Return a corpus' definition.

    Raises
    ------
    BadInputError
        When there is none, or it cannot be used.
    """
    path = folder / f"{layout.checked_name(name, 'corpus')}.toml"
    if not path.exists():
        known = ", ".join(list_definitions(folder)[:20]) or "none"
        raise BadInputError(
            f"{path}: no such corpus is defined (defined are: {known}); define it with "
            f"`tinytags corpus add {name} SOURCE`"
        )
    return read_definition(path)


def save_definition(folder: Path, definition: CorpusDefinition, *, replace: bool = False) -> bool:
    """Write a definition in one step; False when the same one stood already.

    Raises
    ------
    BadInputError
        When another one stands under the name and must not be replaced.
    """
    path = folder / f"{definition.name}.toml"
    if path.exists() and not replace:
        if read_definition(path) == definition:
            return False
        raise BadInputError(
            f"{path}: the corpus is defined otherwise; look with `tinytags corpus show`, or --replace it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(definition_toml(definition))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def remove_definition(folder: Path, name: str) -> bool:
    """Remove a definition; False when there was none."""
    path = folder / f"{layout.checked_name(name, 'corpus')}.toml"
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed
