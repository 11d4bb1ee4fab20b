"""An attempt at an ingestion that was refused binds nobody: its source or definition may be mended, and begun again."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from tinytags_tasks.errors import BadInputError, OtherWriterError, TinyTagsError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record

if TYPE_CHECKING:
    from tinytags_tasks.ingest.plan import IngestPlan


class IngestRefusal(Record):
    """Why an ingestion was refused before its corpus was complete.

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


def _sha256(plan: "IngestPlan") -> str:
    return sha256(plan.stored()).hexdigest()


@contextmanager
def refusal_noted(plan: "IngestPlan", storage: Storage) -> Generator[None]:
    """Note that an ingestion by this plan was refused, if the block raises that and the corpus is not complete."""
    try:
        yield
    except BadInputError as error:
        corpus = plan.definition.name
        with suppress(TinyTagsError):  # what was refused matters more
            if not storage.exists(layout.corpus_file(corpus)):
                refusal = IngestRefusal(plan_sha256=_sha256(plan), reason=str(error))
                refusal.save(storage, layout.ingest_refusal_file(corpus))
        raise


def was_refused(plan: "IngestPlan", storage: Storage) -> bool:
    """Return whether an ingestion by this plan was refused, and its corpus never became complete.

    Raises
    ------
    CorruptError
        If the record of it is damaged.
    """
    corpus = plan.definition.name
    path = layout.ingest_refusal_file(corpus)
    if storage.exists(layout.corpus_file(corpus)) or not storage.exists(path):
        return False
    return IngestRefusal.load(storage, path).plan_sha256 == _sha256(plan)


def forget_ingestion(plan: "IngestPlan", storage: Storage) -> None:
    """Delete what an ingestion by this plan has written; shards go before the plan, so that a killed call is repeated.

    Raises
    ------
    OtherWriterError
        If another process is still writing a shard.
    """
    corpus = plan.definition.name
    folder = layout.shards_folder(corpus)
    leases = Leases(storage)
    for name in storage.names(folder):
        if name.endswith(".lease"):
            with leases.hold(f"{folder}/{name}") as is_ours:
                if not is_ours:
                    raise OtherWriterError(
                        f"corpus {corpus}: its earlier source is still being ingested; try again once that has ended"
                    )
    storage.delete(folder)
    storage.delete(layout.ingest_plan_file(corpus))
    storage.delete(layout.source_file(corpus, plan.source.listing_sha256))
    storage.delete(layout.ingest_refusal_file(corpus))
