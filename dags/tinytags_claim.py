"""One Dag run at a time tags a corpus, and different corpora are tagged side by side.

A Dag run claims its corpus by a file in the store. Nobody has to give it back: a claim counts while Airflow says that
its Dag run is queued or running. Correctness does not rest on it (blocks have leases, and every write is one rename):
it keeps two runs from doing the same work, and tells who is at it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytags_tasks.storage import Storage

DagRun = tuple[str, str]
"""A Dag's id and its run's."""


def claim_corpus(corpus: str, dag_run: DagRun, *, storage: Storage, is_running: Callable[[str, str], bool]) -> None:
    """Let a Dag run be the one that tags a corpus; asking again changes nothing.

    Parameters
    ----------
    corpus
        The corpus' name.
    dag_run
        Who claims it.
    storage
        Where claims are.
    is_running
        Tells whether a Dag run has not ended yet.

    Raises
    ------
    BadInputError
        When another Dag run tags the corpus.
    """
    from tinytags_tasks.errors import BadInputError

    owner = corpus_owner(corpus, storage=storage, is_running=is_running)
    content = json.dumps(dag_run).encode()
    if owner is None:
        storage.delete(_claim_file(corpus))  # of one that has ended
        if not storage.write(_claim_file(corpus), content, overwrite=False):
            owner = corpus_owner(corpus, storage=storage, is_running=is_running)
    if owner not in (None, dag_run):
        raise BadInputError(
            f"corpus {corpus} is being tagged by run {owner[1]} of {owner[0]}: wait until it has ended, or stop it by "
            "marking it failed, then trigger again"
        )


def corpus_owner(corpus: str, *, storage: Storage, is_running: Callable[[str, str], bool]) -> DagRun | None:
    """Return the Dag run that tags a corpus now; None when none does."""
    from tinytags_tasks.errors import MissingError

    try:
        dag, dag_run = json.loads(storage.read(_claim_file(corpus)))
    except MissingError:
        return None
    except ValueError:  # damaged, so nobody's
        return None
    return (dag, dag_run) if is_running(dag, dag_run) else None


def is_running(context: Any) -> Callable[[str, str], bool]:  # noqa: ANN401 - Airflow's context
    """Return what asks Airflow whether a Dag run has not ended yet.

    Parameters
    ----------
    context
        Of the task that asks.
    """

    def ask(dag: str, dag_run: str) -> bool:
        return bool(context["ti"].get_dr_count(dag_id=dag, run_ids=[dag_run], states=["queued", "running"]))

    return ask


def _claim_file(corpus: str) -> str:
    from tinytags_tasks import layout

    return f"{layout.corpus_folder(corpus)}.claim"
