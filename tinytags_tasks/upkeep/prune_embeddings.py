"""Finds and drops the embeddings that nobody needs: no model sees them, and no run has them as vectors.

The same goes for those of blocks that a corpus no longer has. The nets that made them are kept.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import CorruptError, FinalError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import embedding_leases
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.models import list_models
from tinytags_tasks.store.protocol import Storage, temporary_name


@dataclass(frozen=True)
class PrunableEmbeddings:
    """A corpus' embeddings by a net: all of them, because no model sees them, or those of blocks that are gone.

    Attributes
    ----------
    corpus, net
        Whose embeddings, and by which net.
    blocks, size_bytes
        How many blocks are embedded, and the size of their files.
    gone
        The blocks, if they are only those that the corpus no longer has: it was ingested again with fewer images.
    """

    corpus: str
    net: str
    blocks: int
    size_bytes: int
    gone: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What it is called where a person chooses it."""
        return f"{self.corpus}/{self.net}" + (f"/{format_block_numbers(self.gone)}" if self.gone else "")

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"the embeddings of corpus {self.corpus} by {self.net}"

    def line(self, verb: str) -> str:
        """Return a readable line for embeddings that are dropped."""
        reason = (
            "whose blocks the corpus no longer has" if self.gone else "which no model sees and no run has as vectors"
        )
        return f"{verb} {self.title} ({self.blocks:,} blocks, {self.size_bytes / 1e6:,.1f} MB), {reason}"


def find_embeddings(
    storage: Storage, *, without: Collection[str] = ()
) -> tuple[tuple[PrunableEmbeddings, ...], dict[str, str]]:
    """Return the embeddings that may be dropped, and others that nobody needs but are kept, each with the reason.

    Parameters
    ----------
    storage
        The store.
    without
        Runs that are about to be dropped, so that what only they have as vectors is not needed.
    """
    embedded = list(_embedded(storage))
    if not embedded:
        return (), {}
    try:
        read = {card.features for card in list_models(storage)}
    except FinalError as error:  # nobody knows what that model sees
        return (), {"all embeddings": f"a model's card cannot be read: {error}"}
    try:
        vectors = _vectors(storage, without)
    except FinalError as error:  # nobody knows what that run has as vectors
        return (), {"all embeddings": f"a run's record cannot be read: {error}"}
    drop, kept = [], {}
    for corpus, net in embedded:
        found = _unneeded(corpus, net, storage, is_seen=net in read or (corpus, net) in vectors)
        if found is None:
            continue
        if reason := _reason_if_written(found, storage):
            kept[found.title] = reason
        else:
            drop.append(found)
    return tuple(drop), kept


def _vectors(storage: Storage, without: Collection[str]) -> set[tuple[str, str]]:
    """Return the corpora and nets whose embeddings are the vectors of documents that may be written again."""
    return {
        (run.corpus, run.similar)
        for run in list_runs(storage)
        if run.similar and not run.pruned and run.name not in without
    }


def drop_embeddings(found: PrunableEmbeddings, storage: Storage) -> None:
    """Drop embeddings: of a whole net in one step, so that no one ever sees half of them; of blocks one by one."""
    if found.gone:
        _drop_blocks(found, storage)
        return
    folder = layout.embeddings_folder(found.corpus, found.net)
    moved = temporary_name(folder)
    with suppress(MissingError):  # dropped by another process
        if storage.rename(folder, moved):
            storage.delete(moved)


def _drop_blocks(found: PrunableEmbeddings, storage: Storage) -> None:
    """Drop the embeddings of blocks that are gone and that nobody is embedding."""
    leases = embedding_leases(found.corpus, found.net)
    for held in leases.hold(found.gone, storage=storage, report=lambda line: None, patience_seconds=0.0):
        still_gone = set(_blocks_gone(found.corpus, held.blocks, storage))  # the corpus may have been ingested again
        for block in still_gone:
            storage.delete(layout.embeddings_file(found.corpus, found.net, block))


def _unneeded(corpus: str, net: str, storage: Storage, *, is_seen: bool) -> PrunableEmbeddings | None:
    """Return which of a corpus' embeddings by a net nobody needs; None if all are needed."""
    sizes = storage.sizes(layout.embeddings_folder(corpus, net))
    if not is_seen:
        return PrunableEmbeddings(corpus, net, len(sizes), sum(sizes.values()))
    of_block = {number: size for name, size in sizes.items() if (number := layout.path_number(name)) >= 0}
    gone = _blocks_gone(corpus, of_block, storage)
    return PrunableEmbeddings(corpus, net, len(gone), sum(map(of_block.__getitem__, gone)), gone) if gone else None


def _blocks_gone(corpus: str, blocks: Iterable[int], storage: Storage) -> tuple[int, ...]:
    """Return the blocks that a corpus does not have; none if it is being ingested, or nobody knows what it has."""
    try:
        existing = Corpus.load(storage, layout.corpus_file(corpus)).partition.blocks
    except (MissingError, CorruptError):
        return ()
    return tuple(sorted(block for block in blocks if block >= existing))


def _embedded(storage: Storage) -> Iterator[tuple[str, str]]:
    for corpus in storage.names(layout.CORPORA):
        for net in storage.names(layout.all_embeddings_folder(corpus)):
            yield corpus, net


def _reason_if_written(found: PrunableEmbeddings, storage: Storage) -> str:
    """Return who is embedding; empty if nobody is."""
    leases = Leases(storage)
    folder = layout.embedding_leases_folder(found.corpus, found.net)
    for name in storage.names(folder):
        path = f"{folder}/{name}"
        if name.endswith(layout.WRITER_LEASE) and not leases.is_abandoned(path):
            return f"they are being written by {leases.describe(path)}"
    return ""
