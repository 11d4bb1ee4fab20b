"""Old records and logs go; what a Dag run that has not ended may need stays."""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from airflow_database import add_dag_run, add_plan, add_task, airflow_database, open_session
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from tinytags_tasks.errors import FinalError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services import processes
from tinytags_tasks.services.engine import engine_folder
from tinytags_tasks.services.log_rotation import cut_grown_logs
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings
from tinytags_tasks.upkeep.old_logs import delete_old_logs

LONG_AGO = datetime.now(UTC) - timedelta(days=90)


@pytest.fixture
def cleaner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    return importlib.import_module("tinytags_database")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("airflow")
    with airflow_database(folder):
        yield folder


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    from airflow.models.base import Base

    with open_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
        session.commit()
        yield session
        session.rollback()


def add_dag(session: Session, dag: str, tag: str) -> None:
    from airflow.models.dag import DagModel, DagTag
    from airflow.models.dagbundle import DagBundleModel

    if session.get(DagBundleModel, "dags") is None:
        session.add(DagBundleModel(name="dags"))
        session.flush()
    session.execute(
        insert(DagModel.__table__).values(
            dag_id=dag,
            bundle_name="dags",
            max_active_tasks=1,
            max_consecutive_failed_dag_runs=0,
            has_task_concurrency_limits=False,
            is_paused=False,
            is_stale=False,
            fail_fast=False,
        )
    )
    session.execute(insert(DagTag.__table__).values(dag_id=dag, name=tag))
    session.commit()


def add_run_of(session: Session, dag: str, dag_run: str, begun: datetime, state: str) -> None:
    """Write a run with a plan, a task and an event, all of one time."""
    from airflow.models.dagrun import DagRun
    from airflow.models.log import Log
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    add_dag_run(session, dag, dag_run)
    add_plan(session, dag, dag_run, [{"run": "photos-1", "blocks": [1]}])
    add_task(session, dag, dag_run, "blocks", state="success")
    session.execute(insert(Log.__table__).values(dag_id=dag, run_id=dag_run, dttm=begun, event="success"))
    times = {"run_after": begun, "start_date": begun, "created_at": begun}
    session.execute(update(DagRun).where(DagRun.run_id == dag_run).values(state=state, **times))
    session.execute(update(TaskInstance).where(TaskInstance.run_id == dag_run).values(start_date=begun))
    session.execute(update(XComModel).where(XComModel.run_id == dag_run).values(timestamp=begun))
    session.commit()


def rows(session: Session) -> dict[str, list[str]]:
    """The runs that each table has rows of."""
    from airflow.models.dagrun import DagRun
    from airflow.models.log import Log
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel

    session.expire_all()
    models = {"runs": DagRun, "tasks": TaskInstance, "results": XComModel, "events": Log}
    return {
        name: sorted(set(session.scalars(select(model.run_id).where(model.run_id.is_not(None)))))
        for name, model in models.items()
    }


def of_all(*runs: str) -> dict[str, list[str]]:
    return {name: list(runs) for name in ("runs", "tasks", "results", "events")}


def test_old_rows_of_our_dags_go_and_those_of_others_stay(cleaner: ModuleType, session: Session) -> None:
    add_dag(session, "tinytags", "tinytags")
    add_dag(session, "payroll", "finance")
    add_run_of(session, "tinytags", "old", LONG_AGO, "success")
    add_run_of(session, "tinytags", "new", datetime.now(UTC) - timedelta(days=1), "success")
    add_run_of(session, "payroll", "others", LONG_AGO, "success")
    (found,) = cleaner.clean(30, session).values()
    assert rows(session) == of_all("new", "others")
    assert (found["rows"], found["held_by"]) == (4, "")  # two tasks, a result and an event
    assert cleaner.clean(30, session)["tinytags"]["rows"] == 0


def test_what_a_run_of_months_needs_is_kept_until_it_has_ended(cleaner: ModuleType, session: Session) -> None:
    from airflow.models.dagrun import DagRun

    add_dag(session, "tinytags", "tinytags")
    add_run_of(session, "tinytags", "older", LONG_AGO - timedelta(days=1), "failed")
    add_run_of(session, "tinytags", "of months", LONG_AGO, "running")
    add_run_of(session, "tinytags", "old", LONG_AGO + timedelta(days=1), "success")
    # Clearing a task gives the run a new start.
    session.execute(update(DagRun).where(DagRun.run_id == "of months").values(start_date=datetime.now(UTC)))
    session.commit()
    found = cleaner.clean(30, session)["tinytags"]
    assert found["held_by"] == "of months"
    assert rows(session) == of_all("of months", "old")
    session.execute(update(DagRun).where(DagRun.run_id == "of months").values(state="success"))
    session.commit()
    cleaner.clean(30, session)
    assert rows(session) == {"runs": ["of months"], "tasks": [], "results": [], "events": []}  # its start is new


def test_a_task_cleans_the_database_in_a_process_that_may_use_it(
    cleaner: ModuleType, session: Session, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_dag(session, "tinytags", "tinytags")
    add_run_of(session, "tinytags", "old", LONG_AGO, "success")
    (tmp_path / "airflow.cfg").write_text(f"[database]\nsql_alchemy_conn = sqlite:///{database}/airflow.db\n")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    said: list[str] = []
    assert list(cleaner.clean_in_process(30, said.append)) == ["tinytags"]
    assert rows(session)["runs"] == []
    assert said[0].startswith("tinytags: deleted 4 rows from before ")


def test_a_database_that_cannot_be_reached_is_no_success(
    cleaner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    with pytest.raises(FinalError, match=r"no Airflow database at sqlite.*airflow db clean"):
        cleaner.clean_in_process(30, print)
    assert not (tmp_path / "airflow.db").exists()


def log_of(path: Path, age_days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a line\n")
    written = time.time() - age_days * 86_400
    for each in (path, *list(path.parents)[:2]):
        os.utime(each, (written, written))
    return path


def test_old_log_files_of_our_dags_go_with_their_folders(tmp_path: Path) -> None:
    old = log_of(tmp_path / "dag_id=tinytags/run_id=old/task_id=plan/attempt=1.log", 40)
    new = log_of(tmp_path / "dag_id=tinytags/run_id=new/task_id=plan/attempt=1.log", 2)
    others = log_of(tmp_path / "dag_id=payroll/run_id=old/task_id=pay/attempt=1.log", 40)
    parsed = log_of(tmp_path / "dag_processor/2026-01-01/dags-folder/tinytags.py.log", 40)
    payroll = log_of(tmp_path / "dag_processor/2026-01-01/dags-folder/payroll.py.log", 40)
    before = (datetime.now(UTC) - timedelta(days=30)).isoformat()
    deleted = delete_old_logs(tmp_path, {"tinytags": before, "tinytags_audit": before})
    assert (deleted.files, deleted.size_bytes) == (2, 14)
    assert [path.exists() for path in (old, new, others, parsed, payroll)] == [False, True, True, False, True]
    assert not (tmp_path / "dag_id=tinytags/run_id=old").exists()


WRITER = """
import pathlib, time
for n in range(1000):
    print(f"line {n:03}", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.02)
print("after", flush=True)
"""


def test_the_log_of_an_engine_is_cut_while_it_writes(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert cut_grown_logs(settings, 8_000) == [], "nothing was ever started"
    folder = engine_folder(settings, "solr")
    record = processes.start(Launch((sys.executable, "-c", WRITER), dict(os.environ)), folder, die_with_parent=True)
    log = processes.log_file(folder)
    wait_for(lambda: log.stat().st_size == 9_000)
    assert cut_grown_logs(settings, 9_000) == []
    assert cut_grown_logs(settings, 8_000) == [log]
    (folder / "go").touch()
    wait_for(lambda: processes.find(record) is None)
    assert log.read_text() == "after\n"
    kept = log.with_suffix(".log.1")
    assert kept.stat().st_size == 4_000
    assert kept.read_text().endswith("line 999\n")
    assert kept.stat().st_mode & 0o077 == 0


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
