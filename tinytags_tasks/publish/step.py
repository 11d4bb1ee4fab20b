"""The publishing step: reconcile every block, ask the gate, then move the alias and record the change."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, OtherWriterError
from tinytags_tasks.publish.corrections import apply_after_switch, apply_before_switch, compare_corrected
from tinytags_tasks.publish.gate import choose_publication, gate_problems, precision_at, standing_wish
from tinytags_tasks.publish.live import (
    live_collections,
    lock_alias,
    refuse_without_collection,
    run_of,
    unmark_pruned,
)
from tinytags_tasks.publish.publications import (
    as_plan,
    complete_history,
    live_by_corpus,
    of_corpus,
    previous_collections,
    read_history,
    record_missing_change,
)
from tinytags_tasks.publish.reconciliation import reconcile_blocks, refuse_changed
from tinytags_tasks.publish.replacement import Replacement, describe_beside
from tinytags_tasks.publish.segments import merge_for_similar
from tinytags_tasks.review.carry import refuse_uncarried
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import Change, NextPublication, Publication, Run


@dataclass(frozen=True)
class PublishRequest:
    """Which run to publish, under which alias, and which gate it must pass.

    Attributes
    ----------
    run, alias
        The run, and the alias that readers search.
    least_documents_percent
        The fewest documents that the run may have, in percent of those of its corpus that are live now; None does not
        check this.
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
    """What is live of the run's corpus now.

    Attributes
    ----------
    run, collection
        The run and its collection.
    previous
        The corpus' collection that was live before; empty if there was none.
    totals
        The totals that were reconciled.
    thresholds
        From which confidence on readers see each tag; None if they see every document.
    corpus
        The corpus.
    replaced
        The collections of the corpus that were live until now; none if it was not live, or this one was already.
    beside
        What else is live under the alias: other corpora's collections.
    """

    run: str
    collection: str
    previous: str
    totals: Totals
    thresholds: dict[str, int] | None = None
    corpus: str = ""
    replaced: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def publish_run(
    request: PublishRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PublishResult:
    """Make the run what is live of its corpus if everything agrees now and the run passes the gate.

    What other corpora have live under the alias stays.

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
    merge_for_similar(run, solr, report)  # first: what is compared is what readers will search
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
        change, history = _switch(request, run, standing, totals, chosen, storage, solr, report)
    apply_after_switch(run, storage=storage, solr=solr, report=report)
    own = of_corpus(run.corpus, history)
    report(f"alias {request.alias} points at {run.collection}")
    _report_change(request.alias, run, change, history, storage, report)
    previous = next(iter(previous_collections(own)), "")
    return PublishResult(
        run.name,
        run.collection,
        previous,
        totals,
        own[-1].thresholds,
        corpus=run.corpus,
        replaced=change.replaced,
        beside=change.beside,
    )


def _switch(
    request: PublishRequest,
    run: Run,
    standing: float | None,
    totals: Totals,
    chosen: NextPublication,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> tuple[Replacement, list[Publication]]:
    """Replace what is live of the run's corpus, unless that is this publication; the caller holds the alias' lease.

    Return what that changed, and the complete history.
    """
    live = live_collections(request.alias, solr)
    recorded = read_history(request.alias, storage)
    own = live_by_corpus(live, recorded, storage).get(run.corpus, ())
    change = Replacement(request.alias, run.corpus, live, own, run.collection)
    is_live = own == (run.collection,)
    if not is_live:
        _refuse_other_wish(request, run, standing, storage, solr)
        _ask_gate(request, run, totals, own, storage, solr)
        history = record_missing_change(request.alias, recorded, live, storage)
    else:
        history = record_missing_change(request.alias, recorded, live, storage, besides=run.corpus)
        if request.least_measured_precision is None:  # repeating a publication shows no more than before
            complete = complete_history(request.alias, recorded, live, storage)
            chosen = as_plan(of_corpus(run.corpus, complete)[-1])
    known = of_corpus(run.corpus, history)
    if is_live and known and as_plan(known[-1]) == chosen:  # it is live and recorded
        return change, history
    return change, change.make(Change.PUBLISHED, chosen, history, storage, solr, report)


def _report_change(
    alias: str,
    run: Run,
    change: Replacement,
    history: list[Publication],
    storage: Storage,
    report: Callable[[str], None],
) -> None:
    """Say what the run replaces, and what stays live beside it."""
    if change.replaced:
        report(f"it replaces {', '.join(change.replaced)} of corpus {run.corpus}")
    for line in describe_beside(alias, change.beside, history, storage):
        report(line)


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
    corpus = corpus_of_run(run, storage)
    if blocks is not None:
        run.check_blocks(blocks)
    refuse_without_collection(run, solr, may_be_new=True)
    return reconcile_blocks(run, corpus, blocks, storage, solr, report)


def _refuse_other_wish(
    request: PublishRequest, run: Run, standing: float | None, storage: Storage, solr: SolrClient
) -> None:
    """Refuse to publish at the measured precision of what was live before, if something else of the corpus is now."""
    if request.least_measured_precision is None:
        now = standing_wish(run, request.alias, storage, solr)
        if (now or None) != (standing or None):
            raise OtherWriterError(
                f"another run was published under {request.alias} at another measured precision meanwhile; try again"
            )


def _ask_gate(
    request: PublishRequest, run: Run, totals: Totals, own: tuple[str, ...], storage: Storage, solr: SolrClient
) -> None:
    """Refuse a run that is complete but too poor to replace what is live of its corpus."""
    asks_for_precision = request.least_precision is not None
    card = ModelCard.load(storage, layout.card_file(run.model)) if asks_for_precision else None
    asks_for_documents = bool(own) and request.least_documents_percent is not None
    problems = gate_problems(
        documents=totals.kept,
        live_documents=sum(map(solr.count, own)) if asks_for_documents else None,
        least_documents_percent=request.least_documents_percent,
        precision=precision_at(card, run.threshold) if card else None,
        least_precision=request.least_precision,
    )
    if problems:
        replaced = run_of(own[-1], storage) if own else None
        compare = f"compare them with `tinytags diff {replaced.name} {run.name}`, then " if replaced else ""
        raise FinalError(
            f"run {run.name} is verified, but not published: {'; '.join(problems)}; {', '.join(own) or 'nothing'} "
            f"stays live; {compare}publish it with a lower gate or none, or train a better model"
        )
