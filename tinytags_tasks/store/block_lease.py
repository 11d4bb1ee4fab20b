"""Leases on blocks: one writer per block of a run, whatever the stage, and one per block that is being embedded.

Scoring, indexing and deleting all write a block's record in the ledger, so they share one lease. A group has hundreds
of blocks, so a lease is as cheap as HDFS allows: a folder ``<block>.block/<writer>`` is moved to a name that must not
exist yet, which takes two requests to the NameNode and none to a DataNode. A single file shows that the writer of all
these blocks is alive, and only this file is renewed: a lease of :mod:`tinytags_tasks.store.lease`.
"""

import time
import uuid
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import LostWriteError, MissingError, OtherWriterError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import LEASE_SECONDS, Leases
from tinytags_tasks.store.protocol import Storage, temporary_name

_AT_ONCE = 8
"""How many leases are taken or returned at the same time."""

_POLL_SECONDS = 1.0
_POLL_SHARE = 5
"""A waiter pauses at least this many times as long as its last check took, so that it checks many blocks less often."""


@dataclass(frozen=True)
class HeldBlocks:
    """Blocks that one writer holds: ``writer`` is its name in the leases, ``blocks`` are the numbers."""

    writer: str
    blocks: list[int]


@dataclass(frozen=True)
class BlockLeases:
    """The leases on the blocks of a run, or of a corpus' embeddings by one net; small and serialisable.

    Attributes
    ----------
    folder
        Their folder in the store.
    subject
        What the blocks belong to, for people.
    """

    folder: str
    subject: str

    def hold(
        self,
        blocks: Iterable[int],
        *,
        storage: Storage,
        report: Callable[[str], None],
        lease_seconds: float = LEASE_SECONDS,
        most: int | None = None,
        patience_seconds: float | None = None,
    ) -> Iterator[HeldBlocks]:
        """Yield blocks that no one else can write until the next are requested; first free ones, then those of others.

        If another writer took a block over, because this one did not renew its lease for too long, it is yielded again.

        Parameters
        ----------
        blocks
            The blocks' numbers.
        storage
            The store.
        report
            Called with a message that says which writer it is waiting for.
        lease_seconds
            How long a writer may go without renewing its lease.
        most
            How many blocks to hold at the same time; None holds all that are free.
        patience_seconds
            How long to wait for other writers altogether; blocks that they still hold then are not yielded. None waits
            for as long as they live.

        Raises
        ------
        TransientError
            If the store cannot say at the moment which blocks are free.
        """
        waiting = list(blocks)
        if not waiting:
            return
        reported, waited = "", 0.0
        with self._writer(storage, lease_seconds) as writer:
            while waiting:
                began = time.monotonic()
                taken = writer.take(waiting, most)
                check_seconds = time.monotonic() - began
                lost: list[int] = []
                try:
                    if taken:
                        yield HeldBlocks(writer.name, taken)
                finally:
                    lost = writer.give_back(taken)
                if lost:
                    numbers = format_block_numbers(lost)
                    report(f"blocks {numbers} were taken over by another writer: checking them again")
                waiting = [block for block in waiting if block not in taken or block in lost]
                if waiting and not taken:
                    if patience_seconds is not None and waited >= patience_seconds:
                        return
                    if (owner := writer.describe(waiting[0])) != reported:
                        report(f"block {waiting[0]} is being written by {owner}: waiting for it")
                        reported = owner
                    pause = max(_POLL_SECONDS, _POLL_SHARE * check_seconds)
                    waited += pause
                    time.sleep(pause)

    def wait_until_free(
        self,
        blocks: Iterable[int] | None,
        *,
        storage: Storage,
        report: Callable[[str], None],
        lease_seconds: float = LEASE_SECONDS,
    ) -> bool:
        """Wait until nobody holds any of these blocks, or any block at all; return whether somebody did.

        Nothing is taken, so somebody may hold one right after.
        """
        onlooker = _Writer(self, "", storage, Leases(storage, lease_seconds))
        chosen = None if blocks is None else set(blocks)
        reported = ""
        while path := onlooker.held_by_others(chosen):
            if (owner := onlooker.describe(layout.path_number(path))) != reported:
                report(f"block {layout.path_number(path)} is being written by {owner}: waiting for it")
                reported = owner
            time.sleep(_POLL_SECONDS)
        return bool(reported)

    def refuse_lost(self, storage: Storage, block: int, writer: str) -> None:
        """Refuse to write a block that this writer no longer holds.

        Raises
        ------
        OtherWriterError
            If another writer holds it, or the lease was returned.
        """
        if not self.is_held(storage, block, writer):
            raise OtherWriterError(
                f"{self.subject}: block {block} was taken over by another writer; try again to see its outcome"
            )

    def is_held(self, storage: Storage, block: int, writer: str) -> bool:
        """Return whether a writer holds a block."""
        return storage.exists(f"{layout.block_lease_folder(self.folder, block)}/{writer}")

    @contextmanager
    def _writer(self, storage: Storage, lease_seconds: float) -> Generator["_Writer"]:
        name = uuid.uuid4().hex
        leases = Leases(storage, lease_seconds)
        # No one else knows the name, so it is free; but a file that is not complete may be deleted as a leftover.
        with leases.wait_for(layout.writer_lease_file(self.folder, name), f"the lease of writer {name}"):
            writer = _Writer(self, name, storage, leases)
            yield writer
        with suppress(TransientError):  # the next writer will do it
            writer.delete_leftovers()


def run_leases(run: str) -> BlockLeases:
    """Return the leases on a run's blocks."""
    return BlockLeases(layout.leases_folder(run), f"run {run}")


def embedding_leases(corpus: str, net: str) -> BlockLeases:
    """Return the leases on the embeddings of a corpus' blocks by one net."""
    return BlockLeases(layout.embedding_leases_folder(corpus, net), f"embeddings of corpus {corpus} by {net}")


def hold_blocks(
    run: str,
    blocks: Iterable[int],
    *,
    storage: Storage,
    report: Callable[[str], None],
    lease_seconds: float = LEASE_SECONDS,
    patience_seconds: float | None = None,
) -> Iterator[HeldBlocks]:
    """Hold blocks of a run; see :meth:`BlockLeases.hold`."""
    return run_leases(run).hold(
        blocks, storage=storage, report=report, lease_seconds=lease_seconds, patience_seconds=patience_seconds
    )


def refuse_lost(storage: Storage, run: str, block: int, writer: str) -> None:
    """Refuse to write a block of a run that this writer no longer holds; see :meth:`BlockLeases.refuse_lost`."""
    run_leases(run).refuse_lost(storage, block, writer)


def is_held(storage: Storage, run: str, block: int, writer: str) -> bool:
    """Return whether a writer holds a block of a run."""
    return run_leases(run).is_held(storage, block, writer)


class _Writer:
    """Takes and returns the leases of one writer."""

    def __init__(self, place: BlockLeases, name: str, storage: Storage, leases: Leases) -> None:
        self.name = name
        self._place = place
        self._folder = place.folder
        self._storage = storage
        self._leases = leases

    def take(self, blocks: list[int], most: int | None) -> list[int]:
        """Take blocks that are free or abandoned, ``most`` at most, and return them."""
        names = set(self._storage.names(self._folder))
        leased = [
            block for block in blocks if layout.file_name(layout.block_lease_folder(self._folder, block)) in names
        ]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            owners = dict(zip(leased, pool.map(self._owner, leased), strict=True))
            is_free = {owner: owner == self.name or self._is_abandoned(owner) for owner in set(owners.values())}
            open_blocks = [block for block in blocks if block not in owners or is_free[owners[block]]][:most]
            taken = pool.map(lambda block: self._take(block, owners.get(block)), open_blocks)
            return [block for block, is_ours in zip(open_blocks, taken, strict=True) if is_ours]

    def held_by_others(self, blocks: Container[int] | None) -> str:
        """Return the path of a lease that somebody holds on one of these blocks, or on any; empty if there is none."""
        return next(
            (
                path
                for path in self._leased()
                if (blocks is None or layout.path_number(path) in blocks)
                and not self._is_abandoned(next(iter(self._storage.names(path)), ""))
            ),
            "",
        )

    def give_back(self, blocks: list[int]) -> list[int]:
        """Give back the leases of blocks; return the blocks that another writer has taken over."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [block for block, is_lost in zip(blocks, pool.map(self._give_back, blocks), strict=True) if is_lost]

    def describe(self, block: int) -> str:
        """Return who holds a block, for people."""
        owner = self._owner(block)
        return self._leases.describe(layout.writer_lease_file(self._folder, owner)) if owner else "someone"

    def delete_leftovers(self) -> None:
        """Delete the leases of ended writers, and if no writer holds a block, temporary files as well.

        A writer that is just taking its first block tries again if this deletes its temporary files.
        """
        writers = [name for name in self._storage.names(self._folder) if name.endswith(layout.WRITER_LEASE)]
        ended = [name for name in writers if self._leases.is_abandoned(f"{self._folder}/{name}")]
        if ended or not writers:  # otherwise each lease on a block is that of a writer who is alive
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._remove_if_abandoned, self._leased()))
        for name in ended:
            with self._leases.hold(f"{self._folder}/{name}"):  # takes it over, and deletes it
                pass
        if not self._leased():
            for leftover in self._storage.leftovers(self._folder):
                self._storage.delete(leftover.path)

    def _leased(self) -> list[str]:
        """Return the paths of all leases on blocks."""
        names = self._storage.names(self._folder)
        return [f"{self._folder}/{name}" for name in names if not name.endswith(layout.WRITER_LEASE)]

    def _remove_if_abandoned(self, path: str) -> None:
        owner = next(iter(self._storage.names(path)), "")
        if self._is_abandoned(owner):
            self._remove(path, owner)

    def _is_abandoned(self, owner: str) -> bool:
        return not owner or self._leases.is_abandoned(layout.writer_lease_file(self._folder, owner))

    def _take(self, block: int, owner: str | None) -> bool:
        """Take a block that nobody holds, or whose owner is gone or is ourselves."""
        path = layout.block_lease_folder(self._folder, block)
        if owner == self.name:  # was held already: somebody who checked it moved it away, and has moved it back
            return True
        return (owner is None or self._remove(path, owner)) and self._create(path)

    def _create(self, path: str) -> bool:
        temporary = temporary_name(path)
        try:
            self._storage.make_folder(f"{temporary}/{self.name}")
            if self._storage.rename(temporary, path):
                return True
        except (MissingError, LostWriteError):
            # Deleted as a leftover; or one NameNode moved it, its answer was lost, and the other was asked again.
            return self._storage.names(path) == [self.name]
        self._storage.delete(temporary)
        return False

    def _owner(self, block: int) -> str:
        """Return the name of the writer that holds a block; empty if none does."""
        return next(iter(self._storage.names(layout.block_lease_folder(self._folder, block))), "")

    def _remove(self, path: str, owner: str) -> bool:
        """Remove an owner's lease; only one of several waiters succeeds, because only one can move it away."""
        moved = temporary_name(path)
        with suppress(MissingError, LostWriteError):  # returned, or another waiter was faster
            if not self._storage.rename(path, moved):
                return False
            if self._storage.names(moved) != ([owner] if owner else []):  # it has a new owner
                if not self._storage.rename(moved, path):
                    self._storage.delete(moved)
                return False
            self._storage.delete(moved)
        return True

    def _give_back(self, block: int) -> bool:
        """Give a lease back; return whether it was lost."""
        try:
            if not self._place.is_held(self._storage, block, self.name):
                return True
            self._storage.delete(layout.block_lease_folder(self._folder, block))
        except TransientError:  # the store is down: the block becomes free when our own lease expires
            pass
        return False
