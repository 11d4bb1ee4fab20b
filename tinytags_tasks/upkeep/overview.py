"""All runs at a glance: the states of their blocks, their collections in Solr, and what is live."""

from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.ledger import add_up, list_runs, read_ledger
from tinytags_tasks.store.protocol import Storage


@dataclass(frozen=True)
class RunsRequest:
    """How many runs, the latest planned first; the ledger of each is read, a small file a block."""

    limit: int = 10

    def __post_init__(self) -> None:
        """Refuse less than one.

        Raises
        ------
        BadInputError
            If it is.
        """
        if self.limit < 1:
            raise BadInputError(f"--limit is {self.limit}: it must be 1 or more")


@dataclass(frozen=True)
class RunOverview:
    """One run.

    Attributes
    ----------
    run, corpus, model, threshold, created
        What it does, and when it was planned.
    blocks, by_state, kept
        How many blocks, how many of them in which state, and how many images they kept, as the ledger tells.
    collection, documents
        Its collection and the documents that are visible there; None if it does not exist, or Solr was not asked.
    pruned
        When its collection was dropped; empty where it was not.
    live_under
        The aliases that point at it.
    """

    run: str
    corpus: str
    model: str
    threshold: int
    created: str
    blocks: int
    by_state: dict[str, int]
    kept: int
    collection: str
    documents: int | None
    pruned: str
    live_under: tuple[str, ...]


def summarize_runs(request: RunsRequest, *, storage: Storage, solr: SolrClient | None) -> tuple[list[RunOverview], int]:
    """Return the latest runs, the last planned first, and how many there are in all.

    Parameters
    ----------
    request
        How many.
    storage
        The store.
    solr
        Solr; None tells what the store knows alone.
    """
    runs = list_runs(storage)
    standing = solr.collections() if solr else []
    aliases = solr.aliases() if solr else {}
    found = []
    for run in list(reversed(runs))[: request.limit]:
        totals = add_up(read_ledger(storage, run))
        found.append(
            RunOverview(
                run=run.name,
                corpus=run.corpus,
                model=run.model,
                threshold=run.threshold,
                created=run.created,
                blocks=run.blocks,
                by_state=totals.by_state,
                kept=totals.kept,
                collection=run.collection,
                documents=solr.count(run.collection) if solr and run.collection in standing else None,
                pruned=run.pruned,
                live_under=tuple(
                    alias for alias, points_at in sorted(aliases.items()) if run.collection in points_at.split(",")
                ),
            )
        )
    return found, len(runs)
