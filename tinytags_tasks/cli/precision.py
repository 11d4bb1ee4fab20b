"""The command for what a run's confidence has meant on its corpus."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, RunName, add_row, clients, find_run, make_table, print_table, say
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from tinytags_tasks.review.precision import PrecisionTable

app = typer.Typer()


@app.command()
def precision(
    run_name: RunName = None,
    corpus: Annotated[str, typer.Option(help="The live run of this corpus.", show_default=False)] = "",
    as_json: AsJson = False,
) -> None:
    """Show a run's measured precision: for each tag and band of confidence, from looks that were drawn to measure."""
    from tinytags_tasks.publish.live import live_run
    from tinytags_tasks.review.measuring import measure_run

    if run_name and corpus:
        raise BadInputError("name a run or --corpus, not both")
    runtime = clients()
    run = live_run(runtime.settings.alias, corpus, runtime.storage, runtime.solr) if corpus else find_run(run_name)
    table = measure_run(run, runtime.storage, say)
    if as_json:
        print(json.dumps(table.as_json(), indent=2))
    else:
        _print(table)


def _print(table: "PrecisionTable") -> None:
    from tinytags_tasks.review.measuring import describe
    from tinytags_tasks.review.precision import NOT_MEASURED

    if not table.is_measured:
        print(
            f"the precision of {table.run} is {NOT_MEASURED}: look at some of its pictures on the page Review; the "
            "demo has a made reviewer, `tinytags demo review`"
        )
        return
    bands = make_table("tag", "confidence", "images", "looks", "right", "precision", "95 % interval", "stated")
    for row in table.rows:
        measured = ("", "") if row.precision is None else (f"{row.precision:.1f} %", f"{row.low:.1f} to {row.high:.1f}")
        stated = "" if row.stated is None else f"{row.stated:.1f} %"
        confidence = f"{row.band_low}-{row.band_high} %"
        add_row(bands, row.tag, confidence, f"{row.images:,}", row.looks, row.right, *measured, stated)
    print_table(bands)
    tags = make_table("tag", "images", "looks", "precision", "recall")
    for tag in table.tags:
        add_row(tags, tag.tag, f"{tag.images:,}", tag.looks, describe(tag.precision), describe(tag.recall))
    images = sum(tag.images for tag in table.tags)
    looks = sum(tag.looks for tag in table.tags)
    add_row(tags, "all", f"{images:,}", looks, describe(table.overall), describe(table.recall_overall))
    print_table(tags)
    unclear = f", and {table.unclear:,} more were unclear" if table.unclear else ""
    if table.labelled:
        unclear += f"; {table.labelled:,} more are in the labelled set, and count nowhere"
    print(
        f"{table.looks:,} looks that measure, {table.dropped_looks:,} of them at pictures that the run dropped"
        f"{unclear}; request {table.last:,} of the review log is the last"
    )
    if table.more_looks:
        print(table.more_looks)
