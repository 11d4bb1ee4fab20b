"""What the forms suggest: defined corpora, models and nets that were seen in the store, defaults from the settings.

Forms are built whenever Airflow parses a Dag, so this reads local files only, and never the store.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import Settings

_MODELS_SEEN, _NETS_SEEN = "models-seen.txt", "nets-seen.txt"


@cache
def settings_or_none() -> Settings | None:
    """Return the settings, read once per process; None if they are invalid: tasks say so, and Dags must still parse."""
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.settings import load_settings

    try:
        return load_settings()
    except BadInputError:
        return None


def corpus_names() -> list[str]:
    """Return the names of the defined corpora; lists one folder."""
    settings = settings_or_none()
    if settings is None:
        return []
    return sorted(path.stem for path in settings.corpora_folder.glob("*.toml") if not path.name.startswith("."))


def model_versions() -> list[str]:
    """Return the models that the last run found in the store; reads one small file."""
    return _seen(_MODELS_SEEN)


def net_names() -> list[str]:
    """Return what a model may see: the net that ships, the nets that the last run found in the store, and pixels."""
    return ["general32", *_seen(_NETS_SEEN), "pixels"]


def remember_models(clients: Runtime) -> list[str]:
    """Return the models in the store; save their versions, and the nets', for the suggestions of the forms."""
    from tinytags_tasks.store import layout

    _remember(_NETS_SEEN, _stored(layout.NETS, clients), clients)
    versions = _stored(layout.MODELS, clients)
    _remember(_MODELS_SEEN, versions, clients)
    return versions


def _seen(file: str) -> list[str]:
    settings = settings_or_none()
    try:
        return (settings.home / file).read_text().split() if settings else []
    except OSError:
        return []


def _stored(folder: str, clients: Runtime) -> list[str]:
    return [name for name in clients.storage.names(folder) if not name.startswith(".")]


def _remember(file: str, versions: list[str], clients: Runtime) -> None:
    from tinytags_airflow import report

    from tinytags_tasks.private_files import write_atomically

    path = clients.settings.home / file
    try:
        write_atomically(path, "\n".join(versions))
    except OSError as error:  # the form just has no suggestions
        report(f"{path} cannot be written, so the form will not suggest what it lists: {error}")
