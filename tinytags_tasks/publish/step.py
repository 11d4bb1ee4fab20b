"""The publishing step: reconcile every block, then move the alias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytags_tasks import layout
from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import ReconcileError, TransientError
from tinytags_tasks.ledger import Totals, add_up, read_ledger
from tinytags_tasks.records import BlockRecord, BlockState, Corpus, Run
from tinytags_tasks.solr import SolrClient
from tinytags_tasks.storage import Storage


@dataclass(frozen=True)
class PublishRequest:
    """Which run readers shall see, under which alias."""

    run: str
    alias: str = "tinytags"


@dataclass(frozen=True)
class PublishResult:
    """The alias' collection now, the one before (empty when there was none), and the totals that were reconciled."""

    run: str
    collection: str
    previous: str
    totals: Totals


def run(
    request: PublishRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PublishResult:
    """Let the alias point at the run's collection when every count agrees.

    Raises
    ------
    ReconcileError
        Naming the blocks whose counts do not agree; the alias is left alone.
    """
    plan = Run.load(storage, layout.run_file(request.run))
    corpus = Corpus.load(storage, layout.corpus_file(plan.corpus))
    records = read_ledger(storage, plan)
    solr.wait_until_settled(plan.collection)
    problems = reconcile(plan, corpus, records, solr.count_by_block(plan.collection), solr.count(plan.collection))
    if problems:
        raise ReconcileError(f"run {plan.name} is not published: " + "; ".join(problems))
    totals = add_up(records)
    report(
        f"reconciled {totals.blocks} blocks: {totals.read:,} images = {totals.kept:,} kept + {totals.below:,} below "
        f"the threshold + {totals.unreadable:,} unreadable; {totals.kept:,} documents in Solr"
    )
    previous = solr.aliases().get(request.alias, "")
    if previous != plan.collection:
        solr.set_alias(request.alias, plan.collection)
        if solr.aliases().get(request.alias) != plan.collection:
            raise TransientError(f"alias {request.alias} does not point at {plan.collection} after it was moved there")
    report(f"alias {request.alias} points at {plan.collection}")
    return PublishResult(plan.name, plan.collection, previous, totals)


def reconcile(
    plan: Run, corpus: Corpus, records: Sequence[BlockRecord], counts: dict[int, int], documents: int
) -> list[str]:
    """Compare what must be equal and say what is not.

    Parameters
    ----------
    plan, corpus
        The run and its corpus.
    records
        A record for each block, in order.
    counts
        Solr's documents in each block that has any.
    documents
        All of Solr's documents.

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
        ("scored by another model", lambda record: record.model == plan.model),
    )
    problems = []
    for problem, agrees in checks:
        wrong = [record.block for record in records if not agrees(record)]
        if wrong:
            problems.append(f"{problem}: blocks {format_block_numbers(wrong)}")
    totals = add_up(records)
    if [record.block for record in records] != list(range(partition.blocks)):
        problems.append(f"the ledger has {len(records)} blocks, the corpus {partition.blocks}")
    if corpus.digest != plan.corpus_digest:
        problems.append("the corpus is not the one that the run was planned on")
    if totals.read != corpus.images:
        problems.append(f"{totals.read:,} images were read, the corpus has {corpus.images:,}")
    if totals.unreadable != corpus.unreadable:
        problems.append(f"{totals.unreadable:,} images were unreadable, at ingestion {corpus.unreadable:,}")
    if documents != totals.kept:
        problems.append(f"Solr holds {documents:,} documents, {totals.kept:,} images were kept")
    return problems
