"""Leases on the blocks of a run: one writer a block, whatever its stage.

Scoring, indexing and deleting all write a block's record in the ledger, so they share one lease. A group has hundreds
of blocks, so a lease is as cheap as HDFS allows: a folder ``<block>.block/<writer>`` is moved to a name that must be
free, which takes two requests to the NameNode and none to a DataNode. Only one file tells that the writer of all these
blocks is alive, and only that is renewed: a lease of :mod:`tinytags_tasks.store.lease`.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import MissingError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import LEASE_SECONDS, Leases
from tinytags_tasks.store.protocol import Storage, temporary_name

_AT_ONCE = 8
"""Blocks whose leases are taken or returned at once."""

_POLL_SECONDS = 1.0
_POLL_SHARE = 5
"""A waiter pauses at least so many times as long as asking took: many blocks are asked after less often."""


@dataclass(frozen=True)
class HeldBlocks:
    """Blocks that one writer holds: ``writer`` is its name in the leases, ``blocks`` are their numbers."""

    run: str
    writer: str
    blocks: list[int]


def hold_blocks(
    run: str,
    blocks: Iterable[int],
    *,
    storage: Storage,
    report: Callable[[str], None],
    lease_seconds: float = LEASE_SECONDS,
) -> Iterator[HeldBlocks]:
    """Yield blocks that nobody else writes while they are in hand, then those of others when these let them go.

    A block that another took over meanwhile, because this writer was silent for too long, is yielded again.

    Parameters
    ----------
    run, blocks
        The run's name and the blocks' numbers.
    storage
        The store.
    report
        Is told who is waited for.
    lease_seconds
        How long a writer may be silent.

    Raises
    ------
    TransientError
        If the store cannot tell now which blocks are free.
    """
    waiting = list(blocks)
    if not waiting:
        return
    told = ""
    with _writer(run, storage, lease_seconds) as writer:
        while waiting:
            began = time.monotonic()
            taken = writer.take(waiting)
            asked_seconds = time.monotonic() - began
            lost: list[int] = []
            try:
                if taken:
                    yield HeldBlocks(run, writer.name, taken)
            finally:
                lost = writer.give_back(taken)
            if lost:
                report(f"blocks {format_block_numbers(lost)} were taken over by another writer: looking at them again")
            waiting = [block for block in waiting if block not in taken or block in lost]
            if waiting and not taken:
                if (owner := writer.describe(waiting[0])) != told:
                    report(f"block {waiting[0]} is being written by {owner}: waiting for it")
                    told = owner
                time.sleep(max(_POLL_SECONDS, _POLL_SHARE * asked_seconds))


def refuse_lost(storage: Storage, run: str, block: int, writer: str) -> None:
    """Refuse to write a block that this writer does not hold any longer.

    Raises
    ------
    TransientError
        If another writer holds it, or the lease was returned.
    """
    if not is_held(storage, run, block, writer):
        raise TransientError(f"run {run}: block {block} was taken over by another writer; try again to see its outcome")


def is_held(storage: Storage, run: str, block: int, writer: str) -> bool:
    """Tell whether a writer holds a block."""
    return storage.exists(f"{layout.block_lease_folder(run, block)}/{writer}")


@contextmanager
def _writer(run: str, storage: Storage, lease_seconds: float) -> Generator["_Writer"]:
    name = uuid.uuid4().hex
    leases = Leases(storage, lease_seconds)
    with leases.hold(layout.writer_lease_file(run, name)):  # nobody else knows the name, so it is always free
        writer = _Writer(run, name, storage, leases)
        yield writer
    with suppress(TransientError):  # the next writer does it
        writer.clear_away()


class _Writer:
    """Takes and returns the leases of one writer."""

    def __init__(self, run: str, name: str, storage: Storage, leases: Leases) -> None:
        self.name = name
        self._run = run
        self._storage = storage
        self._leases = leases

    def take(self, blocks: list[int]) -> list[int]:
        """Take what is free or abandoned, and return it."""
        names = set(self._storage.names(layout.leases_folder(self._run)))
        standing = [block for block in blocks if layout.file_name(layout.block_lease_folder(self._run, block)) in names]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            owners = dict(zip(standing, pool.map(self._owner, standing), strict=True))
            abandoned = {owner: self._is_abandoned(owner) for owner in set(owners.values())}
            open_blocks = [block for block in blocks if block not in owners or abandoned[owners[block]]]
            taken = pool.map(lambda block: self._take(block, owners.get(block)), open_blocks)
            return [block for block, is_ours in zip(open_blocks, taken, strict=True) if is_ours]

    def give_back(self, blocks: list[int]) -> list[int]:
        """Return the leases of blocks; return those blocks that another has taken over."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [block for block, is_lost in zip(blocks, pool.map(self._give_back, blocks), strict=True) if is_lost]

    def describe(self, block: int) -> str:
        """Return who holds a block, for people."""
        owner = self._owner(block)
        return self._leases.describe(layout.writer_lease_file(self._run, owner)) if owner else "somebody"

    def clear_away(self) -> None:
        """Delete what is left of writers that are gone, once nobody holds a block.

        A writer that is about to take its first block repeats what is deleted under its hands.
        """
        folder = layout.leases_folder(self._run)
        names = self._storage.names(folder)
        if all(name.endswith(layout.WRITER_LEASE) for name in names):
            for name in names:
                with self._leases.hold(f"{folder}/{name}"):  # takes the lease of a writer that is gone, and returns it
                    pass
            for leftover in self._storage.leftovers(folder):
                self._storage.delete(leftover.path)

    def _is_abandoned(self, owner: str) -> bool:
        return not owner or self._leases.is_abandoned(layout.writer_lease_file(self._run, owner))

    def _take(self, block: int, abandoned_by: str | None) -> bool:
        path = layout.block_lease_folder(self._run, block)
        return (abandoned_by is None or self._remove(path, abandoned_by)) and self._create(path)

    def _create(self, path: str) -> bool:
        temporary = temporary_name(path)
        self._storage.make_folder(f"{temporary}/{self.name}")
        try:
            if self._storage.rename(temporary, path):
                return True
        except MissingError:  # cleared away as a leftover
            return False
        self._storage.delete(temporary)
        return False

    def _owner(self, block: int) -> str:
        """Return the name of the writer that holds a block; empty when none does."""
        return next(iter(self._storage.names(layout.block_lease_folder(self._run, block))), "")

    def _remove(self, path: str, owner: str) -> bool:
        """Remove a lease that is still that owner's; of several waiters one succeeds, for one moves it away."""
        moved = temporary_name(path)
        with suppress(MissingError):  # returned, or another waiter was faster
            if not self._storage.rename(path, moved):
                return False
            if self._storage.names(moved) != ([owner] if owner else []):  # a new owner's
                if not self._storage.rename(moved, path):
                    self._storage.delete(moved)
                return False
            self._storage.delete(moved)
        return True

    def _give_back(self, block: int) -> bool:
        """Return a lease; tell whether it was lost."""
        try:
            if not is_held(self._storage, self._run, block, self.name):
                return True
            self._storage.delete(layout.block_lease_folder(self._run, block))
        except TransientError:  # the store is away: it is free when our sign of life ends
            pass
        return False
