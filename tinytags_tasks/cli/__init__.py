"""The command line: the same work that Airflow does, as commands."""

import os
import sys

import typer

from tinytags_tasks.cli import (
    accounts,
    blocks,
    corpora,
    corrections,
    dags,
    engines,
    models,
    nets,
    notebooks,
    precision,
    publishing,
    reviews,
    runs,
    searching,
    stages,
)
from tinytags_tasks.errors import BadInputError, TinyTagsError, one_line
from tinytags_tasks.settings import unknown_variables

app = typer.Typer(
    name="tinytags",
    help="Tag millions of small images and search them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
AREAS = (
    engines,
    dags,
    corpora,
    stages,
    searching,
    models,
    nets,
    blocks,
    publishing,
    runs,
    corrections,
    reviews,
    precision,
    accounts,
    notebooks,
)
for area in AREAS:
    app.add_typer(area.app)


def main() -> None:
    """Run the command line; an error that TinyTags raises itself becomes one line and exit code 2."""
    for warning in unknown_variables(os.environ):
        print(f"tinytags: warning: {warning}", file=sys.stderr)
    try:
        app()
    except TinyTagsError as error:
        # What ends with an engine's log has more lines; a message about input may name a file with any name.
        message = one_line(error) if isinstance(error, BadInputError) else error
        print(f"tinytags: error: {message}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a missing permission: the message names the file
        print(f"tinytags: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("tinytags: interrupted", file=sys.stderr)
        sys.exit(130)
