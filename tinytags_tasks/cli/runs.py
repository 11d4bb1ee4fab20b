"""Commands for runs: list them, say what was removed, and remove one."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, make_table, print_table, refuse_damaged, say
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError

if TYPE_CHECKING:
    from tinytags_tasks.clients.solr import SolrClient
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.run_records import Publication
    from tinytags_tasks.upkeep.overview import RunsResult

app = typer.Typer()
runs_app = typer.Typer(invoke_without_command=True)
app.add_typer(runs_app, name="runs")


@runs_app.callback()
def list_runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many runs, newest first.")] = 10,
    corpus: Annotated[
        str, typer.Option(help="Only runs of this corpus, and all that was live of it.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List runs, and what is live of each corpus; exit code 1 if a record is damaged.

    A live run is always among them.
    """
    if context.invoked_subcommand:
        return
    from tinytags_tasks.upkeep.overview import RunsRequest, summarize_runs

    request = RunsRequest(limit, corpus)
    runtime = clients()
    solr = _solr_or_none(runtime)
    result = summarize_runs(request, storage=runtime.storage, solr=solr)
    if as_json:
        print(json.dumps([asdict(one) for one in result.runs], indent=2))
    else:
        _print_runs(result, limit, knows_solr=solr is not None)
    damaged = list(result.damaged)
    if not as_json:
        try:
            _print_live(corpus, runtime, solr)
        except CorruptError as error:
            damaged += [str(error)] if str(error) not in damaged else []
    refuse_damaged(damaged)


def _print_runs(result: "RunsResult", limit: int, *, knows_solr: bool) -> None:
    from tinytags_tasks.review.precision import NOT_MEASURED

    found = result.runs
    table = make_table(
        "run", "corpus", "model", "from %", "blocks", "collection", "documents", "precision", "planned", "live under"
    )
    for one in found:
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(one.by_state.items()))
        documents = "" if one.documents is None else f"{one.documents:,}"
        absent = "pruned" if one.pruned else ("" if knows_solr else "?")
        collection = absent if one.documents is None else one.collection
        live = ", ".join(one.live_under)
        precision = one.precision or NOT_MEASURED
        cells = (one.run, one.corpus, one.model, one.threshold, states, collection, documents, precision, one.created)
        add_row(table, *cells, live)
    print_table(table)
    if result.known > len(found):
        live = f", and {len(found) - limit} live" if len(found) > limit else ""
        print(f"the latest {min(limit, len(found))} of {result.known:,} runs{live}; --limit {result.known} shows all")
    elif not (found or result.damaged):
        print("there is no run yet: start one with `tinytags run` or `tinytags score`")


def _print_live(corpus: str, runtime: "Runtime", solr: "SolrClient | None") -> None:
    """Print what is live of each corpus, and what rollbacks lead to; of a chosen corpus, all its changes as well.

    Without Solr, that is what was recorded last.
    """
    from tinytags_tasks.upkeep.live_corpora import list_corpora

    alias = runtime.settings.alias
    known = list_corpora(alias, storage=runtime.storage, solr=solr)
    shown = [one for one in known if corpus in ("", one.corpus)]
    if not shown:
        print(f"nothing {f'of corpus {corpus} ' if corpus else ''}was ever live under {alias}")
        return
    recorded = "" if solr else ", as recorded"
    table = make_table("corpus", f"live under {alias}{recorded}", "since", "readers see", "a rollback leads to")
    for one in shown:
        last = one.changes[-1] if one.changes else None
        live = ", ".join(one.live) or "nothing"
        of_store = one.corpus or "of no run of this store"
        back = one.back_to[0].collection if one.back_to else ""
        add_row(table, of_store, live, last.time if last else "", _readers_see(last) if one.live else "", back)
    print_table(table)
    if corpus:
        changes = make_table("when", "change", "live since then", "readers see", "by", "on")
        for change in shown[0].changes:
            live = change.collection or "nothing"
            add_row(changes, change.time, change.change, live, _readers_see(change), change.by, change.host)
        print_table(changes)


def _readers_see(change: "Publication | None") -> str:
    """Return in a few words from which confidence on readers see a publication."""
    if change is None or not change.collection:
        return ""
    if change.least_precision is not None:
        return f"tags of {change.least_precision:g} % measured precision"
    return "everything" if change.thresholds is None else "some tags"


def _solr_or_none(runtime: "Runtime") -> "SolrClient | None":
    """Return the Solr client; None, with a message, if Solr does not answer: most of the list comes from the store."""
    try:
        runtime.solr.aliases()
    except (EngineDownError, BadInputError) as error:
        say(f"collections in Solr are unknown, and what is live is what was recorded last: {error}")
        return None
    return runtime.solr


@runs_app.command()
def remove(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")],
    keep: Annotated[
        int | None,
        typer.Option(
            help="Collections to keep for rollbacks, besides the live one; default: TINYTAGS_KEEP_COLLECTIONS.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a run: its collection, scored files and ledger; refused if it is live, or a rollback leads to it.

    What people said of its pictures stays, and so do its model and the embeddings.
    """
    from tinytags_tasks.cli.spoken import user
    from tinytags_tasks.store import layout
    from tinytags_tasks.upkeep.removals import finish_removals
    from tinytags_tasks.upkeep.remove import RunRemoval, plan_run_removal, remove_run

    runtime = clients()
    storage, solr, settings = runtime.storage, runtime.solr, runtime.settings
    if any(done.folder == layout.run_folder(run) for done in finish_removals(storage, say)):
        return  # a command that was killed had removed it
    request = RunRemoval(run, settings.alias, settings.keep_collections if keep is None else keep, user())
    found = plan_run_removal(request, storage=storage, solr=solr)
    documents = f"its collection ({found.documents:,} documents), " if found.collection else ""
    what = f"run {run}: {documents}its scored files ({found.scored_bytes / 1e6:,.1f} MB) and its ledger"
    if not yes and not typer.confirm(f"Remove {what}?"):
        raise typer.Exit(1)
    print(remove_run(request, storage=storage, solr=solr, report=say).line)


@runs_app.command()
def removed(
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest last.")] = 100,
) -> None:
    """List which models and runs were removed, by whom and when; exit code 1 if a record is damaged."""
    from tinytags_tasks.upkeep.removals import list_removals

    damaged: list[str] = []
    found = list_removals(clients().storage, limit, on_damage=damaged.append)
    for removal in found:
        print(removal.line)
    if not (found or damaged):
        print("nothing was removed yet")
    refuse_damaged(damaged)
