"""What the forms suggest: defined corpora, models and nets that were seen in the store, defaults from the settings.

Forms are built whenever Airflow parses a Dag, so this never asks the store. Tasks write what they found there into a
Variable of Airflow, because the Dag processor may run on another host than they.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import Settings

VARIABLE = "tinytags_suggestions"
"""A Variable with three lists of names: ``corpora``, ``models`` and ``nets``."""


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
    """Return the names of the corpora that are defined on this host or were seen in the store; lists one folder."""
    settings = settings_or_none()
    files = settings.corpora_folder.glob("*.toml") if settings else ()
    return sorted({*(path.stem for path in files if not path.name.startswith(".")), *_seen().get("corpora", ())})


def model_versions() -> list[str]:
    """Return the models that the last run found in the store."""
    return _seen().get("models", [])


def net_names() -> list[str]:
    """Return what a model may see: the net that ships, the nets that the last run found in the store, and pixels."""
    return ["general32", *_seen().get("nets", ()), "pixels"]


def remember_models(clients: Runtime) -> list[str]:
    """Return the models in the store; save what it has for the suggestions of the forms."""
    from tinytags_tasks.corpus.definitions import known_definitions
    from tinytags_tasks.store import layout

    models = _stored(layout.MODELS, clients)
    corpora = known_definitions(clients.settings.corpora_folder, clients.storage)
    _remember({"corpora": corpora, "models": models, "nets": _stored(layout.NETS, clients)})
    return models


@cache
def _seen() -> dict[str, list[str]]:
    """Return what tasks found in the store. Only the Dag processor asks: no task needs what its form suggests."""
    if "dag-processor" not in sys.argv:
        return {}
    return _variable()


def _variable() -> dict[str, list[str]]:
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

    try:
        found = Variable.get(VARIABLE, default=None, deserialize_json=True)
    except (AirflowException, AirflowRuntimeError, ValueError):  # somebody wrote something else, or nobody answers
        return {}
    return found if isinstance(found, dict) else {}


def _stored(folder: str, clients: Runtime) -> list[str]:
    return [name for name in clients.storage.names(folder) if not name.startswith(".")]


def _remember(found: dict[str, list[str]]) -> None:
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError
    from tinytags_airflow import report

    if _variable() == found:
        return
    try:
        Variable.set(VARIABLE, found, description="what the forms of TinyTags suggest", serialize_json=True)
    except (AirflowException, AirflowRuntimeError) as error:  # the forms just suggest less
        report(f"Airflow's Variable {VARIABLE} cannot be written, so the forms will not suggest what is new: {error}")
