"""Reconciling: whether all that was written down of a run agrees with what the store and Solr hold now."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinytags_tasks.blocks import block_numbers_argument, format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.correct.apply import is_only_corrected
from tinytags_tasks.errors import OtherWriterError, ReconcileError
from tinytags_tasks.publish.content import ContentComparison, compare_with_ledger
from tinytags_tasks.publish.inputs import ScoredFiles, compare_scored_files, model_problem, shard_problems, shards_of
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import run_leases
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.models import has_none
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import present_corpus
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

SAMPLED_PICTURES = 200
"""Pictures that are compared byte by byte before a run is published."""

_CHANGED_FILE = "the scored file is missing or not the one that was committed"
_LOOKS, _LOOK_SECONDS = 5, 0.5
"""How often, and how far apart, the documents and the ledger are looked at while words may be being applied."""

_TRIES = 3
"""How often a run is compared while it is written."""

_MOST_DESCRIBED = 20
"""Blocks whose difference an error describes; it names all."""


def reconcile_blocks(
    run: Run,
    corpus: Corpus,
    blocks: tuple[int, ...] | None,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> Totals:
    """Return the totals of a run, or of some of its blocks, if everything agrees as it is now.

    The model and the shards are checked first: if they are not what they were, no block is blamed. Then come the counts
    and the scored files, then what every document says, then a sample of the pictures. If something differs while
    blocks are being written, or words applied, the run is compared again afterwards.

    Raises
    ------
    ReconcileError
        Naming what differs, and the remedy.
    """
    tries_left = _TRIES
    while True:
        records = read_ledger(storage, run, blocks)
        try:
            return _reconcile(run, corpus, records, blocks, storage, solr, report)
        except ReconcileError:
            if run_leases(run.name).wait_until_free(blocks, storage=storage, report=report):
                report(f"run {run.name}: its blocks were written meanwhile, so it is compared again")
                continue
            tries_left -= 1
            if not tries_left or not _is_written(run, corpus, records, storage):
                raise
            report(f"run {run.name} is written meanwhile, so it is compared again")
            time.sleep(_LOOK_SECONDS)


def _is_written(run: Run, corpus: Corpus, before: Sequence[BlockRecord], storage: Storage) -> bool:
    """Tell whether any of these blocks were written since their records were read, or words may be applied just now."""
    later = read_ledger(storage, run, [record.block for record in before])
    if list(later) != list(before):
        return True
    return bool(RunBlocks(run, corpus, storage).pending(later))


def _reconcile(
    run: Run,
    corpus: Corpus,
    records: Sequence[BlockRecord],
    blocks: tuple[int, ...] | None,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> Totals:
    """Compare once; see :func:`reconcile_blocks`."""
    shards = shards_of(corpus, (record.block for record in records if record.block < corpus.partition.blocks))
    _refuse(run, [*filter(None, [model_problem(run, storage)]), *shard_problems(corpus, shards, storage).values()])
    solr.wait_until_settled(run.collection)
    counts = solr.count_by_block(run.collection, blocks)
    files = compare_scored_files(records, RunBlocks(run, corpus, storage))
    problems = block_problems(run, corpus, records, counts, files)
    if blocks is None:
        problems += total_problems(run, corpus, records, solr.count(run.collection), files)
    _refuse(run, problems)
    differing = ContentComparison(run, corpus, storage, solr).differing_blocks(records, report)
    good = [record for record in records if record.block not in differing]
    differing |= PictureComparison(run, corpus, storage, solr).sample(good, SAMPLED_PICTURES)
    _refuse(run, describe_differing(run, differing))
    totals = add_up(records)
    none = f"{totals.none:,} none of the tags + " if totals.none or has_none(run.model, storage) else ""
    taken_down = f" + {totals.taken_down:,} taken down" if totals.taken_down else ""
    report(
        f"reconciled {totals.blocks} blocks: {totals.read:,} images = {totals.kept:,} kept + {totals.below:,} below "
        f"the threshold + {none}{totals.unreadable:,} unreadable{taken_down}; {totals.kept:,} documents in Solr"
    )
    return totals


@dataclass(frozen=True)
class RunState:
    """What changes when a block of a run is written: the files of its ledger, and how many documents it has.

    ``records`` are the ledger's records at that time.
    """

    ledger: dict[str, str]
    documents: int
    records: tuple[BlockRecord, ...]


def read_state(run: Run, storage: Storage, solr: SolrClient) -> RunState:
    """Return the present state of a run that has a collection."""
    solr.wait_until_settled(run.collection)
    ledger = storage.versions(layout.ledger_folder(run.name))
    return RunState(ledger, solr.count(run.collection), tuple(read_ledger(storage, run)))


def refuse_changed(run: Run, before: RunState, storage: Storage, solr: SolrClient) -> None:
    """Refuse to move an alias to a run that was written after a comparison of it began.

    People's words may have been applied meanwhile: that changes the same records and documents, and nothing else.

    Raises
    ------
    TransientError
        If it was written otherwise.
    """
    for looks_left in reversed(range(_LOOKS)):
        solr.wait_until_settled(run.collection)
        pairs, documents = _changed_records(run, before, storage), solr.count(run.collection)
        if pairs is None:
            break
        if documents - before.documents == sum(after.kept - one.kept for one, after in pairs):
            return
        if looks_left:  # documents are committed before the ledger is written
            time.sleep(_LOOK_SECONDS)
    raise OtherWriterError(
        f"run {run.name} was written while it was compared with what was scored; the alias is left alone: try again"
    )


def is_corrected_since(run: Run, before: RunState, storage: Storage) -> bool:
    """Tell whether people's words, and nothing else, were written to a run's ledger since it was in a state."""
    return bool(_changed_records(run, before, storage))


def _changed_records(run: Run, before: RunState, storage: Storage) -> list[tuple[BlockRecord, BlockRecord]] | None:
    """Return earlier and later records of blocks to which words were applied; None if the ledger changed otherwise."""
    ledger = storage.versions(layout.ledger_folder(run.name))
    changed = {name for name in ledger | before.ledger if ledger.get(name) != before.ledger.get(name)}
    earlier = [one for one in before.records if layout.file_name(layout.ledger_file(run.name, one.block)) in changed]
    pairs = list(zip(earlier, read_ledger(storage, run, [one.block for one in earlier]), strict=True))
    is_so = len(pairs) == len(changed) and all(is_only_corrected(*pair) for pair in pairs)
    return pairs if is_so else None


def document_problems(run: Run, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> list[str]:
    """Return how a run's documents differ from what was scored; the model and the corpus may be gone.

    Without the corpus, blocks that were verified by a checksum of the first version are only counted.
    """
    records = read_ledger(storage, run)
    solr.wait_until_settled(run.collection)
    counts, documents = solr.count_by_block(run.collection), solr.count(run.collection)
    if problems := _count_problems(records, counts, documents):
        return problems
    corpus = present_corpus(run, storage)
    if corpus is not None:
        differing = ContentComparison(run, corpus, storage, solr).differing_blocks(records, report)
    else:
        differing = compare_with_ledger(run, records, solr)
    return describe_differing(run, differing)


def _count_problems(records: Sequence[BlockRecord], counts: Mapping[int, int], documents: int) -> list[str]:
    problems = []
    differing = [record.block for record in records if record.kept != counts.get(record.block, 0)]
    if differing:
        numbers = format_block_numbers(differing)
        problems.append(
            f"blocks {numbers} do not have the documents that the ledger counts; redo them with "
            f"`tinytags backfill {records[0].run} --blocks {numbers}`"
        )
    kept = sum(record.kept for record in records)
    if documents != kept:
        problems.append(f"Solr holds {documents:,} documents, {kept:,} images were kept")
    return problems


def _refuse(run: Run, problems: Sequence[str]) -> None:
    if problems:
        raise ReconcileError(f"run {run.name} cannot be published: " + "; ".join(problems))


def describe_differing(run: Run, differing: Mapping[int, str]) -> list[str]:
    """Name the blocks that differ and the remedy; of many, only some are described."""
    if not differing:
        return []
    numbers = format_block_numbers(differing)
    described = [f"block {block} {differing[block]}" for block in sorted(differing)[:_MOST_DESCRIBED]]
    return [*described, f"redo them with `tinytags backfill {run.name} --blocks {numbers}`"]


def block_problems(
    run: Run,
    corpus: Corpus,
    records: Sequence[BlockRecord],
    counts: Mapping[int, int],
    files: ScoredFiles,
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
    files
        How the scored files differ from the ledger.

    Returns
    -------
    list of str
        One sentence for each kind of difference, with the blocks; empty when everything agrees.
    """
    partition = corpus.partition
    taken_down = " + taken down" if any(record.taken_down for record in records) else ""
    checks: tuple[tuple[str, Callable[[BlockRecord], bool]], ...] = (
        ("not verified", lambda record: record.state is BlockState.VERIFIED),
        (
            "read is not what the block holds",
            lambda record: record.block < partition.blocks and record.read == partition.block(record.block).images,
        ),
        (
            "read is not kept + below + none + unreadable" + taken_down,
            lambda record: record.read == record.accounted,
        ),
        ("kept is not the sum over the tags", lambda record: record.kept == sum(record.kept_by_tag.values())),
        ("kept is not Solr's count", lambda record: record.kept == counts.get(record.block, 0)),
        ("scored by another model", lambda record: record.model == run.model),
        (_CHANGED_FILE, lambda record: record.block not in files.changed),
    )
    problems = []
    for problem, agrees in checks:
        wrong = [record.block for record in records if not agrees(record)]
        if wrong:
            problems.append(f"{problem}: blocks {format_block_numbers(wrong)}")
            if problem == _CHANGED_FILE:
                command = f"tinytags backfill {run.name} --blocks {block_numbers_argument(wrong)}"
                problems[-1] += f"; redo them with `{command}`"
    if files.contradicted:
        shown = [f"block {block}: {wrong}" for block, wrong in list(files.contradicted.items())[:_MOST_DESCRIBED]]
        numbers = format_block_numbers(files.contradicted)
        problems.append(
            f"the ledger contradicts the scored file: blocks {numbers} ({'; '.join(shown)}); write these records "
            f"again with `tinytags audit {run.name} --repair`"
        )
    return problems


def total_problems(
    run: Run, corpus: Corpus, records: Sequence[BlockRecord], documents: int, files: ScoredFiles
) -> list[str]:
    """Compare the sums over all blocks with the corpus and with Solr, and say what is not equal.

    Parameters
    ----------
    run, corpus
        The run and its corpus.
    records
        A record for each block, in order.
    documents
        All of Solr's documents.
    files
        How the scored files differ from the ledger.
    """
    blocks = corpus.partition.blocks
    problems = []
    totals = add_up(records)
    if [record.block for record in records] != list(range(blocks)):
        problems.append(f"the ledger has {len(records)} blocks, the corpus {blocks}")
    if corpus.digest != run.corpus_digest:
        problems.append(
            f"the corpus is not the one that the run was planned on; make a new run with `tinytags run {corpus.name}`"
        )
    if totals.read != corpus.images:
        problems.append(f"{totals.read:,} images were read, the corpus has {corpus.images:,}")
    unreadable = totals.unreadable + files.unreadable_taken_down
    if unreadable != corpus.unreadable:
        problems.append(f"{unreadable:,} images were unreadable, at ingestion {corpus.unreadable:,}")
    if documents != totals.kept:
        problems.append(f"Solr holds {documents:,} documents, {totals.kept:,} images were kept")
    return problems
