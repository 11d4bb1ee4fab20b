"""One Dag run at a time tags a corpus, and different corpora are tagged side by side.

A Dag run claims its corpus by a record in the store, under the number after the last claim's, which only one of those
who try can write. Nobody has to give a claim back: it counts while Airflow says that its Dag run is queued or running.
Correctness does not rest on it (blocks have leases, and every write is one rename): it keeps two runs from doing the
same work, and tells who is at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytags_tasks.storage import Storage

DagRun = tuple[str, str]
"""A Dag's id and its run's."""

_KEPT = 10
"""Claims that stay to be read by people: the list has an end."""


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
    from tinytags_tasks import layout
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.records import Claim

    while True:
        number, owner = _last_claim(corpus, storage)
        if owner == dag_run:
            return
        if owner and is_running(*owner):
            raise BadInputError(
                f"corpus {corpus} is being tagged by run {owner[1]} of {owner[0]}: wait until it has ended, or stop it "
                "by marking it failed, then trigger again"
            )
        ours = Claim(dag=dag_run[0], dag_run=dag_run[1])
        if ours.save(storage, layout.claim_file(corpus, number + 1), overwrite=False):
            storage.delete(layout.claim_file(corpus, number + 1 - _KEPT))
            return


def corpus_owner(corpus: str, *, storage: Storage, is_running: Callable[[str, str], bool]) -> DagRun | None:
    """Return the Dag run that tags a corpus now; None when none does."""
    owner = _last_claim(corpus, storage)[1]
    return owner if owner and is_running(*owner) else None


def _last_claim(corpus: str, storage: Storage) -> tuple[int, DagRun | None]:
    """Return the number of the last claim, 0 without any, and whose it is; a damaged one is nobody's."""
    from functools import partial

    from tinytags_tasks import layout
    from tinytags_tasks.errors import CorruptError
    from tinytags_tasks.numbered import record_numbers
    from tinytags_tasks.records import Claim

    number = max(record_numbers(partial(layout.claim_file, corpus), storage), default=0)
    if not number:
        return 0, None
    try:
        claim = Claim.load(storage, layout.claim_file(corpus, number))
    except CorruptError:
        return number, None
    return number, (claim.dag, claim.dag_run)


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
