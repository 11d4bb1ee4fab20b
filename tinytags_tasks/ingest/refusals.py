"""What an ingestion refuses: another source, definition or size than the one that a corpus was begun with."""

from dataclasses import replace

from tinytags_tasks.blocks import MOST_BLOCK_BYTES, MOST_BLOCKS, Partition
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.registry import find_format
from tinytags_tasks.corpus.listing import ListingFile, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.ingest.plan_records import IngestPlan
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage

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


def refuse_senseless_cut(plan: IngestPlan) -> None:
    """Refuse more blocks than can be kept in mind, and blocks that no worker can hold.

    Raises
    ------
    BadInputError
        If the corpus would have some.
    """
    _refuse_large_blocks(plan, "define the corpus with more blocks_per_shard or fewer shard_images")
    _refuse_many_blocks(plan.partition, "define the corpus with larger shards or fewer blocks per shard")


def refuse_senseless_growth(plan: IngestPlan) -> None:
    """Refuse a growth by too many blocks, or by blocks that no worker can hold: a corpus is not cut again.

    Raises
    ------
    BadInputError
        If the corpus would have some.
    """
    remedy = "define another corpus for the new files"
    _refuse_large_blocks(plan, remedy)
    _refuse_many_blocks(plan.partition, remedy)


def _refuse_large_blocks(plan: IngestPlan, remedy: str) -> None:
    partition, image_bytes = plan.partition, plan.definition.image_bytes
    most = max(min(source.images, partition.shard_images) for source in plan.sources)
    largest = max(1, -(-most // partition.blocks_per_shard))
    if largest > 1 and largest * image_bytes > MOST_BLOCK_BYTES:
        raise BadInputError(
            f"corpus {plan.definition.name}: blocks of {largest:,} images would have "
            f"{largest * image_bytes / 1e9:,.1f} GB of pixels, more than {MOST_BLOCK_BYTES / 1e9:,.0f} GB: {remedy}"
        )


def _refuse_many_blocks(partition: Partition, remedy: str) -> None:
    if partition.blocks > MOST_BLOCKS:
        raise BadInputError(
            f"{partition.images:,} images in shards of {partition.shard_images:,} with {partition.blocks_per_shard:,} "
            f"blocks each would be {partition.blocks:,} blocks, more than {MOST_BLOCKS:,}: {remedy}"
        )


def refuse_another_corpus(definition: CorpusDefinition, corpus: Corpus) -> None:
    """Refuse a definition that does not make a corpus with these totals.

    Raises
    ------
    BadInputError
        Naming what differs.
    """
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


def _remedy(name: str) -> str:
    return f"restore it, choose another name, or remove the corpus with `tinytags corpus remove {name} --data`"


def refuse_another_source(known: IngestPlan, asked: IngestPlan, listing: ListingFile, storage: Storage) -> None:
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
        differing_item = next((item for (_, old), item in pairs if timeless(old) != timeless(item)), None)
        if differing_item is None:
            return
        what = f"the name, size or keyword of {differing_item.path}"
    raise BadInputError(
        f"corpus {name} was made from {known.source.path}, but {asked.source.path} is a different source or has "
        f"changed since then ({what}); {_remedy(name)}"
    )


def is_another(known: IngestPlan, asked: IngestPlan, listing: ListingFile, storage: Storage) -> bool:
    """Return whether the source or the definition is another one than an ingestion was begun with."""
    try:
        refuse_another_definition(known, asked)
        refuse_another_source(known, asked, listing, storage)
    except BadInputError:
        return True
    return False


def timeless(item: ListedItem) -> ListedItem:
    """Return what must be the same of an item; listings of an earlier TinyTags have no members' names."""
    return replace(item, version="", member=None)


def refuse_another_definition(known: IngestPlan, asked: IngestPlan, *, needs_lists: bool = True) -> None:
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
