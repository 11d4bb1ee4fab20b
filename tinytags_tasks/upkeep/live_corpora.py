"""What is live under an alias, corpus by corpus, and how it became so."""

from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.publish.live import live_collections
from tinytags_tasks.publish.publications import (
    complete_history,
    live_by_corpus,
    of_corpus,
    previous_publications,
    read_history,
)
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Publication


@dataclass(frozen=True)
class CorpusHistory:
    """One corpus under an alias.

    Attributes
    ----------
    corpus
        The corpus; empty for a live collection that is of no run of this store.
    live
        Its live collections: one, or none if it was taken out.
    changes
        What became live of it, and when; the latest last.
    back_to
        The publications that successive rollbacks lead to.
    """

    corpus: str
    live: tuple[str, ...]
    changes: tuple[Publication, ...]
    back_to: tuple[Publication, ...]


def recorded_live(alias: str, storage: Storage) -> tuple[str, ...]:
    """Return what the history of an alias says that it points at, for when Solr cannot be asked.

    Raises
    ------
    CorruptError
        If a record of the history is damaged.
    """
    last = {record.corpus: record.collection for record in read_history(alias, storage)}
    return tuple(filter(None, last.values()))


def list_corpora(alias: str, *, storage: Storage, solr: SolrClient | None) -> list[CorpusHistory]:
    """Return every corpus that is or was live under an alias, by name; collections of no run of this store come last.

    Without Solr, what was recorded last counts as live.

    Raises
    ------
    CorruptError
        If a record of the history is damaged.
    """
    history = read_history(alias, storage)
    live = live_collections(alias, solr) if solr else recorded_live(alias, storage)
    history = complete_history(alias, history, live, storage) if solr else history
    by_corpus = live_by_corpus(live, history, storage)
    found = []
    for corpus in sorted(({record.corpus for record in history} | set(by_corpus)) - {""}):
        own = of_corpus(corpus, history)
        found.append(CorpusHistory(corpus, by_corpus.get(corpus, ()), tuple(own), tuple(previous_publications(own))))
    return [*found, *(CorpusHistory("", (name,), (), ()) for name in by_corpus.get("", ()))]
