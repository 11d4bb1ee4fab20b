"""All runs at a glance: the states of their blocks, their collections in Solr, and what is live."""

from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError
from tinytags_tasks.publish.live import collections_of
from tinytags_tasks.review.intervals import Estimate
from tinytags_tasks.review.measuring import overall_precision
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import add_up, list_runs, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.upkeep.live_corpora import recorded_live


@dataclass(frozen=True)
class RunsRequest:
    """Which runs to list, newest first; the ledger of each is read, which is one small file per block.

    Attributes
    ----------
    limit
        How many; live runs that are older are listed as well.
    corpus
        Only runs of this corpus; empty lists those of all.
    """

    limit: int = 10
    corpus: str = ""

    def __post_init__(self) -> None:
        """Refuse a limit below 1.

        Raises
        ------
        BadInputError
            If it is below 1.
        """
        if self.limit < 1:
            raise BadInputError(f"--limit is {self.limit}: it must be 1 or more")


@dataclass(frozen=True)
class RunOverview:
    """One run.

    Attributes
    ----------
    run, corpus, model, threshold, created
        What it scores, and when it was planned.
    blocks, by_state, kept
        How many blocks it has, how many are in each state, and how many images they kept, according to the ledger.
    collection, documents
        Its collection, and how many documents are visible there; None if it does not exist or Solr was not asked.
    pruned
        When its collection was dropped; empty if it was not.
    live_under
        The aliases that point at it.
    precision
        The measured precision of all its images with a tag; None before any review.
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
    precision: Estimate | None = None


@dataclass(frozen=True)
class RunsResult:
    """The latest runs.

    Attributes
    ----------
    runs
        The newest first.
    known
        How many there are in all, or of the corpus.
    damaged
        What is wrong with each run's record that cannot be read, with the remedy; these runs are not among the others.
    """

    runs: list[RunOverview]
    known: int
    damaged: tuple[str, ...]


def summarize_runs(request: RunsRequest, *, storage: Storage, solr: SolrClient | None) -> RunsResult:
    """Return the latest runs.

    Parameters
    ----------
    request
        Which runs to return.
    storage
        The store.
    solr
        Solr; None returns only what the store knows: what is live is what was recorded last.
    """
    damaged: list[str] = []
    runs = [run for run in list_runs(storage, on_damage=damaged.append) if request.corpus in ("", run.corpus)]
    existing = solr.collections() if solr else []
    aliases = (
        {alias: collections_of(points_at) for alias, points_at in solr.aliases().items()}
        if solr
        else _recorded(storage, damaged)
    )
    live = {collection for collections in aliases.values() for collection in collections}
    found = []
    for place, run in enumerate(reversed(runs)):
        if place >= request.limit and run.collection not in live:
            continue
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
                documents=solr.count(run.collection) if solr and run.collection in existing else None,
                pruned=run.pruned,
                live_under=tuple(alias for alias in sorted(aliases) if run.collection in aliases[alias]),
                precision=overall_precision(run, storage),
            )
        )
    return RunsResult(found, len(runs), tuple(damaged))


def _recorded(storage: Storage, damaged: list[str]) -> dict[str, tuple[str, ...]]:
    """Return what each alias points at by its history; of one that cannot be read, ``damaged`` gets the reason."""
    found = {}
    for alias in storage.names(layout.PUBLICATIONS):
        if "." not in alias:
            try:
                found[alias] = recorded_live(alias, storage)
            except FinalError as error:
                damaged.append(str(error))
    return found
