"""The reference pages, made from the settings, the command line and the API, so that they cannot drift."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin

import annotated_types
import typer
from pydantic.fields import FieldInfo

from tinytags_tasks.cli import app
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.settings import Settings

METHODS = ("get", "post", "put", "patch", "delete")
_MADE = "This page is made from the code when the site is built.\n"


def reference_pages() -> dict[str, str]:
    """Return the Markdown of each page by its path in the site."""
    return {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": api_page(api_description()),
    }


def settings_page() -> str:
    """Return a table of every setting."""
    rows = [
        f"| `TINYTAGS_{name.upper()}` | {_default(field)} | {_limits(field)} | {_cell(field.description or '')} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        (
            "# Settings\n",
            _MADE,
            "Each setting is an environment variable. One that begins with `TINYTAGS_` and does not exist is warned",
            "about, with the nearest name. Set them before `tinytags up`: engines keep what they were started with.\n",
            "| variable | default | values | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        )
    )


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "not set"
    if isinstance(value, Path):
        return f"`{_short(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _short(path: Path) -> str:
    """Return a path as it is on every machine: below the checkout, beside it, or below the home."""
    for root, name in ((PROJECT_ROOT, ""), (PROJECT_ROOT.parent, "../"), (Path.home(), "~/")):
        if path.is_relative_to(root):
            return f"{name}{path.relative_to(root)}"
    return str(path)


def _limits(field: FieldInfo) -> str:
    """Return which values a setting takes."""
    kind = field.annotation
    choices = [choice for part in (kind, *get_args(kind)) for choice in _choices(part)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    names = {"int": "whole number", "float": "number", "bool": "true or false", "Path": "path", "SecretStr": "secret"}
    base = next((part.__name__ for part in (kind, *get_args(kind)) if getattr(part, "__name__", "") in names), "")
    signs = {annotated_types.Ge: ("ge", "≥"), annotated_types.Gt: ("gt", ">"), annotated_types.Le: ("le", "≤")}
    bounds = [
        f"{sign} {getattr(limit, attribute)}"
        for limit in field.metadata
        for known, (attribute, sign) in signs.items()
        if isinstance(limit, known)
    ]
    return ", ".join(filter(None, (names.get(base, "text"), *bounds)))


def _choices(kind: object) -> tuple[object, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def commands_page() -> str:
    """Return every command with its arguments and options."""
    parts = [
        "# Commands\n",
        _MADE,
        "`tinytags` is `.venv/bin/tinytags` in a checkout. Every command ends with 0 if it did its work, and with 2",
        "and one line on standard error if it could not; some end with 1 if they found something, as they say below.\n",
    ]
    for name, command in leaf_commands():
        parts += [f"## tinytags {name}\n", f"`{_usage(name, command)}`\n", _text(command.help or ""), *_table(command)]
    return "\n".join(parts)


def leaf_commands() -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its name as it is typed, in the order of `tinytags --help`."""

    def walk(group: Any, before: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's copy of click has no types
        for name, command in group.commands.items():
            full = f"{before} {name}".strip()
            if not hasattr(command, "commands"):
                yield full, command
                continue
            if command.invoke_without_command:
                yield full, command
            yield from walk(command, full)

    yield from walk(typer.main.get_command(app), "")


def _arguments(command: Any) -> list[Any]:  # noqa: ANN401
    return [parameter for parameter in command.params if parameter.param_type_name == "argument"]


def _usage(name: str, command: Any) -> str:  # noqa: ANN401
    shown = []
    for argument in _arguments(command):
        word = (argument.metavar or argument.name).strip("[]").upper()
        word += "..." if argument.nargs == -1 else ""
        shown.append(word if argument.required else f"[{word}]")
    options = ("[OPTIONS]",) if len(command.params) > len(shown) else ()
    return " ".join(("tinytags", name, *options, *shown))


def _table(command: Any) -> list[str]:  # noqa: ANN401
    if not command.params:
        return [""]
    rows = ["| argument or option | default | meaning |", "| --- | --- | --- |"]
    for parameter in command.params:
        is_option = parameter.param_type_name == "option"
        names = (*parameter.opts, *parameter.secondary_opts) if is_option else (parameter.name.upper(),)
        default = parameter.default
        is_plain = isinstance(default, int | float | str) and not isinstance(default, bool) and default != ""
        required = "required" if parameter.required else ""
        shown = f"`{default}`" if is_plain else required
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {shown} | {_cell(parameter.help or '')} |")
    return ["", *rows, ""]


def api_description() -> dict[str, Any]:
    """Return the OpenAPI description that the search page serves at ``/api/openapi.json``."""
    from fastapi import APIRouter

    from tinytags_tasks.search.api_docs import describe
    from tinytags_tasks.search.page import create_app
    from tinytags_tasks.search.problems import V1

    with TemporaryDirectory() as home:
        page = create_app(
            Settings(
                home=Path(home),
                webhdfs_url="http://127.0.0.1:9870",
                solr_url="http://127.0.0.1:8983/solr",
                search_password="not used",  # noqa: S106 - the app is never served
            )
        )
    routes = [route for route in page.routes if getattr(route, "path", "").startswith(V1)]
    return describe(APIRouter(routes=routes))


def api_page(described: dict[str, Any]) -> str:
    """Return the page of an OpenAPI description."""
    parts = [
        "# API\n",
        _MADE,
        f"{described['info']['description']}\n",
        "The running search page serves the same as `/api/openapi.json`, and with forms at `/api/docs`.",
        "[Security](../security.md#programs) has examples, and the addresses for corrections and take-downs.\n",
    ]
    for path, methods in described["paths"].items():
        for method in METHODS:
            if method in methods:
                parts += _operation(method, path, methods[method])
    parts.append("## Answers\n")
    for name, schema in described["components"]["schemas"].items():
        parts += _schema(name, schema)
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    text = operation.get("description") or operation.get("summary", "")
    parts = [f"## {method.upper()} {path}\n", f"{_text(text)}\n"]
    if parameters := operation.get("parameters"):
        parts += ["| parameter | where | meaning |", "| --- | --- | --- |"]
        parts += [f"| `{each['name']}` | {each['in']} | {_cell(each.get('description', ''))} |" for each in parameters]
        parts.append("")
    statuses = [
        f"{status}: {_cell(answer.get('description', ''))}" for status, answer in operation["responses"].items()
    ]
    return [*parts, *(f"- {status}" for status in statuses), ""]


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    parts = [f"### {name}\n", f"{_text(schema.get('description', ''))}\n"]
    if properties := schema.get("properties"):
        parts += ["| field | type | meaning |", "| --- | --- | --- |"]
        parts += [
            f"| `{field}` | {_type(of)} | {_cell(of.get('description', ''))} |" for field, of in properties.items()
        ]
        parts.append("")
    return parts


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("allOf"):
        return " or ".join(_type(option) for option in options)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _text(text: str) -> str:
    """Return a docstring as Markdown: code in single back quotes, no line that begins a list by accident."""
    return re.sub(r"``([^`]*)``", r"`\1`", text.strip())


def _cell(text: str) -> str:
    """Return text that fits into a cell of a table."""
    return _text(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
