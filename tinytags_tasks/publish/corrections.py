"""People's words and what is live: words are applied to the run that readers see, also while it changes.

Whoever speaks commits the words first, and looks afterwards what is live; whoever moves an alias looks for words after
the move. So one of the two always finds the other, and no word misses the run that readers see.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.correct.apply import ApplyResult, apply_corrections, pending_of
from tinytags_tasks.errors import FinalError, OtherWriterError, ReconcileError
from tinytags_tasks.publish.live import live_collections, live_runs
from tinytags_tasks.publish.reconciliation import RunState, is_corrected_since, read_state
from tinytags_tasks.store.corrections import Corrections
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import ReviewLog, last_number
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import present_corpus
from tinytags_tasks.store.run_records import BlockState, Run

Result = TypeVar("Result")

_MOST_SWITCHES = 10
"""How often what is live may change while words are applied to it, or words while a run is compared."""


def correct_live(
    corpus_name: str, alias: str, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> list[ApplyResult]:
    """Make what readers see of a corpus follow all public words; return what was applied, to which runs.

    Nothing is applied if nothing of the corpus is live, or another version of it: a message says so.

    Raises
    ------
    FinalError, TransientError
        As :func:`apply_corrections`. The words stay in the log, and are applied by the next one who applies any.
    """
    results: list[ApplyResult] = []
    for _ in range(_MOST_SWITCHES):
        live = live_runs(alias, storage, solr, corpus=corpus_name)
        if not live:
            points_at = ", ".join(live_collections(alias, solr)) or "nothing"
            report(f"{points_at} is live under {alias}, nothing of corpus {corpus_name}: readers see no change")
            return results
        for run in live:
            results += _correct(run, storage=storage, solr=solr, report=report)
        if live_runs(alias, storage, solr, corpus=corpus_name) == live:
            return results
        report(f"alias {alias} was moved meanwhile: looking at what is live now")
    raise OtherWriterError(f"alias {alias} is moved again and again: the words are recorded, try again to apply them")


def _correct(run: Run, *, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> list[ApplyResult]:
    """Make a live run's documents follow all public words; return what was applied."""
    if present_corpus(run, storage) is None:
        report(
            f"run {run.name}, which is live, shows another version of corpus {run.corpus}, and stays as it is: "
            f"publish a run of this one with `tinytags run {run.corpus}`"
        )
        return []
    results = [apply_corrections(run, storage=storage, solr=solr, report=report)]
    if results[-1].blocks and last_number(run.corpus, storage) > results[-1].last:
        # Who spoke meanwhile may have waited for these blocks in vain.
        results.append(apply_corrections(run, storage=storage, solr=solr, report=report))
    return results


def pending_blocks(run: Run, storage: Storage) -> tuple[int, ...]:
    """Return the verified blocks of a run whose documents do not follow all public words; the corpus may be gone.

    Raises
    ------
    CorruptError
        If the log is damaged.
    """
    corpus = present_corpus(run, storage)
    if corpus is None:
        return _pending_without_corpus(run, storage)
    return tuple(pending_of(RunBlocks(run, corpus, storage)))


def apply_before_switch(run: Run, *, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> bool:
    """Make sure that no words are pending of a run that is about to become live; return whether any were applied.

    Raises
    ------
    FinalError
        If there are, and the corpus is gone or is another one, so that they cannot be applied.
    TransientError
        If a block with pending words is held by another writer.
    """
    if present_corpus(run, storage) is None:
        if pending := pending_blocks(run, storage):
            raise FinalError(
                f"run {run.name}: people said something of pictures of blocks {format_block_numbers(pending)} that its "
                f"documents do not follow yet, and its version of corpus {run.corpus} is not in the store: ingest it "
                f"again with `tinytags ingest {run.corpus}`, or publish a run of another version"
            )
        return False
    applied = apply_corrections(run, storage=storage, solr=solr, report=report)
    if applied.waiting:
        raise OtherWriterError(
            f"run {run.name}: people's words on blocks {format_block_numbers(applied.waiting)} are not applied yet, as "
            "another writer holds these blocks; the alias is left alone: try again"
        )
    return bool(applied.blocks)


def compare_corrected(
    run: Run,
    compare: Callable[[], Result],
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> tuple[RunState, Result]:
    """Apply words to a run, then compare it; return its state before the comparison, and what that returned.

    A comparison that fails because words were applied at the same time is made again.

    Raises
    ------
    ReconcileError
        As ``compare``, if no words explain it.
    FinalError, TransientError
        As :func:`apply_before_switch`; or words are applied again and again.
    """
    for _ in range(_MOST_SWITCHES):
        apply_before_switch(run, storage=storage, solr=solr, report=report)
        state = read_state(run, storage, solr)
        try:
            return state, compare()
        except ReconcileError:
            if not (is_corrected_since(run, state, storage) or pending_blocks(run, storage)):
                raise
        report(f"run {run.name}: people's words were applied while it was compared: comparing it again")
    raise OtherWriterError(f"run {run.name}: people's words are applied to it all the time; try again")


def apply_after_switch(run: Run, *, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Apply the words that were said of a run while it became live: who said them may have looked too early."""
    if present_corpus(run, storage) is not None:
        apply_corrections(run, storage=storage, solr=solr, report=report)


def _pending_without_corpus(run: Run, storage: Storage) -> tuple[int, ...]:
    """Return pending blocks by the ledger alone: verified blocks follow each other, each with its images."""
    corrections = Corrections.of_log(ReviewLog(run.corpus, storage).read(), run.corpus_digest)
    if not len(corrections.words):
        return ()
    records = read_ledger(storage, run)
    ends = accumulate(record.read for record in records)
    return tuple(
        record.block
        for record, end in zip(records, ends, strict=True)
        if record.state is BlockState.VERIFIED
        and corrections.last_of(end - record.read, record.read) > record.corrections
    )
