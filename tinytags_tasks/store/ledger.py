"""The ledger: the state of each block of a run, read from the store alone."""

import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from tinytags_tasks.errors import CorruptError, FinalError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import PIXELS, ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.store.some_files import is_listed

_READERS = 8
_READ_AT_ONCE = 400

_LISTING_SECONDS = 2.0
"""How long the list of a corpus' embeddings counts as new, for a reader that looks again and again."""


@dataclass(frozen=True)
class Totals:
    """Sums over the blocks of a ledger."""

    blocks: int
    read: int
    kept: int
    below: int
    none: int
    unreadable: int
    taken_down: int
    corrected: int
    documents: int
    by_state: dict[str, int]
    kept_by_tag: dict[str, int]
    embed_seconds: float
    score_seconds: float
    index_seconds: float

    @property
    def accounted(self) -> int:
        """How many images became something; equal to those that were read."""
        return self.kept + self.below + self.none + self.unreadable + self.taken_down


def list_runs(
    storage: Storage, *, names: Iterable[str] | None = None, on_damage: Callable[[str], None] | None = None
) -> list[Run]:
    """Return all runs, newest last; a folder without a run's record is skipped.

    Parameters
    ----------
    storage
        The store.
    names
        Only these runs; None means all.
    on_damage
        Called for each record that cannot be read, with what is wrong and the remedy; the others are returned. None
        raises this as an error.

    Raises
    ------
    FinalError
        If a record cannot be read and ``on_damage`` is None.
    """

    def load(name: str) -> Run | str | None:
        try:
            return Run.load(storage, layout.run_file(name))
        except MissingError:
            return None
        except FinalError as error:
            if on_damage is None:
                raise
            return str(error)

    runs = []
    with ThreadPoolExecutor(_READERS) as pool:
        for found in pool.map(load, storage.names(layout.RUNS) if names is None else names):
            if isinstance(found, Run):
                runs.append(found)
            elif found and on_damage:
                on_damage(found)
    return sorted(runs, key=lambda run: (run.created, run.name))


class LedgerReader:
    """Reads one run's ledger repeatedly; each time, only the files that have changed are read.

    Parameters
    ----------
    storage
        The store.
    run
        The run.
    """

    def __init__(self, storage: Storage, run: Run) -> None:
        self._storage = storage
        self._run = run
        self._records: dict[int, BlockRecord] = {}
        self._versions: dict[int, str] = {}
        self._waiting: deque[tuple[int, str]] = deque()
        self._embedded: frozenset[str] = frozenset()
        self._listed = float("-inf")

    def read(self, blocks: Iterable[int] | None = None) -> list[BlockRecord]:
        """Return the records of blocks in order; with a damaged record, a block has failed.

        Without a record, a block is embedded if the corpus holds its embeddings by the model's net, and planned if not.

        Parameters
        ----------
        blocks
            Block numbers; None means all. A few are read one by one, so that the time does not grow with the ledger.
        """
        chosen = range(self._run.blocks) if blocks is None else list(blocks)
        if blocks is not None and not is_listed(len(chosen), lambda: self._run.blocks):
            with ThreadPoolExecutor(_READERS) as pool:
                return list(pool.map(self._read_one, chosen))
        self._waiting.clear()
        self.update()
        return [self._records[block] for block in chosen]

    @property
    def is_whole(self) -> bool:
        """Whether each block's record has been read by :meth:`update`."""
        return len(self._records) == self._run.blocks

    def update(self, seconds: float = math.inf) -> dict[int, BlockRecord]:
        """Bring all records up to date, and return those that have changed; none if all are as they were.

        The ledger is listed once, even if several calls read what has changed.

        Parameters
        ----------
        seconds
            How long to read what has changed; the next call continues.
        """
        changed = {} if self._waiting else self._list()
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(_READERS) as pool:
            while self._waiting and time.monotonic() < until:
                part = list(itertools.islice(self._waiting, _READ_AT_ONCE))
                for (block, version), record in zip(part, pool.map(self._read_one, (b for b, _ in part)), strict=True):
                    self._keep(block, version, record, changed)
                    self._waiting.popleft()
        return changed

    def _list(self) -> dict[int, BlockRecord]:
        """List the ledger; return the blocks that have no record now. Those whose file has changed wait to be read."""
        versions = self._storage.versions(layout.ledger_folder(self._run.name))
        found = {block: versions.get(layout.ledger_file_name(block), "") for block in range(self._run.blocks)}
        if not all(found.values()):
            self._list_embeddings()
        changed: dict[int, BlockRecord] = {}
        for block, version in found.items():
            if not version:
                self._keep(block, "", self._without_record(block), changed)
            elif version != self._versions.get(block):
                self._waiting.append((block, version))
        return changed

    def _keep(self, block: int, version: str, record: BlockRecord, changed: dict[int, BlockRecord]) -> None:
        self._versions[block] = version
        if record != self._records.get(block):
            self._records[block] = changed[block] = record

    @cached_property
    def _net(self) -> str:
        """The net whose embeddings the run's model reads; pixels if it reads none, or its card is damaged."""
        try:
            return ModelCard.load(self._storage, layout.card_file(self._run.model)).features
        except FinalError:
            return PIXELS

    def _list_embeddings(self) -> None:
        """List the embeddings that the run's model reads."""
        if self._net != PIXELS and time.monotonic() - self._listed > _LISTING_SECONDS:
            self._embedded = frozenset(self._storage.names(layout.embeddings_folder(self._run.corpus, self._net)))
            self._listed = time.monotonic()

    def _without_record(self, block: int) -> BlockRecord:
        """Return the record of a block that has none, by the listing of embeddings."""
        known = self._records.get(block)
        state = BlockState.EMBEDDED if layout.embedding_file_name(block) in self._embedded else BlockState.PLANNED
        if known is not None and not self._versions.get(block) and known.state is state:
            return known
        return self._planned(block).replaced(state=state)

    def _planned(self, block: int) -> BlockRecord:
        return BlockRecord(run=self._run.name, block=block, state=BlockState.PLANNED, model=self._run.model)

    def _read_one(self, block: int) -> BlockRecord:
        """Read a block's record; without one, look for its embeddings."""
        record = self._load(layout.ledger_file(self._run.name, block), block)
        if record is not None:
            return record
        planned = self._planned(block)
        if self._net == PIXELS:
            return planned
        is_embedded = self._storage.exists(layout.embeddings_file(self._run.corpus, self._net, block))
        return planned.replaced(state=BlockState.EMBEDDED) if is_embedded else planned

    def _load(self, path: str, block: int) -> BlockRecord | None:
        """Return what the ledger has of a block; None if it has nothing."""
        try:
            record = BlockRecord.load(self._storage, path)
        except MissingError:
            return None
        except CorruptError as error:
            return self._planned(block).replaced(state=BlockState.FAILED, reason=str(error))
        if (record.run, record.block) != (self._run.name, block):
            reason = f"{path}: is the record of block {record.block} of run {record.run}; {BlockRecord.remedy(path)}"
            return self._planned(block).replaced(state=BlockState.FAILED, reason=reason)
        return record


def read_ledger(storage: Storage, run: Run, blocks: Iterable[int] | None = None) -> list[BlockRecord]:
    """Read the records of a run's blocks once; see :meth:`LedgerReader.read`."""
    return LedgerReader(storage, run).read(blocks)


@dataclass(frozen=True)
class Rates:
    """The speed of a run.

    Attributes
    ----------
    images_per_second, documents_per_second
        Images scored and documents indexed per second, in the last :data:`RECENT_SECONDS`; over the whole run once it
        has ended.
    seconds_left
        The estimated time until every block is verified; 0 if all are, None if no block was verified recently.
    """

    images_per_second: float
    documents_per_second: float
    seconds_left: float | None


RECENT_SECONDS = 600.0
"""What counts as recent."""


def rates(run: Run, records: Iterable[BlockRecord], *, at: datetime | None = None) -> Rates:
    """Return the speed of a run, from the times in its ledger.

    Parameters
    ----------
    run
        The run.
    records
        The records of its blocks.
    at
        The time at which the speed is measured; None means now.
    """
    records = list(records)
    verified = [record for record in records if record.state is BlockState.VERIFIED]
    left = run.images - sum(record.read for record in verified)
    scored = [(record.scored, record.score_seconds, record.read) for record in records if record.scored]
    indexed = [(record.indexed, record.index_seconds, record.kept) for record in records if record.indexed]
    finished = [(record.indexed, record.index_seconds, record.read) for record in verified]
    until = (at or datetime.now(UTC)).timestamp() if left > 0 else None
    images, documents, done = (_rate(events, until) for events in (scored, indexed, finished))
    return Rates(images, documents, 0.0 if left <= 0 else left / done if done else None)


def _rate(events: list[tuple[str, float, int]], until: float | None) -> float:
    """Return the count per second of events, each given by when it ended, its seconds of work and its count."""
    ended = [(datetime.fromisoformat(end).timestamp(), seconds, count) for end, seconds, count in events]
    if until is not None:
        ended = [event for event in ended if event[0] > until - RECENT_SECONDS]
    if not ended:
        return 0.0
    last = max(end for end, _, _ in ended) if until is None else until
    first = min(end - seconds for end, seconds, _ in ended)
    return sum(count for _, _, count in ended) / max(last - first, 1.0)


_SCORED_FIELDS = (
    "model",
    "sha256",
    "read",
    "kept",
    "below",
    "none",
    "unreadable",
    "taken_down",
    "corrected",
    "kept_by_tag",
)
"""Fields of a block's record that follow from the scored file and people's words."""


def contradiction(record: BlockRecord, expected: BlockRecord) -> str:
    """Return the fields of a verified block's record that are not as they must be; empty if all are.

    Parameters
    ----------
    record
        The ledger's record.
    expected
        The record of the scored file, corrected by people's words up to the number in the ledger's record.
    """
    pairs = [(name, getattr(record, name), getattr(expected, name)) for name in _SCORED_FIELDS]
    pairs.append(("documents", record.documents, expected.kept))
    if record.scored_bytes:
        pairs.append(("scored_bytes", record.scored_bytes, expected.scored_bytes))
    wrong = [(name, _short(said), _short(right)) for name, said, right in pairs if said != right]
    return ", ".join(f"{name} is {said}, and must be {right}" for name, said, right in wrong)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{tag} {count}" for tag, count in value.items()) or "empty"
    return (f"{value[:12]}..." if len(value) > 40 else value or "empty") if isinstance(value, str) else str(value)


def is_scored_whole(record: BlockRecord, sizes: Mapping[str, int]) -> bool:
    """Return whether a block's scored file exists and is as large as the ledger says."""
    size = sizes.get(layout.file_name(layout.scored_file(record.run, record.block)))
    return size is not None and record.scored_bytes in (0, size)


def add_up(records: Iterable[BlockRecord]) -> Totals:
    """Sum the records of a ledger."""
    records = list(records)
    kept_by_tag: Counter[str] = Counter()
    for record in records:
        kept_by_tag.update(record.kept_by_tag)
    return Totals(
        blocks=len(records),
        read=sum(record.read for record in records),
        kept=sum(record.kept for record in records),
        below=sum(record.below for record in records),
        none=sum(record.none for record in records),
        unreadable=sum(record.unreadable for record in records),
        taken_down=sum(record.taken_down for record in records),
        corrected=sum(record.corrected for record in records),
        documents=sum(record.documents or 0 for record in records),
        by_state={state.value: count for state, count in Counter(record.state for record in records).items()},
        kept_by_tag=dict(kept_by_tag),
        embed_seconds=round(sum(record.embed_seconds for record in records), 3),
        score_seconds=round(sum(record.score_seconds for record in records), 3),
        index_seconds=round(sum(record.index_seconds for record in records), 3),
    )
