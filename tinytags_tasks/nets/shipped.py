"""The net that ships with TinyTags: its packaged files, and its card in the form that the store keeps."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

from tinytags_tasks.store.net_records import NetCard

DEFAULT_NET = "general32"
"""The net that models see through unless another one is chosen."""

ORIGIN = "ships with TinyTags"

_CREATED = "2026-11-26T18:59:56+00:00"
"""When the packaged net was learned; fixed, so that every store has the same card."""

_TOLD_APART = frozenset({"name", "version", "net", "input", "embedding", "data", "preparation"})
"""Parts of card.json of which the fields of a card say everything."""


def read_packaged(file: str) -> bytes:
    """Return a packaged file of the net."""
    return (resources.files("tinytags_tasks.nets") / DEFAULT_NET / file).read_bytes()


def shipped_net() -> bytes:
    """Return the net's ONNX file."""
    return read_packaged("net.onnx")


def shipped_background() -> bytes:
    """Return the file of the net's background."""
    return read_packaged("background.parquet")


@cache
def shipped_card() -> NetCard:
    """Return the net's card."""
    card = json.loads(read_packaged("card.json"))
    _, height, width, _ = card["input"]["shape"]
    background, preparation, figures = card["background"], card["preparation"], card["figures"]
    told = {
        **{name: part for name, part in card.items() if name not in _TOLD_APART},
        "arithmetic": {"how": card["arithmetic"]},
        "background": {"source": background["source"], "preparation": background["preparation"]},
        "figures": {name: part for name, part in figures.items() if name in ("how", "sources", "caution")},
    }
    return NetCard(
        version=f"{DEFAULT_NET}-{hashlib.sha256(shipped_net()).hexdigest()[:12]}",
        height=height,
        width=width,
        dimensions=card["embedding"]["shape"][1],
        scale=card["embedding"]["scale"],
        arithmetic="int8",
        origin=ORIGIN,
        preparation=f"{preparation['expected']}; learned with {preparation['learned_with']}",
        licence="; ".join(f"{source['name']}: {source['terms']}" for source in card["data"]),
        data=tuple(f"{source['name']} ({source['source']})" for source in card["data"]),
        background_sha256=background["sha256"],
        background_images=background["pictures"],
        background_classes=background["classes"],
        parameters=dict(_leaves(told)),
        figures=_figures(figures),
        created=_CREATED,
    )


def _figures(figures: Mapping[str, object]) -> dict[str, float]:
    """Return what was measured, by name; figures of int8 beside float32 come under their arithmetic."""
    flat: dict[str, float] = {}
    for prefix, part in (("", figures["measured"]), ("compared: ", figures["int8_against_float32"])):
        for name, value in _leaves(part):
            if isinstance(value, float | int):
                flat[prefix + name] = float(value)
    return flat


def _leaves(part: object, name: str = "") -> Iterator[tuple[str, int | float | str]]:
    """Yield the values in a part of card.json with their names, such as ``learning: seed``; lists are one value."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            yield from _leaves(value, f"{name}: {key}" if name else str(key))
    else:
        yield name, part if isinstance(part, int | float | str) else json.dumps(part)
