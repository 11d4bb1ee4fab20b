"""The commands in README and docs: which there are, and whether the command line takes them."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import typer

from tinytags_tasks.cli import app
from tinytags_tasks.parts import PROJECT_ROOT

PAGES = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PIPES = {"|", "&&", "||", ";"}


def blocks_of(page: Path, language: str | None = None) -> list[str]:
    """Return the texts of a page's code blocks, of one language or of all."""
    return [text for found, text in FENCE.findall(page.read_text()) if language in (None, found)]


def documented_commands() -> list[tuple[str, str]]:
    """Return each command line in a code block, as ``(page, line)``."""
    return list(dict.fromkeys((page.name, line) for page in PAGES for line in commands_of(page)))


def commands_of(page: Path) -> list[str]:
    """Return the command lines in a page's code blocks, in their order, without the word ``tinytags``."""
    found = []
    for language, text in FENCE.findall(page.read_text()):
        if language != "python":
            for line in text.replace("\\\n", " ").splitlines():
                found += _command_lines(line)
    return found


def _command_lines(line: str) -> list[str]:
    """Return what a line runs: after variables, within ``$(...)``, on both sides of ``&&``; without its comment."""
    line = re.sub(r"(^|\s)#.*", "", line).strip()
    parts = re.split(r"\$\(|&&|;", line)
    found = [re.search(r"^(?:\w+=\S+\s+)*(?:\.venv/bin/)?tinytags (?!\$)(.*)", part.strip()) for part in parts]
    return [match[1].rstrip(")").strip() for match in found if match]


def variants(line: str) -> list[list[str]]:
    """Return the command lines that a line stands for: each of ``list | show X``, ``a|b``, with and without ``[X]``."""
    alternatives = line.split(" | ")
    first = shlex.split(alternatives[0])
    group = _root().commands.get(first[0])
    found = []
    for number, alternative in enumerate(alternatives):
        words = shlex.split(alternative)
        if number and hasattr(group, "commands") and words[0].strip("[]") in group.commands:
            words = [first[0], *words]
        whole = [word for word in (word.strip("[]") for word in words) if word not in ("...", "…")]
        found += [list(choice) for choice in itertools.product(*(_choices(word) for word in whole))]
        bare = shlex.split(re.sub(r"\[[^]]*\]", "", " ".join(words)))
        found += [list(choice) for choice in itertools.product(*(_choices(word) for word in bare))]
    return found


def _choices(word: str) -> list[str]:
    return word.split("|") if re.fullmatch(r"[\w|-]+", word) and "|" in word else [word]


def parse(words: list[str]) -> Any:
    """Parse a command line with the real parser, up to the command that it runs; nothing is run.

    Raises
    ------
    Exception
        The parser's own, if it does not take it.
    """
    command = _root()
    context = command.make_context("tinytags", list(words))
    while hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest and command.invoke_without_command:
            return command
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return command


def _root() -> Any:
    return typer.main.get_command(app)
