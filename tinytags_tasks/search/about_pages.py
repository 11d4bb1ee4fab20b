"""What this is: how it works, where the pictures come from, and what the models are good for."""

from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request, Response

from tinytags_tasks.errors import TinyTagsError, TransientError
from tinytags_tasks.search.address import report_address
from tinytags_tasks.search.context import LiveRun, PageContext
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_figures import describe_figures
from tinytags_tasks.store.model_records import PIXELS, ModelCard

TINY_IMAGES = "tiny-images"
"""The format of the withdrawn corpus."""

_OF_THRESHOLD = ": confidence from "
"""What the headings of a model's figures at its thresholds have."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the page about all this."""

    @app.get("/about")
    def about(request: Request) -> Response:
        live: tuple[LiveRun, ...] = ()
        with suppress(TinyTagsError):  # most of the page is worth reading without
            live = context.live.runs()
        return context.render(
            request,
            "about.html",
            corpora=[_corpus(one, context) for one in live],
            models=_models(live, context),
            is_withdrawn=any(one.corpus and one.corpus.source.format == TINY_IMAGES for one in live),
        )


def _corpus(live: LiveRun, context: PageContext) -> dict[str, Any]:
    table = context.measured.table(live.run)
    return {
        "live": live,
        "name": live.run.corpus,
        "run": live.run,
        "corpus": live.corpus if live.corpus and live.corpus.digest == live.run.corpus_digest else None,
        "precision": table.overall if table else None,
    }


def _models(live: tuple[LiveRun, ...], context: PageContext) -> list[dict[str, Any]]:
    """Return the cards of the live models, as far as they can be read."""
    found = []
    for version in dict.fromkeys(one.run.model for one in live):
        try:
            card = ModelCard.load(context.runtime.storage, layout.card_file(version))
        except TransientError:  # a store that hangs is waited for once
            break
        except TinyTagsError:
            continue
        figures = describe_figures(card).items()
        found.append(
            {
                "card": card,
                "report": report_address(version),
                "sees": "pixels" if card.features == PIXELS else f"embeddings of the net {card.features}",
                "figures": [(name, text) for name, text in figures if _OF_THRESHOLD not in name],
                "thresholds": [(name, text) for name, text in figures if _OF_THRESHOLD in name],
            }
        )
    return found
