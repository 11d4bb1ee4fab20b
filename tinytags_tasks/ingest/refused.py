"""An attempt at an ingestion that was refused binds nobody: its source or definition may be mended, and begun again."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from hashlib import sha256

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, OtherWriterError, TinyTagsError
from tinytags_tasks.ingest.plan_records import IngestPlan, committed_parts
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record


class IngestRefusal(Record):
    """Why an ingestion, or the growth of a corpus, was refused before it was complete.

    Attributes
    ----------
    plan_sha256
        The hash of the plan that it followed; the refusal says nothing about any other plan.
    reason
        The error.
    """

    plan_sha256: str
    reason: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that makes a damaged one superfluous."""
        return f"remove the corpus with `tinytags corpus remove {layout.path_name(path)} --data`, then ingest it again"


def _sha256(plan: IngestPlan) -> str:
    growths = "".join(source.listing_sha256 for source in plan.growths)  # which are not stored in the plan
    return sha256(plan.stored() + growths.encode()).hexdigest()


@contextmanager
def refusal_noted(plan: IngestPlan, storage: Storage, refusals: type[FinalError] = BadInputError) -> Generator[None]:
    """Note that an ingestion by this plan was refused, if the block raises that and not all of it is committed."""
    try:
        yield
    except refusals as error:
        with suppress(TinyTagsError):  # what was refused matters more
            if committed_parts(plan, storage) < len(plan.sources):
                refusal = IngestRefusal(plan_sha256=_sha256(plan), reason=str(error))
                refusal.save(storage, layout.ingest_refusal_file(plan.definition.name))
        raise


def was_refused(plan: IngestPlan, storage: Storage) -> bool:
    """Return whether an ingestion by this plan was refused, and what it should have added never became complete.

    Raises
    ------
    CorruptError
        If the record of it is damaged, and the corpus has never been complete. A growth counts as refused then.
    """
    path = layout.ingest_refusal_file(plan.definition.name)
    parts = committed_parts(plan, storage)
    if not storage.exists(path) or parts >= len(plan.sources):
        return False
    try:
        return IngestRefusal.load(storage, path).plan_sha256 == _sha256(plan)
    except CorruptError:
        if not parts:
            raise
        return True


def forget_ingestion(plan: IngestPlan, storage: Storage, report: Callable[[str], None]) -> None:
    """Delete what an ingestion by this plan has written; shards go before the plan, so that a killed call is repeated.

    Raises
    ------
    OtherWriterError
        If another process is still writing a shard.
    """
    corpus = plan.definition.name
    report(f"corpus {corpus}: what was refused is not what there is now, so that it is begun again")
    folder = layout.shards_folder(corpus)
    _refuse_writers(corpus, [f"{folder}/{name}" for name in storage.names(folder) if name.endswith(".lease")], storage)
    storage.delete(folder)
    storage.delete(layout.ingest_plan_file(corpus))
    storage.delete(layout.source_file(corpus, plan.source.listing_sha256))
    storage.delete(layout.ingest_refusal_file(corpus))


def forget_growth(plan: IngestPlan, storage: Storage, report: Callable[[str], None]) -> IngestPlan:
    """Delete what was written of the last growth of a plan, which was refused; return the plan without it.

    Raises
    ------
    OtherWriterError
        If another process is still writing a shard.
    """
    corpus, number = plan.definition.name, len(plan.growths)
    source = plan.growths[-1]
    report(f"corpus {corpus}: its growth by {source.images:,} images was refused, so that it is forgotten")
    _delete_shards(plan, number, storage)
    storage.delete(layout.growth_file(corpus, number))
    storage.delete(layout.source_file(corpus, source.listing_sha256))
    storage.delete(layout.ingest_refusal_file(corpus))
    return plan.replaced(growths=plan.growths[:-1])


def _delete_shards(plan: IngestPlan, part: int, storage: Storage) -> None:
    """Delete all files of the shards of one part of a corpus."""
    corpus, shards = plan.definition.name, plan.partition.shards_of_part(part)
    leases = [layout.lease_file(corpus, shard) for shard in shards]
    paths = [
        path_of(corpus, shard)
        for shard in shards
        for path_of in (layout.shard_manifest_file, layout.keywords_file, layout.shard_file)
    ]
    existing = set(storage.names(layout.shards_folder(corpus)))
    _refuse_writers(corpus, [path for path in leases if layout.file_name(path) in existing], storage)
    for path in paths:
        if layout.file_name(path) in existing:
            storage.delete(path)
    storage.delete_leftovers(*paths, *leases)


def _refuse_writers(corpus: str, leases: list[str], storage: Storage) -> None:
    """Refuse to go on while a shard is being written; leases of killed writers are taken over, and returned."""
    held = Leases(storage)
    for path in leases:
        with held.hold(path) as is_ours:
            if not is_ours:
                raise OtherWriterError(
                    f"corpus {corpus}: its earlier source is still being ingested; try again once that has ended"
                )
