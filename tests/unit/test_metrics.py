"""Metrics go where Airflow's own go, and nowhere if those are off."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from published_runs import age_ledger
from small_run import SolrHere, index_all, make_run, score_all

from tinytags_tasks.errors import EngineDownError, FinalError, TransientError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services import airflow
from tinytags_tasks.services.engine import Context
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage


class Recorder:
    """Takes what would be sent."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def incr(self, stat: str, count: int = 1, rate: float = 1, *, tags: Any = None) -> None:
        self.sent[stat] = self.sent.get(stat, 0) + count

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False, *, tags: Any = None) -> None:
        self.sent[stat] = value

    def timing(self, stat: str, dt: timedelta, *, tags: Any = None) -> None:
        self.sent[stat] = dt


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What is sent while Airflow's metrics are on."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    import tinytags_airflow  # noqa: F401 - what it imports of Airflow would connect, were metrics on already
    from airflow.sdk._shared.observability.metrics import stats as module

    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    recorder = Recorder()
    monkeypatch.setattr(module, "_factory", lambda: recorder)
    monkeypatch.setattr(module, "_backend", None)
    return recorder.sent


def context(try_number: int = 1, **more: Any) -> dict[str, Any]:
    task = SimpleNamespace(dag_id="tinytags", task_id="blocks", try_number=try_number, max_tries=4)
    return {"ti": task, **more}


def test_a_group_counts_its_images_documents_and_blocks(sent: dict[str, Any], storage: LocalStorage) -> None:
    from tinytags_metrics import measured_group

    run = make_run(storage)
    with measured_group(context(), run.name, range(run.blocks), storage):
        score_all(storage, run)
        solr = SolrHere()
        index_all(storage, run, solr)
    documents = len(solr.documents(run.collection))
    assert sent["tinytags.images"] == run.images
    assert sent["tinytags.documents"] == documents > 0
    assert sent["tinytags.images_per_second"] >= sent["tinytags.documents_per_second"] > 0
    assert sent["tinytags.blocks.verified"] == run.blocks


def test_work_of_an_earlier_try_is_not_counted_again(sent: dict[str, Any], storage: LocalStorage) -> None:
    from tinytags_metrics import measured_group

    run = make_run(storage)
    score_all(storage, run)
    index_all(storage, run, SolrHere())
    age_ledger(storage, run)
    with measured_group(context(), run.name, range(run.blocks), storage):
        pass
    assert sent == {"tinytags.blocks.verified": run.blocks}


def test_a_group_that_fails_is_counted_and_its_error_is_not_hidden(sent: dict[str, Any], storage: LocalStorage) -> None:
    from tinytags_metrics import measured_group

    run = make_run(storage)
    with pytest.raises(FinalError, match="the model is gone"), measured_group(context(), run.name, (0,), storage):
        raise FinalError("the model is gone")
    assert sent == {"tinytags.blocks.planned": 1}


def test_metrics_that_cannot_be_sent_fail_no_task(
    sent: dict[str, Any], storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    from tinytags_metrics import measured_group

    with measured_group(context(), "no-such-run", (0,), storage):
        pass
    assert "metrics were not sent (MissingError" in caplog.text


@pytest.mark.parametrize(
    ("error", "try_number", "counted"),
    [
        (TransientError("reset"), 4, "tinytags.retries"),
        (TransientError("reset"), 5, "tinytags.failures"),
        (FinalError("wrong"), 1, "tinytags.failures"),
    ],
)
def test_a_try_that_fails_is_a_retry_unless_it_was_the_last(
    sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception, try_number: int, counted: str
) -> None:
    import tinytags_airflow

    monkeypatch.setattr(tinytags_airflow, "get_current_context", lambda: context(try_number))

    @tinytags_airflow.errors_for_airflow
    def work() -> None:
        raise error

    with pytest.raises(Exception, match=str(error)):
        work()
    assert sent == {counted: 1}


@pytest.mark.parametrize("name", ["AirflowSkipException", "AirflowRescheduleException"])
def test_a_task_that_is_skipped_or_put_off_has_not_failed(
    sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import tinytags_airflow
    from airflow.sdk import exceptions

    told, ended = getattr(exceptions, name)("nobody is asked"), []
    monkeypatch.setattr(tinytags_airflow, "get_current_context", context)
    monkeypatch.setattr(tinytags_airflow, "end_wait", ended.append)

    @tinytags_airflow.errors_for_airflow
    def work() -> None:
        raise told

    with pytest.raises(type(told)) as raised:
        work()
    assert raised.value is told
    assert sent == {}
    assert len(ended) == 1, "what it waited for is there"


def test_waits_are_counted_and_timed(sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import tinytags_waits
    from airflow.sdk.exceptions import AirflowRescheduleException

    monkeypatch.setattr(tinytags_waits.time, "sleep", lambda seconds: None)
    kept: dict[str, Any] = {}
    records = SimpleNamespace(get=kept.get, set=kept.__setitem__, delete=lambda key: kept.pop(key, None))
    waiting = context(task_state_store=records, task_reschedule_count=1)
    with pytest.raises(AirflowRescheduleException):
        tinytags_waits.wait(EngineDownError("no answer", "Solr"), waiting, Settings())
    assert sent == {"tinytags.waits": 1}
    kept["waiting"]["since"] = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    tinytags_waits.end_wait(waiting)
    assert round(sent["tinytags.waited"].total_seconds()) == 180
    assert kept == {}


@pytest.mark.parametrize(
    ("hours", "try_number", "counted"),
    [(6, 1, "tinytags.failures"), (0, 1, "tinytags.retries"), (0, 5, "tinytags.failures")],
)
def test_a_wait_that_is_given_up_is_a_failure_and_one_that_is_not_allowed_a_try(
    sent: dict[str, Any], hours: float, try_number: int, counted: str
) -> None:
    import tinytags_waits

    began = datetime.now(UTC) - timedelta(hours=7)
    kept = {"for": "Solr", "since": began.isoformat(), "until": datetime.now(UTC).isoformat(), "asked": 9}
    records = SimpleNamespace(get=lambda key: kept, delete=lambda key: None)
    with pytest.raises(Exception, match="no answer"):
        tinytags_waits.wait(
            EngineDownError("no answer", "Solr"),
            context(try_number, task_state_store=records),
            Settings(wait_hours=hours),
        )
    assert sent == {counted: 1}


def test_nothing_is_read_or_sent_while_airflows_metrics_are_off(
    sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch, storage: LocalStorage
) -> None:
    from tinytags_metrics import count_wait, measured_group

    monkeypatch.delenv("AIRFLOW__METRICS__OTEL_ON")
    count_wait(context(), "Solr")
    with measured_group(context(), "no-such-run", (0,), storage):
        pass
    assert sent == {}


def test_an_embedded_airflow_takes_over_the_settings_of_metrics_and_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__OTEL_ON", "True")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret")
    monkeypatch.setenv("AIRFLOW__API__HOST", "0.0.0.0")
    told = airflow.command_environment(Context(Settings(home=tmp_path), {}), "triggerer")
    assert told["AIRFLOW__METRICS__OTEL_ON"] == "True"
    assert told["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=secret"
    assert "AIRFLOW__API__HOST" not in told
