"""The publishing step: reconcile every block, ask the gate, then move the alias and record the change."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, TransientError
from tinytags_tasks.publish.corrections import apply_after_switch, apply_before_switch, compare_corrected
from tinytags_tasks.publish.gate import choose_publication, gate_problems, precision_at, standing_wish
from tinytags_tasks.publish.publications import (
    as_plan,
    complete_history,
    live_collection,
    lock_alias,
    plan_change,
    previous_collections,
    read_history,
    record_change,
    record_missing_change,
    refuse_without_collection,
    run_of,
    switch_alias,
    unmark_pruned,
)
from tinytags_tasks.publish.reconciliation import reconcile_blocks, refuse_changed
from tinytags_tasks.review.carry import refuse_uncarried
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, Run


@dataclass(frozen=True)
class PublishRequest:
    """Which run to publish, under which alias, and which gate it must pass.

    Attributes
    ----------
    run, alias
        The run, and the alias that readers search.
    least_documents_percent
        The fewest documents that the run may have, in percent of those that are live now; None does not check this.
    least_precision
        The lowest precision, in percent, that the model's card may have at the run's threshold; None does not check
        this.
    least_measured_precision
        The lowest precision, in percent, that each tag must have on this corpus, as reviews measured it and with 95 %
        certainty. Readers see each tag from the lowest confidence on that reaches it; tags that cannot are not shown.
        None asks for what the live run of the same corpus was published at, if anything, and leaves the thresholds of a
        run that is live already as they are; 0 shows every document.
    """

    run: str
    alias: str = "tinytags"
    least_documents_percent: float | None = None
    least_precision: float | None = None
    least_measured_precision: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not percentages.

        Raises
        ------
        BadInputError
            If one of the two is not a percentage.
        """
        if self.least_documents_percent is not None and not 0 <= self.least_documents_percent < math.inf:
            raise BadInputError(
                f"the gate requires {self.least_documents_percent:g} % of the documents: it must be 0 or more"
            )
        for least in (self.least_precision, self.least_measured_precision):
            if least is not None and not 0 <= least <= 100:
                raise BadInputError(f"the gate requires a precision of {least:g} %: it must be between 0 and 100")


@dataclass(frozen=True)
class PublishResult:
    """The alias' collection now, the previous one (empty if there was none), and the totals that were reconciled.

    ``thresholds`` is from which confidence on readers see each tag; None if they see every document.
    """

    run: str
    collection: str
    previous: str
    totals: Totals
    thresholds: dict[str, int] | None = None


def publish_run(
    request: PublishRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PublishResult:
    """Point the alias at the run's collection if everything agrees now and the run passes the gate.

    Raises
    ------
    MissingError
        If the run has no collection, or the gate requires a precision that the model's card does not have.
    ReconcileError
        Naming what differs and the remedy; the alias does not move.
    FinalError
        If the run does not pass the gate, or no tag reaches the precision that must be measured; it stays verified, and
        the alias does not move.
    TransientError
        If another process holds the alias for too long, or writes the run or publishes at another measured precision
        meanwhile; or the alias did not move.
    """
    run = Run.load(storage, layout.run_file(request.run))
    refuse_without_collection(run, solr, may_be_new=True)
    refuse_uncarried(Corpus.load(storage, layout.corpus_file(run.corpus)), storage)
    state, totals = compare_corrected(
        run,
        lambda: reconcile_run(request.run, storage=storage, solr=solr, report=report),
        storage=storage,
        solr=solr,
        report=report,
    )
    least, standing = request.least_measured_precision, None
    if least is None:
        least = standing = standing_wish(run, request.alias, storage, solr)
    chosen = choose_publication(run, least, storage, report, standing_under=request.alias if standing else "")
    with lock_alias(request.alias, storage, report):  # only now: the comparison may take minutes
        run = Run.load(storage, layout.run_file(request.run))
        refuse_without_collection(run, solr)
        refuse_changed(run, state, storage, solr)
        if apply_before_switch(run, storage=storage, solr=solr, report=report):
            totals = add_up(read_ledger(storage, run))
        unmark_pruned(run, storage)
        live = live_collection(request.alias, solr)
        history = read_history(request.alias, storage)
        is_live = live == run.collection
        if not is_live:
            _refuse_other_wish(request, run, standing, storage, solr)
            _ask_gate(request, run, totals, live, storage, solr)
            history = record_missing_change(request.alias, history, live, storage)
        elif request.least_measured_precision is None:  # repeating a publication shows no more than before
            chosen = as_plan(complete_history(request.alias, history, live, storage)[-1])
        if not (is_live and history and as_plan(history[-1]) == chosen):  # otherwise it is live and recorded
            plan_change(chosen, alias=request.alias, storage=storage)
            if not is_live:
                switch_alias(request.alias, run.collection, solr)
            before = history[-1].collection if history else ""
            record = record_change(
                Change.PUBLISHED, run.collection, before, alias=request.alias, storage=storage, plan=chosen
            )
            history.append(record)
    apply_after_switch(run, storage=storage, solr=solr, report=report)
    report(f"alias {request.alias} points at {run.collection}")
    previous = next(iter(previous_collections(history)), "")
    return PublishResult(run.name, run.collection, previous, totals, chosen.thresholds)


def reconcile_run(
    run_name: str,
    *,
    storage: Storage,
    solr: SolrClient,
    blocks: tuple[int, ...] | None = None,
    report: Callable[[str], None] = print,
) -> Totals:
    """Reconcile a run, or some of its blocks; the alias does not move.

    Raises
    ------
    MissingError
        If the run has no collection.
    ReconcileError
        Naming what differs and the remedy.
    """
    run = Run.load(storage, layout.run_file(run_name))
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    if blocks is not None:
        run.check_blocks(blocks)
    refuse_without_collection(run, solr, may_be_new=True)
    return reconcile_blocks(run, corpus, blocks, storage, solr, report)


def _refuse_other_wish(
    request: PublishRequest, run: Run, standing: float | None, storage: Storage, solr: SolrClient
) -> None:
    """Refuse to publish at the measured precision of what was live before, if something else is live by now."""
    if request.least_measured_precision is None:
        now = standing_wish(run, request.alias, storage, solr)
        if (now or None) != (standing or None):
            raise TransientError(
                f"another run was published under {request.alias} at another measured precision meanwhile; try again"
            )


def _ask_gate(request: PublishRequest, run: Run, totals: Totals, live: str, storage: Storage, solr: SolrClient) -> None:
    """Refuse a run that is complete but too poor to replace what is live."""
    asks_for_precision = request.least_precision is not None
    card = ModelCard.load(storage, layout.card_file(run.model)) if asks_for_precision else None
    problems = gate_problems(
        documents=totals.kept,
        live_documents=solr.count(live) if live and request.least_documents_percent is not None else None,
        least_documents_percent=request.least_documents_percent,
        precision=precision_at(card, run.threshold) if card else None,
        least_precision=request.least_precision,
    )
    if problems:
        replaced = run_of(live, storage)
        compare = f"compare them with `tinytags diff {replaced.name} {run.name}`, then " if replaced else ""
        raise FinalError(
            f"run {run.name} is verified, but not published: {'; '.join(problems)}; {live or 'nothing'} stays live; "
            f"{compare}publish it with a lower gate or none, or train a better model"
        )
