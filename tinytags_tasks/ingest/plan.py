"""The first step of an ingestion: list the source, and record what will be ingested."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.registry import find_format, list_items
from tinytags_tasks.corpus.listing import ListingFile
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError, FinalError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, Source
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record

_IMAGES_PER_TASK = 250_000
_MOST_TASKS = 400
_FREE_SHARE = 0.02
_DECISIVE = (
    "name",
    "format",
    "height",
    "width",
    "shard_images",
    "blocks_per_shard",
    "pixel_order",
    "resize",
    "filter",
    "image_column",
    "format_options",
    "keywords",
    "keyword_stop_list",
)
"""Fields of a definition that determine the stored bytes; they must not change once ingestion has begun."""


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
    """

    definition: CorpusDefinition
    source: Source
    stop_list_sha256: str = ""

    @property
    def partition(self) -> Partition:
        """How the corpus is divided into shards and blocks."""
        return Partition(self.source.images, self.definition.shard_images, self.definition.blocks_per_shard)

    @property
    def has_keywords(self) -> bool:
        """Whether its images have keywords."""
        return bool(self.definition.keywords)


@dataclass(frozen=True)
class PlanRequest:
    """Which corpus to ingest, and how to divide its shards among tasks.

    Attributes
    ----------
    definition
        The corpus.
    shards_per_task
        Shards per task; 0 gives each task about a quarter of a million images, and makes at most 400 tasks.
    redo
        Shards that are written again even if they are complete.
    """

    definition: CorpusDefinition
    shards_per_task: int = 0
    redo: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlanResult:
    """What is left to do: groups of shards, none if the corpus is complete."""

    corpus: str
    images: int
    shards: int
    groups: tuple[tuple[int, ...], ...]


def plan_ingestion(
    request: PlanRequest, *, storage: Storage, files: SourceFiles, report: Callable[[str], None] = print
) -> PlanResult:
    """Write the ingestion's plan to the store, and return the shards that still have to be written or checked.

    A committed corpus is compared with its source by size, version, head and tail. If the corpus is not committed, the
    task that handles a shard also compares the shard with its range of the source.

    Raises
    ------
    BadInputError
        If the source cannot be used, or differs from the one that the corpus is or was made from.
    FinalError
        If the store does not have enough space for what is missing.
    """
    definition = request.definition
    plan = _write_plan(definition, storage, files, report)
    partition = plan.partition
    if wrong := [shard for shard in request.redo if not 0 <= shard < partition.shards]:
        raise BadInputError(
            f"shard {wrong[0]} is out of range: corpus {definition.name} has 0 to {partition.shards - 1}"
        )
    sizes = storage.sizes(layout.shards_folder(definition.name))
    missing = [shard for shard in range(partition.shards) if not _is_complete(plan, shard, sizes)]
    to_write = sorted({*missing, *request.redo})
    _check_space(plan, to_write, storage, report)
    is_committed = storage.exists(layout.corpus_file(definition.name))
    todo = to_write if is_committed else list(range(partition.shards))
    report(
        f"corpus {definition.name}: {partition.images:,} images in {partition.shards} shards, "
        f"{len(missing)} of them missing" + ("" if missing or request.redo or not is_committed else ": nothing to do")
    )
    return PlanResult(definition.name, partition.images, partition.shards, _groups(request, partition, todo))


def load_plan(storage: Storage, corpus: str) -> IngestPlan:
    """Return a corpus' ingestion plan.

    Raises
    ------
    MissingError, CorruptError
        If there is no plan, or it is damaged.
    """
    return IngestPlan.load(storage, layout.ingest_plan_file(corpus))


def _write_plan(
    definition: CorpusDefinition, storage: Storage, files: SourceFiles, report: Callable[[str], None]
) -> IngestPlan:
    report(f"listing {files.address}")
    listing = ListingFile(_with_progress(list_items(files, definition), report))
    try:
        summary = listing.summary
        if not summary.images:
            raise BadInputError(
                f"{files.address}: contains no images of the format {definition.format}; correct the source"
            )
        head, tail = hash_ends(files, files.current(summary.first_path), files.current(summary.last_path))
        source = Source(
            path=files.address,
            format=definition.format,
            files=summary.files,
            size_bytes=summary.size_bytes,
            images=summary.images,
            listing_sha256=hashlib.sha256((summary.sha256 + _metadata_version(definition, files)).encode()).hexdigest(),
            head_sha256=head,
            tail_sha256=tail,
        )
        plan = IngestPlan(definition=definition, source=source, stop_list_sha256=_stop_list_sha256(definition))
        path = layout.ingest_plan_file(definition.name)
        if not storage.exists(path):
            listing_path = layout.source_file(definition.name, source.listing_sha256)
            storage.write(listing_path, listing.content())
            if plan.save(storage, path, overwrite=False):
                return plan
    finally:
        listing.close()
    known = load_plan(storage, definition.name)
    _refuse_difference(known, plan)
    if known.definition != definition:  # for example, the source was moved or the limit was raised
        plan.save(storage, path)
    return plan


def _with_progress(items: Iterator[ListedItem], report: Callable[[str], None]) -> Iterator[ListedItem]:
    """Yield the items, and report their number every now and then."""
    for count, item in enumerate(items, start=1):
        if count % 100_000 == 0:
            report(f"listed {count:,} items")
        yield item


def _metadata_version(definition: CorpusDefinition, files: SourceFiles) -> str:
    if not (definition.keywords and find_format(definition.format).keywords_are_a_file):
        return ""
    return files.with_source(definition.keywords).only_file().identity


def _stop_list_sha256(definition: CorpusDefinition) -> str:
    if not definition.keyword_stop_list:
        return ""
    try:
        return hashlib.sha256(Path(definition.keyword_stop_list).expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise BadInputError(f"{definition.keyword_stop_list}: cannot be read ({error.strerror})") from error


def _refuse_difference(known: IngestPlan, asked: IngestPlan) -> None:
    """Refuse a source or definition that differs from the one that the ingestion began with.

    Raises
    ------
    BadInputError
        If they differ: in what.
    """
    name = known.definition.name
    remedy = f"restore it, choose another name, or remove the corpus with `tinytags corpus remove {name} --data`"
    before, now = known.source.content, asked.source.content
    if differing := [field for field in before if before[field] != now[field]]:
        field = differing[0]
        what = f"{field}: was {_short(before[field])}, is {_short(now[field])}"
        raise BadInputError(
            f"corpus {name} was made from {known.source.path}, but {asked.source.path} is a different source or has "
            f"changed since then ({what}); {remedy}"
        )
    old, new = ({field: getattr(plan.definition, field) for field in _DECISIVE} for plan in (known, asked))
    if find_format(known.definition.format).keywords_are_a_file:  # the content is part of the source; the path is not
        old["keywords"], new["keywords"] = bool(old["keywords"]), bool(new["keywords"])
    old["keyword_stop_list"], new["keyword_stop_list"] = known.stop_list_sha256, asked.stop_list_sha256
    if differing := [field for field in old if old[field] != new[field]]:
        field = differing[0]
        raise BadInputError(
            f"corpus {name} was started with {field} = {_short(old[field])}, not {_short(new[field])}; {remedy}"
        )


def _short(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:40]


def _is_complete(plan: IngestPlan, shard: int, sizes: dict[str, int]) -> bool:
    name, size = plan.definition.name, plan.partition.images_in_shard(shard) * plan.definition.image_bytes
    paths = [layout.shard_manifest_file(name, shard)]
    if plan.has_keywords:
        paths.append(layout.keywords_file(name, shard))
    return sizes.get(layout.file_name(layout.shard_file(name, shard))) == size and all(
        layout.file_name(path) in sizes for path in paths
    )


def _check_space(plan: IngestPlan, shards: list[int], storage: Storage, report: Callable[[str], None]) -> None:
    """Report how much will be written, and refuse it if the store does not have enough space."""
    needed = sum(plan.partition.images_in_shard(shard) for shard in shards) * plan.definition.image_bytes
    if not needed:
        return
    free = storage.free_bytes()
    if free is None:
        report(f"{needed / 1e9:,.2f} GB will be written; the store does not report its free space")
        return
    report(f"{needed / 1e9:,.2f} GB will be written, and {free / 1e9:,.2f} GB are free")
    if needed * (1 + _FREE_SHARE) > free:
        raise FinalError(
            f"corpus {plan.definition.name} needs {needed:,} more bytes, but the store has only {free:,} free (after "
            "replication): free some space, raise the quota, or add a disk"
        )


def _groups(request: PlanRequest, partition: Partition, shards: list[int]) -> tuple[tuple[int, ...], ...]:
    if request.shards_per_task < 0:
        raise BadInputError(f"shards_per_task is {request.shards_per_task}: it must be 1 or more, or 0 for automatic")
    size = request.shards_per_task or max(1, _IMAGES_PER_TASK // partition.shard_images, -(-len(shards) // _MOST_TASKS))
    return tuple(tuple(shards[start : start + size]) for start in range(0, len(shards), size))


def same_source(known: Source, asked: Source) -> bool:
    """Return whether two records describe the same source, wherever it is."""
    return known.content == asked.content


def committed_corpus(storage: Storage, corpus: str) -> Corpus | None:
    """Return a corpus' record if it has been committed; None otherwise."""
    path = layout.corpus_file(corpus)
    return Corpus.load(storage, path) if storage.exists(path) else None
