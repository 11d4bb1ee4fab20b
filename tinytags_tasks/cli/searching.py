"""The command that searches what readers see, in the language of the search box."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, make_table, print_table, say
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.search.images import TaggedImage
    from tinytags_tasks.search.measured import Measured
    from tinytags_tasks.search.request import SearchRequest
    from tinytags_tasks.search.searches import Searches
    from tinytags_tasks.store.run_records import Run

REPORT_SECONDS = 10.0
"""After how long it is said how many of the images are found."""

app = typer.Typer()


# So that -truck reads as it does in the search box.
@app.command(context_settings={"ignore_unknown_options": True})
def search(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="As in the search box: cat 'hot dog' -truck word:tab* confidence:70-90 corpus:demo sort:random; "
            "everything when nothing is given.",
            show_default=False,
        ),
    ] = None,
    min_confidence: Annotated[
        int,
        typer.Option("--min-confidence", "--min-accuracy", help="In percent; --min-accuracy is the former name."),
    ] = 0,
    min_precision: Annotated[
        int, typer.Option(help="In percent: what reviews of the live run measured for this tag and confidence.")
    ] = 0,
    keyword: Annotated[str, typer.Option(help="Only images with exactly this keyword.")] = "",
    rows: Annotated[int, typer.Option(help="How many to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Search the published images."""
    from tinytags_tasks.document_fields import Shown, fields_shown, values_as_json
    from tinytags_tasks.search.grammar import parse
    from tinytags_tasks.search.request import MOST_ROWS, SearchRequest, Sort

    if rows < 1:
        raise BadInputError(f"--rows is {rows}: it must be 1 or more")
    base = SearchRequest(
        min_confidence=min_confidence, min_precision=min_precision, keyword=keyword, rows=min(rows, MOST_ROWS)
    )
    request = parse(" ".join(map(_as_written, text or ())), base)
    if request.sort is Sort.SIMILAR or request.similar_to:
        raise BadInputError("the command line does not search for similar pictures: use the search page or its API")
    searches = make_searches(clients())
    page = searches.page(request)
    images = page.images if rows <= MOST_ROWS else _many_images(searches, request, min(rows, page.total))
    if as_json:
        from tinytags_tasks.search.api_models import image_file
        from tinytags_tasks.search.source_places import SourcePlaces

        places = SourcePlaces(clients()).of_images(images, searches.corpora(request.run))
        files = {name: file.model_dump() for name, place in places.items() if (file := image_file(place))}
        found = [{**values_as_json(image.values), "file": files.get(image.id)} for image in images]
        print(json.dumps({"total": page.total, "by_tag": page.tag_counts, "images": found}, indent=2))
        return
    columns = [field.name for field in fields_shown(Shown.TABLES)]
    table = make_table(*columns)
    for image in images:
        add_row(table, *("" if (cell := image.values[name]) is None else cell for name in columns))
    print_table(table)
    if page.left_out:
        say(f"not searched, because indexed before what is asked for was there: {', '.join(page.left_out)}")
    print(f"{page.total:,} images")


def _many_images(searches: "Searches", request: "SearchRequest", images: int) -> "list[TaggedImage]":
    """Return the first images of a search, and say now and then how many of them are there."""
    found = []
    reported = time.monotonic()
    for image in searches.images(request, images):
        found.append(image)
        if time.monotonic() - reported >= REPORT_SECONDS:
            say(f"{len(found):,} of {images:,} images are found")
            reported = time.monotonic()
    return found


def _as_written(argument: str) -> str:
    """Return an argument of the command line as one would write it into the search box.

    A shell takes quotes away: an argument with a space is one tag, and ``keyword:tabby cat`` has one value.
    """
    if argument.startswith("--"):
        raise BadInputError(f"there is no option {argument}: see `tinytags search --help`")
    if not any(letter.isspace() for letter in argument) or '"' in argument:
        return argument
    name, colon, value = argument.rpartition(":")
    minus = "-" if not name and value.startswith("-") else ""
    return f'{name}{colon}{minus}"{value.removeprefix(minus)}"'


@dataclass(frozen=True)
class _Measuring:
    """Measures runs at once, and makes what that needs; the search page only uses what is there."""

    runtime: "Runtime"

    def tables(self, runs: Iterable["Run"], *, is_needed: bool = False) -> "Measured":
        from tinytags_tasks.review.measuring import measure_run

        return {run.corpus: measure_run(run, self.runtime.storage, say) for run in runs}


def make_searches(runtime: "Runtime") -> "Searches":
    """Return what searches as the search page does, and measures at once."""
    from tinytags_tasks.search.chosen_runs import ChosenRuns
    from tinytags_tasks.search.live import LiveRuns
    from tinytags_tasks.search.searches import Searches
    from tinytags_tasks.search.word_logs import WordLogs

    live = LiveRuns(runtime.settings, runtime)
    chosen = ChosenRuns(runtime.settings, runtime)
    return Searches(runtime.settings, live, WordLogs(runtime, live), _Measuring(runtime), chosen)
