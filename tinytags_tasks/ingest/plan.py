"""The first step of an ingestion: list the source, and record what will be ingested."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.registry import find_format, list_items
from tinytags_tasks.corpus.listing import ListingFile
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, TransientError
from tinytags_tasks.ingest.grown_source import NewItems, find_new
from tinytags_tasks.ingest.plan_records import GrowthPlan, IngestPlan, committed_corpus, committed_parts, load_plan
from tinytags_tasks.ingest.refusals import (
    is_another,
    refuse_another_corpus,
    refuse_another_definition,
    refuse_another_source,
    refuse_senseless_cut,
    refuse_senseless_growth,
)
from tinytags_tasks.ingest.refused import forget_growth, forget_ingestion, refusal_noted, was_refused
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Source
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record_series import record_numbers
from tinytags_tasks.store.room import refuse_without_room

_IMAGES_PER_TASK = 250_000
_MOST_TASKS = 400


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
    grow
        Whether images that are new in the source are appended to a corpus that is complete.
    least_new
        How many images must be new so that they are appended.
    """

    definition: CorpusDefinition
    shards_per_task: int = 0
    most_groups: int | None = None
    redo: tuple[int, ...] = ()
    grow: bool = False
    least_new: int = 1


@dataclass(frozen=True)
class PlanResult:
    """What is left to do: groups of shards, none if the corpus is complete.

    Attributes
    ----------
    images, shards
        Of the whole corpus, once all is done.
    new_images
        How many of these images are appended to a corpus that is complete without them.
    untaken
        How many images the source has besides; they are not appended this time.
    """

    corpus: str
    images: int
    shards: int
    groups: tuple[tuple[int, ...], ...]
    new_images: int = 0
    untaken: int = 0


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
    found = _find_plan(request, storage, files, report)
    plan, partition = found.plan, found.plan.partition
    definition = plan.definition
    if wrong := [shard for shard in request.redo if not 0 <= shard < partition.shards]:
        raise BadInputError(
            f"shard {wrong[0]} is out of range: corpus {definition.name} has 0 to {partition.shards - 1}"
        )
    missing = _missing_shards(plan, storage)
    parts = committed_parts(plan, storage)
    new = [shard for part in range(parts, len(plan.sources)) for shard in partition.shards_of_part(part)]
    to_write = sorted({*missing, *request.redo})
    new_images = sum(source.images for source in plan.sources[parts:]) if parts else 0
    if found.is_away:
        if new:
            report(
                f"corpus {definition.name} is to grow by {new_images:,} images: that goes on once its source is back "
                f"(`tinytags corpus grow {definition.name}`)"
            )
        new = to_write = []
    elif needed := sum(partition.images_in_shard(shard) for shard in to_write) * definition.image_bytes:
        with refusal_noted(plan, storage, FinalError):  # a smaller source or definition may be what is done about it
            refuse_without_room(needed, f"corpus {definition.name}", storage, report)
    todo = sorted({*to_write, *new})
    report(
        f"corpus {definition.name}: {partition.images:,} images in {partition.shards} shards, "
        + (f"{new_images:,} images in {len(new)} shards new, " if new_images and not found.is_away else "")
        + f"{len(missing)} of them missing"
        + ("" if todo or found.is_away else ": nothing to do")
    )
    return PlanResult(
        definition.name,
        partition.images,
        partition.shards,
        _groups(request, partition, todo),
        new_images,
        found.untaken,
    )


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


@dataclass(frozen=True)
class _Found:
    """The plan that counts, how many new images it does not have, and whether the source could not be read."""

    plan: IngestPlan
    untaken: int = 0
    is_away: bool = False


def _find_plan(request: PlanRequest, storage: Storage, files: SourceFiles, report: Callable[[str], None]) -> _Found:
    """Return the plan that counts from now on; the source is listed for it, and compared with a known plan's."""
    definition = _cut_as_begun(request.definition, storage)
    path = layout.ingest_plan_file(definition.name)
    known = _known_plan(definition, storage, report)
    if known is not None and known.growths and not request.grow and was_refused(known, storage):
        known = forget_growth(known, storage, report)
    try:
        listing, plan = _list_source(definition, files, report)
    except (BadInputError, TransientError) as error:
        if known is None or request.redo or not _stands(known, storage):
            raise
        refuse_another_definition(known, IngestPlan(definition=definition, source=known.source), needs_lists=False)
        report(f"corpus {definition.name} is complete, so its source is not needed ({error})")
        return _Found(known, is_away=True)
    with closing(listing):
        if known is not None and _is_mended(known, plan, listing, storage):
            forget_ingestion(known, storage, report)
            known, plan = None, plan.replaced(definition=request.definition.cut_for(plan.images))
        if known is None and not storage.exists(path):
            refuse_senseless_cut(plan)
            _write_listing(plan, listing, storage)
            if plan.save(storage, path, overwrite=False):
                return _Found(plan)
        known = known or load_plan(storage, definition.name)
        refuse_another_definition(known, plan)
        if known.growths or known.source.content != plan.source.content:
            if known.growths or known.source.timeless_content != plan.source.timeless_content:
                return _find_grown(request, known, plan, listing, storage, files, report)
            refuse_another_source(known, plan, listing, storage)
            report(f"{files.address}: is the same source, although the times of its files have changed")
            _write_listing(plan, listing, storage)
            plan.save(storage, path)
            return _Found(plan)
    if (known.definition, known.left_out) != (definition, plan.left_out):  # such as a source that was moved
        plan.save(storage, path)
        return _Found(plan)
    return _Found(known)


def _is_mended(known: IngestPlan, asked: IngestPlan, listing: ListingFile, storage: Storage) -> bool:
    """Return whether a corpus was refused before it was complete, and its source or definition is another one now."""
    return not known.growths and was_refused(known, storage) and is_another(known, asked, listing, storage)


def _find_grown(
    request: PlanRequest,
    known: IngestPlan,
    asked: IngestPlan,
    listing: ListingFile,
    storage: Storage,
    files: SourceFiles,
    report: Callable[[str], None],
) -> _Found:
    """Return the plan of a source that has more than the corpus, or of a corpus that has grown."""
    try:
        known, new = _find_new(known, listing, storage, files, report)
    except BadInputError:
        if not known.growths:
            refuse_another_source(known, asked, listing, storage)  # which says what is different on the whole
        raise
    with closing(new.listing):
        known = _with_moved(known, asked, new.moved, storage)
        if new.source is None:
            return _Found(known)
        name, images = known.definition.name, new.source.images
        news = f"{files.address}: has {images:,} images in {new.source.files:,} files that corpus {name} does not have"
        if not request.grow:
            report(f"{news}; append them with `tinytags corpus grow {name}`")
            return _Found(known, untaken=images)
        if images < request.least_new:
            report(f"{news}; they are appended once there are {request.least_new:,}")
            return _Found(known, untaken=images)
        if committed_parts(known, storage) < len(known.sources) or _missing_shards(known, storage):
            report(f"{news}; they are appended once all before them are ingested")
            return _Found(known, untaken=images)
        return _Found(_append(known, new.source, new.listing, storage, report))


def _find_new(
    known: IngestPlan, listing: ListingFile, storage: Storage, files: SourceFiles, report: Callable[[str], None]
) -> tuple[IngestPlan, NewItems]:
    """Return what is new in a source, and the plan.

    A growth that was refused goes on if there is nothing else now, such as because the limit was raised. Otherwise it
    is forgotten, and its files that are still there are new.
    """
    if not (known.growths and was_refused(known, storage)):
        return known, find_new(known, listing, files, storage)
    with suppress(BadInputError):
        new = find_new(known, listing, files, storage)
        if new.source is None and len(known.growths) not in new.moved:
            return known, new
        new.listing.close()
    known = forget_growth(known, storage, report)
    return known, find_new(known, listing, files, storage)


def _with_moved(known: IngestPlan, asked: IngestPlan, moved: Mapping[int, Source], storage: Storage) -> IngestPlan:
    """Record what may change of a plan, and new listings of parts whose files have other times now; return the plan."""
    name = known.definition.name
    sources = [moved.get(part, source) for part, source in enumerate(known.sources)]
    plan = known.replaced(
        definition=asked.definition, left_out=asked.left_out, source=sources[0], growths=tuple(sources[1:])
    )
    if (known.definition, known.left_out) != (plan.definition, plan.left_out) or 0 in moved:
        plan.save(storage, layout.ingest_plan_file(name))
    for part in moved.keys() - {0}:
        GrowthPlan(corpus=name, number=part, source=sources[part]).save(storage, layout.growth_file(name, part))
    return plan


def _append(
    known: IngestPlan, source: Source, listing: ListingFile, storage: Storage, report: Callable[[str], None]
) -> IngestPlan:
    """Plan a growth of a complete corpus, unless another process has planned one meanwhile; return the plan."""
    definition, number = known.definition, len(known.growths) + 1
    plan = known.replaced(growths=(*known.growths, source))
    if definition.keywords and find_format(definition.format).keywords_are_a_file:
        raise BadInputError(
            f"corpus {definition.name} cannot grow: its keywords are in a file of their own, {definition.keywords}, "
            "which belongs to what it began with; define another corpus for the new files"
        )
    refuse_senseless_growth(plan)
    storage.write(layout.source_file(definition.name, source.listing_sha256), listing.content())
    record = GrowthPlan(corpus=definition.name, number=number, source=source)
    if not record.save(storage, layout.growth_file(definition.name, number), overwrite=False):
        return load_plan(storage, definition.name)
    report(f"corpus {definition.name} grows by {source.images:,} images from {source.files:,} new files")
    return plan


def _known_plan(definition: CorpusDefinition, storage: Storage, report: Callable[[str], None]) -> IngestPlan | None:
    """Return the plan of an ingestion that was begun; None if none was.

    A damaged plan is made again from the totals of a complete corpus. Nothing tells how the shards of an incomplete one
    were made, so that they are all written again.
    """
    path = layout.ingest_plan_file(definition.name)
    if not storage.exists(path):
        return None
    try:
        IngestPlan.load(storage, path)
    except CorruptError as error:
        corpus = committed_corpus(storage, definition.name)
        if corpus is not None:
            refuse_another_corpus(definition, corpus)
            plan = IngestPlan(
                definition=definition, source=corpus.source, stop_list_sha256=_stop_list_sha256(definition)
            )
            plan.save(storage, path)
            report(f"{error}: done, as the corpus' totals prove")
            return _with_growths(definition.name, storage, report)
        for name in storage.names(layout.shards_folder(definition.name)):
            if name.endswith(".json"):
                storage.delete(f"{layout.shards_folder(definition.name)}/{name}")
        storage.delete(path)
        report(f"{error}: the corpus is incomplete, so that it is begun again")
        return None
    return _with_growths(definition.name, storage, report)


def _with_growths(name: str, storage: Storage, report: Callable[[str], None]) -> IngestPlan:
    """Return a corpus' plan; records of growths that are damaged or missing are written again from the totals.

    One that was not committed yet is deleted: whoever lets the corpus grow next begins it again.
    """
    try:
        return load_plan(storage, name)
    except CorruptError as error:
        corpus = committed_corpus(storage, name)
        growths = corpus.growths if corpus else ()
        for number, growth in enumerate(growths, start=1):
            GrowthPlan(corpus=name, number=number, source=growth.source).save(storage, layout.growth_file(name, number))
        for number in record_numbers(partial(layout.growth_file, name), storage):
            if number > len(growths):
                storage.delete(layout.growth_file(name, number))
        report(f"{error}: done, as the corpus' totals prove")
    return load_plan(storage, name)


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


def _stands(plan: IngestPlan, storage: Storage) -> bool:
    """Tell whether a corpus was committed and no shard of what was committed is missing."""
    parts = committed_parts(plan, storage)
    missing = _missing_shards(plan, storage)
    return parts > 0 and all(plan.partition.part_of_shard(shard) >= parts for shard in missing)


def _groups(request: PlanRequest, partition: Partition, shards: list[int]) -> tuple[tuple[int, ...], ...]:
    if request.shards_per_task < 0:
        raise BadInputError(f"shards_per_task is {request.shards_per_task}: it must be 1 or more, or 0 for automatic")
    size = request.shards_per_task or max(1, _IMAGES_PER_TASK // partition.shard_images, -(-len(shards) // _MOST_TASKS))
    if request.most_groups is not None:
        size = max(size, -(-len(shards) // request.most_groups))
    return tuple(tuple(shards[start : start + size]) for start in range(0, len(shards), size))
