"""The command line: what Airflow does, for a person."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError

if TYPE_CHECKING:
    from rich.table import Table

    from tinytags_tasks.records import Run
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.services import EngineStatus

app = typer.Typer(
    name="tinytags",
    help="Tag millions of small images and search them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Engines = Annotated[
    list[str] | None,
    typer.Argument(help="hdfs, solr, spark, airflow, search; all when none is named.", show_default=False),
]


RunName = Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's name; default: the latest.")]
Blocks = Annotated[
    str, typer.Option(help="Block numbers and ranges, such as 3,17-20; default: all.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def up(engines: Engines = None) -> None:
    """Start the engines that do not run, and wait until they can be used."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import ADDRESSES, load_settings

    settings = services.up(load_settings(), engines=engines or None, report=_say)
    for name in ADDRESSES:
        if url := getattr(settings, name):
            print(f"{name.removesuffix('_url'):>8}  {url}")


@app.command()
def down(engines: Engines = None) -> None:
    """Stop the engines that `tinytags up` started; their data stays."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import load_settings

    services.down(load_settings(), engines=engines or None, report=_say)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Tell how each engine is; exit code 1 when one is dead."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import load_settings

    engines = services.status(load_settings())
    if as_json:
        print(json.dumps([asdict(engine) for engine in engines], indent=2, default=str))
    else:
        _print_engines(engines)
    if any(engine.state == "dead" for engine in engines):
        raise typer.Exit(1)


def _print_engines(engines: "list[EngineStatus]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("engine", "state", "pid", "MB", "address", "detail", box=None)
    for engine in engines:
        megabytes = "" if engine.memory_bytes is None else f"{engine.memory_bytes / 1e6:.0f}"
        detail = "its log's end is below" if engine.state == "dead" else engine.detail
        cells = (engine.name, engine.state, str(engine.pid or ""), megabytes, engine.address or "", detail)
        table.add_row(*map(Text, cells))
    # Into a pipe, a line stays a line.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    for engine in engines:
        if engine.state == "dead":
            print(f"\n{engine.name} is dead; {engine.log} ends with:\n{engine.detail}")


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="A Tiny Images .bin file.")],
    corpus: Annotated[str, typer.Option(help="The corpus' name.")],
    shard_images: Annotated[int, typer.Option(help="Images a shard.")] = 1_000_000,
    blocks_per_shard: Annotated[int, typer.Option(help="Blocks a shard.")] = 50,
    description: Annotated[str, typer.Option(help="What the pictures are.")] = "",
) -> None:
    """Put every image of a file into shards in HDFS."""
    from tinytags_tasks.ingest.step import IngestRequest, run

    request = IngestRequest(corpus, str(source), shard_images, blocks_per_shard, description)
    result = run(request, storage=_runtime().storage, report=_say)
    print(
        f"corpus {result.corpus}: {result.images:,} images in {result.shards} shards of {blocks_per_shard} blocks, "
        f"{result.unreadable:,} unreadable; {result.written} shards written now"
    )


@app.command()
def train(
    labelled: Annotated[Path, typer.Argument(help="Parquet with the columns img and label.")],
    test: Annotated[Path | None, typer.Option(help="The same, to measure the accuracy on.")] = None,
    name: Annotated[str, typer.Option(help="First part of the model's version.")] = "forest",
    trees: Annotated[int, typer.Option(help="Trees of the forest.")] = 10,
    depth: Annotated[int, typer.Option(help="Depth of a tree.")] = 10,
    bins: Annotated[int, typer.Option(help="Values that a split chooses from.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the randomness.")] = 42,
) -> None:
    """Learn a random forest in Spark and publish it as a model."""
    from tinytags_tasks.train.step import TrainRequest, run

    clients = _runtime()
    request = TrainRequest(
        str(labelled), str(test) if test else None, name, trees=trees, depth=depth, bins=bins, seed=seed
    )
    print(run(request, storage=clients.storage, connect_spark=clients.connect_spark, report=_say).model)


@app.command()
def score(
    corpus: Annotated[str, typer.Argument(help="The corpus' name.")],
    model: Annotated[str, typer.Option(help="A model's version; default: the latest.", show_default=False)] = "",
    threshold: Annotated[int, typer.Option(help="Accuracy in percent from which an image is kept.")] = 40,
    blocks: Blocks = "",
) -> None:
    """Score blocks of a corpus in Spark, one committed file a block; prints the run's name."""
    from tinytags_tasks.blocks import group_blocks, parse_block_numbers
    from tinytags_tasks.score.plan import PlanRequest, latest_model
    from tinytags_tasks.score.plan import run as plan
    from tinytags_tasks.score.step import ScoreRequest, run

    clients = _runtime()
    planned = plan(PlanRequest(corpus, model or latest_model(clients.storage), threshold), storage=clients.storage)
    numbers = parse_block_numbers(blocks, sum(len(group) for group in planned.groups))
    for group in group_blocks(numbers, max(20, -(-len(numbers) // 400))):
        run(
            ScoreRequest(planned.run, group),
            storage=clients.storage,
            address=clients.store_address,
            connect_spark=clients.connect_spark,
            report=_say,
        )
    print(planned.run)


@app.command()
def index(run_name: RunName = None, blocks: Blocks = "") -> None:
    """Index scored blocks into the run's Solr collection, and verify them by counting."""
    from tinytags_tasks.blocks import group_blocks, parse_block_numbers
    from tinytags_tasks.index.step import IndexRequest, prepare, run

    clients = _runtime()
    plan = _find_run(run_name)
    numbers = parse_block_numbers(blocks, plan.blocks)
    prepare(
        plan.name,
        storage=clients.storage,
        solr=clients.solr,
        shards=clients.settings.solr_shards,
        replicas=clients.settings.solr_replicas,
    )
    documents = 0
    for group in group_blocks(numbers, max(20, -(-len(numbers) // 400))):
        request = IndexRequest(plan.name, group)
        documents += run(request, storage=clients.storage, solr=clients.solr, report=_say).documents
    print(f"{documents:,} documents of {len(numbers)} blocks")


@app.command()
def publish(run_name: RunName = None) -> None:
    """Reconcile every block of a run, then let readers see it."""
    from tinytags_tasks.publish.step import PublishRequest, run

    clients = _runtime()
    request = PublishRequest(_find_run(run_name).name, clients.settings.alias)
    result = run(request, storage=clients.storage, solr=clients.solr, report=_say)
    print(f"{result.totals.kept:,} documents are live in {result.collection}")


@app.command()
def ledger(
    run_name: RunName = None,
    blocks: Blocks = "",
    state: Annotated[str, typer.Option(help="Only blocks in this state, such as failed.")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell what became of each block of a run."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.ledger import add_up, read_ledger
    from tinytags_tasks.records import BlockState

    if state and state not in list(BlockState):
        raise BadInputError(f"{state!r} is no state: use one of {', '.join(BlockState)}")
    plan = _find_run(run_name)
    records = read_ledger(_runtime().storage, plan, parse_block_numbers(blocks, plan.blocks))
    records = [record for record in records if not state or record.state == state]
    totals = add_up(records)
    if as_json:
        print(
            json.dumps(
                {
                    "run": plan.model_dump(),
                    "totals": asdict(totals),
                    "blocks": [record.model_dump() for record in records],
                },
                indent=2,
            )
        )
        return
    table = _table("block", "state", "read", "kept", "below", "unreadable", "documents", "tries", "seconds", "reason")
    for record in records:
        seconds = f"{record.score_seconds + record.index_seconds:.1f}"
        documents = "" if record.documents is None else f"{record.documents:,}"
        counts = (f"{count:,}" for count in (record.read, record.kept, record.below, record.unreadable))
        _row(table, record.block, record.state, *counts, documents, record.attempts, seconds, record.reason)
    _print(table)
    states = ", ".join(f"{count} {name}" for name, count in totals.by_state.items())
    print(f"run {plan.name}: {plan.corpus} by {plan.model} from {plan.threshold} %")
    if plan.description:
        print(plan.description)
    print(
        f"{totals.blocks} blocks ({states or 'none'}): "
        f"{totals.read:,} read = {totals.kept:,} kept + {totals.below:,} below + {totals.unreadable:,} unreadable; "
        f"{totals.documents:,} documents"
    )


@app.command()
def search(
    tags: Annotated[list[str] | None, typer.Argument(help="Any of these; all when none is given.")] = None,
    min_accuracy: Annotated[int, typer.Option(help="In percent.")] = 0,
    rows: Annotated[int, typer.Option(help="How many to show, the surest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Search the published images."""
    from tinytags_tasks.search.query import MOST_ROWS, SearchRequest, iterate_images, search_images

    if rows < 1:
        raise BadInputError(f"--rows is {rows}: it must be 1 or more")
    settings = _runtime().settings
    request = SearchRequest(tuple(tags or ()), min_accuracy, rows=min(rows, MOST_ROWS), with_pixels=False)
    page = search_images(settings, request)
    images = page.images if rows <= MOST_ROWS else iterate_images(settings, request, limit=rows)
    columns = ("id", "tag", "accuracy", "votes", "block", "position", "model")
    if as_json:
        found = [{name: getattr(image, name) for name in columns} for image in images]
        print(json.dumps({"total": page.total, "by_tag": page.tag_counts, "images": found}, indent=2))
        return
    table = _table(*columns)
    for image in images:
        _row(table, *(getattr(image, name) for name in columns))
    _print(table)
    print(f"{page.total:,} images")


@app.command()
def run(
    source: Annotated[Path | None, typer.Option(help="A Tiny Images .bin file; default: the demo.")] = None,
    corpus: Annotated[str, typer.Option(help="The corpus' name.")] = "demo",
    labelled: Annotated[Path | None, typer.Option(help="Labelled parquet; default: the demo's.")] = None,
    test: Annotated[Path | None, typer.Option(help="Labelled parquet for the model's card.")] = None,
    shard_images: Annotated[int, typer.Option(help="Images a shard.")] = 5_000,
    blocks_per_shard: Annotated[int, typer.Option(help="Blocks a shard.")] = 5,
    trees: Annotated[int, typer.Option(help="Trees of the forest.")] = 10,
    depth: Annotated[int, typer.Option(help="Depth of a tree.")] = 10,
    threshold: Annotated[int, typer.Option(help="Accuracy in percent from which an image is kept.")] = 40,
    blocks_per_task: Annotated[int, typer.Option(help="Blocks that one Airflow task takes.")] = 5,
) -> None:
    """Trigger the Dag `tinytags` in Airflow, follow it to its end and show what came of it."""
    from tinytags_tasks.follow import follow_run

    for path in (source, labelled, test):
        if path and not path.is_file():
            raise BadInputError(f"{path}: no such file")
    parameters = {
        "source": str(source.absolute()) if source else "",
        "corpus": corpus,
        "labelled": str(labelled.absolute()) if labelled else "",
        "test": str(test.absolute()) if test else "",
        "shard_images": shard_images,
        "blocks_per_shard": blocks_per_shard,
        "trees": trees,
        "depth": depth,
        "threshold": threshold,
        "blocks_per_task": blocks_per_task,
    }
    follow_run(_runtime(), parameters, report=_say)


def _runtime() -> "Runtime":
    from tinytags_tasks.runtime import Runtime

    return Runtime()


def _find_run(name: str | None) -> "Run":
    """Return a run by its name; the one planned last when none is given."""
    from tinytags_tasks import layout
    from tinytags_tasks.ledger import list_runs
    from tinytags_tasks.records import Run

    storage = _runtime().storage
    if name is not None:
        return Run.load(storage, layout.run_file(name))
    runs = list_runs(storage)
    if not runs:
        raise MissingError("there is no run yet: make one with `tinytags run`, or with `tinytags score`")
    return runs[-1]


def _table(*columns: str) -> "Table":
    from rich.table import Table

    return Table(*columns)


def _row(table: "Table", *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(Text(str(cell)) for cell in cells))  # Text: a cell is shown as it is, never read as markup


def _print(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line; an error that TinyTags raises on purpose is one line, and exit code 2."""
    try:
        app()
    except TinyTagsError as error:
        print(f"tinytags: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without permission: it names the file itself
        print(f"tinytags: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("tinytags: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
