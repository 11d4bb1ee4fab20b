"""An empty Airflow metadata database for one test module, and users of its simple auth manager."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session

from tinytags_tasks.parts import PROJECT_ROOT

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@contextmanager
def airflow_database(folder: Path) -> Iterator[None]:
    """Make Airflow use a database in a folder, and find the plugins' modules as its API server does."""
    from airflow import models, settings
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.models.base import Base

    before = settings.SQL_ALCHEMY_CONN, settings.SQL_ALCHEMY_CONN_ASYNC
    path = f"{folder}/airflow.db"
    settings.SQL_ALCHEMY_CONN, settings.SQL_ALCHEMY_CONN_ASYNC = f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}"
    settings.configure_orm()
    models.import_all_models()
    Base.metadata.create_all(settings.engine)
    create_auth_manager()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(PROJECT_ROOT / "plugins"))
            patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "no secret, but as long as the hash asks: " + "x" * 32)
            yield
    finally:
        settings.dispose_orm()
        settings.SQL_ALCHEMY_CONN, settings.SQL_ALCHEMY_CONN_ASYNC = before
        settings.configure_orm()


def open_session() -> Session:
    """Return an Airflow database session."""
    from airflow import settings

    return settings.Session()


def token(role: str | None) -> str:
    """Return the credentials of a user with a role; None has no permissions at all."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=f"a {role}", role=role))


def add_dag_run(session: Session, dag: str, dag_run: str, conf: dict | None = None) -> None:
    """Write a Dag run, as the scheduler does."""
    from airflow.models.dagrun import DagRun

    session.execute(
        insert(DagRun).values(
            dag_id=dag, run_id=dag_run, run_type="manual", state="running", conf=conf or {}, run_after=NOW
        )
    )
    session.commit()


def add_task(session: Session, dag: str, dag_run: str, task: str, **values: object) -> None:
    """Write a task instance, as the scheduler does."""
    from airflow.models.taskinstance import TaskInstance, uuid7

    known = {"map_index": -1, "state": "running", "try_number": 1, "start_date": NOW, "pool": "default_pool"}
    known |= {"pool_slots": 1, "max_tries": 0, "id": uuid7()}
    session.execute(insert(TaskInstance.__table__).values(dag_id=dag, run_id=dag_run, task_id=task, **(known | values)))
    session.commit()


def number_of(session: Session, dag: str, dag_run: str) -> int | None:
    """Return the number of a Dag run in the database."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    return session.scalar(select(DagRun.id).where(DagRun.dag_id == dag, DagRun.run_id == dag_run))


def add_wait(
    session: Session, dag: str, dag_run: str, task: str, awaited: str, since: str, map_index: int = -1
) -> None:
    """Record what a task waits for, as the task does."""
    from airflow.models.task_state_store import TaskStateStoreModel

    number = number_of(session, dag, dag_run)
    record = {"for": awaited, "since": since, "until": since, "asked": 1}
    session.execute(
        insert(TaskStateStoreModel).values(
            dag_id=dag,
            run_id=dag_run,
            dag_run_id=number,
            task_id=task,
            map_index=map_index,
            key="waiting",
            value=json.dumps(record),
            updated_at=NOW,
        )
    )
    session.commit()


def add_plan(session: Session, dag: str, dag_run: str, groups: list[dict], task: str = "plan") -> None:
    """Record which groups of blocks a Dag run planned."""
    add_result(session, dag, dag_run, task, groups)


def add_result(session: Session, dag: str, dag_run: str, task: str, result: object, map_index: int = -1) -> None:
    """Write a task instance that has succeeded, and what it returned."""
    from airflow.models.xcom import XComModel
    from airflow.sdk.bases.xcom import BaseXCom

    add_task(session, dag, dag_run, task, map_index=map_index, state="success")
    number = number_of(session, dag, dag_run)
    session.execute(
        insert(XComModel).values(
            dag_id=dag,
            run_id=dag_run,
            dag_run_id=number,
            task_id=task,
            map_index=map_index,
            key="return_value",
            value=BaseXCom.serialize_value(result),
            timestamp=NOW,
        )
    )
    session.commit()
