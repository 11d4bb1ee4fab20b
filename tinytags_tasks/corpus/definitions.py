"""The definitions that every host knows: those of its own folder, and those in the store.

A person writes a definition into the folder of one host. The store has a copy of each, so that Airflow's workers on
other hosts, which have no such file, find it. A host's own file counts before the store's copy.
"""

import tomllib
from pathlib import Path
from typing import Self

from tinytags_tasks.corpus.definition import CorpusDefinition, definition_toml, make_definition
from tinytags_tasks.corpus.registry import (
    list_definitions,
    load_definition,
    remove_definition,
    save_definition,
    undefined,
)
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record


class StoredDefinition(Record):
    """The store's copy of a definition: its TOML, whose paths are absolute."""

    toml: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes it again from a host's own file."""
        name = layout.path_name(path).removesuffix(".json")
        return f"write it again with `tinytags corpus show {name}` where its file is, or `tinytags corpus add {name}`"

    @classmethod
    def of(cls, definition: CorpusDefinition) -> Self:
        """Return what the store keeps of a definition."""
        return cls(toml=definition_toml(definition))


def known_definitions(folder: Path, storage: Storage) -> list[str]:
    """Return the sorted names of the corpora that this host or the store defines."""
    stored = {
        Path(name).stem for name in storage.names(layout.DEFINITIONS) if name.endswith(".json") and name[0] != "."
    }
    return sorted({*list_definitions(folder), *stored})


def find_definition(folder: Path, name: str, storage: Storage, *, renew: bool = False) -> CorpusDefinition:
    """Return a corpus' definition: of this host, or else of the store.

    Parameters
    ----------
    folder, name, storage
        The host's folder of definitions, the corpus, and the store.
    renew
        Whether the store's copy of this host's definition becomes the same; otherwise it is only written if there is
        none, because a worker's host may have an old file.

    Raises
    ------
    BadInputError
        If neither has it, or it is not valid.
    """
    if name in list_definitions(folder):
        definition = load_definition(folder, name)
        if renew or not storage.exists(layout.definition_file(name)):
            share_definition(definition, storage)
        return definition
    try:
        stored = StoredDefinition.load(storage, layout.definition_file(name))
    except MissingError as error:
        where = ", neither here nor in the store"
        raise undefined(folder / f"{name}.toml", known_definitions(folder, storage), where) from error
    return make_definition(name, tomllib.loads(stored.toml), where=f"{name}.toml in the store")


def add_definition(folder: Path, definition: CorpusDefinition, storage: Storage, *, replace: bool = False) -> bool:
    """Write a definition into this host's folder and the store; return False if the same one existed already.

    Raises
    ------
    BadInputError
        If another definition has this name and must not be replaced, or the folder cannot be written.
    """
    name = definition.name
    if not replace and name not in list_definitions(folder) and storage.exists(layout.definition_file(name)):
        stored = find_definition(folder, name, storage)
        if stored != definition:
            raise BadInputError(
                f"corpus {name}: another definition has this name in the store; see `tinytags corpus show {name}`, or "
                "--replace it"
            )
    saved = save_definition(folder, definition, replace=replace)
    share_definition(definition, storage)
    return saved


def share_definition(definition: CorpusDefinition, storage: Storage) -> None:
    """Make the store's copy of a definition the same as this one, in one atomic step."""
    wanted, path = StoredDefinition.of(definition), layout.definition_file(definition.name)
    if not (storage.exists(path) and storage.read(path) == wanted.stored()):
        wanted.save(storage, path)


def share_definitions(folder: Path, storage: Storage) -> None:
    """Give the store every usable definition of this host, as far as it has another one or none."""
    for name in list_definitions(folder):
        try:
            definition = load_definition(folder, name)
        except BadInputError:  # whoever uses it gets the error
            continue
        share_definition(definition, storage)


def forget_definition(folder: Path, name: str, storage: Storage) -> bool:
    """Remove a definition from this host and the store; return False if neither had it.

    The store's copy goes last: a removal that was killed is ended by the same command.
    """
    removed = remove_definition(folder, name)
    stored = storage.exists(layout.definition_file(name))
    if stored:
        storage.delete(layout.definition_file(name))
    return removed or stored
