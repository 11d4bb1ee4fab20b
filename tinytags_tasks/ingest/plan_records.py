"""Records of an ingestion: what is ingested as a corpus, and what is appended to it later."""

from functools import partial

from pydantic import Field

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.listing import JoinedListing, open_listing
from tinytags_tasks.corpus.sources.left_out import LeftOutGroup
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.near_names import choices
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, Source
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record
from tinytags_tasks.store.record_series import record_numbers


class IngestPlan(Record):
    """What is ingested as a corpus; once it has been written, nothing else is accepted.

    Attributes
    ----------
    definition
        The corpus as it was defined.
    source
        Its source as it was at that time.
    stop_list_sha256
        The hash of the stop list of keywords; empty if there is none.
    left_out
        What was in the source's folders and does not belong to it, when it was listed last.
    growths
        What was new in the source each time that the corpus grew; each is a record of its own, a :class:`GrowthPlan`.
    """

    definition: CorpusDefinition
    source: Source
    stop_list_sha256: str = ""
    left_out: tuple[LeftOutGroup, ...] = ()
    growths: tuple[Source, ...] = Field((), exclude=True)

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a plan again."""
        return f"write it again from the corpus' source with `tinytags ingest {layout.path_name(path)}`"

    @property
    def sources(self) -> tuple[Source, ...]:
        """What the corpus began with, and what was appended each time: the source of each part."""
        return (self.source, *self.growths)

    @property
    def images(self) -> int:
        """How many images the corpus has once all is ingested."""
        return sum(source.images for source in self.sources)

    @property
    def partition(self) -> Partition:
        """How the corpus is divided into shards and blocks."""
        definition = self.definition
        appended = tuple(source.images for source in self.growths)
        return Partition(self.images, definition.shard_images, definition.blocks_per_shard, appended)

    def source_of(self, shard: int) -> Source:
        """Return the source of the part of the corpus that a shard is in."""
        return self.sources[self.partition.part_of_shard(shard)]

    @property
    def has_keywords(self) -> bool:
        """Whether its images have keywords."""
        return bool(self.definition.keywords)


class GrowthPlan(Record):
    """What is appended to a corpus at one time: what was new in its source, by the number of the growth, from 1.

    The first record of a number counts, so two processes that find different new files never append both.
    """

    corpus: str
    number: int
    source: Source

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes the record again."""
        return f"write it again from the corpus' totals with `tinytags ingest {layout.path_name(path)}`"


def load_plan(storage: Storage, corpus: str) -> IngestPlan:
    """Return a corpus' ingestion plan, with what is appended.

    Raises
    ------
    MissingError, CorruptError
        If there is no plan, or it is damaged.
    """
    try:
        plan = IngestPlan.load(storage, layout.ingest_plan_file(corpus))
    except MissingError as error:
        names = storage.names(layout.CORPORA)
        if corpus in names:
            raise
        raise MissingError(
            f"corpus {corpus} is not in the store: ingest it with `tinytags ingest {corpus}` ({choices(corpus, names)})"
        ) from error
    path_of = partial(layout.growth_file, corpus)
    numbers = record_numbers(path_of, storage)
    if numbers != list(range(1, len(numbers) + 1)):
        path = path_of(len(numbers))
        raise CorruptError(f"{path}: it or an earlier one is missing; {GrowthPlan.remedy(path)}")
    growths = [GrowthPlan.load(storage, path_of(number)) for number in numbers]
    return plan.replaced(growths=tuple(growth.source for growth in growths))


def open_plan_listing(plan: IngestPlan, storage: Storage) -> JoinedListing:
    """Open what a corpus' positions are in its source, whenever they were appended.

    Raises
    ------
    MissingError, NewerFormatError, CorruptError
        If a listing is missing, written by a newer TinyTags, or damaged.
    """
    paths = (layout.source_file(plan.definition.name, source.listing_sha256) for source in plan.sources)
    return JoinedListing([open_listing(storage, path) for path in paths])


def same_source(known: Source, asked: Source) -> bool:
    """Return whether two records describe the same source, wherever it is and whatever the times of its files."""
    return known.timeless_content == asked.timeless_content


def committed_corpus(storage: Storage, corpus: str) -> Corpus | None:
    """Return a corpus' record if it has been committed; None otherwise.

    Raises
    ------
    CorruptError
        If the record is damaged.
    """
    path = layout.corpus_file(corpus)
    return Corpus.load(storage, path) if storage.exists(path) else None


def committed_parts(plan: IngestPlan, storage: Storage) -> int:
    """Return how many parts of a corpus are committed: what it began with, and its growths.

    All count as committed if its totals are damaged: they are written again once no shard is missing.
    """
    try:
        corpus = committed_corpus(storage, plan.definition.name)
    except CorruptError:
        return len(plan.sources)
    return 1 + len(corpus.growths) if corpus else 0


def load_committed_plan(storage: Storage, corpus: str) -> IngestPlan:
    """Return a corpus' plan without a growth that is not committed, which binds nobody who only reads.

    Raises
    ------
    MissingError, CorruptError
        If there is no plan, or it is damaged.
    """
    plan = load_plan(storage, corpus)
    parts = committed_parts(plan, storage)
    return plan.replaced(growths=plan.growths[: parts - 1]) if parts else plan
