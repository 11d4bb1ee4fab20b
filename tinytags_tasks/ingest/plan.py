"""The first step of an ingestion: list the source, and record what will be ingested."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from tinytags_tasks.blocks import MOST_BLOCK_BYTES, MOST_BLOCKS, Partition
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.registry import find_format, list_items
from tinytags_tasks.corpus.listing import ListingFile, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles, hash_ends
from tinytags_tasks.corpus.sources.left_out import LeftOutGroup
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, TransientError
from tinytags_tasks.ingest.refusal import forget_ingestion, was_refused
from tinytags_tasks.near_names import choices
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, Source
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record
from tinytags_tasks.store.room import refuse_without_room

_IMAGES_PER_TASK = 250_000
_MOST_TASKS = 400
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
    left_out
        What was in the source's folders and does not belong to it.
    """

    definition: CorpusDefinition
    source: Source
    stop_list_sha256: str = ""
    left_out: tuple[LeftOutGroup, ...] = ()

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a plan again."""
        return f"write it again from the corpus' source with `tinytags ingest {layout.path_name(path)}`"

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
    most_groups
        How many tasks there may be at most, whatever ``shards_per_task`` is; None means any number.
    redo
        Shards that are written again even if they are complete.
    """

    definition: CorpusDefinition
    shards_per_task: int = 0
    most_groups: int | None = None
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

    The source of a complete corpus is compared by names, sizes, head and tail, if it can be read; each shard of an
    incomplete one is also compared with its own range by the task that takes it.

    Raises
    ------
    BadInputError
        If the source cannot be used, or differs from the one that the corpus is or was made from.
    FinalError
        If the store does not have enough space for what is missing.
    """
    definition = _cut_as_begun(request.definition, storage)
    plan = _write_plan(replace(request, definition=definition), request.definition, storage, files, report)
    partition = plan.partition
    if wrong := [shard for shard in request.redo if not 0 <= shard < partition.shards]:
        raise BadInputError(
            f"shard {wrong[0]} is out of range: corpus {definition.name} has 0 to {partition.shards - 1}"
        )
    missing = _missing_shards(plan, storage)
    to_write = sorted({*missing, *request.redo})
    if needed := sum(partition.images_in_shard(shard) for shard in to_write) * definition.image_bytes:
        refuse_without_room(needed, f"corpus {definition.name}", storage, report)
    is_committed = storage.exists(layout.corpus_file(definition.name))
    todo = to_write if is_committed else list(range(partition.shards))
    report(
        f"corpus {definition.name}: {partition.images:,} images in {partition.shards} shards, "
        f"{len(missing)} of them missing" + ("" if missing or request.redo or not is_committed else ": nothing to do")
    )
    return PlanResult(definition.name, partition.images, partition.shards, _groups(request, partition, todo))


def _cut_as_begun(definition: CorpusDefinition, storage: Storage) -> CorpusDefinition:
    """Return a definition that is cut as its corpus was when that was begun, unless it says how to cut."""
    try:
        if storage.exists(layout.ingest_plan_file(definition.name)):
            begun = load_plan(storage, definition.name).definition
            return definition.cut_as(begun.shard_images, begun.blocks_per_shard)
    except CorruptError:  # whoever needs the plan says so
        if corpus := committed_corpus(storage, definition.name):
            return definition.cut_as(corpus.shard_images, corpus.blocks_per_shard)
    return definition


def _refuse_senseless_cut(partition: Partition, image_bytes: int) -> None:
    """Refuse more blocks than can be kept in mind, and blocks that no worker can hold."""
    largest = max(1, -(-min(partition.images, partition.shard_images) // partition.blocks_per_shard))
    if largest > 1 and largest * image_bytes > MOST_BLOCK_BYTES:
        raise BadInputError(
            f"blocks of {largest:,} images would have {largest * image_bytes / 1e9:,.1f} GB of pixels, more than "
            f"{MOST_BLOCK_BYTES / 1e9:,.0f} GB: define the corpus with more blocks_per_shard or fewer shard_images"
        )
    if partition.blocks > MOST_BLOCKS:
        raise BadInputError(
            f"{partition.images:,} images in shards of {partition.shard_images:,} with {partition.blocks_per_shard:,} "
            f"blocks each would be {partition.blocks:,} blocks, more than {MOST_BLOCKS:,}: define the corpus with "
            "larger shards or fewer blocks per shard"
        )


def load_plan(storage: Storage, corpus: str) -> IngestPlan:
    """Return a corpus' ingestion plan.

    Raises
    ------
    MissingError, CorruptError
        If there is no plan, or it is damaged.
    """
    try:
        return IngestPlan.load(storage, layout.ingest_plan_file(corpus))
    except MissingError as error:
        names = storage.names(layout.CORPORA)
        if corpus in names:
            raise
        raise MissingError(
            f"corpus {corpus} is not in the store: ingest it with `tinytags ingest {corpus}` ({choices(corpus, names)})"
        ) from error


def _write_plan(
    request: PlanRequest,
    defined: CorpusDefinition,
    storage: Storage,
    files: SourceFiles,
    report: Callable[[str], None],
) -> IngestPlan:
    """Return the plan that counts from now on; the source is listed for it, and compared with a known plan's.

    ``defined`` is the request's definition without the cut of the known plan.
    """
    definition = request.definition
    path = layout.ingest_plan_file(definition.name)
    known = _known_plan(definition, storage, report)
    try:
        listing, plan = _list_source(definition, files, report)
    except (BadInputError, TransientError) as error:
        if known is None or request.redo or not _is_complete(known, storage):
            raise
        _refuse_another_definition(known, IngestPlan(definition=definition, source=known.source), needs_lists=False)
        report(f"corpus {definition.name} is complete, so its source is not needed ({error})")
        return known
    with closing(listing):
        if known is not None and was_refused(known, storage) and _is_another(known, plan, listing, storage):
            report(f"corpus {definition.name}: what was refused is not what there is now, so that it is begun again")
            forget_ingestion(known, storage)
            known, plan = None, plan.replaced(definition=defined.cut_for(plan.source.images))
        if known is None and not storage.exists(path):
            _refuse_senseless_cut(plan.partition, plan.definition.image_bytes)
            _write_listing(plan, listing, storage)
            if plan.save(storage, path, overwrite=False):
                return plan
        known = known or load_plan(storage, definition.name)
        _refuse_another_definition(known, plan)
        if known.source.content != plan.source.content:
            _refuse_another_source(known, plan, listing, storage)
            report(f"{files.address}: is the same source, although the times of its files have changed")
            _write_listing(plan, listing, storage)
            plan.save(storage, path)
            return plan
    if (known.definition, known.left_out) != (definition, plan.left_out):  # such as a source that was moved
        plan.save(storage, path)
        return plan
    return known


def _known_plan(definition: CorpusDefinition, storage: Storage, report: Callable[[str], None]) -> IngestPlan | None:
    """Return the plan of an ingestion that was begun; None if none was.

    A damaged plan is made again from the totals of a complete corpus. Nothing tells how the shards of an incomplete one
    were made, so that they are all written again.
    """
    path = layout.ingest_plan_file(definition.name)
    if not storage.exists(path):
        return None
    try:
        return load_plan(storage, definition.name)
    except CorruptError as error:
        corpus = committed_corpus(storage, definition.name)
        if corpus is not None:
            _refuse_another_corpus(definition, corpus)
            plan = IngestPlan(
                definition=definition, source=corpus.source, stop_list_sha256=_stop_list_sha256(definition)
            )
            plan.save(storage, path)
            report(f"{error}: done, as the corpus' totals prove")
            return plan
        for name in storage.names(layout.shards_folder(definition.name)):
            if name.endswith(".json"):
                storage.delete(f"{layout.shards_folder(definition.name)}/{name}")
        storage.delete(path)
        report(f"{error}: the corpus is incomplete, so that it is begun again")
        return None


def _refuse_another_corpus(definition: CorpusDefinition, corpus: Corpus) -> None:
    """Refuse a definition that does not make a corpus with these totals."""
    preparation = find_format(definition.format).preparation(definition)
    for what, asked, made in (
        ("format", definition.format, corpus.source.format),
        ("shard_images", definition.shard_images, corpus.shard_images),
        ("blocks_per_shard", definition.blocks_per_shard, corpus.blocks_per_shard),
        ("height", definition.height, corpus.height),
        ("width", definition.width, corpus.width),
        ("preparation", preparation, corpus.preparation),
    ):
        if asked != made:
            raise BadInputError(
                f"corpus {corpus.name} was made with {what} = {_short(made)}, not {_short(asked)}; restore its "
                f"definition, or remove the corpus with `tinytags corpus remove {corpus.name} --data`"
            )


def _list_source(
    definition: CorpusDefinition, files: SourceFiles, report: Callable[[str], None]
) -> tuple[ListingFile, IngestPlan]:
    """List a source; return the listing, which the caller closes, and the plan that follows from it."""
    report(f"listing {files.address}")
    listing = ListingFile(_with_progress(list_items(files, definition), report))
    try:
        summary = listing.summary
        if not summary.images:
            raise BadInputError(
                f"{files.address}: contains no images of the format {definition.format}; correct the source"
                f"{files.left_out}"
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
        left_out = tuple(files.left_out)
        for group in left_out:
            report(f"left out: {group}")
        plan = IngestPlan(
            definition=definition.cut_for(summary.images),
            source=source,
            stop_list_sha256=_stop_list_sha256(definition),
            left_out=left_out,
        )
        return listing, plan
    except BaseException:
        listing.close()
        raise


def _write_listing(plan: IngestPlan, listing: ListingFile, storage: Storage) -> None:
    storage.write(layout.source_file(plan.definition.name, plan.source.listing_sha256), listing.content())


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


def _remedy(name: str) -> str:
    return f"restore it, choose another name, or remove the corpus with `tinytags corpus remove {name} --data`"


def _refuse_another_source(known: IngestPlan, asked: IngestPlan, listing: ListingFile, storage: Storage) -> None:
    """Refuse another source than an ingestion was begun with; files whose times alone differ are the same.

    Raises
    ------
    BadInputError
        Naming what differs.
    """
    name = known.definition.name
    before, now = known.source.timeless_content, asked.source.timeless_content
    if differing := [field for field in before if before[field] != now[field]]:
        field = differing[0]
        what = f"{field}: was {_short(before[field])}, is {_short(now[field])}"
    else:
        path = layout.source_file(name, known.source.listing_sha256)
        stored = open_listing(storage, path)
        pairs = zip(stored.items(0, stored.images), listing.items(), strict=True)
        differing_item = next((item for (_, old), item in pairs if _timeless(old) != _timeless(item)), None)
        if differing_item is None:
            return
        what = f"the name, size or keyword of {differing_item.path}"
    raise BadInputError(
        f"corpus {name} was made from {known.source.path}, but {asked.source.path} is a different source or has "
        f"changed since then ({what}); {_remedy(name)}"
    )


def _is_another(known: IngestPlan, asked: IngestPlan, listing: ListingFile, storage: Storage) -> bool:
    """Return whether the source or the definition is another one than an ingestion was begun with."""
    try:
        _refuse_another_definition(known, asked)
        _refuse_another_source(known, asked, listing, storage)
    except BadInputError:
        return True
    return False


def _timeless(item: ListedItem) -> ListedItem:
    return replace(item, version="", member=None)


def _refuse_another_definition(known: IngestPlan, asked: IngestPlan, *, needs_lists: bool = True) -> None:
    """Refuse another definition than an ingestion was begun with.

    Parameters
    ----------
    known, asked
        The plan of the ingestion, and that of the present definition.
    needs_lists
        Whether the keywords that are left out are compared as well.

    Raises
    ------
    BadInputError
        Naming what differs.
    """
    name = known.definition.name
    old, new = ({field: getattr(plan.definition, field) for field in _DECISIVE} for plan in (known, asked))
    if find_format(known.definition.format).keywords_are_a_file:  # the content is part of the source; the path is not
        old["keywords"], new["keywords"] = bool(old["keywords"]), bool(new["keywords"])
    old["keyword_stop_list"] = known.stop_list_sha256 if needs_lists else ""
    new["keyword_stop_list"] = asked.stop_list_sha256 if needs_lists else ""
    if differing := [field for field in old if old[field] != new[field]]:
        field = differing[0]
        raise BadInputError(
            f"corpus {name} was started with {field} = {_short(old[field])}, not {_short(new[field])}; {_remedy(name)}"
        )


def _short(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:40]


def _missing_shards(plan: IngestPlan, storage: Storage) -> list[int]:
    """Return the shards of which a file is missing or of another size than it must be."""
    name = plan.definition.name
    sizes = storage.sizes(layout.shards_folder(name))

    def is_there(shard: int) -> bool:
        size = plan.partition.images_in_shard(shard) * plan.definition.image_bytes
        paths = [layout.shard_manifest_file(name, shard)]
        if plan.has_keywords:
            paths.append(layout.keywords_file(name, shard))
        return sizes.get(layout.file_name(layout.shard_file(name, shard))) == size and all(
            layout.file_name(path) in sizes for path in paths
        )

    return [shard for shard in range(plan.partition.shards) if not is_there(shard)]


def _is_complete(plan: IngestPlan, storage: Storage) -> bool:
    """Tell whether a corpus was committed and no shard is missing."""
    return storage.exists(layout.corpus_file(plan.definition.name)) and not _missing_shards(plan, storage)


def _groups(request: PlanRequest, partition: Partition, shards: list[int]) -> tuple[tuple[int, ...], ...]:
    if request.shards_per_task < 0:
        raise BadInputError(f"shards_per_task is {request.shards_per_task}: it must be 1 or more, or 0 for automatic")
    size = request.shards_per_task or max(1, _IMAGES_PER_TASK // partition.shard_images, -(-len(shards) // _MOST_TASKS))
    if request.most_groups is not None:
        size = max(size, -(-len(shards) // request.most_groups))
    return tuple(tuple(shards[start : start + size]) for start in range(0, len(shards), size))


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
