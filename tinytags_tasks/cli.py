"""The command line: what Airflow does, for a person."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from tinytags_tasks.errors import TinyTagsError

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
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("engine", "state", "pid", "MB", "address", "detail")
        for engine in engines:
            megabytes = "" if engine.memory_bytes is None else f"{engine.memory_bytes / 1e6:.0f}"
            cells = (engine.name, engine.state, str(engine.pid or ""), megabytes, engine.address or "", engine.detail)
            table.add_row(*map(Text, cells))
        Console().print(table)
    if any(engine.state == "dead" for engine in engines):
        raise typer.Exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line; an error that TinyTags raises on purpose is one line, and exit code 2."""
    try:
        app()
    except TinyTagsError as error:
        print(f"tinytags: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("tinytags: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
