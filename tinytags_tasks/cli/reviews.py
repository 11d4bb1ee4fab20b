"""Commands for reviews: list, export, import and undo people's words; and a made reviewer for the demo."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, find_run, make_table, print_table, say
from tinytags_tasks.cli.spoken import named_requests, say_and_show, user
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer()
reviews_app = typer.Typer(no_args_is_help=True)
app.add_typer(reviews_app, name="reviews", help="People's words on a corpus' pictures: list, export, import, undo.")
demo_app = typer.Typer(no_args_is_help=True)
app.add_typer(demo_app, name="demo", help="The demo's own commands.")

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="Name of a corpus in the store.")]
_LONGEST_NUMBERS = 20
_MOST_UNDONE = 1_000

By = Annotated[str, typer.Option(help="Who says so; default: the user of this machine.", show_default=False)]


@reviews_app.command("list")
def list_words(
    corpus: CorpusName,
    limit: Annotated[int, typer.Option(help="Show at most this many, the latest.")] = 30,
    position: Annotated[int | None, typer.Option(help="Only words on this picture.")] = None,
    as_json: AsJson = False,
) -> None:
    """List people's words on a corpus' pictures, the latest at the end; the number undoes one."""
    import pyarrow.compute as pc

    from tinytags_tasks.store.review_log import ReviewLog

    words = ReviewLog(corpus, clients().storage).read()
    if position is not None:
        words = words.filter(pc.equal(words.column("position"), position))
    shown = words.slice(max(len(words) - limit, 0))
    if as_json:
        rows = [{**row, "picture": row["picture"].hex()} for row in shown.to_pylist()]
        print(json.dumps(rows, indent=2))
        return
    table = make_table("number", "time", "by", "position", "word", "why", "model said", "readers see it")
    for row in shown.to_pylist():
        _add_word(table, row)
    print_table(table)
    print(f"{len(words):,} words" + (f", of which the last {len(shown):,}" if len(shown) < len(words) else ""))


def _add_word(table: "Table", row: dict[str, Any]) -> None:
    said = " ".join(filter(None, (row["verdict"], row["tag"], row["undoes"] and f"number {row['undoes']}")))
    model = f"{row['shown_tag']} {row['shown_confidence']} %" if row["shown_tag"] else ""
    cells = (row["number"], row["time"], row["by"], row["position"], said, row["why"], model)
    add_row(table, *cells, "yes" if row["is_public"] else "")


@reviews_app.command()
def export(
    corpus: CorpusName,
    file: Annotated[Path, typer.Argument(help="New file, or new folder for fiftyone.")],
    form: Annotated[str, typer.Option("--format", help="csv, parquet, fiftyone or label-studio.")] = "csv",
    history: Annotated[
        bool, typer.Option("--all", help="Every word, not only the one on each picture that counts.")
    ] = False,
) -> None:
    """Write people's words to a file, for other programs; FiftyOne's and Label Studio's forms hold the pictures."""
    from tinytags_tasks.review.exporting import FORMATS, export_words
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_log import counting_words, read_words

    if form not in FORMATS:
        raise BadInputError(f"--format is {form!r}: choose {', '.join(FORMATS)}")
    storage = clients().storage
    record = load_corpus(corpus, storage)
    words = read_words(record, storage)
    if not history:
        words = counting_words(words)
    count = export_words(words, record, file, form, storage=storage, report=say)
    print(f"{count:,} words in {file}")


@reviews_app.command("import")
def import_words(
    corpus: CorpusName,
    file: Annotated[Path, typer.Argument(help="CSV, Parquet, JSON, or the folder of a FiftyOne export.")],
    field: Annotated[str, typer.Option(help="Column, field or control with the label; default: the only one.")] = "",
    none_label: Annotated[str, typer.Option(help="The label that means none of the tags.")] = "none",
    by: By = "",
) -> None:
    """Add labels and reviews that were made elsewhere; they teach, and are no sample that measures."""
    from tinytags_tasks.review.exchange import read_foreign
    from tinytags_tasks.review.words import say_requests
    from tinytags_tasks.store.corpus_records import load_corpus

    runtime = clients()
    record = load_corpus(corpus, runtime.storage)
    found = read_foreign(file, corpus, field=field, none_label=none_label, images=record.images)
    words = [each.word for each in found]
    numbers = say_requests(record, words, by=by or user(), storage=runtime.storage)
    print(f"{len(words):,} words imported ({named_requests(numbers)})")


@reviews_app.command()
def undo(
    corpus: CorpusName,
    numbers: Annotated[
        list[str],
        typer.Argument(metavar="NUMBERS...", help="Numbers of requests, from `tinytags reviews list`, such as 3 5-7."),
    ],
    position: Annotated[int | None, typer.Option(help="Only the words on this picture.")] = None,
    by: By = "",
) -> None:
    """Take back the words of requests, as if they had never been said; the log keeps them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from tinytags_tasks.review.words import say as say_words
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_log import read_words
    from tinytags_tasks.store.review_records import Verdict, Word

    runtime = clients()
    record = load_corpus(corpus, runtime.storage)
    wanted = _request_numbers(numbers)
    words: pa.Table = read_words(record, runtime.storage)
    words = words.filter(pc.not_equal(words.column("verdict"), str(Verdict.UNDO)))
    if position is not None:
        words = words.filter(pc.equal(words.column("position"), position))
    words = words.filter(pc.is_in(words.column("number"), value_set=pa.array(wanted, pa.int64())))
    if lacking := sorted(set(wanted).difference(words.column("number").to_pylist())):
        raise BadInputError(
            f"request {lacking[0]} has no such word on the present version of corpus {corpus}; "
            f"`tinytags reviews list {corpus}` has the numbers"
        )
    undone = [
        Word(row["position"], Verdict.UNDO, undoes=row["number"], is_public=row["is_public"])
        for row in words.to_pylist()
    ]
    if any(word.is_public for word in undone):
        say_and_show(record, undone, by, runtime, "as they were before that")
    else:
        say_words(record, undone, by=by or user(), storage=runtime.storage)
        print(f"{len(undone):,} words taken back")


def _request_numbers(texts: list[str]) -> list[int]:
    numbers: list[int] = []
    for text in texts:
        first, dash, last = text.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash) and len(text) <= _LONGEST_NUMBERS):
            raise BadInputError(f"{text[:100]!r} names no requests: give numbers and ranges, such as 3 5-7")
        found = range(int(first), int(last or first) + 1)
        if len(found) > _MOST_UNDONE:
            raise BadInputError(f"{text} are more than {_MOST_UNDONE:,} requests: undo fewer at once")
        numbers += found
    return numbers


@demo_app.command()
def review(
    looks: Annotated[int, typer.Option(help="Pictures to look at.")] = 250,
    run: Annotated[str | None, typer.Option(help="The run to review; default: the latest.")] = None,
) -> None:
    """Let a made reviewer, who knows the demo's truth, look at pictures of a run and say what they show."""
    from tinytags_tasks.corpus.demo.make import make_demo
    from tinytags_tasks.review.draw import next_pictures
    from tinytags_tasks.review.frame import load_frame
    from tinytags_tasks.review.made_reviewer import MADE_REVIEWER, MadeReviewer
    from tinytags_tasks.review.words import say as say_words
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_log import read_words

    runtime = clients()
    found = find_run(run)
    corpus = load_corpus(found.corpus, runtime.storage)
    demo = make_demo(runtime.settings.home / "demo", runtime.settings.demo_source, report=say)
    reviewer = MadeReviewer.of_demo(demo)
    if (found.corpus, corpus.images) != (demo.corpus_name, len(reviewer.labels)):
        raise BadInputError(
            f"run {found.name} is of {found.corpus}, and the made reviewer knows only the demo's pictures"
        )
    frame = load_frame(found, runtime.storage, say)
    started, said = time.monotonic(), 0
    while said < looks:
        words = read_words(corpus, runtime.storage)
        pictures = next_pictures(frame, words, count=min(looks - said, 250), taken=())
        if not pictures:
            break
        say_words(corpus, reviewer.look(pictures), by=MADE_REVIEWER, run=found.name, storage=runtime.storage)
        said += len(pictures)
    print(
        f"{said:,} pictures of {found.name} looked at in {time.monotonic() - started:.1f} s; see "
        f"`tinytags precision {found.name}`, and learn from them with `tinytags train --reviews {found.corpus}`"
    )
