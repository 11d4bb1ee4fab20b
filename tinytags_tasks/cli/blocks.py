"""Commands for single blocks of a run: show their states, audit, redo and delete them."""

import json
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import (
    AsJson,
    Blocks,
    RunName,
    add_row,
    clients,
    embed_and_score,
    find_run,
    make_table,
    print_table,
    say,
)
from tinytags_tasks.errors import BadInputError, FinalError

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.ledger import Rates
    from tinytags_tasks.upkeep.audit import AuditRequest, AuditResult
    from tinytags_tasks.upkeep.backfill import BackfillPlan, BackfillRequest

app = typer.Typer()

_BLOCKS_AT_ONCE = 20


@app.command()
def ledger(
    run_name: RunName = None,
    blocks: Blocks = "",
    state: Annotated[str, typer.Option(help="Only blocks in this state, such as failed.")] = "",
    limit: Annotated[int, typer.Option(help="Rows of the table; the totals include all blocks.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Show the state of each block of a run, its speed, and the time left."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.store.ledger import add_up, rates, read_ledger
    from tinytags_tasks.store.models import has_none
    from tinytags_tasks.store.run_records import BlockState

    if state and state not in list(BlockState):
        raise BadInputError(f"{state!r} is not a state: use one of {', '.join(BlockState)}")
    if limit < 1:
        raise BadInputError(f"--limit is {limit}: it must be 1 or more")
    run = find_run(run_name)
    records = read_ledger(clients().storage, run, parse_block_numbers(blocks, run.blocks))
    speed = rates(run, records) if not blocks else None
    records = [record for record in records if not state or record.state == state]
    totals = add_up(records)
    if as_json:
        found = {
            "run": run.model_dump(),
            "totals": asdict(totals),
            "rates": asdict(speed) if speed else None,
            "blocks": [record.model_dump() for record in records],
        }
        print(json.dumps(found, indent=2))
        return
    shows_none = bool(totals.none) or has_none(run.model, clients().storage)
    counted = ["read", "kept", "below", *(["none"] if shows_none else []), "unreadable"]
    counted += ["taken_down"] if totals.taken_down else []
    table = make_table("block", "state", *map(_words, counted), "documents", "tries", "seconds", "reason")
    for record in records[:limit]:
        seconds = f"{record.score_seconds + record.index_seconds:.1f}"
        documents = "" if record.documents is None else f"{record.documents:,}"
        counts = (f"{getattr(record, name):,}" for name in counted)
        add_row(table, record.block, record.state, *counts, documents, record.attempts, seconds, record.reason)
    print_table(table)
    if len(records) > limit:
        print(f"the first {limit:,} of {len(records):,} blocks; --limit {len(records)} shows all")
    states = ", ".join(f"{count} {name}" for name, count in totals.by_state.items())
    print(f"run {run.name}: {run.corpus} by {run.model}, confidence from {run.threshold} %")
    if run.description:
        print(run.description)
    print(
        f"{totals.blocks} blocks ({states or 'none'}): "
        f"{totals.read:,} read = {' + '.join(f'{getattr(totals, name):,} {_words(name)}' for name in counted[1:])}; "
        f"{totals.documents:,} documents"
    )
    if speed:
        print(_speed(speed))


def _words(name: str) -> str:
    """Return the name of a count in words."""
    return name.replace("_", " ")


def _speed(speed: "Rates") -> str:
    """Return a run's rates in words."""
    from tinytags_tasks.store.ledger import RECENT_SECONDS

    scored_indexed = (
        f"{speed.images_per_second:,.0f} images/s scored, {speed.documents_per_second:,.0f} documents/s indexed"
    )
    if speed.seconds_left is None:
        return f"{scored_indexed}; no block was verified in the last {RECENT_SECONDS / 60:g} minutes"
    if speed.seconds_left == 0:
        return f"{scored_indexed}, overall"
    minutes, seconds = divmod(round(speed.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{scored_indexed} in the last {RECENT_SECONDS / 60:g} minutes; {hours}:{minutes:02}:{seconds:02} left"


@app.command()
def delete(
    run_name: RunName = None,
    blocks: Blocks = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all documents of blocks from a run's collection, one block at a time; scored files are kept."""
    from tinytags_tasks.blocks import format_block_numbers, parse_block_numbers
    from tinytags_tasks.index.step import DeleteRequest, delete_blocks
    from tinytags_tasks.publish.live import live_collections

    if not blocks:
        raise BadInputError("name the blocks, such as --blocks 3,17-20")
    runtime = clients()
    run = find_run(run_name)
    numbers = parse_block_numbers(blocks, run.blocks)
    is_live = run.collection in live_collections(runtime.settings.alias, runtime.solr)
    seen = ", which readers see" if is_live else ""
    question = f"Delete the documents of blocks {format_block_numbers(numbers)} of run {run.name}{seen}?"
    if not yes and not typer.confirm(question):
        raise typer.Exit(1)
    result = delete_blocks(DeleteRequest(run.name, numbers), storage=runtime.storage, solr=runtime.solr, report=say)
    print(f"deleted {result.documents:,} documents of {len(numbers)} blocks")


@app.command()
def backfill(
    run_name: RunName = None,
    blocks: Annotated[str, typer.Option(help="Block numbers and ranges, such as 3,17-20.")] = "",
    select: Annotated[
        str, typer.Option(help="failed, missing, or audit (what the last audit found).", show_default=False)
    ] = "",
) -> None:
    """Redo blocks of a run: score those without a valid scored file, index all of them, reconcile them."""
    from tinytags_tasks.upkeep.backfill import BackfillRequest

    runtime = clients()
    planned = _backfill(BackfillRequest(find_run(run_name).name, blocks, select, _BLOCKS_AT_ONCE), runtime)
    again = f", the records of {len(planned.rebuilt)} were written again" if planned.rebuilt else ""
    print(f"{len(planned.blocks)} blocks were redone{again}")


def _backfill(request: "BackfillRequest", runtime: "Runtime") -> "BackfillPlan":
    from tinytags_tasks.index.step import IndexRequest, index_blocks
    from tinytags_tasks.publish.step import reconcile_run
    from tinytags_tasks.score.step import ScoreRequest
    from tinytags_tasks.upkeep.backfill import plan_backfill
    from tinytags_tasks.upkeep.repair import apply_pending

    storage, solr = runtime.storage, runtime.solr
    planned = plan_backfill(request, storage=storage, solr=solr, alias=runtime.settings.alias, report=say)
    for group in planned.groups:
        embed_and_score(ScoreRequest(planned.run, group), runtime)
        index_blocks(IndexRequest(planned.run, group, redo=True), storage=storage, solr=solr, report=say)
    apply_pending(planned.run, storage=storage, solr=solr, report=say)  # said while these blocks were being indexed
    reconcile_run(planned.run, storage=storage, solr=solr, blocks=planned.all_blocks, report=say)
    return planned


@app.command()
def audit(
    run_name: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Name of a run; default: the live one.", show_default=False)
    ] = "",
    sample: Annotated[
        int | None,
        typer.Option(
            help="How many pictures to compare byte by byte, from where the last audit ended; default: a thirtieth.",
            show_default=False,
        ),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Compare every picture byte by byte.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Write damaged records again, redo the blocks that differ, apply people's words, then audit again.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --repair, delete documents of no block without asking.")
    ] = False,
    alias: Annotated[
        str,
        typer.Option(
            help="The alias whose live run is the default, and whose history is checked; default: TINYTAGS_ALIAS.",
            show_default=False,
        ),
    ] = "",
    corpus: Annotated[
        str,
        typer.Option(help="The corpus whose live run is the default, if several are live.", show_default=False),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Compare what is in Solr with the ledger, the scored files and the shards; exit code 1 if it differs."""
    from tinytags_tasks.publish.live import live_collections
    from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
    from tinytags_tasks.upkeep.repair import apply_pending

    runtime = clients()
    request = AuditRequest(run_name, alias or runtime.settings.alias, sample, is_deep=deep, corpus=corpus)
    if repair:
        _repair_records(request, runtime)
    result = audit_run(request, storage=runtime.storage, solr=runtime.solr, report=say)
    if (result.pending or (result.problems and not result.input_problems)) and repair:
        for block, problem in sorted(result.problems.items()):
            say(f"block {block}: {problem}")
        if result.problems and not result.input_problems:
            _repair_blocks(result, runtime, yes=yes)
        try:
            apply_pending(result.run, storage=runtime.storage, solr=runtime.solr, report=say)
        except FinalError as error:
            if not result.input_problems:
                raise
            say(str(error))  # the audit names the causes
        result = audit_run(replace(request, run=result.run), storage=runtime.storage, solr=runtime.solr, report=say)
    if as_json:
        print(json.dumps(asdict(result), indent=2))
    else:
        _print_audit(result)
    # Words that are pending on a run that nobody sees are applied when it is published.
    is_behind = bool(result.pending) and result.collection in live_collections(request.alias, runtime.solr)
    if result.problems or result.input_problems or is_behind:
        raise typer.Exit(1)


def _repair_records(request: "AuditRequest", runtime: "Runtime") -> None:
    """Write the record of the run, or those of all live runs, and the alias' history again if they are damaged."""
    from tinytags_tasks.publish.live import live_collections
    from tinytags_tasks.store import layout
    from tinytags_tasks.upkeep.repair import repair_run_record
    from tinytags_tasks.upkeep.repair_history import repair_history

    storage, solr = runtime.storage, runtime.solr
    live = () if request.run else live_collections(request.alias, solr)
    names = [request.run] if request.run else [layout.run_of_collection(collection) for collection in live]
    for name in names:
        if request.run or (name and storage.exists(layout.run_file(name))):
            repair_run_record(name, storage, say)
    repair_history(request.alias, storage, solr, say)


def _repair_blocks(result: "AuditResult", runtime: "Runtime", *, yes: bool) -> None:
    """Redo what an audit found; documents of no block are shown, and deleted only if a person says so."""
    from tinytags_tasks.blocks import format_block_numbers
    from tinytags_tasks.store.run_identity import corpus_of_run, load_run
    from tinytags_tasks.upkeep.backfill import BackfillRequest, Selection
    from tinytags_tasks.upkeep.repair import count_foreign_documents

    storage, solr = runtime.storage, runtime.solr
    run = load_run(result.run, storage)
    foreign = count_foreign_documents(run, corpus_of_run(run, storage), storage, solr)
    may_delete = False
    if foreign:
        question = (
            f"{sum(foreign.values()):,} documents of blocks {format_block_numbers(foreign)}, which corpus {run.corpus} "
            f"does not have, are in {run.collection}: delete them?"
        )
        may_delete = yes or (sys.stdin.isatty() and typer.confirm(question, err=True))
        if not may_delete:
            say(f"{question} Not without --yes: they stay")
    if set(result.problems) - set(foreign) or may_delete:
        request = BackfillRequest(
            result.run,
            select=Selection.AUDIT,
            blocks_per_task=_BLOCKS_AT_ONCE,
            delete_foreign=may_delete,
        )
        _backfill(request, runtime)


_MOST_PROBLEMS = 50


def _print_audit(result: "AuditResult") -> None:
    from tinytags_tasks.blocks import format_block_numbers

    for block, problem in list(sorted(result.problems.items()))[:_MOST_PROBLEMS]:
        print(f"block {block}: {problem}")
    if len(result.problems) > _MOST_PROBLEMS:
        print(f"and {len(result.problems) - _MOST_PROBLEMS:,} more; {result.path} lists all")
    for problem in result.input_problems:
        print(problem)
    differ = [f"{len(result.problems):,} blocks differ"] if result.problems else []
    differ += [f"{len(result.input_problems):,} files or records are damaged"] if result.input_problems else []
    print(
        f"{result.run}: {result.blocks:,} blocks, {result.documents:,} documents, {result.sampled:,} compared byte by "
        f"byte: {', '.join(differ) or 'everything matches what was scored'}"
    )
    if result.pictures_percent is not None:
        print(f"compared byte by byte in this rotation of audits: {result.pictures_percent:.1f} % of the corpus")
    if result.pending:
        print(
            f"blocks {format_block_numbers(result.pending)} do not follow people's latest words yet: apply them with "
            f"`tinytags audit {result.run} --repair`"
        )
    if result.input_problems:
        print("repair these first, then audit again")
    elif result.problems:
        print(
            f"redo blocks {format_block_numbers(result.problems)} with `tinytags audit {result.run} --repair` or "
            f"`tinytags backfill {result.run} --select audit`"
        )
