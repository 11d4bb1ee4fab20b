"""Corpora whose sources may be looked at for new files, and those that have grown since they were tagged."""

from pathlib import Path

from tinytags_tasks.corpus.definitions import find_definition, known_definitions
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.protocol import Storage


def standing_corpora(corpus: str, folder: Path, storage: Storage) -> list[str]:
    """Return the corpora that are defined and were ingested completely.

    Parameters
    ----------
    corpus
        Only this one; empty means all.
    folder
        This host's definitions; the store may have others.
    storage
        The store.

    Raises
    ------
    BadInputError
        If the named corpus is not defined.
    """
    if corpus:
        find_definition(folder, corpus, storage)
    names = [corpus] if corpus else known_definitions(folder, storage)
    return [name for name in names if storage.exists(layout.corpus_file(name))]


def is_untagged(corpus: str, storage: Storage) -> bool:
    """Return whether a corpus has grown, and no run of it with its last growth has been planned."""
    growth = load_corpus(corpus, storage).growth
    runs = list_runs(storage, on_damage=lambda problem: None)  # a damaged record stops no corpus from growing
    return bool(growth) and all(run.growth != growth for run in runs if run.corpus == corpus)
