"""What all TinyTags Dags share: the Dag decorator, task defaults, pools, assets, clients and error handling.

Start here to change a Dag. :mod:`tinytags_forms` has the trigger forms, :mod:`tinytags_checks` the checks before any
work starts, :mod:`tinytags_blocks` the mapped task of several Dags, :mod:`tinytags_waits` what a task does that has to
wait, :mod:`tinytags_claim` the rule that one run at a time tags a corpus, :mod:`tinytags_notify` the messages about
failures and successes, :mod:`tinytags_metrics` the metrics, and :mod:`tinytags_policy` how runs share the pools.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow.sdk import Asset, AssetAlias, CronTriggerTimetable, Param, dag, get_current_context
from tinytags_metrics import count_failure
from tinytags_notify import FailureNotifier, connection_or_none
from tinytags_suggestions import settings_or_none
from tinytags_waits import end_wait, wait

from tinytags_tasks import airflow_names
from tinytags_tasks.airflow_names import HDFS, SOLR, SPARK

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime

PRIORITY_OF_SHARDS, PRIORITY_OF_BLOCKS, PRIORITY_OF_OTHERS = 1_000_000, 2_000_000, 3_000_000
"""Work that is closer to publication goes first. Unmapped tasks go before all groups: otherwise a second run would wait
for the last group of the first one. The gaps leave room for the group numbers that ``tinytags_policy`` subtracts.
"""

CORPUS_ASSET, INDEX_ASSET = Asset(airflow_names.CORPUS_ASSET), Asset(airflow_names.INDEX_ASSET)
MODEL_ASSET = Asset(airflow_names.MODEL_ASSET)
GROWN_ASSET = Asset(airflow_names.GROWN_ASSET)
NEW_MODELS = AssetAlias("tinytags_new_models")
NEW_IMAGES = AssetAlias("tinytags_new_images")
NEW_INDEXES = AssetAlias("tinytags_new_indexes")
"""With an alias as its outlet, a task emits an asset event only for something new; with the asset itself, it would emit
one at every success."""

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
"""For every task. Priorities are absolute: Airflow's default rule would prefer the tasks that come first in a Dag."""

SHORT = timedelta(minutes=15)
"""Execution timeout of tasks that only look things up."""

P = ParamSpec("P")
R = TypeVar("R")


def tinytags_dag(
    form: Mapping[str, Param],
    doc: str | None,
    *,
    schedule: Any = None,  # noqa: ANN401 - whatever Airflow takes
    max_active_runs: int = 1,
    starts_unpaused: bool = True,
) -> Callable[[Callable[[], None]], Callable[[], Any]]:
    """Return the decorator of a TinyTags Dag.

    Parameters
    ----------
    form
        The fields of its trigger form.
    doc
        Its documentation in Airflow's UI: the file's docstring.
    schedule
        When it runs by itself.
    max_active_runs
        How many of its runs may be active at the same time.
    starts_unpaused
        Whether a new Dag can be triggered at once. A Dag that may run by itself starts as Airflow's configuration says,
        which is paused by default.
    """
    decorator: Callable[[Callable[[], None]], Callable[[], Any]] = dag(
        schedule=schedule,
        catchup=False,
        max_active_runs=max_active_runs,
        is_paused_upon_creation=False if starts_unpaused else None,
        params=form,
        tags=["tinytags"],
        doc_md=doc,
        default_args=DEFAULTS,
    )
    return decorator


def pool(name: str) -> str:
    """Return the pool for tasks that use an engine.

    Airflow never starts a task whose pool does not exist. So pools are used only if TINYTAGS_POOLS=1 says that they
    exist. `tinytags up` creates them and sets the variable; elsewhere, create them with `airflow pools import`.
    """
    return name if os.environ.get("TINYTAGS_POOLS") == "1" else "default_pool"


def approval_timeout() -> timedelta:
    """Return how long a person may take to approve a publication."""
    settings = settings_or_none()
    return timedelta(hours=settings.approval_hours if settings else 72)


def cron_schedule(variable: str) -> CronTriggerTimetable | None:
    """Return the schedule in an environment variable, in UTC; None, which means no schedule, if it is not set."""
    cron = os.environ.get(variable, "").strip()
    return CronTriggerTimetable(cron, timezone="UTC") if cron else None


def nightly_schedule(variable: str) -> CronTriggerTimetable | None:
    """Return a schedule for every night, in UTC; None if an environment variable is not set, or 0."""
    return (
        CronTriggerTimetable("30 3 * * *", timezone="UTC")
        if os.environ.get(variable, "0").strip() not in ("", "0")
        else None
    )


def errors_for_airflow(work: Callable[P, R]) -> Callable[P, R]:
    """Make a task wait if it has to, and fail at once on an error that no retry can fix; others are retried."""

    @wraps(work)
    def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException

        from tinytags_tasks.errors import FinalError, WaitError
        from tinytags_tasks.settings import load_settings

        context = get_current_context()
        try:
            done = work(*args, **kwargs)
        except WaitError as error:
            wait(error, context, load_settings())
        except (AirflowSkipException, AirflowRescheduleException):
            # Not errors, but how a task tells Airflow what is next.
            end_wait(context)
            raise
        except Exception as error:
            end_wait(context)
            count_failure(context, error, is_final=isinstance(error, FinalError))
            if isinstance(error, FinalError):
                raise AirflowFailException(f"{type(error).__name__}: {error}") from error
            raise
        end_wait(context)
        return done

    return translated


def runtime() -> Runtime:
    """Build the clients from Airflow's connections; the settings supply what these leave out."""
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import load_settings

    settings = load_settings().with_connections(connection_or_none(HDFS), connection_or_none(SOLR))
    if spark := connection_or_none(SPARK):
        # The connection has the token, if Spark asks for one.
        settings = settings.model_copy(update={"spark_url": spark_address(spark), "spark_tokens": None})
    return Runtime(settings)


def spark_address(connection: Any) -> str:  # noqa: ANN401 - Airflow's connection
    """Return the address of a connection to Spark Connect: its extra ``url``, or as Airflow's Spark provider reads it.

    That provider is not needed, because it brings ``pyspark-client``, whose files overwrite those of ``pyspark``.
    """
    from tinytags_tasks.clients.spark_address import SparkAddress

    extra = connection.extra_dejson
    host = (connection.host or "").removeprefix("sc://").rstrip("/")
    address = SparkAddress.parse(
        extra.get("url") or f"sc://{host}" + (f":{connection.port}" if connection.port else "")
    )
    given = {"user_id": connection.login, "token": connection.password, "use_ssl": extra.get("use_ssl")}
    for name, value in given.items():
        address = address.with_default(name, "" if value is None else str(value))
    return str(address)


def report(line: str) -> None:
    """Write one line of progress to the task's log."""
    logging.getLogger("tinytags").info(line)


def describe_asset_event(asset: Any, **figures: Any) -> None:  # noqa: ANN401 - Airflow's asset; any JSON
    """Attach figures to the event that the task emits for one of its outlets."""
    get_current_context()["outlet_events"][asset].extra = figures
