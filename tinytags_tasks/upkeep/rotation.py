"""The rotation of audits: each one compares the next share of the pictures, so that a known number compares all."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.publish.pictures import BlockPixels, PictureComparison
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record_series import record_numbers
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import Audit, BlockRecord

AUDITS = 30
"""How many audits compare every picture, unless the number of pictures is given."""


@dataclass(frozen=True)
class Share:
    """The pictures that one audit compares.

    Attributes
    ----------
    first
        The position from which on they are.
    documents
        How many they are at most.
    records
        The blocks that they are in; of the last one, only some.
    is_end
        Whether there are no pictures after these blocks.
    """

    first: int
    documents: int
    records: tuple[BlockRecord, ...]
    is_end: bool

    @property
    def blocks(self) -> frozenset[int]:
        """The numbers of the blocks."""
        return frozenset(record.block for record in self.records)


@dataclass
class Compared:
    """What came of comparing a share.

    Attributes
    ----------
    documents
        How many pictures were compared.
    problems, damaged
        What is wrong with a block's documents, or with its bytes in the shard, by its number.
    pictures_to
        The position up to which pictures have been compared in this rotation.
    """

    pictures_to: int
    documents: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)


def last_position(run_name: str, storage: Storage) -> int:
    """Return the position up to which earlier audits have compared pictures in this rotation; 0 if none has.

    A damaged record of an audit is passed over.
    """
    path_of = partial(layout.audit_file, run_name)
    for number in reversed(record_numbers(path_of, storage)):
        try:
            audit = Audit.load(storage, path_of(number))
        except (MissingError, CorruptError):
            continue
        if audit.pictures_to is not None:
            return audit.pictures_to
    return 0


def next_share(corpus: Corpus, records: Sequence[BlockRecord], first: int, documents: int | None) -> Share:
    """Choose the pictures that an audit compares; a rotation that has come to its end starts again.

    Parameters
    ----------
    corpus
        The corpus.
    records
        The blocks that may be compared.
    first
        The position up to which earlier audits have come.
    documents
        How many pictures to compare; None means such a share that :data:`AUDITS` audits compare all.
    """
    records = [record for record in records if record.kept]
    if documents is None:
        documents = -(-sum(record.kept for record in records) // AUDITS)
    later = [record for record in records if _stop(corpus, record) > first]
    if not later:
        first, later = 0, records
    chosen = []
    left = documents
    for record in later:
        if left <= 0:
            break
        chosen.append(record)
        if corpus.partition.block(record.block).first >= first:  # else only some of its pictures are left
            left -= record.kept
    return Share(first, documents, tuple(chosen), len(chosen) == len(later))


@dataclass(frozen=True)
class _Part:
    """Pictures of one block that are compared; ``stop`` is the position up to which all have been compared then."""

    block: int
    positions: Sequence[int]
    stop: int


def compare_share(share: Share, corpus: Corpus, pictures: PictureComparison) -> Compared:
    """Compare the pictures of a share, block by block; the next ones are read while some are compared."""

    def read() -> Iterator[tuple[_Part, BlockPixels | MissingError | CorruptError | None]]:
        for part in _parts(share, RunBlocks(pictures.run, corpus, pictures.storage)):
            if not part.positions:
                yield part, None
                continue
            try:
                for ingested in pictures.read_batches(part.block):
                    yield part, ingested
            except (MissingError, CorruptError) as error:
                yield part, error

    is_complete = share.is_end and not share.records
    compared = Compared(corpus.images if is_complete else share.first)
    documents: dict[int, int] = {}
    for part, ingested in prefetch(read(), 1):
        compared.pictures_to = part.stop
        documents[part.block] = len(part.positions)
        if isinstance(ingested, MissingError | CorruptError):
            compared.damaged[part.block] = str(ingested)
            compared.problems.pop(part.block, None)  # compared with pictures that are not what was ingested
            del documents[part.block]
        elif ingested and (problem := pictures.block_problem(part.positions, ingested)):
            compared.problems.setdefault(part.block, problem)
    compared.documents = sum(documents.values())
    return compared


def _parts(share: Share, blocks: RunBlocks) -> Iterator[_Part]:
    corpus = blocks.corpus
    left = share.documents
    for number, record in enumerate(share.records, 1):
        if left <= 0:
            return
        positions = blocks.read(record.block, upto=record.corrections).table.column("position").to_numpy()
        rest = positions[positions >= share.first].tolist()
        own, left = rest[:left], left - len(rest)
        stop = _stop(corpus, record) if left >= 0 else own[-1] + 1
        is_last = share.is_end and number == len(share.records) and left >= 0
        yield _Part(record.block, own, corpus.images if is_last else stop)


def rotated_to(
    share: Share, compared: Compared, corpus: Corpus, problems: Collection[int], broken_shards: Collection[int]
) -> int:
    """Return the position up to which all pictures have been compared and are good: the next audit begins there.

    Parameters
    ----------
    share, compared
        What was compared, and what came of it.
    corpus
        The corpus.
    problems, broken_shards
        Blocks whose documents differ, and shards that are not what was ingested.
    """
    reached = compared.pictures_to
    for block in map(corpus.partition.block, range(corpus.partition.blocks)):
        is_bad = block.number in problems or block.number in compared.damaged or block.shard in broken_shards
        if is_bad and block.first + block.images > share.first:
            reached = min(reached, max(block.first, share.first))
    return reached


def _stop(corpus: Corpus, record: BlockRecord) -> int:
    block = corpus.partition.block(record.block)
    return block.first + block.images
