"""Tasks wait for an engine that is away, without using up tries."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dag_context
import pytest

from tinytags_tasks.errors import (
    EngineDownError,
    OtherWriterError,
    TransientError,
)

dags_folder, context = dag_context.dags_folder, dag_context.context


SOLR_AWAY = EngineDownError("Solr does not answer", "Solr")


@pytest.fixture
def tried(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a task's work once, some minutes after ten; return what Airflow is told, and what the task is named then."""
    import tinytags_waits
    from tinytags_airflow import errors_for_airflow

    monkeypatch.setattr(tinytags_waits.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("TINYTAGS_WAIT_PAUSE_SECONDS", raising=False)  # integration tests have their own

    def run(minutes: float, error: Exception | None) -> tuple[BaseException | None, str]:
        context.pop("waiting", None)
        monkeypatch.setattr(tinytags_waits, "datetime", clock_at(TEN + timedelta(minutes=minutes)))

        def work() -> None:
            if error:
                raise error

        try:
            errors_for_airflow(work)()
        except Exception as told:
            context["task_reschedule_count"] = context.get("task_reschedule_count", 0) + 1
            return told, context.get("waiting", "")
        return None, context.get("waiting", "")

    return run


TEN = datetime(2026, 1, 2, 10, 0, tzinfo=UTC)


def clock_at(at: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return at

    return Clock


def test_a_task_waits_for_an_engine_with_growing_pauses_and_says_since_when(tried: Callable[..., Any]) -> None:
    from airflow.sdk.exceptions import AirflowRescheduleException

    pauses, minutes = [], 2.0
    for _ in range(8):
        told, name = tried(minutes, SOLR_AWAY)
        assert isinstance(told, AirflowRescheduleException)
        assert name == " (waiting for Solr since 10:02 UTC)"
        pauses.append((told.reschedule_date - TEN).total_seconds() - minutes * 60)
        minutes += pauses[-1] / 60
    assert [round(pause / 10) for pause in pauses[:2]] in ([4, 7], [4, 8], [5, 7], [5, 8])
    assert all(130 <= pause <= 154 for pause in pauses[2:])
    assert tried(minutes, None) == (None, "")
    assert tried(minutes + 1, SOLR_AWAY)[1] == f" (waiting for Solr since 10:{int(minutes) + 1:02} UTC)"


def test_what_a_task_waits_for_is_not_counted_together_with_another_engine(tried: Callable[..., Any]) -> None:
    tried(0, SOLR_AWAY)
    assert tried(1, EngineDownError("safe mode", "HDFS"))[1] == " (waiting for HDFS since 10:01 UTC)"
    assert tried(2, OtherWriterError("block 3"))[1] == " (waiting for another writer since 10:02 UTC)"


def test_a_task_that_worked_for_hours_in_between_waits_anew(tried: Callable[..., Any]) -> None:
    tried(0, SOLR_AWAY)
    assert tried(240, SOLR_AWAY)[1] == " (waiting for Solr since 14:00 UTC)"


def test_a_wait_ends_after_the_hours_of_the_setting_and_after_clearing_the_task_it_begins_anew(
    tried: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv("TINYTAGS_WAIT_HOURS", "0.5")
    tried(0, SOLR_AWAY)
    tried(25, SOLR_AWAY)
    told, name = tried(31, SOLR_AWAY)
    assert isinstance(told, AirflowFailException)
    assert str(told) == (
        "was waiting for Solr since 10:00 UTC on 2026-01-02, longer than TINYTAGS_WAIT_HOURS=0.5 allows; once it is "
        "back, clear the task (Solr does not answer)"
    )
    assert name == ""
    assert tried(32, SOLR_AWAY)[1] == " (waiting for Solr since 10:32 UTC)"


def test_without_hours_to_wait_an_engine_that_is_away_uses_up_tries(
    tried: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYTAGS_WAIT_HOURS", "0")
    assert tried(0, SOLR_AWAY) == (SOLR_AWAY, "")


def test_a_clock_that_is_set_back_does_not_prolong_a_wait(
    tried: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv("TINYTAGS_WAIT_HOURS", "0.5")
    tried(0, SOLR_AWAY)
    assert tried(-60, SOLR_AWAY)[1] == " (waiting for Solr since 09:00 UTC)"
    assert isinstance(tried(-29, SOLR_AWAY)[0], AirflowFailException)


def test_a_failure_that_counts_ends_a_wait(tried: Callable[..., Any]) -> None:
    tried(0, SOLR_AWAY)
    tried(1, TransientError("a worker was killed"))
    assert tried(2, SOLR_AWAY)[1] == " (waiting for Solr since 10:02 UTC)"
