"""Each command that a message or a page names exists, with the options that are named."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tinytags_tasks.cli import app
from tinytags_tasks.parts import PROJECT_ROOT

FOLDERS = ("tinytags_tasks", "dags", "plugins")
PLACEHOLDER = "NAME"
COMMAND = re.compile(r"`tinytags ([^`]+)`")


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the strings of a module; what is put into them is a placeholder."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(id(value) for value in node.values)
            yield "".join(str(value.value) if isinstance(value, ast.Constant) else PLACEHOLDER for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def named_commands() -> list[str]:
    """Return what stands between back quotes after ``tinytags``, in code and in pages, with the place."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
            for text in texts(ast.parse(path.read_text())):
                for command in COMMAND.findall(text.replace("``", "`")):
                    found.setdefault(" ".join(command.split()), path.name)
    pages = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
    for path in pages:
        for command in COMMAND.findall(path.read_text()):
            found.setdefault(" ".join(command.split()), path.name)
    return sorted(found)


def check(command: str) -> None:
    """Refuse a command line whose command or options do not exist.

    Raises
    ------
    LookupError
        Naming what does not exist.
    """
    words = [word.strip("[]") for word in command.split() if word not in ("...", "…")]
    found = typer.main.get_command(app)
    while hasattr(found, "commands") and words and not words[0].startswith("-"):
        if words[0] not in found.commands:
            raise LookupError(f"there is no command {words[0]}")
        found, words = found.commands[words[0]], words[1:]
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in {*known, "--help"}:
            raise LookupError(f"{found.name} has no option {option}")


@pytest.mark.parametrize("command", named_commands())
def test_a_command_that_is_named_exists_with_its_options(command):
    check(command)


def test_commands_are_found_in_every_folder_and_a_wrong_one_is_told():
    found = set(named_commands())
    assert {"audit NAME --repair", "ingest NAME --redo NAME", "score NAME --blocks NAME --redo"} <= found
    for wrong in ("audits NAME", "audit NAME --mend", "corpus delete NAME"):
        with pytest.raises(LookupError):
            check(wrong)


def test_no_message_tells_a_person_to_delete_a_file_of_the_store():
    """Nothing does that but a client of HDFS, which nobody has at hand."""
    for path in sorted(Path(PROJECT_ROOT / "tinytags_tasks").rglob("*.py")):
        for text in texts(ast.parse(path.read_text())):
            assert not re.search(r"; delete (it|the shard|the file) and", text), f"{path.name}: {text}"
