"""Commands for the engines: up, down, status."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import say

if TYPE_CHECKING:
    from tinytags_tasks.services import EngineStatus

app = typer.Typer()

Engines = Annotated[
    list[str] | None,
    typer.Argument(help="hdfs, solr, spark, airflow, search; default: all.", show_default=False),
]


@app.command()
def up(engines: Engines = None) -> None:
    """Start the engines that are not running, and wait until they are ready."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import ADDRESSES, load_settings

    settings = services.up(load_settings(), engines=engines or None, report=say)
    for name in ADDRESSES:
        if url := getattr(settings, name):
            print(f"{name.removesuffix('_url'):>8}  {url}")


@app.command()
def down(engines: Engines = None) -> None:
    """Stop the engines that `tinytags up` started; their data is kept."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import load_settings

    services.down(load_settings(), engines=engines or None, report=say)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the state of each engine; exit code 1 if one is dead."""
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
        detail = "see the end of its log below" if engine.state == "dead" else engine.detail
        cells = (engine.name, engine.state, str(engine.pid or ""), megabytes, engine.address or "", detail)
        table.add_row(*map(Text, cells))
    # In a pipe, each engine stays on one line.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    for engine in engines:
        if engine.state == "dead":
            print(f"\n{engine.name} is dead; {engine.log} ends with:\n{engine.detail}")
