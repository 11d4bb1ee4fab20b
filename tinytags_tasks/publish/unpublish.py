"""Taking a corpus out of an alias: readers do not find its pictures any more, and a rollback brings it back."""

from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import MissingError
from tinytags_tasks.publish.live import live_collections, lock_alias, put_in_place, switch_alias
from tinytags_tasks.publish.publications import live_by_corpus, of_corpus, read_history, record_missing_change
from tinytags_tasks.publish.replacement import Replacement, describe_beside
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, NextPublication


@dataclass(frozen=True)
class UnpublishRequest:
    """What to take out.

    Attributes
    ----------
    name
        The corpus; or a live collection that is of no run of this store.
    alias
        What readers search.
    by
        Who says so.
    """

    name: str
    alias: str = "tinytags"
    by: str = ""


@dataclass(frozen=True)
class UnpublishResult:
    """What was taken out, empty if that was done before; and what readers still see."""

    corpus: str
    taken_out: tuple[str, ...]
    beside: tuple[str, ...]


def unpublish(
    request: UnpublishRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> UnpublishResult:
    """Take a corpus out of the alias, in one step, and record who said so; its collection stays.

    Repeating it changes nothing. If nothing else is live, the alias is deleted.

    Raises
    ------
    MissingError
        If nothing of that name was ever live under the alias.
    TransientError
        If another process holds the alias for too long, or it did not move.
    """
    with lock_alias(request.alias, storage, report):
        live = live_collections(request.alias, solr)
        recorded = read_history(request.alias, storage)
        by_corpus = live_by_corpus(live, recorded, storage)
        own = by_corpus.get(request.name, ()) if request.name else ()
        if not own and request.name in by_corpus.get("", ()):
            return _take_out_stranger(request, live, storage, solr, report)
        known = of_corpus(request.name, recorded)
        if not (own or known):
            corpora = ", ".join(sorted(corpus for corpus in by_corpus if corpus)) or "nothing of this store"
            raise MissingError(f"nothing of corpus {request.name} is live under {request.alias}, where {corpora} is")
        history = record_missing_change(request.alias, recorded, live, storage, besides="" if own else request.name)
        change = Replacement(request.alias, request.name, live, own, "")
        if own or known[-1].change is not Change.UNPUBLISHED:  # else it was taken out and recorded before
            nothing = NextPublication(collection="", corpus=request.name)
            history = change.make(Change.UNPUBLISHED, nothing, history, storage, solr, report, by=request.by)
    if own:
        report(f"alias {request.alias} no longer points at {', '.join(own)}")
    else:
        report(f"nothing of corpus {request.name} was live under {request.alias} any more")
    report(
        f"`tinytags rollback --corpus {request.name}` brings corpus {request.name} back, until `tinytags prune` drops "
        "its collection"
    )
    for line in describe_beside(request.alias, change.beside, history, storage):
        report(line)
    return UnpublishResult(request.name, own, change.beside)


def _take_out_stranger(
    request: UnpublishRequest, live: tuple[str, ...], storage: Storage, solr: SolrClient, report: Callable[[str], None]
) -> UnpublishResult:
    """Take out a collection that is of no run of this store; the history does not have these."""
    wanted, gone = put_in_place(live, (request.name,), "", solr)
    switch_alias(request.alias, wanted, solr)
    for name in (request.name, *gone):
        report(f"alias {request.alias} no longer points at {name}")
    report(
        f"alias {request.alias} pointed at {', '.join(live)}; no rollback brings {request.name} back, only Solr's "
        "CREATEALIAS with that list"
    )
    record_missing_change(request.alias, read_history(request.alias, storage), wanted, storage)
    return UnpublishResult("", (request.name,), wanted)
