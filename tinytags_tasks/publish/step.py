"""The publishing step: reconcile every block, ask the gate, then move the alias and write that down."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, ReconcileError
from tinytags_tasks.publish.content import ContentComparison
from tinytags_tasks.publish.gate import gate_problems, precision_at
from tinytags_tasks.publish.inputs import changed_scored_files, model_problem, shard_problems, shards_of
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.publish.publications import (
    live_collection,
    lock_alias,
    previous_collections,
    read_history,
    record_change,
    record_missing_change,
    refuse_without_collection,
    run_of,
    switch_alias,
    unmark_pruned,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Change, Run

SAMPLED_PICTURES = 200
"""Pictures that are compared byte by byte before a run is published."""

_MOST_DESCRIBED = 20
"""Blocks whose difference an error describes; it names all."""


@dataclass(frozen=True)
class PublishRequest:
    """Which run readers shall see, under which alias, and what it must reach for that.

    Attributes
    ----------
    run, alias
        The run, and the alias that readers search.
    least_documents_percent
        Documents that the run must have, in percent of those that are live now; None asks for nothing.
    least_precision
        Of the images kept at the run's threshold, how many must get their own tag, in percent, as the model's card
        tells; None asks for nothing.
    """

    run: str
    alias: str = "tinytags"
    least_documents_percent: float | None = None
    least_precision: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no percentage.

        Raises
        ------
        BadInputError
            When one of the two is none.
        """
        if self.least_documents_percent is not None and not 0 <= self.least_documents_percent < math.inf:
            raise BadInputError(
                f"the gate asks for {self.least_documents_percent:g} % of the documents: 0 or more can be"
            )
        if self.least_precision is not None and not 0 <= self.least_precision <= 100:
            raise BadInputError(f"the gate asks for a precision of {self.least_precision:g} %: 0 to 100 can be")


@dataclass(frozen=True)
class PublishResult:
    """The alias' collection now, the one before (empty when there was none), and the totals that were reconciled."""

    run: str
    collection: str
    previous: str
    totals: Totals


def publish_run(
    request: PublishRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PublishResult:
    """Let the alias point at the run's collection when every count agrees and the gate lets it pass.

    Raises
    ------
    MissingError
        When the run has no collection, or the gate asks for a precision that the model's card has not.
    ReconcileError
        Naming the blocks whose counts do not agree; the alias is left alone.
    FinalError
        When the gate refuses; the run stays verified, and the alias is left alone.
    TransientError
        When another changes the alias all the time, or it did not move.
    """
    with lock_alias(request.alias, storage, report):
        run = Run.load(storage, layout.run_file(request.run))
        corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
        refuse_without_collection(run, solr, may_be_new=True)
        totals = _reconciled(run, corpus, None, storage, solr, report)
        unmark_pruned(run, storage)
        live = live_collection(request.alias, solr)
        history = read_history(request.alias, storage)
        if live != run.collection:
            _ask_gate(request, run, totals, live, storage, solr)
            history = record_missing_change(request.alias, history, live, storage)
            switch_alias(request.alias, run.collection, solr)
        if not history or history[-1].collection != run.collection:  # else it is live and written down
            before = history[-1].collection if history else ""
            history.append(
                record_change(Change.PUBLISHED, run.collection, before, alias=request.alias, storage=storage)
            )
    report(f"alias {request.alias} points at {run.collection}")
    return PublishResult(run.name, run.collection, next(iter(previous_collections(history)), ""), totals)


def reconcile_run(
    run_name: str,
    *,
    storage: Storage,
    solr: SolrClient,
    blocks: tuple[int, ...] | None = None,
    report: Callable[[str], None] = print,
) -> Totals:
    """Reconcile a run, or some of its blocks, and leave the alias alone.

    Raises
    ------
    MissingError
        When the run has no collection.
    ReconcileError
        Naming the blocks whose counts do not agree.
    """
    run = Run.load(storage, layout.run_file(run_name))
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    if blocks is not None:
        run.check_blocks(blocks)
    refuse_without_collection(run, solr, may_be_new=True)
    return _reconciled(run, corpus, blocks, storage, solr, report)


def _reconciled(
    run: Run,
    corpus: Corpus,
    blocks: tuple[int, ...] | None,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> Totals:
    """Return the totals of a run, or of some of its blocks, in which everything agrees."""
    records = read_ledger(storage, run, blocks)
    shards = shards_of(corpus, (record.block for record in records if record.block < corpus.partition.blocks))
    _refuse(run, [*filter(None, [model_problem(run, storage)]), *shard_problems(corpus, shards, storage).values()])
    solr.wait_until_settled(run.collection)
    counts = solr.count_by_block(run.collection, blocks)
    problems = block_problems(run, corpus, records, counts, changed_scored_files(records, storage))
    if blocks is None:
        problems += total_problems(run, corpus, records, solr.count(run.collection))
    _refuse(run, problems)
    differing = ContentComparison(run, corpus, storage, solr).differing_blocks(records, report)
    good = [record for record in records if record.block not in differing]
    differing |= PictureComparison(run, corpus, storage, solr).sample(good, SAMPLED_PICTURES)
    _refuse(run, _describe(run, differing))
    totals = add_up(records)
    report(
        f"reconciled {totals.blocks} blocks: {totals.read:,} images = {totals.kept:,} kept + {totals.below:,} below "
        f"the threshold + {totals.unreadable:,} unreadable; {totals.kept:,} documents in Solr"
    )
    return totals


def _refuse(run: Run, problems: Sequence[str]) -> None:
    if problems:
        raise ReconcileError(f"run {run.name} cannot be published: " + "; ".join(problems))


def _describe(run: Run, differing: Mapping[int, str]) -> list[str]:
    """Name the blocks that differ and the remedy; of many, only some are described."""
    if not differing:
        return []
    numbers = format_block_numbers(differing)
    described = [f"block {block} {differing[block]}" for block in sorted(differing)[:_MOST_DESCRIBED]]
    return [*described, f"redo them with `tinytags backfill {run.name} --blocks {numbers}`"]


def _ask_gate(request: PublishRequest, run: Run, totals: Totals, live: str, storage: Storage, solr: SolrClient) -> None:
    """Refuse a run that is whole but too poor to replace what is live."""
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


def block_problems(
    run: Run,
    corpus: Corpus,
    records: Sequence[BlockRecord],
    counts: Mapping[int, int],
    changed: Collection[int],
) -> list[str]:
    """Compare what must be equal in each block, apart from what documents say, and say what is not.

    Parameters
    ----------
    run, corpus
        The run and its corpus.
    records
        Of the blocks.
    counts
        Solr's documents in each block that has any.
    changed
        Blocks whose scored file is missing or not the one in the ledger.

    Returns
    -------
    list of str
        One sentence for each kind of difference, with the blocks; empty when everything agrees.
    """
    partition = corpus.partition
    checks: tuple[tuple[str, Callable[[BlockRecord], bool]], ...] = (
        ("not verified", lambda record: record.state is BlockState.VERIFIED),
        (
            "read is not what the block holds",
            lambda record: record.block < partition.blocks and record.read == partition.block(record.block).images,
        ),
        (
            "read is not kept + below + unreadable",
            lambda record: record.read == record.kept + record.below + record.unreadable,
        ),
        ("kept is not the sum over the tags", lambda record: record.kept == sum(record.kept_by_tag.values())),
        ("kept is not Solr's count", lambda record: record.kept == counts.get(record.block, 0)),
        ("scored by another model", lambda record: record.model == run.model),
        ("the scored file is missing or not the one that was committed", lambda record: record.block not in changed),
    )
    problems = []
    for problem, agrees in checks:
        wrong = [record.block for record in records if not agrees(record)]
        if wrong:
            problems.append(f"{problem}: blocks {format_block_numbers(wrong)}")
    return problems


def total_problems(run: Run, corpus: Corpus, records: Sequence[BlockRecord], documents: int) -> list[str]:
    """Compare the sums over all blocks with the corpus and with Solr, and say what is not equal.

    Parameters
    ----------
    run, corpus
        The run and its corpus.
    records
        A record for each block, in order.
    documents
        All of Solr's documents.
    """
    blocks = corpus.partition.blocks
    problems = []
    totals = add_up(records)
    if [record.block for record in records] != list(range(blocks)):
        problems.append(f"the ledger has {len(records)} blocks, the corpus {blocks}")
    if corpus.digest != run.corpus_digest:
        problems.append("the corpus is not the one that the run was planned on")
    if totals.read != corpus.images:
        problems.append(f"{totals.read:,} images were read, the corpus has {corpus.images:,}")
    if totals.unreadable != corpus.unreadable:
        problems.append(f"{totals.unreadable:,} images were unreadable, at ingestion {corpus.unreadable:,}")
    if documents != totals.kept:
        problems.append(f"Solr holds {documents:,} documents, {totals.kept:,} images were kept")
    return problems
