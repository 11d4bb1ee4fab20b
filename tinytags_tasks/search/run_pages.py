"""The runs of the store on a page, and two of them side by side."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError
from tinytags_tasks.publish.diff import DiffResult, Example
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.address import report_address, results_address
from tinytags_tasks.search.cards import VERSION_LENGTH, Frame, frames_of, picture_address, picture_source
from tinytags_tasks.search.comparisons import MOST_BLOCKS, Comparisons, some_blocks
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.documents import find_documents
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.run_list import RunList, RunState
from tinytags_tasks.store import layout
from tinytags_tasks.store.run_records import Run

MOST_CHANGES = 30
"""Pairs of tags that a page lists."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the pages of runs."""
    runs = RunList(context.runtime, context.live)
    comparisons = Comparisons(context.runtime, context.logs)

    @app.get("/runs")
    def show(request: Request, old: str = "", new: str = "") -> Response:
        if old or new:
            if not (old and new):
                raise BadInputError("choose two runs to compare")
            names = (layout.checked_name(name, "run") for name in (old, new))
            return RedirectResponse(url(request, "/runs/" + "/".join(names)), status_code=303)
        listed, known = runs.runs()
        return context.render(
            request,
            "runs.html",
            runs=[_row(one, listed, context) for one in listed],
            known=known,
            airflow=context.grid,
        )

    @app.get("/runs/{old}/{new}")
    def compare(request: Request, old: str, new: str) -> Response:
        one, other = (_find(context, name) for name in (old, new))
        if one.name == other.name:
            raise BadInputError("these are the same run: choose two")
        found = comparisons.find(one, other)
        if found is None:
            return context.render_wait(request, "diff_wait.html", old=one, new=other)
        account: Account = request.state.account
        return context.render(request, "diff.html", **_diff_view(context, account, one, other, found))


def _find(context: PageContext, name: str) -> Run:
    path = layout.run_file(name)
    if not context.runtime.storage.exists(path):
        raise MissingError(f"there is no run {name}: the page of runs lists those that there are")
    return Run.load(context.runtime.storage, path)


def _row(state: RunState, listed: Iterable[RunState], context: PageContext) -> dict[str, Any]:
    run = state.run
    live = next((one.run for one in listed if one.is_live and one.run.corpus_digest == run.corpus_digest), None)
    grid = context.grid
    table = context.measured.table(run) if state.is_live else None
    return {
        "state": state,
        "run": run,
        "created": run.created[:16].replace("T", " "),
        "since": state.publication.time[:16].replace("T", " ") if state.publication else "",
        "search": results_address([("run", run.name)]) if state.is_verified else "",
        "diff": f"/runs/{live.name}/{run.name}" if live and live.name != run.name and state.verified else "",
        "report": report_address(run.model),
        "grid": f"{grid}?{urlencode({'run': run.name})}" if grid else "",
        "precision": table.overall if table else None,
    }


def _diff_view(context: PageContext, account: Account, old: Run, new: Run, found: DiffResult) -> dict[str, Any]:
    tags = sorted({*found.old_by_tag, *found.new_by_tag})
    rows = [(tag, found.old_by_tag.get(tag, 0), found.new_by_tag.get(tag, 0)) for tag in tags]
    most = max((max(before, after) for _, before, after in rows), default=0)
    groups = (
        ("Changed", found.changed, "Another tag in the new run", found.changed_examples),
        ("Gained", found.gained, "Kept by the new run only", found.gained_examples),
        ("Lost", found.lost, "Kept by the old run only", found.lost_examples),
    )
    shown = {
        run.name: _shown(context, account, run, examples)
        for run, examples in ((old, found.lost_examples), (new, (*found.changed_examples, *found.gained_examples)))
    }
    return {
        "old": old,
        "new": new,
        "found": found,
        "tags": rows,
        "most": most,
        "changes": found.changes[:MOST_CHANGES],
        "groups": [
            (name, count, meaning, _examples(new.corpus, examples, *shown[old.name if name == "Lost" else new.name]))
            for name, count, meaning, examples in groups
        ],
        "is_partial": some_blocks(old.blocks) is not None,
        "compared": MOST_BLOCKS,
        "is_reader": not account.may_review,
        "is_enlarged": shown[new.name][1].is_enlarged,
    }


def _shown(
    context: PageContext, account: Account, run: Run, examples: Iterable[Example]
) -> tuple[frozenset[int], Frame]:
    """Return the positions of the examples whose pictures this account may see, and how their addresses are made.

    Readers see what they can find in the run, if that can be searched; reviewers also see others of its corpus.
    """
    positions = frozenset(one.position for one in examples)
    frames = frames_of(context)
    with suppress(TinyTagsError):  # such as one that is not verified, or whose collection is gone
        hidden = context.searches.hidden(SearchRequest(run=run.name))
        ids = [layout.document_id(run.corpus, position) for position in sorted(positions)]
        found = find_documents(context.settings, ids, hidden, with_pixels=False, collection=run.collection)
        context.pictures.expect(found.values())
        frame = frames_of(context, run.name).get(run.corpus, Frame(run=run.name))
        return frozenset(image.position for image in found.values()), frame
    if not account.may_review:
        return frozenset(), Frame()
    hidden = context.hidden()
    visible = frozenset(position for position in positions if not hidden.hides(run.corpus, position))
    return visible, replace(frames.get(run.corpus, Frame()), version=run.corpus_digest[:VERSION_LENGTH])


def _examples(corpus: str, examples: Iterable[Example], shown: frozenset[int], frame: Frame) -> list[dict[str, Any]]:
    return [
        {
            "position": one.position,
            "address": picture_address(corpus, one.position, frame.run),
            "source": picture_source(corpus, one.position, frame),
            "before": f"{one.old_tag} {one.old_confidence} %" if one.old_tag else "not kept",
            "after": f"{one.new_tag} {one.new_confidence} %" if one.new_tag else "not kept",
        }
        for one in examples
        if one.position in shown
    ]
