"""What all commands share: options, clients, tables."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.errors import BadInputError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.score.step import ScoreRequest
    from tinytags_tasks.store.run_records import Run

RunName = Annotated[str | None, typer.Argument(metavar="[RUN]", help="Name of a run; default: the latest.")]
LabelNames = Annotated[
    str,
    typer.Option(
        help="Names of the labels, in the order of their numbers: cat,dog,emu, or a file with a name a line.",
        show_default="those in the labelled set",
    ),
]
Blocks = Annotated[
    str, typer.Option(help="Block numbers and ranges, such as 3,17-20; default: all.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def clients() -> "Runtime":
    """Return the clients, configured by the settings."""
    from tinytags_tasks.runtime import Runtime

    return Runtime()


def find_run(name: str | None) -> "Run":
    """Return a run by name; if no name is given, the one that was planned last."""
    from tinytags_tasks.store.ledger import list_runs
    from tinytags_tasks.store.run_identity import load_run

    storage = clients().storage
    if name is not None:
        return load_run(name, storage)
    runs = list_runs(storage)
    if not runs:
        raise MissingError("there is no run yet: start one with `tinytags run` or `tinytags score`")
    return runs[-1]


def embed_and_score(request: "ScoreRequest", runtime: "Runtime") -> None:
    """Score blocks; if the model reads embeddings, make those first that the store lacks."""
    from tinytags_tasks.score.step import needed_embeddings, score_blocks
    from tinytags_tasks.store.run_identity import load_run

    storage = runtime.storage
    net, blocks = needed_embeddings(request, storage=storage)
    if blocks:
        from tinytags_tasks.embed.step import EmbedRequest, embed_blocks

        embed_blocks(
            EmbedRequest(load_run(request.run, storage).corpus, net, blocks),
            storage=storage,
            address=runtime.store_address,
            connect_spark=runtime.connect_spark,
            report=say,
            providers=runtime.onnx_providers,
        )
    score_blocks(
        request,
        storage=storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        report=say,
    )


def groups_of(blocks: "Sequence[int]") -> "list[tuple[int, ...]]":
    """Return groups of blocks, each of which is done in one call: 20 blocks or more, and at most 400 groups."""
    from tinytags_tasks.blocks import group_blocks

    return group_blocks(blocks, max(20, -(-len(blocks) // 400)))


def make_table(*columns: str) -> "Table":
    """Return an empty table; a name that is too long for its column continues on the next line."""
    from rich.table import Column, Table

    return Table(*(Column(header, overflow="fold") for header in columns))


def add_row(table: "Table", *cells: object) -> None:
    """Add a row; its cells are shown literally, not interpreted as markup."""
    from rich.text import Text

    table.add_row(*(Text(str(cell)) for cell in cells))


def print_table(table: "Table") -> None:
    """Print a table: as wide as the terminal, or in a pipe or file, as wide as its longest lines."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal:
        whole = console.options.update(max_width=sys.maxsize)
        console.width = Measurement.get(console, whole, table).maximum
    console.print(table)


def refuse_damaged(problems: "Iterable[str]") -> None:
    """Name what a list had to leave out because its record cannot be read; with any, the exit code is 1."""
    problems = list(problems)
    for problem in problems:
        say(f"left out: {problem}")
    if problems:
        raise typer.Exit(1)


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers of an option, such as 0.49,0.48,0.45.

    Raises
    ------
    BadInputError
        If it has something else.
    """
    try:
        return tuple(float(number) for number in text.split(",") if number.strip())
    except ValueError as error:
        raise BadInputError(
            f"--{option} is {text!r}: write numbers with commas between, such as 0.49,0.48,0.45"
        ) from error


def named_tags(text: str) -> tuple[str, ...] | None:
    """Return the tags of an option; None if it is not given. Say which names came twice.

    Raises
    ------
    BadInputError
        If one of them cannot be a tag, or the file with them cannot be read.
    """
    from tinytags_tasks.corpus.class_names import given_tags

    if not text.strip():
        return None
    tags, remarks = given_tags(text)
    for remark in remarks:
        say(remark)
    return tags


def say(text: str) -> None:
    """Print a progress message; standard output is only for a command's result."""
    print(text, file=sys.stderr, flush=True)
