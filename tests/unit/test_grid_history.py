"""Runs over time, according to an Airflow database."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from airflow_database import NOW, add_dag_run, add_plan, add_result, add_task, airflow_database, open_session
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

TOTALS = {"read": 7_200, "kept": 5_000, "documents": 4_990, "below": 2_200}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A database with a run that was counted, one that is at work, a re-tagging of two corpora, and another Dag's."""
    with airflow_database(tmp_path_factory.mktemp("airflow")):
        from airflow.models.dagrun import DagRun

        session = open_session()
        for dag, dag_run in (
            ("tinytags", "done"),
            ("tinytags_retag", "both"),
            ("tinytags_audit", "audit"),
            ("tinytags", "begun"),
        ):
            add_dag_run(session, dag, dag_run)
            add_plan(session, dag, dag_run, [{"run": "pets-1", "blocks": [0]}])
        ended = {"state": "success", "start_date": NOW, "end_date": NOW + timedelta(hours=1)}
        session.execute(update(DagRun).where(DagRun.run_id.in_(["done", "both"])).values(**ended))
        add_task(session, "tinytags", "done", "blocks", map_index=0, state="success", try_number=3)
        add_task(session, "tinytags", "done", "blocks", map_index=1, state="success", try_number=2)
        add_task(session, "tinytags", "done", "train", state="success")
        add_waits(session, "done", "train", 4)
        add_result(session, "tinytags", "done", "reconcile", {"run": "pets-1", "totals": TOTALS})
        for map_index, run in enumerate(("pets-2", "birds-1")):
            add_result(session, "tinytags_retag", "both", "publish", {"run": run, "totals": TOTALS}, map_index)
        yield session
        session.close()


def add_waits(session: Session, dag_run: str, task: str, count: int) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskreschedule import TaskReschedule

    (id_of_task,) = session.execute(
        select(TaskInstance.id).where(TaskInstance.run_id == dag_run, TaskInstance.task_id == task)
    ).one()
    values = {"ti_id": id_of_task, "start_date": NOW, "end_date": NOW, "duration": 1, "reschedule_date": NOW}
    session.execute(insert(TaskReschedule.__table__).values([values] * count))
    session.commit()


@pytest.fixture
def history(session: Session) -> dict[str, dict]:
    from grid_page.dag_runs import DagRuns
    from grid_page.history import History

    found = History(DagRuns().find_run).read(session)
    assert found["known"] == 3  # an audit tags nothing
    assert [one["dag_run"] for one in found["dag_runs"]] == ["begun", "both", "done"]
    return {one["dag_run"]: one for one in found["dag_runs"]}


def test_a_run_that_ended_says_when_how_long_how_many_and_how_fast(history: dict[str, dict]) -> None:
    done = history["done"]
    assert (done["runs"], done["state"], done["started"]) == (["pets-1"], "success", NOW.isoformat())
    assert (done["seconds"], done["images"], done["kept"], done["documents"]) == (3_600, 7_200, 5_000, 4_990)
    assert (done["images_per_second"], done["retries"], done["waits"]) == (2.0, 3, 4)
    assert done["link"] == "../dags/tinytags/runs/done"


def test_a_dag_run_that_tags_several_corpora_is_one_line(history: dict[str, dict]) -> None:
    assert (history["both"]["runs"], history["both"]["images"]) == (["pets-2", "birds-1"], 14_400)


def test_a_run_at_work_has_a_name_and_no_counts_yet(history: dict[str, dict]) -> None:
    begun = history["begun"]
    assert (begun["runs"], begun["images"], begun["images_per_second"]) == (["pets-1"], None, None)
    assert (begun["retries"], begun["waits"]) == (0, 0)


def test_many_viewers_cause_one_query_and_the_list_has_an_end(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import history

    monkeypatch.setattr(history, "SHOWN", 2)
    shared = history.History(lambda *_: "")
    found = shared.read(session)
    assert (len(found["dag_runs"]), found["known"]) == (2, 3)
    assert shared.read(None) is found  # type: ignore[arg-type]
