"""Finds and drops the embeddings that no model sees; the nets that made them are kept."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tinytags_tasks.errors import FinalError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.models import list_models
from tinytags_tasks.store.protocol import Storage, temporary_name


@dataclass(frozen=True)
class PrunableEmbeddings:
    """A corpus' embeddings by a net that no model sees.

    Attributes
    ----------
    corpus, net
        Whose embeddings, and by which net.
    blocks, size_bytes
        How many blocks are embedded, and the size of their files.
    """

    corpus: str
    net: str
    blocks: int
    size_bytes: int

    @property
    def name(self) -> str:
        """What it is called where a person chooses it."""
        return f"{self.corpus}/{self.net}"

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"the embeddings of corpus {self.corpus} by {self.net}"

    def line(self, verb: str) -> str:
        """Return a readable line for embeddings that are dropped."""
        return f"{verb} {self.title} ({self.blocks:,} blocks, {self.size_bytes / 1e6:,.1f} MB), which no model sees"


def find_embeddings(storage: Storage) -> tuple[tuple[PrunableEmbeddings, ...], dict[str, str]]:
    """Return the embeddings that may be dropped, and those that no model sees but are kept, each with the reason."""
    embedded = list(_embedded(storage))
    if not embedded:
        return (), {}
    try:
        read = {card.features for card in list_models(storage)}
    except FinalError as error:  # nobody knows what that model sees
        return (), {"all embeddings": f"a model's card cannot be read: {error}"}
    drop, kept = [], {}
    for corpus, net in embedded:
        if net in read:
            continue
        sizes = storage.sizes(layout.embeddings_folder(corpus, net))
        found = PrunableEmbeddings(corpus, net, len(sizes), sum(sizes.values()))
        if reason := _reason_if_written(found, storage):
            kept[found.title] = reason
        else:
            drop.append(found)
    return tuple(drop), kept


def drop_embeddings(found: PrunableEmbeddings, storage: Storage) -> None:
    """Drop a corpus' embeddings by a net in one step, so that no one ever sees half of them."""
    folder = layout.embeddings_folder(found.corpus, found.net)
    moved = temporary_name(folder)
    with suppress(MissingError):  # dropped by another process
        if storage.rename(folder, moved):
            storage.delete(moved)


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
