"""A task that has to wait, for an engine or for another writer, is run again later, and uses up no try.

See ``docs/adr/0034-tasks-wait.md``.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tinytags_tasks.errors import WaitError
    from tinytags_tasks.settings import Settings

RECORD = "waiting"
"""Key in Airflow's task state store, which outlives Airflow's processes: what a task waits for, and since when."""

NOTE = "{{ waiting | default('') }}"
"""Ends the name of each mapped task in Airflow's UI."""

PAUSES = (3, 6, 12)
"""How long Airflow pauses, in multiples of the pause in the slot; the last is repeated."""

LEAST_SECONDS = 15.0
"""Airflow pauses at least for this long.

Its supervisor may notice the end of an attempt five seconds late. If the scheduler hears of it only when the next
attempt is due, it takes the task for killed, and counts a try.
"""

_SAME_WAIT = timedelta(hours=1)
"""A task that worked for longer than this since it was to ask again has a new reason to wait."""


def wait(error: WaitError, context: Any, settings: Settings) -> NoReturn:  # noqa: ANN401 - Airflow's context
    """Let Airflow run the task again after a pause, or fail it if it has waited for too long.

    The first pause is spent here: so many tasks that wait for the same engine ask, and start processes, one after the
    other. Then the slot in the pool is free.

    Parameters
    ----------
    error
        Why it has to wait.
    context
        Airflow's context of the task.
    settings
        They say how long it may wait, and how long the first pause is.

    Raises
    ------
    AirflowRescheduleException
        With the time at which it is to be run again.
    AirflowFailException
        If it has waited for too long.
    WaitError
        If tasks may not wait at all: a try is used up.
    """
    from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException
    from tinytags_metrics import count_failure, count_wait

    if settings.wait_hours == 0:
        count_failure(context, error, is_final=False)
        raise error
    records, now = context["task_state_store"], datetime.now(UTC)
    since, asked = _begun(records.get(RECORD), error.awaited, now)
    waiting = f"waiting for {error.awaited} since {since:%H:%M} UTC"
    if now - since >= timedelta(hours=settings.wait_hours):
        records.delete(RECORD)
        count_failure(context, error, is_final=True)
        raise AirflowFailException(
            f"was {waiting} on {since:%Y-%m-%d}, longer than TINYTAGS_WAIT_HOURS={settings.wait_hours:g} allows; once "
            f"it is back, clear the task ({error})"
        ) from error
    pause = settings.wait_pause_seconds
    later = max(LEAST_SECONDS, pause * PAUSES[min(asked, len(PAUSES) - 1)]) * random.uniform(1, 1.2)  # noqa: S311
    until = now + timedelta(seconds=pause + later)
    records.set(
        RECORD,
        {"for": error.awaited, "since": since.isoformat(), "until": until.isoformat(), "asked": asked + 1},
    )
    context["waiting"] = f" ({waiting})"
    count_wait(context, error.awaited)
    logging.getLogger("tinytags").warning("%s, until %s UTC: %s", waiting, f"{until:%H:%M:%S}", error)
    time.sleep(pause)
    raise AirflowRescheduleException(until)


def end_wait(context: Any) -> None:  # noqa: ANN401 - as above
    """Forget that the task has waited."""
    from tinytags_metrics import time_wait

    if context.get("task_reschedule_count"):
        records = context["task_state_store"]
        if waited := records.get(RECORD):
            now = datetime.now(UTC)
            since, _ = _begun(waited, waited["for"], now)
            time_wait(context, now - since, waited["for"])
        records.delete(RECORD)


def _begun(record: Any, awaited: str, now: datetime) -> tuple[datetime, int]:  # noqa: ANN401 - any JSON
    """Return when a wait began, and how often the task has asked since."""
    if not record or record["for"] != awaited or now - datetime.fromisoformat(record["until"]) > _SAME_WAIT:
        return now, 0
    since = datetime.fromisoformat(record["since"])
    return min(since, now), int(record["asked"])  # it is later than now if the clock was set back
