"""What a message says of a run that has succeeded: its counts, and what changes against the one that was live."""

from collections.abc import Iterable, Mapping

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import FinalError
from tinytags_tasks.publish.live import live_collections, run_of
from tinytags_tasks.publish.publications import live_by_corpus, read_history
from tinytags_tasks.publish.step import PublishResult
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run

MOST_TAGS = 10
"""Of a larger difference, only the tags are listed that changed most."""


def announce_published(published: PublishResult, *, storage: Storage) -> list[str]:
    """Return what to say of a run that is live now, a title first."""
    run = Run.load(storage, layout.run_file(published.run))
    lines = [f"{run.corpus}: run {run.name} is live", describe_totals(run, published.totals)]
    if published.replaced:
        lines += _differences(run, published.totals, published.replaced, "replaces", storage)
    else:
        lines.append("it replaces no other run of the corpus")
    return lines


def announce_verified(run_name: str, totals: Totals, alias: str, *, storage: Storage, solr: SolrClient) -> list[str]:
    """Return what to say of a run that is verified and was not to be published, a title first."""
    run = Run.load(storage, layout.run_file(run_name))
    lines = [f"{run.corpus}: run {run.name} is verified, and not published", describe_totals(run, totals)]
    live = live_by_corpus(live_collections(alias, solr), read_history(alias, storage), storage).get(run.corpus, ())
    others = [collection for collection in live if collection != run.collection]
    lines += _differences(run, totals, others, "would replace", storage)
    return [*lines, f"publish it with `tinytags publish {run.name}`"]


def describe_totals(run: Run, totals: Totals) -> str:
    """Return a run's counts in one line; what there is none of is left out."""
    parts = {
        "kept": totals.kept,
        "below the threshold": totals.below,
        "none of the tags": totals.none,
        "unreadable": totals.unreadable,
        "taken down": totals.taken_down,
        "corrected by people": totals.corrected,
    }
    shown = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count or what == "kept")
    return f"{totals.read:,} images with model {run.model}, from {run.threshold} % on: {shown}"


def _differences(run: Run, totals: Totals, others: Iterable[str], verb: str, storage: Storage) -> list[str]:
    lines = []
    for collection in others:
        try:
            before = run_of(collection, storage)
            if before is None:
                lines.append(f"it {verb} {collection}, which belongs to no run of this store")
                continue
            counts = add_up(read_ledger(storage, before))
        except FinalError as error:  # the run has succeeded all the same
            lines.append(f"it {verb} {collection}, whose counts cannot be read: {error}")
            continue
        if counts.read < before.images:
            lines.append(
                f"it {verb} run {before.name}, whose ledger counts only {counts.read:,} of {before.images:,} images: "
                f"repair it with `tinytags audit {before.name} --repair`"
            )
            continue
        lines.append(f"it {verb} run {before.name}: {totals.kept - counts.kept:+,} images kept")
        if (before.model, before.threshold) != (run.model, run.threshold):
            lines.append(f"that one is of model {before.model}, from {before.threshold} % on")
        if changed := describe_changes(counts.kept_by_tag, totals.kept_by_tag):
            lines.append(changed)
    return lines


def describe_changes(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Return how many images each tag has more or fewer, the largest changes first; empty if none changed."""
    changes = {tag: now.get(tag, 0) - before.get(tag, 0) for tag in {*before, *now}}
    changed = sorted((tag for tag in changes if changes[tag]), key=lambda tag: (-abs(changes[tag]), tag))
    shown = ", ".join(f"{tag} {changes[tag]:+,}" for tag in changed[:MOST_TAGS])
    return f"{shown} and {len(changed) - MOST_TAGS:,} more tags" if len(changed) > MOST_TAGS else shown
