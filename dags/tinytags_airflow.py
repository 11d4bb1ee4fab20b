"""What all TinyTags Dags share: clients, errors as Airflow understands them, defaults of tasks, pools and assets.

Whoever changes a Dag begins here; :mod:`tinytags_blocks` has the tasks that several Dags have, :mod:`tinytags_claim`
keeps two runs off one corpus, :mod:`tinytags_notify` tells of failures.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.sdk import Asset, AssetAlias, CronTriggerTimetable, Param, get_current_context
from tinytags_notify import FailureNotifier

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import Settings

PRIORITY_OF_SHARDS, PRIORITY_OF_BLOCKS, PRIORITY_OF_OTHERS = 1_000_000, 2_000_000, 3_000_000
"""What is nearer to the reader goes first, and before all groups go the tasks that are one of a run, or a second run
would wait for the last group of the first. The room between is for the groups' numbers, see ADR 16.
"""

SPARK, HDFS, SOLR = "tinytags_spark", "tinytags_hdfs", "tinytags_solr"
"""Connection ids, and the names of the pools that limit how many tasks ask an engine at once."""

CORPUS_ASSET, INDEX_ASSET = Asset("tinytags_corpus"), Asset("tinytags_index")
MODEL_ASSET = Asset("tinytags_model")
NEW_MODELS = AssetAlias("tinytags_new_models")
NEW_INDEXES = AssetAlias("tinytags_new_indexes")
"""By these a task tells of an asset only when it is new: an outlet of its own would tell of every success."""

DEFAULTS: dict[str, Any] = {
    "owner": "tinytags",
    "retries": 4,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=6),
    "weight_rule": "absolute",
    "priority_weight": PRIORITY_OF_OTHERS,
    "on_failure_callback": FailureNotifier(),
}
"""Of every task. Priorities are absolute: by Airflow's own rule whatever comes first would be preferred."""

SHORT = timedelta(minutes=15)
"""The execution time-out of tasks that look, and do not work through blocks."""

BLOCKS_PATTERN = r"^\s*(\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*)?\s*$"

_NAME = "[a-z0-9][a-z0-9_-]{0,99}"
NAME_PATTERN, NAME_OR_EMPTY_PATTERN = f"^{_NAME}$", f"^({_NAME})?$"
"""Of a corpus or a run."""

P = ParamSpec("P")
R = TypeVar("R")


def pool(name: str) -> str:
    """Return the pool of an engine's tasks.

    Airflow never starts a task whose pool is not there, so pools count only where TINYTAGS_POOLS=1 says that they were
    made: `tinytags up` does both; elsewhere, `airflow pools set` or `airflow pools import`.
    """
    return name if os.environ.get("TINYTAGS_POOLS") == "1" else "default_pool"


def cron_schedule(variable: str) -> CronTriggerTimetable | None:
    """Return the schedule that a variable of the environment holds, in UTC; None, which is no schedule, without it."""
    cron = os.environ.get(variable, "").strip()
    return CronTriggerTimetable(cron, timezone="UTC") if cron else None


def is_on(variable: str) -> bool:
    """Tell whether a variable of the environment says yes."""
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def errors_for_airflow(work: Callable[P, R]) -> Callable[P, R]:
    """Let a task that no retry can help fail at once; anything else is retried as the Dag says."""

    @wraps(work)
    def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        from airflow.sdk.exceptions import AirflowFailException

        from tinytags_tasks.errors import FinalError

        try:
            return work(*args, **kwargs)
        except FinalError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error

    return translated


def settings_or_none() -> Settings | None:
    """Return the settings; None when they cannot be used: the tasks will say it, the Dag must stay readable."""
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.settings import load_settings

    try:
        return load_settings()
    except BadInputError:
        return None


def corpus_names() -> list[str]:
    """Return the names of the defined corpora, for the form to propose; one folder is listed."""
    settings = settings_or_none()
    if settings is None:
        return []
    return sorted(path.stem for path in settings.corpora_folder.glob("*.toml") if not path.name.startswith("."))


def model_versions() -> list[str]:
    """Return the models that the last run saw in the store, for the form to propose; one small file is read."""
    settings = settings_or_none()
    try:
        return (settings.home / _MODELS_SEEN).read_text().split() if settings else []
    except OSError:
        return []


_MODELS_SEEN = "models-seen.txt"


def remember_models(clients: Runtime) -> list[str]:
    """Return the models in the store, and keep their names where :func:`model_versions` looks."""
    from tinytags_tasks import layout
    from tinytags_tasks.services.files import write_atomically

    versions = [name for name in clients.storage.names(layout.MODELS) if not name.startswith(".")]
    path = clients.settings.home / _MODELS_SEEN
    try:
        write_atomically(path, "\n".join(versions))
    except OSError as error:  # the form proposes less, no more
        report(f"{path} cannot be written, so the form will not propose models: {error}")
    return versions


def alias_param(section: str) -> Param:
    """Return the form's field for what readers search."""
    settings = settings_or_none()
    return Param(
        settings.alias if settings else "tinytags",
        type="string",
        pattern="^[a-z0-9_-]+$",
        title="Alias",
        section=section,
        description="What readers search",
    )


def gate_params(documents: float | None = None) -> dict[str, Param]:
    """Return the form's fields for what a run must reach to be published."""
    return {
        "gate_documents": Param(
            documents,
            type=["null", "number"],
            minimum=0,
            title="Least documents",
            section="Publishing",
            description="Of the gate: in percent of the documents that are live now; fewer are not published",
        ),
        "gate_precision": Param(
            None,
            type=["null", "number"],
            minimum=0,
            maximum=100,
            title="Least precision",
            section="Publishing",
            description="Of the gate: in percent, at the threshold, as the model's card tells; less is not published",
        ),
    }


def text_param(title: str, description: str, **schema: Any) -> Param:  # noqa: ANN401 - JSON Schema's words
    """Return a field of the form that may stay empty: Airflow's form insists on a text that may not be null."""
    return Param(None, type=["null", "string"], title=title, description=description, **schema)


def form() -> dict[str, Any]:
    """Return what the form holds; a text that was left empty, of which Airflow makes null, as an empty one."""
    context = get_current_context()
    fields = context["dag"].params
    return {
        name: "" if value is None and "string" in fields.get_param(name).schema["type"] else value
        for name, value in context["params"].items()
    }


def run_param(description: str) -> Param:
    """Return the form's field for a run's name, which may be empty."""
    return text_param("Run", description, pattern=NAME_OR_EMPTY_PATTERN)


def trial_blocks_param() -> Param:
    """Return the form's field for the blocks of a trial."""
    return text_param(
        "Only blocks",
        pattern=BLOCKS_PATTERN,
        section="Run",
        description="Numbers and ranges, such as 3, 17-20, make a trial, which is never published; empty: all blocks",
    )


def blocks_per_task_param(blocks: int) -> Param:
    """Return the form's field for how many blocks a mapped task takes."""
    return Param(
        blocks,
        type="integer",
        minimum=0,
        title="Blocks a task",
        section="Run",
        description="Blocks that one mapped task scores and indexes; 0: as many as make at most 400 tasks",
    )


def runtime() -> Runtime:
    """Build the clients from Airflow's connections; what these leave open, the settings say."""
    from airflow.providers.apache.spark.hooks.spark_connect import SparkConnectHook
    from airflow.sdk import BaseHook

    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import load_settings

    settings = load_settings().with_connections(BaseHook.get_connection(HDFS), BaseHook.get_connection(SOLR))
    return Runtime(
        settings.model_copy(
            update={
                "spark_url": SparkConnectHook(SPARK).get_connection_url().rstrip("/;"),
                "spark_tokens": None,  # the connection has the token, where one is asked for
            }
        )
    )


def refuse_unreachable(clients: Runtime) -> None:
    """Ask HDFS, Solr and Spark whether they are there.

    Raises
    ------
    EngineDownError
        When one does not answer.
    """
    from tinytags_tasks import layout
    from tinytags_tasks.errors import EngineDownError
    from tinytags_tasks.services.spark import spark_unready

    clients.storage.names(layout.RUNS)
    clients.solr.aliases()
    if problem := spark_unready(clients.settings.address("spark_url")):
        raise EngineDownError(
            f"{problem}; see `tinytags status`, start it with `tinytags up`, or mend Airflow's connection {SPARK}"
        )


def report(line: str) -> None:
    """Write one line of a step's progress to the task's log."""
    logging.getLogger("tinytags").info(line)
