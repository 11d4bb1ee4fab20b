"""What a person is shown who decides whether a run is published: what would change for readers, in Markdown."""

import re
from collections.abc import Callable, Mapping

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.publish.diff import DiffRequest, DiffResult, compare_runs, images_of_one
from tinytags_tasks.publish.live import live_runs
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run

MOST_TAGS = 50
"""How many tags are shown, those that change most first."""


def describe_publication(
    name: str,
    alias: str,
    *,
    storage: Storage,
    solr: SolrClient,
    search_url: str | None = None,
    report: Callable[[str], None] = print,
) -> str:
    """Return what publishing a verified run would change: counts, documents by tag, and where to see pictures.

    Parameters
    ----------
    name, alias
        The run, and the alias that readers search.
    storage, solr
        Where the run is, and what is live.
    search_url
        The address of the search page, whose page of differences is linked; None links none.
    report
        Called with a line of progress.

    Raises
    ------
    MissingError
        If there is no such run.
    CorruptError
        If a scored file or record is damaged.
    """
    run = Run.load(storage, layout.run_file(name))
    totals = add_up(read_ledger(storage, run))
    heading = (
        f"Run **{name}** tags {totals.read:,} images of corpus {_text(run.corpus)} by {run.model} and has "
        f"{totals.documents:,} documents: {totals.below:,} images are below the threshold of {run.threshold} %, "
        f"{totals.none:,} show none of the tags, {totals.unreadable:,} are unreadable, {totals.taken_down:,} are "
        "taken down."
    )
    live = next((one for one in live_runs(alias, storage, solr, corpus=run.corpus)), None)
    return f"{heading}\n\n{_change(run, live, totals, alias, search_url, storage, report)}\n"


def _change(
    run: Run,
    live: Run | None,
    totals: Totals,
    alias: str,
    search_url: str | None,
    storage: Storage,
    report: Callable[[str], None],
) -> str:
    """Return what changes for readers, compared with the run that is live of the corpus."""
    by_tag = totals.kept_by_tag
    if live is None:
        return f"Nothing of the corpus is live under `{alias}`: readers would see all of it.\n\n{_table({}, by_tag)}"
    if live.name == run.name:
        return f"It is live under `{alias}` already."
    try:
        found = compare_runs(DiffRequest(live.name, run.name), storage=storage, report=report)
    except (MissingError, BadInputError) as error:  # the live run's files were deleted, or the corpus ingested again
        old = add_up(read_ledger(storage, live)).kept_by_tag
        return (
            f"It would replace **{live.name}** by {live.model}. Image by image, the two cannot be compared: "
            f"{_text(str(error))}\n\n{_table(old, by_tag)}"
        )
    counts = _counts(found, run, live)
    return "\n\n".join([counts, _table(found.old_by_tag, found.new_by_tag), _where(found, search_url)])


def _counts(found: DiffResult, run: Run, live: Run) -> str:
    grown = images_of_one(run, live)
    return (
        f"It would replace **{found.old}** by {live.model}: {found.same:,} images keep their tag, {found.changed:,} "
        f"change it, {found.gained:,} are gained, {found.lost:,} lost."
    ) + (f" {grown}." if grown else "")


def _where(found: DiffResult, search_url: str | None) -> str:
    """Return where pictures of the differences are."""
    command = f"`tinytags diff {found.old} {found.new} --sheet diff.png`"
    if not search_url:
        return f"{command} shows pictures of what changes."
    page = f"{without_password(search_url).rstrip('/')}/runs/{found.old}/{found.new}"
    return f"[Pictures of what changes]({page}) are on the search page, and {command} writes a sheet of them."


def _table(old: Mapping[str, int], new: Mapping[str, int]) -> str:
    """Return a table of documents by tag, those first that change most."""
    tags = sorted({*old, *new}, key=lambda tag: (-abs(new.get(tag, 0) - old.get(tag, 0)), tag))
    rows = [
        f"| {_text(tag)} | {old.get(tag, 0):,} | {new.get(tag, 0):,} | {new.get(tag, 0) - old.get(tag, 0):+,} |"
        for tag in tags[:MOST_TAGS]
    ]
    more = [f"\n{len(tags) - MOST_TAGS:,} more tags change less."] if len(tags) > MOST_TAGS else []
    return "\n".join(["| tag | live | new | difference |", "| --- | ---: | ---: | ---: |", *rows, *more])


def _text(text: str) -> str:
    """Return a text as Markdown shows it literally."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~])", r"\\\1", text)
