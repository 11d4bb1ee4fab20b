"""Replacing what is live of one corpus: the alias is switched in one step, and the change recorded afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.publish.live import put_in_place, switch_alias
from tinytags_tasks.publish.publications import (
    live_by_corpus,
    of_corpus,
    plan_change,
    record_change,
    record_missing_change,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, NextPublication, Publication


@dataclass(frozen=True)
class Replacement:
    """What is live of a corpus, and what is to be.

    Attributes
    ----------
    alias, corpus
        Whose collections they are.
    live
        What the alias points at.
    own
        Those of them that are of the corpus: one, unless something else than TinyTags changed the alias.
    collection
        What is to be live of the corpus; empty if nothing is.
    """

    alias: str
    corpus: str
    live: tuple[str, ...]
    own: tuple[str, ...]
    collection: str

    @property
    def replaced(self) -> tuple[str, ...]:
        """The collections of the corpus that readers do not see any more."""
        return tuple(name for name in self.own if name != self.collection)

    @property
    def beside(self) -> tuple[str, ...]:
        """The collections that are not of the corpus."""
        return tuple(name for name in self.live if name not in self.own and name != self.collection)

    def make(
        self,
        change: Change,
        following: NextPublication,
        history: Sequence[Publication],
        storage: Storage,
        solr: SolrClient,
        report: Callable[[str], None],
        *,
        by: str = "",
    ) -> list[Publication]:
        """Switch the alias, record the change, and return the history with it; the caller holds the alias' lease.

        Parameters
        ----------
        change, following, by
            As for :func:`~tinytags_tasks.publish.publications.record_change`.
        history
            The complete history, but for a change of this very corpus that this one makes up for.
        storage, solr, report
            The store, Solr, and what is called with a line about what is found to be missing.

        Raises
        ------
        TransientError
            If the alias did not move.
        """
        own = of_corpus(self.corpus, history)
        before = own[-1].collection if own else ""
        if following.collection:
            plan_change(following, alias=self.alias, storage=storage)
        wanted, gone = put_in_place(self.live, self.own, self.collection, solr)
        for name in gone:
            report(
                f"collection {name} is live under {self.alias}, but Solr does not have it any more: it is left out. "
                f"{_remedy(name)}"
            )
        if wanted != self.live:
            switch_alias(self.alias, wanted, solr)
        record = record_change(
            change,
            following,
            before,
            alias=self.alias,
            storage=storage,
            beside=[name for name in self.beside if name not in gone],
            by=by,
        )
        found = [*history, record]
        return record_missing_change(self.alias, found, wanted, storage) if gone else found


def describe_beside(alias: str, beside: Sequence[str], history: Sequence[Publication], storage: Storage) -> list[str]:
    """Return lines about what else is live under an alias: corpora, then collections of no run of this store."""
    by_corpus = live_by_corpus(beside, history, storage)
    strangers = by_corpus.pop("", ())
    stays = [f"corpus {corpus} ({', '.join(names)})" for corpus, names in sorted(by_corpus.items())]
    lines = [f"beside it stays what is live of {', '.join(stays)}"] if stays else []
    return lines + [
        f"collection {name} is live under {alias}, too, but not of a run of this store: it stays; "
        f"`tinytags unpublish {name}` takes it out"
        for name in strangers
    ]


def _remedy(collection: str) -> str:
    run = layout.run_of_collection(collection)
    return f"Bring it back with `tinytags index {run}`, then `tinytags publish {run}`" if run else ""
