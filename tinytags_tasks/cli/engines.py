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
def up(
    engines: Engines = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave a keeper behind: it restarts what ends or hangs.")
    ] = False,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Write a unit for `systemctl --user` that runs the keeper.")
    ] = False,
) -> None:
    """Start the engines that are not running, and wait until they are ready."""
    from tinytags_tasks import services
    from tinytags_tasks.secrecy import without_password
    from tinytags_tasks.settings import ADDRESSES, load_settings

    settings = services.up(load_settings(), engines=engines or None, report=say, keep=keep and not systemd)
    for name in ADDRESSES:
        if url := getattr(settings, name):
            print(f"{name.removesuffix('_url'):>8}  {without_password(url)}")
    if systemd:
        _write_unit()


def _write_unit() -> None:
    from tinytags_tasks.services import keeper_process
    from tinytags_tasks.services.systemd import write_unit
    from tinytags_tasks.settings import load_settings

    settings = load_settings()
    unit = write_unit(settings)
    keeper_process.stop(settings)
    say(
        f"wrote {unit}. Let systemd keep the engines, now and after a restart of the machine:\n"
        f"systemctl --user daemon-reload && systemctl --user enable {unit.name} && loginctl enable-linger\n"
        f"systemctl --user restart {unit.name}  # starts the keeper, or starts it again"
    )


@app.command()
def keep() -> None:
    """Restart engines that end or hang, in the foreground; `up --keep` does so in the background."""
    from tinytags_tasks.services.keeper import keep
    from tinytags_tasks.settings import load_settings

    keep(load_settings(), in_foreground=True)


@app.command()
def down(engines: Engines = None) -> None:
    """Stop the engines that `tinytags up` started; their data is kept."""
    from tinytags_tasks import services
    from tinytags_tasks.settings import load_settings

    services.down(load_settings(), engines=engines or None, report=say)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the state of each engine and of the keeper; exit code 1 if one does not work, or the disk is full."""
    from tinytags_tasks import services
    from tinytags_tasks.services.disk import disk_is_full, disk_is_low
    from tinytags_tasks.settings import load_settings

    settings = load_settings()
    engines = services.status(settings)
    if as_json:
        print(json.dumps([asdict(engine) for engine in engines], indent=2, default=str))
    else:
        _print_engines(engines)
    if problem := disk_is_low(settings.home):
        say(problem)
    if disk_is_full(settings.home) or not all(engine.works for engine in engines):
        raise typer.Exit(1)


@app.command()
def doctor(
    areas: Annotated[
        list[str] | None,
        typer.Argument(help="machine, hdfs, solr, spark, airflow; default: all.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look for what would make a run fail later: addresses, versions, rights, room; exit code 1 if something would."""
    from tinytags_tasks.cli.common import clients
    from tinytags_tasks.doctor.examination import examine

    findings = []
    for finding in examine(clients(), areas or ()):
        findings.append(finding)
        if not as_json:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            print(f"{finding.verdict:8} {finding.area:8} {finding.subject:11} {finding.text}{remedy}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    if any(finding.verdict == "fails" for finding in findings):
        raise typer.Exit(1)


def _print_engines(engines: "list[EngineStatus]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("engine", "state", "pid", "MB", "restarts", "address", "detail", box=None)
    for engine in engines:
        megabytes = "" if engine.memory_bytes is None else f"{engine.memory_bytes / 1e6:.0f}"
        restarts = str(engine.restarts or "")
        detail = "see the end of its log below" if engine.state == "dead" else engine.detail
        cells = (engine.name, engine.state, str(engine.pid or ""), megabytes, restarts, engine.address or "", detail)
        table.add_row(*map(Text, cells))
    # In a pipe, each engine stays on one line.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    console.print(table)
    if any(engine.is_kept for engine in engines) and not any(engine.name == "keeper" for engine in engines):
        print("\nno keeper: an engine that ends stays so. `tinytags up --keep` starts one")
    for engine in engines:
        if engine.restarts or engine.failures:
            print(f"\n{_history(engine)}")
        if engine.state == "dead":
            print(f"\n{engine.name} is dead; {engine.log} ends with:\n{engine.detail}")


def _history(engine: "EngineStatus") -> str:
    text = f"{engine.name} {engine.restart_reason}"
    if engine.restarts:
        text = f"{engine.name} was restarted {engine.restarts} times; last at {engine.restarted_at}: {text}"
    if engine.next_try_at:
        text += f"; failures in a row: {engine.failures}, next try at {engine.next_try_at}"
    return text
