"""The defined corpora: a folder of TOML files, which a user may keep in a repository of their own."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinytags_tasks.corpus.definition import CorpusDefinition, definition_toml, read_definition
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.near_names import nearest
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import temporary_name


def list_definitions(folder: Path) -> list[str]:
    """Return the sorted names of the defined corpora; no definition is read.

    Raises
    ------
    BadInputError
        If the folder cannot be read.
    """
    with _translated(folder):
        if not folder.exists():
            return []
        return sorted(
            path.stem for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")
        )


def load_definition(folder: Path, name: str) -> CorpusDefinition:
    """Return a corpus' definition.

    Raises
    ------
    BadInputError
        If there is none, or it is not valid.
    """
    if name not in (names := list_definitions(folder)):
        raise undefined(_path(folder, name), names)
    return read_definition(folder / f"{name}.toml")


def undefined(path: Path, names: Sequence[str], where: str = "") -> BadInputError:
    """Return the error for a corpus that nobody has defined.

    Parameters
    ----------
    path
        The file that its definition would be.
    names
        The defined corpora.
    where
        Where it was looked for besides, for the message.
    """
    meant = f"; did you mean {near[0]}?" if (near := nearest(path.stem, names)) else ""
    return BadInputError(
        f"{path}: no such corpus is defined{where} (defined corpora: {', '.join(names[:20]) or 'none'}){meant}; define "
        f"it with `tinytags corpus add {path.stem} SOURCE`"
    )


def save_definition(folder: Path, definition: CorpusDefinition, *, replace: bool = False) -> bool:
    """Write a definition in one atomic step; return False if the same one existed already.

    Raises
    ------
    BadInputError
        If another definition has this name and must not be replaced, or the folder cannot be written.
    """
    path = _path(folder, definition.name)
    if not replace and definition.name in list_definitions(folder):
        if read_definition(path) == definition:
            return False
        raise BadInputError(
            f"{path}: another definition has this name; see `tinytags corpus show {definition.name}`, or --replace it"
        )
    temporary = path.with_name(temporary_name(path.name))
    with _translated(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(definition_toml(definition), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def remove_definition(folder: Path, name: str) -> bool:
    """Remove a definition; return False if there was none.

    Raises
    ------
    BadInputError
        If it cannot be removed.
    """
    path = _path(folder, name)
    with _translated(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
    return True


def _path(folder: Path, name: str) -> Path:
    return folder / f"{layout.checked_name(name, 'corpus')}.toml"


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be used ({error.strerror or error}); fix it, or set TINYTAGS_CORPORA to another folder"
        ) from error
