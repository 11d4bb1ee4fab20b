"""Commands for what readers see: publish, roll back, compare runs, clean up."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import (
    AsJson,
    Blocks,
    RunName,
    add_row,
    clients,
    find_run,
    make_table,
    print_table,
    say,
)

if TYPE_CHECKING:
    from tinytags_tasks.publish.diff import DiffResult

app = typer.Typer()

_MOST_TAGS = 10
"""How many rows and columns the matrix of changes has."""


@app.command()
def publish(
    run_name: RunName = None,
    gate_documents: Annotated[
        float | None,
        typer.Option(help="Refuse a run with fewer documents than this percentage of the live ones."),
    ] = None,
    gate_precision: Annotated[
        float | None,
        typer.Option(help="Refuse a run whose model has a precision below this percentage at the run's threshold."),
    ] = None,
    gate_measured_precision: Annotated[
        float | None,
        typer.Option(
            help="Show each tag from the lowest confidence on whose precision, as reviews measured it on this corpus, "
            "is at least this percentage with 95 % certainty; tags that cannot reach it are not shown. 0 shows all. "
            "Default: what the live run of this corpus was published at.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Reconcile all blocks of a run, ask the gate, and publish it."""
    from tinytags_tasks.publish.step import PublishRequest, publish_run

    runtime = clients()
    request = PublishRequest(
        find_run(run_name).name, runtime.settings.alias, gate_documents, gate_precision, gate_measured_precision
    )
    result = publish_run(request, storage=runtime.storage, solr=runtime.solr, report=say)
    print(f"{result.totals.kept:,} documents are live in {result.collection}")
    if result.thresholds is not None:
        shown = ", ".join(f"{tag} from {threshold} %" for tag, threshold in sorted(result.thresholds.items()))
        print(f"readers see {shown}")


@app.command()
def unpublish(
    corpus: Annotated[
        str,
        typer.Argument(metavar="CORPUS", help="The corpus; or a live collection that is of no run of this store."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take a corpus out of what readers search; its run is kept until it is pruned, and a rollback brings it back.

    A collection that is of no run of this store is in no history: a rollback does not bring it back.
    """
    from tinytags_tasks.cli.spoken import user
    from tinytags_tasks.publish.unpublish import UnpublishRequest
    from tinytags_tasks.publish.unpublish import unpublish as take_out

    runtime = clients()
    alias = runtime.settings.alias
    if not yes and not typer.confirm(f"Take {corpus} out of {alias}, so that readers do not find its pictures?"):
        raise typer.Exit(1)
    request = UnpublishRequest(corpus, alias, user())
    result = take_out(request, storage=runtime.storage, solr=runtime.solr, report=say)
    print(f"{corpus} is not live under {alias}; {', '.join(result.beside) or 'nothing'} is")


@app.command()
def rollback(
    run_name: Annotated[
        str,
        typer.Argument(
            metavar="[RUN]",
            help="The run to roll back; changes nothing if that was done already. Default: the live run.",
            show_default=False,
        ),
    ] = "",
    corpus: Annotated[
        str,
        typer.Option(help="The corpus to roll back, if several are or were live.", show_default=False),
    ] = "",
) -> None:
    """Restore what was live of a corpus before; the run that is rolled back is kept until it is pruned."""
    from tinytags_tasks.publish.rollback import RollbackRequest, roll_back

    runtime = clients()
    request = RollbackRequest(runtime.settings.alias, run_name, corpus)
    result = roll_back(request, storage=runtime.storage, solr=runtime.solr, report=say)
    taken_back = f"; {result.taken_back} was rolled back" if result.taken_back else ""
    print(f"{result.documents:,} documents are live in {result.collection} again{taken_back}")


@app.command()
def prune(
    keep: Annotated[
        int | None,
        typer.Option(
            help="Collections to keep besides the live one; default: TINYTAGS_KEEP_COLLECTIONS.", show_default=False
        ),
    ] = None,
    scored: Annotated[
        bool, typer.Option("--scored", help="Also delete the scored files of runs whose collection is dropped.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop collections that no reader or rollback needs, embeddings that nobody needs, and leftovers; asks before."""
    from dataclasses import replace

    from tinytags_tasks.upkeep.prune import PruneRequest, plan_prune, prune_collections

    runtime = clients()
    settings = runtime.settings
    request = PruneRequest(settings.alias, settings.keep_collections if keep is None else keep, scored)
    found = plan_prune(request, storage=runtime.storage, solr=runtime.solr)
    for collection, reason in found.kept.items():
        print(f"keeps {collection}: {reason}")
    for line in found.lines("drops"):
        print(line)
    if found.is_empty:
        print("there is nothing to drop")
        return
    if not yes and not typer.confirm("Drop these?"):
        raise typer.Exit(1)
    # Only what was shown: what has become unneeded since then waits for the next prune.
    shown = replace(
        request,
        runs=tuple(one.run for one in found.drop),
        embeddings=tuple(one.name for one in found.embeddings),
        review_sets=tuple(one.key for one in found.review_sets),
    )
    dropped = prune_collections(shown, storage=runtime.storage, solr=runtime.solr, report=say)
    collections = sum(bool(one.collection) for one in dropped.drop)
    embedded = sum(one.blocks for one in dropped.embeddings)
    print(
        f"dropped {collections} collections, the embeddings of {embedded:,} blocks, "
        f"{len(dropped.review_sets):,} review sets, and {dropped.leftovers:,} temporary files of killed writers"
    )


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run to compare with, such as the live one.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run that would replace it.")],
    blocks: Blocks = "",
    sheet: Annotated[
        Path | None, typer.Option(help="File for a picture sheet of examples (PNG).", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs of one corpus: documents by tag, images that changed tag, gained, lost, mean confidence."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.publish.diff import DiffRequest, compare_runs, draw_sheet

    runtime = clients()
    chosen = parse_block_numbers(blocks, find_run(run_a).blocks) if blocks else None
    found = compare_runs(DiffRequest(run_a, run_b, chosen), storage=runtime.storage, report=say)
    if sheet is not None:
        draw_sheet(found, sheet, storage=runtime.storage)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    _print_diff(found)
    if sheet is not None:
        print(f"sheet: {sheet}")


def _print_diff(found: "DiffResult") -> None:
    table = make_table("tag", f"in {found.old}", f"in {found.new}", "more")
    for tag in sorted({*found.old_by_tag, *found.new_by_tag}):
        before, after = found.old_by_tag.get(tag, 0), found.new_by_tag.get(tag, 0)
        add_row(table, tag, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    before, after = sum(found.old_by_tag.values()), sum(found.new_by_tag.values())
    add_row(table, "all", f"{before:,}", f"{after:,}", f"{after - before:+,}")
    means = ("none" if mean is None else f"{mean:.1f} %" for mean in (found.old_confidence, found.new_confidence))
    add_row(table, "mean confidence", *means, "")
    if found.old_none or found.new_none:
        more = f"{found.new_none - found.old_none:+,}"
        add_row(table, "none of the tags", f"{found.old_none:,}", f"{found.new_none:,}", more)
    print_table(table)
    if found.changes:
        _print_changes(found)
    print(
        f"of {found.images:,} images: {found.same:,} kept their tag, {found.changed:,} changed it, "
        f"{found.gained:,} gained, {found.lost:,} lost"
    )


def _print_changes(found: "DiffResult") -> None:
    """Print the matrix of the largest changes: from a row's tag to a column's."""
    images = {(change.old_tag, change.new_tag): change.images for change in found.changes}
    tags: dict[str, None] = {}
    for old_tag, new_tag in images:  # largest change first
        if len(tags.keys() | {old_tag, new_tag}) <= _MOST_TAGS:
            tags |= {old_tag: None, new_tag: None}
    table = make_table("from \\ to", *sorted(tags))
    for old_tag in sorted(tags):
        add_row(
            table,
            old_tag,
            *(f"{images[pair]:,}" if (pair := (old_tag, new_tag)) in images else "" for new_tag in sorted(tags)),
        )
    print_table(table)
