"""The history of an alias: what became live of each corpus, and when. The alias is decisive; the history follows.

The alias is switched first and the change recorded afterwards, so a crash in between leaves the history one change
behind. The next change of the alias, of whichever corpus, first records the missing one.
"""

import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tinytags_tasks.errors import MissingError
from tinytags_tasks.publish.live import run_of
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_records import Change, NextPublication, Publication

_READERS = 8


def read_history(alias: str, storage: Storage) -> list[Publication]:
    """Return the recorded changes of an alias, of all corpora, the latest last.

    Records from before an alias had several corpora name theirs here as well. At that time, a publication replaced
    whatever was live, so the end of another corpus is among the changes.

    Raises
    ------
    CorruptError
        If a record is damaged.
    """
    path_of = partial(layout.publication_file, alias)
    paths = [path_of(number) for number in record_numbers(path_of, storage)]
    with ThreadPoolExecutor(_READERS) as pool:
        return with_corpora(pool.map(lambda path: Publication.load(storage, path), paths), storage)


def with_corpora(records: Iterable[Publication], storage: Storage) -> list[Publication]:
    """Return records as :func:`read_history` does."""
    found: list[Publication] = []
    for record in records:
        if record.corpus:
            found.append(record)
            continue
        named = record.replaced(corpus=_corpus_of_record(record, storage))
        replaced = next((one for one in reversed(found) if one.collection == record.previous != ""), None)
        if replaced and replaced.corpus not in ("", named.corpus):
            found.append(_ended(replaced, record.time, record.host))
        found.append(named)
    return found


def of_corpus(corpus: str, history: Iterable[Publication]) -> list[Publication]:
    """Return a corpus' own changes."""
    return [record for record in history if record.corpus == corpus]


def corpus_of(collection: str, history: Sequence[Publication], storage: Storage) -> str:
    """Return the corpus that a collection is of; empty if it was never published, and is not of a run of this store."""
    known = next((record.corpus for record in reversed(history) if record.collection == collection != ""), "")
    run = None if known else run_of(collection, storage)
    return run.corpus if run else known


def live_by_corpus(live: Iterable[str], history: Sequence[Publication], storage: Storage) -> dict[str, tuple[str, ...]]:
    """Return live collections by their corpus: one each, unless something else than TinyTags changed the alias.

    Those of no run of this store are under the empty name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for collection in live:
        corpus = corpus_of(collection, history, storage)
        found[corpus] = (*found.get(corpus, ()), collection)
    return found


def plan_change(following: NextPublication, *, alias: str, storage: Storage) -> None:
    """Record what is about to become live; the caller must hold the lease on the alias.

    What other corpora have live must be in the history by then: this is the only record of a change that is not.
    """
    path = layout.next_publication_file(alias)
    storage.delete_leftovers(path)
    following.save(storage, path)


def read_plan(alias: str, storage: Storage) -> NextPublication | None:
    """Return what was last about to become live; None if that was never recorded.

    Raises
    ------
    CorruptError
        If its record is damaged.
    """
    try:
        return NextPublication.load(storage, layout.next_publication_file(alias))
    except MissingError:
        return None


def record_change(
    change: Change,
    following: NextPublication,
    previous: str,
    *,
    alias: str,
    storage: Storage,
    beside: Sequence[str] = (),
    by: str = "",
) -> Publication:
    """Append a change to an alias' history and return it; the caller must hold the lease on the alias.

    Parameters
    ----------
    change, previous, beside, by
        As in :class:`Publication`.
    following
        What is live of the corpus now, and from which confidence on readers see it.
    alias, storage
        Whose history it is.
    """
    record = _publication(change, following, previous, beside, storage).replaced(by=by)
    append_record(record, partial(layout.publication_file, alias), storage, is_sole_writer=True)
    return record


def with_missing_change(
    history: Sequence[Publication], live: Sequence[str], storage: Storage, plan: NextPublication | None = None
) -> list[Publication]:
    """Return a history with the changes that are missing at its end, if any, one a corpus; nothing is written.

    An unrecorded switch that leads back to what was live before counts as rolled back. Collections of no run of this
    store are not in the history: nothing ever replaces them.

    Parameters
    ----------
    history
        The recorded changes.
    live
        The collections that the alias points at; none if there is no such alias.
    storage
        The store.
    plan
        What was last about to become live. If it did, its thresholds count; otherwise those with which the collection
        was last live.
    """
    if not live:
        return [*history]
    by_corpus = live_by_corpus(live, history, storage)
    missing = []
    for corpus in sorted({record.corpus for record in history} | set(by_corpus)):
        own, present = of_corpus(corpus, history), by_corpus.get(corpus, ())
        last = own[-1].collection if own else ""
        if not corpus or last in present or not (last or present):
            continue
        if not present:
            missing.append(_ended(own[-1], now(), socket.gethostname(), live))
            continue
        found = plan if plan and plan.collection in present else _last_plan(present[-1], corpus, own)
        is_back = previous_collections(own)[:1] == [found.collection]
        beside = [name for name in live if name not in present]
        change = Change.ROLLED_BACK if is_back else Change.FOUND
        missing.append(_publication(change, found.replaced(corpus=corpus), last, beside, storage))
    return [*history, *missing]


def complete_history(
    alias: str, history: Sequence[Publication], live: Sequence[str], storage: Storage
) -> list[Publication]:
    """Return :func:`with_missing_change` by what was last about to become live, which is read only if it is needed.

    Raises
    ------
    CorruptError
        If it is needed, and its record is damaged.
    """
    found = with_missing_change(history, live, storage)
    is_complete = len(found) == len(history)
    return found if is_complete else with_missing_change(history, live, storage, read_plan(alias, storage))


def record_missing_change(
    alias: str, history: Sequence[Publication], live: Sequence[str], storage: Storage, *, besides: str = ""
) -> list[Publication]:
    """Record the changes that are missing at a history's end, if any, and return the history with them.

    Parameters
    ----------
    alias, history, live, storage
        As for :func:`complete_history`; the caller must hold the lease on the alias.
    besides
        A corpus whose missing change the caller records itself.
    """
    found = [*history]
    for missing in complete_history(alias, history, live, storage)[len(history) :]:
        if missing.corpus != besides:
            append_record(missing, partial(layout.publication_file, alias), storage, is_sole_writer=True)
            found.append(missing)
    return found


def as_plan(publication: Publication) -> NextPublication:
    """Return what would make a publication live again."""
    return NextPublication(
        collection=publication.collection,
        thresholds=publication.thresholds,
        least_precision=publication.least_precision,
        corpus=publication.corpus,
    )


def previous_publications(history: Sequence[Publication]) -> list[Publication]:
    """Return the publications that successive rollbacks lead to, from the last of a corpus' changes; each of them once.

    The same collection with other thresholds is another publication. Those that were rolled back are left out, so a
    second rollback leads further back, not forward again. If the corpus was taken out, the first one brings it back.

    Parameters
    ----------
    history
        The changes of one corpus.
    """
    earlier_live: list[Publication] = []
    for record in history:
        plans = [as_plan(other) for other in earlier_live]
        if record.change is Change.ROLLED_BACK:
            same = [place for place, plan in enumerate(plans) if plan == as_plan(record)]
            alike = [place for place, plan in enumerate(plans) if plan.collection == record.collection]
            earlier_live[(same or alike or [len(plans)])[-1] :] = [record]
        elif not plans or plans[-1] != as_plan(record):
            earlier_live.append(record)
    found: list[Publication] = []
    for record in reversed(earlier_live[:-1]):
        if record.collection and as_plan(record) not in [as_plan(other) for other in (earlier_live[-1], *found)]:
            found.append(record)
    return found


def previous_collections(history: Sequence[Publication]) -> list[str]:
    """Return the collections that successive rollbacks of a corpus lead to, from its last change; each of them once."""
    last = history[-1].collection if history else ""
    collections = dict.fromkeys(record.collection for record in previous_publications(history))
    return [collection for collection in collections if collection != last]


def _corpus_of_record(record: Publication, storage: Storage) -> str:
    """Return the corpus of a record that does not name it; a run is named only if it was one of this store."""
    if not record.run:
        return ""
    by_name = layout.corpus_of_run(record.run)
    run = None if by_name else run_of(record.collection, storage)
    return run.corpus if run else by_name


def _last_plan(collection: str, corpus: str, own: Sequence[Publication]) -> NextPublication:
    before = next((record for record in reversed(own) if record.collection == collection), None)
    return as_plan(before) if before else NextPublication(collection=collection, corpus=corpus)


def _ended(last: Publication, time: str, host: str, live: Sequence[str] = ()) -> Publication:
    """Return the change by which nothing of a corpus is live any more."""
    return Publication(
        change=Change.UNPUBLISHED,
        run="",
        collection="",
        previous=last.collection,
        time=time,
        host=host,
        corpus=last.corpus,
        beside=tuple(live),
    )


def _publication(
    change: Change, following: NextPublication, previous: str, beside: Sequence[str], storage: Storage
) -> Publication:
    run = run_of(following.collection, storage) if following.collection else None
    return Publication(
        change=change,
        run=run.name if run else "",
        collection=following.collection,
        previous=previous,
        time=now(),
        host=socket.gethostname(),
        thresholds=following.thresholds,
        least_precision=following.least_precision,
        corpus=following.corpus or (run.corpus if run else ""),
        beside=tuple(beside),
    )
