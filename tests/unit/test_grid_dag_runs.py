"""Which of Airflow's tasks work on which blocks, according to an Airflow database."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from airflow_database import NOW, add_dag_run, add_plan, add_task, add_wait, airflow_database, open_session
from sqlalchemy import update
from sqlalchemy.orm import Session

from tinytags_tasks.store.run_records import Run

RUN = Run(
    name="pets-1",
    corpus="pets",
    corpus_digest="",
    model="m",
    threshold=40,
    images=100,
    blocks=20,
    collection="tinytags-pets-1",
    created="",
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A database with a Dag run of the run, one of another run, one that has not planned yet, and a backfill."""
    with airflow_database(tmp_path_factory.mktemp("airflow")):
        session = open_session()
        for dag_run, run in (("first", "pets-1"), ("other", "pets-2"), ("early", "")):
            add_dag_run(session, "tinytags", dag_run)
            if run:
                groups = [{"run": run, "blocks": [0]}, {"run": run, "blocks": (3, 5, 6)}]
                add_plan(session, "tinytags", dag_run, groups)
        add_dag_run(session, "tinytags_backfill", "first", {"run": "pets-1", "blocks": "3", "action": "delete"})
        add_plan(session, "tinytags_backfill", "first", [])
        add_dag_run(session, "tinytags_retag", "both")
        groups = [{"run": "pets-2", "blocks": [3]}, {"run": "pets-1", "blocks": [4]}]
        add_plan(session, "tinytags_retag", "both", groups, task="groups")
        add_task(session, "tinytags", "first", "blocks", map_index=0, state="upstream_failed", try_number=0)
        add_task(session, "tinytags", "first", "blocks", map_index=1)
        add_task(session, "tinytags", "first", "blocks", map_index=7)
        add_task(session, "tinytags", "first", "ingest.shards", map_index=1)
        add_task(session, "tinytags", "first", "publish")
        add_task(session, "tinytags", "other", "blocks", map_index=1)
        for map_index in (0, 1):
            add_task(session, "tinytags_retag", "both", "blocks", map_index=map_index, try_number=2)
        yield session
        session.close()


def test_tasks_that_have_begun_are_found_by_what_their_dag_run_planned(session: Session) -> None:
    from grid_page.dag_runs import DagRuns

    dag_runs = DagRuns()
    for _ in range(2):  # the second time from what is remembered
        found = {(task.dag, task.task): task for task in dag_runs.tasks(RUN, session)}
        assert set(found) == {("tinytags", "blocks"), ("tinytags_retag", "blocks")}
    first = found["tinytags", "blocks"]
    assert (first.blocks, first.map_index, first.state) == ((3, 5, 6), 1, "running")
    assert first.started == NOW.isoformat()
    again = found["tinytags_retag", "blocks"]
    assert (again.blocks, again.attempt) == ((4,), 2)


def test_a_plan_that_was_made_again_is_read_again(session: Session) -> None:
    from airflow.models.xcom import XComModel
    from grid_page.dag_runs import DagRuns

    dag_runs = DagRuns()
    assert dag_runs.find_run("tinytags", "other", session) == "pets-2"
    changed = {"value": [{"run": "pets-3", "blocks": [0]}], "timestamp": NOW + timedelta(seconds=1)}
    session.execute(update(XComModel).where(XComModel.run_id == "other").values(**changed))
    assert dag_runs.find_run("tinytags", "other", session) == "pets-3"
    session.rollback()


def test_plans_of_dag_runs_that_are_no_longer_looked_at_are_forgotten(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import dag_runs

    found = dag_runs.DagRuns()
    assert found.find_run("tinytags", "first", session) == "pets-1"
    assert {task.dag for task in found.tasks(RUN, session)} == {"tinytags", "tinytags_retag"}
    monkeypatch.setattr(dag_runs, "RECENT_DAG_RUNS", 1)
    assert {task.dag for task in found.tasks(RUN, session)} == {"tinytags_retag"}
    assert {dag_run for (_, dag_run), _ in found._planned} == {"both"}


@pytest.mark.parametrize(
    ("dag", "dag_run", "run"),
    [
        ("tinytags", "first", "pets-1"),
        ("tinytags", "early", ""),
        ("tinytags_backfill", "first", "pets-1"),
        ("tinytags_retag", "both", "pets-2"),
        ("another", "first", ""),
        ("tinytags", "' OR 1=1 --", ""),
    ],
)
def test_the_run_of_a_dag_run_is_found(session: Session, dag: str, dag_run: str, run: str) -> None:
    from grid_page.dag_runs import DagRuns

    assert DagRuns().find_run(dag, dag_run, session) == run


def test_links_are_quoted(session: Session) -> None:
    from grid_page.dag_runs import DagRuns, dag_run_link, log_link

    (task,) = [task for task in DagRuns().tasks(RUN, session) if task.dag == "tinytags"]
    assert log_link(task) == "../dags/tinytags/runs/first/tasks/blocks/mapped/1?try_number=1"
    assert dag_run_link("d", "manual__2026-01-01T00:00:00+00:00") == (
        "../dags/d/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00"
    )


def test_what_tasks_of_a_run_wait_for_is_told_with_the_time(session: Session) -> None:
    from grid_page.dag_runs import DagRuns

    add_dag_run(session, "tinytags", "waiting")
    add_plan(session, "tinytags", "waiting", [{"run": "pets-1", "blocks": [block]} for block in range(4)])
    for map_index, (state, minute) in enumerate(
        [("up_for_reschedule", 12), ("up_for_reschedule", 2), ("running", 1), ("success", 0)]
    ):
        since = f"2026-01-02T10:{minute:02}:30+00:00"
        add_task(session, "tinytags", "waiting", "blocks", map_index=map_index, state=state)
        add_wait(session, "tinytags", "waiting", "blocks", "Solr", since, map_index)
    add_task(session, "tinytags", "waiting", "reconcile", state="up_for_reschedule")
    add_wait(session, "tinytags", "waiting", "reconcile", "HDFS", "2026-01-02T11:00:00+00:00")
    assert DagRuns().waits(RUN, session) == [
        "2 of the tasks blocks are waiting for Solr since 10:02 UTC.",
        "The task reconcile is waiting for HDFS since 11:00 UTC.",
    ]
    assert DagRuns().waits(RUN.replaced(name="pets-2"), session) == []
