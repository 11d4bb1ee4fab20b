"""Only one Dag run at a time tags a corpus; different corpora are tagged at the same time.

A Dag run claims its corpus with a record in the store, numbered one higher than the last claim. Only one of several
Dag runs that try can write it. Claims need no release: one counts as long as Airflow says that its Dag run is queued or
running. Correctness does not depend on claims: blocks have leases, and every write is one rename. Claims prevent two
runs from doing the same work, and tell which one is doing it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytags_tasks.storage import Storage

DagRun = tuple[str, str]
"""The id of a Dag, and that of its run."""

_KEPT = 10
"""How many claims of a corpus are kept, for people to read."""


def claim_corpus(corpus: str, dag_run: DagRun, *, storage: Storage, is_running: Callable[[str, str], bool]) -> None:
    """Make a Dag run the one that tags a corpus; claiming it again changes nothing.

    Parameters
    ----------
    corpus
        Name of the corpus.
    dag_run
        The Dag run that claims it.
    storage
        Where claims are kept.
    is_running
        Returns whether a Dag run is queued or running.

    Raises
    ------
    BadInputError
        If another Dag run is tagging the corpus.
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
                f"corpus {corpus} is being tagged by run {owner[1]} of {owner[0]}: wait until it has ended, or mark it "
                "failed to stop it, then trigger again"
            )
        ours = Claim(dag=dag_run[0], dag_run=dag_run[1])
        if ours.save(storage, layout.claim_file(corpus, number + 1), overwrite=False):
            storage.delete(layout.claim_file(corpus, number + 1 - _KEPT))
            return


def corpus_owner(corpus: str, *, storage: Storage, is_running: Callable[[str, str], bool]) -> DagRun | None:
    """Return the Dag run that is tagging a corpus; None if none is."""
    owner = _last_claim(corpus, storage)[1]
    return owner if owner and is_running(*owner) else None


def _last_claim(corpus: str, storage: Storage) -> tuple[int, DagRun | None]:
    """Return the number of the last claim (0 if there is none) and its owner (None if it is damaged)."""
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
    """Return a function that asks Airflow whether a Dag run is queued or running.

    Parameters
    ----------
    context
        Airflow's context of the task that asks.
    """

    def ask(dag: str, dag_run: str) -> bool:
        return bool(context["ti"].get_dr_count(dag_id=dag, run_ids=[dag_run], states=["queued", "running"]))

    return ask
