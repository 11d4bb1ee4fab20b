"""The API's description for programs (OpenAPI), and the same as a page for people: without scripts and other hosts."""

import re
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse

from tinytags_tasks.search.api_v1 import make_router
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.problems import DOCS, KINDS, V1, Problem
from tinytags_tasks.search.proxies import url

DESCRIPTION = f"{V1.removesuffix('/v1')}/openapi.json"
VERSION = "1.0"
_TEXT = (
    "Finds the images that TinyTags has published. Every address but that of health asks for the name and password of "
    "an account. Each answer has an ETag. Failures are problem details (RFC 9457)."
)
_REFERENCE = "#/components/schemas/"


def add_api(app: FastAPI, context: PageContext) -> None:
    """Add the API and its description."""
    router = make_router(context)
    app.include_router(router)

    @cache
    def described() -> dict[str, Any]:  # takes longer than all else at the start, and few ask for it
        return describe(router)

    @app.get(DESCRIPTION)
    def description(request: Request) -> JSONResponse:
        return JSONResponse({**described(), "servers": [{"url": url(request, "") or "/"}]})

    @app.get(DOCS)
    def page(request: Request) -> HTMLResponse:
        found = described()
        return context.render(
            request,
            "api.html",
            about=found["info"]["description"],
            operations=[
                _operation(path, method, operation)
                for path, methods in found["paths"].items()
                for method, operation in methods.items()
            ],
            schemas=[_schema(name, schema) for name, schema in found["components"]["schemas"].items()],
            kinds=KINDS,
            description=DESCRIPTION,
        )


def describe(router: APIRouter) -> dict[str, Any]:
    """Return the OpenAPI description of a router's routes."""
    found = get_openapi(title="TinyTags search", version=VERSION, description=_TEXT, routes=router.routes)
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            operation["responses"].pop("422", None)  # FastAPI's own; ours is the problem of status 400
            name = re.sub(r"\W+", "_", path.removeprefix(V1)).strip("_")
            operation["operationId"] = name if method == "get" else f"{method}_{name}"
            if path.endswith("/health"):
                operation["security"] = []
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=f"{_REFERENCE}{{model}}")
    schemas |= problem.pop("$defs", {}) | {Problem.__name__: problem}
    components["securitySchemes"] = {"account": {"type": "http", "scheme": "basic"}}
    found["security"] = [{"account": []}]
    return found


def _operation(path: str, method: str, found: dict[str, Any]) -> dict[str, Any]:
    answer = found["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
    return {
        "name": found["operationId"],
        "path": path,
        "method": method.upper(),
        "text": found.get("description", ""),
        "parameters": [_parameter(one) for one in found.get("parameters", ())],
        "answer": answer.get("$ref", "").removeprefix(_REFERENCE),
        "can_try": method == "get" and "{" not in path,
    }


def _parameter(found: dict[str, Any]) -> dict[str, Any]:
    schema = found["schema"]
    one = next((choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"), schema)
    item = one.get("items", one)
    return {
        "name": found["name"],
        "text": found.get("description", schema.get("description", "")),
        "type": _type(one),
        "is_number": item.get("type") == "integer",
        "choices": item.get("enum", ()),
        "low": item.get("minimum"),
        "high": item.get("maximum"),
        "default": schema.get("default"),
    }


def _schema(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    fields = [
        {"name": field, "type": _type(found), "text": found.get("description", "")}
        for field, found in schema.get("properties", {}).items()
    ]
    return {"name": name, "text": schema.get("description", ""), "fields": fields}


def _type(schema: dict[str, Any]) -> str:
    """Return a schema's type in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(_REFERENCE)
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return "one of " + ", ".join(schema["enum"]) if "enum" in schema else str(schema.get("type", "any"))
