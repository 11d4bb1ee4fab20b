"""Repairing the history of an alias: what other changes and the alias itself prove is written again."""

from collections.abc import Callable, Sequence
from functools import partial

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.publish.live import live_collections, lock_alias, run_of
from tinytags_tasks.publish.publications import (
    corpus_of,
    of_corpus,
    previous_collections,
    read_plan,
    with_corpora,
    with_missing_change,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record_series import record_numbers
from tinytags_tasks.store.run_records import Change, NextPublication, Publication

_AGAIN = "`tinytags publish RUN --gate-measured-precision PERCENT`"


def repair_history(alias: str, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Write damaged records of an alias' history again, as far as the changes before and after them tell.

    Raises
    ------
    TransientError
        If another process keeps changing the alias.
    """
    path_of = partial(layout.publication_file, alias)
    damaged = [number for number in record_numbers(path_of, storage) if _publication(path_of(number), storage) is None]
    if not damaged and _plan(alias, storage) is not None:
        return
    with lock_alias(alias, storage, report):
        if _plan(alias, storage) is None:
            path = layout.next_publication_file(alias)
            storage.delete(path)
            report(f"{path}: was damaged, and is deleted")
        records = [(number, _publication(path_of(number), storage)) for number in record_numbers(path_of, storage)]
        for at, (number, known) in enumerate(records):
            if known:
                continue
            path = path_of(number)
            earlier = [record for _, record in records[:at] if record]
            later = [record for _, record in records[at + 1 :] if record]
            made = _made_again(earlier, later, live_collections(alias, solr), _plan(alias, storage), storage)
            records[at] = (number, made)
            if made is None:
                storage.delete(path)
                report(
                    f"{path}: damaged, and nothing tells what it said: it is deleted. If it published a live run "
                    f"with other thresholds, publish that again: {_AGAIN}"
                )
                continue
            made.save(storage, path)
            what = f"{made.collection} was live then" if made.collection else f"corpus {made.corpus} was taken out then"
            report(f"{path}: was damaged, and is written again: {what}")
            if made.collection and _is_guess(made, later, _plan(alias, storage)):
                report(
                    f"{path}: its thresholds are unknown; readers see "
                    f"{'every document' if made.thresholds is None else 'what they last saw'} of {made.collection}. "
                    f"If it was published at a measured precision, publish it again: {_AGAIN}"
                )


def _is_guess(made: Publication, later: Sequence[Publication], plan: NextPublication | None) -> bool:
    """Return whether a record decides what readers see of its corpus, and no plan tells its thresholds."""
    is_last = all(record.corpus != made.corpus for record in later)
    return is_last and not (plan and plan.collection == made.collection)


def _made_again(
    earlier: Sequence[Publication],
    later: Sequence[Publication],
    live: Sequence[str],
    plan: NextPublication | None,
    storage: Storage,
) -> Publication | None:
    """Return the change between others, of which it is known what was live before and after it; None if nothing tells.

    Parameters
    ----------
    earlier, later
        The changes before and after it that can be read.
    live
        What the alias points at.
    plan
        What was last about to become live.
    storage
        The store.
    """
    before = with_corpora(earlier, storage)
    told: set[str] = set()
    for record in later:
        # What was live before a change is of its own corpus, but in records from before there were several.
        corpus = record.corpus or corpus_of(record.previous or record.collection, before, storage)
        own = of_corpus(corpus, before)
        if corpus not in told and record.previous != (own[-1].collection if own else ""):
            return _change_to(NextPublication(collection=record.previous, corpus=corpus), own, record.time, storage)
        told.add(corpus)
    known = with_corpora([*earlier, *later], storage)
    missing = with_missing_change(known, live, storage, plan)[len(known) :]
    if made := next((change for change in missing if change.corpus not in told), None):
        return made.replaced(time=later[0].time) if later else made
    if not later and plan and plan.collection in live:  # the same was published again, with other thresholds
        own = of_corpus(corpus_of(plan.collection, known, storage), known)
        return _change_to(plan.replaced(corpus=own[-1].corpus), own, own[-1].time, storage) if own else None
    return None


def _change_to(following: NextPublication, own: Sequence[Publication], time: str, storage: Storage) -> Publication:
    """Return the change by which something, or nothing, became live of a corpus with these earlier changes."""
    run = run_of(following.collection, storage) if following.collection else None
    is_back = previous_collections(own)[:1] == [following.collection]
    return Publication(
        change=(Change.ROLLED_BACK if is_back else Change.FOUND) if following.collection else Change.UNPUBLISHED,
        run=run.name if run else "",
        collection=following.collection,
        previous=own[-1].collection if own else "",
        time=time,
        host="",
        thresholds=following.thresholds,
        least_precision=following.least_precision,
        corpus=following.corpus,
    )


def _plan(alias: str, storage: Storage) -> NextPublication | None:
    """Return what was last about to become live, with no collection if that was never recorded; None if damaged."""
    try:
        return read_plan(alias, storage) or NextPublication(collection="")
    except CorruptError:
        return None


def _publication(path: str, storage: Storage) -> Publication | None:
    try:
        return Publication.load(storage, path)
    except CorruptError:
        return None
