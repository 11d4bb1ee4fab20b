"""Metrics of the pipeline's work, sent wherever Airflow sends its own: StatsD, OpenTelemetry, or nowhere.

Airflow's section ``[metrics]`` decides. A metric that cannot be sent is a warning, and never fails a task.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytags_tasks.store.protocol import Storage

_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")

_log = logging.getLogger("tinytags")


def are_on() -> bool:
    """Return whether Airflow sends metrics at all."""
    from airflow.sdk.configuration import conf

    return any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES)


def count_wait(context: Any, awaited: str) -> None:  # noqa: ANN401 - Airflow's context
    """Count that a task is to be run again later, because it waits: ``tinytags.waits``."""
    with _sending() as stats:
        if stats:
            stats.incr("tinytags.waits", tags={**_tags(context), "for": awaited})


def time_wait(context: Any, waited: timedelta, awaited: str) -> None:  # noqa: ANN401 - as above
    """Say how long a task has waited, once it no longer does: ``tinytags.waited``, in milliseconds."""
    with _sending() as stats:
        if stats:
            stats.timing("tinytags.waited", waited, tags={**_tags(context), "for": awaited})


def count_failure(context: Any, error: Exception, *, is_final: bool) -> None:  # noqa: ANN401 - as above
    """Count a try that failed: ``tinytags.retries`` if there will be another one, and ``tinytags.failures`` if not."""
    with _sending() as stats:
        if stats:
            task = context["ti"]
            is_retried = not is_final and task.try_number <= task.max_tries
            name = "tinytags.retries" if is_retried else "tinytags.failures"
            stats.incr(name, tags={**_tags(context), "error": type(error).__name__})


def count_planned(context: Any, blocks: int) -> None:  # noqa: ANN401 - as above
    """Count the blocks that a Dag run is to do: ``tinytags.blocks.planned``."""
    with _sending() as stats:
        if stats:
            stats.incr("tinytags.blocks.planned", blocks, tags=_tags(context))


@contextmanager
def measured_group(context: Any, run: str, blocks: Sequence[int], storage: Storage) -> Generator[None]:  # noqa: ANN401
    """Count what a group's task did, however it ends.

    That is ``tinytags.images`` scored and ``tinytags.documents`` indexed by it, both also ``_per_second``, and
    ``tinytags.blocks.verified``, ``.failed`` and so on: the states of the group's blocks afterwards.
    """
    began = datetime.now(UTC)
    try:
        yield
    finally:
        with _sending() as stats:
            if stats:
                _send_group(stats, context, run, blocks, storage, began)


def _send_group(
    stats: Any,  # noqa: ANN401 - a module of Airflow's
    context: Any,  # noqa: ANN401 - as above
    run_name: str,
    blocks: Sequence[int],
    storage: Storage,
    began: datetime,
) -> None:
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.ledger import read_ledger
    from tinytags_tasks.store.run_records import Run

    run = Run.load(storage, layout.run_file(run_name))
    records = read_ledger(storage, run, blocks)
    tags = {**_tags(context), "corpus": run.corpus}
    seconds = max((datetime.now(UTC) - began).total_seconds(), 0.001)
    done = {
        "images": sum(record.read for record in records if _is_since(record.scored, began)),
        "documents": sum(record.documents or 0 for record in records if _is_since(record.indexed, began)),
    }
    for what, count in done.items():
        if count:
            stats.incr(f"tinytags.{what}", count, tags=tags)
            stats.gauge(f"tinytags.{what}_per_second", count / seconds, tags=tags)
    for state, count in Counter(record.state.value for record in records).items():
        stats.incr(f"tinytags.blocks.{state}", count, tags=tags)


def _is_since(time: str, began: datetime) -> bool:
    # Records have whole seconds, and workers clocks of their own.
    return bool(time) and datetime.fromisoformat(time) > began - timedelta(seconds=1)


def _tags(context: Any) -> dict[str, str]:  # noqa: ANN401 - as above
    return {"dag_id": context["ti"].dag_id, "task_id": context["ti"].task_id}


@contextmanager
def _sending() -> Generator[Any]:
    """Give what sends metrics, or None if they are off; what goes wrong is a warning."""
    try:
        if not are_on():
            yield None
            return
        from airflow.sdk.observability import stats

        yield stats
    except Exception as error:
        _log.warning("metrics were not sent (%s: %s)", type(error).__name__, error)
