"""Commands for a person's word on what readers see: correct tags, take pictures down, carry both over."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import AsJson, add_row, clients, make_table, print_table, say
from tinytags_tasks.cli.reviews import reviews_app
from tinytags_tasks.cli.spoken import refuse_unseen_version, say_and_show, show
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.review_records import Verdict

app = typer.Typer()
takedown_app = typer.Typer(no_args_is_help=True)
app.add_typer(takedown_app, name="takedown", help="Take pictures down for good, list them, show them again.")

CorpusName = Annotated[str, typer.Argument(metavar="CORPUS", help="Name of a corpus in the store.")]
Positions = Annotated[
    list[str] | None,
    typer.Argument(metavar="[POSITIONS]...", help="Positions and ranges, such as 3 17-20.", show_default=False),
]
FromFile = Annotated[
    Path | None,
    typer.Option("--from", help="CSV file with the columns position and reason.", show_default=False),
]
Keyword = Annotated[
    str,
    typer.Option(
        help="All pictures that the source calls so now, also those that no model keeps; pictures that are added to "
        "the corpus later are not among them.",
        show_default=False,
    ),
]
_MOST_MISSING = 20

Unpublished = Annotated[
    bool,
    typer.Option("--unpublished", help="The positions are of the version in the store, though readers see another."),
]
By = Annotated[str, typer.Option(help="Who says so; default: the user of this machine.", show_default=False)]


@app.command()
def correct(
    corpus_name: CorpusName,
    positions: Annotated[
        list[str], typer.Argument(metavar="POSITIONS...", help="Positions and ranges, such as 3 17-20.")
    ],
    tag: Annotated[str, typer.Option(help="What the pictures show; the model need not know it.")] = "",
    not_tag: Annotated[str, typer.Option("--not", help="A tag that the pictures do not show.")] = "",
    none: Annotated[bool, typer.Option("--none", help="The pictures show none of the tags.")] = False,
    undo: Annotated[int, typer.Option(help="Take back the words of the request with this number.")] = 0,
    unpublished: Unpublished = False,
    by: By = "",
) -> None:
    """Correct the tags of pictures in what readers see, and in every run from now on."""
    from tinytags_tasks.review.takedown_lists import parse_positions
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_records import Verdict, Word

    if sum(map(bool, (tag, not_tag, none, undo))) != 1:
        raise BadInputError("say one thing of the pictures: --tag TAG, --not TAG, --none or --undo NUMBER")
    verdict = Verdict.TAG if tag else Verdict.WRONG if not_tag else Verdict.NONE if none else Verdict.UNDO
    runtime = clients()
    corpus = load_corpus(corpus_name, runtime.storage)
    refuse_unseen_version(corpus, runtime, on_purpose=unpublished)
    words = [
        Word(position, verdict, tag or not_tag, is_public=True, undoes=undo)
        for position in parse_positions(positions, corpus)
    ]
    say_and_show(corpus, words, by, runtime, "corrected" if not undo else "as they were before that")
    if tag:
        _note_new_tag(tag, corpus, runtime)


@takedown_app.command()
def add(
    corpus_name: CorpusName,
    positions: Positions = None,
    from_file: FromFile = None,
    keyword: Keyword = "",
    reason: Annotated[str, typer.Option(help="Why; a file may give each picture its own reason.")] = "",
    unpublished: Unpublished = False,
    by: By = "",
) -> None:
    """Take pictures down: gone from what readers see, and from every run from now on."""
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_records import Verdict

    runtime = clients()
    corpus = load_corpus(corpus_name, runtime.storage)
    refuse_unseen_version(corpus, runtime, on_purpose=unpublished)
    if not reason.strip() and from_file is None:
        raise BadInputError("a take-down needs a reason: give it with --reason")
    reasons = _chosen(corpus, positions, from_file, keyword, reason.strip(), runtime)
    _say_where_it_changes(Verdict.TAKEDOWN, reasons, corpus, by, runtime)


@takedown_app.command()
def remove(
    corpus_name: CorpusName,
    positions: Positions = None,
    from_file: FromFile = None,
    keyword: Keyword = "",
    reason: Annotated[str, typer.Option(help="Why they are shown again.")] = "",
    unpublished: Unpublished = False,
    by: By = "",
) -> None:
    """Show pictures again that were taken down."""
    from tinytags_tasks.store.corpus_records import load_corpus
    from tinytags_tasks.store.review_records import Verdict

    runtime = clients()
    corpus = load_corpus(corpus_name, runtime.storage)
    refuse_unseen_version(corpus, runtime, on_purpose=unpublished)
    chosen = _chosen(corpus, positions, from_file, keyword, reason.strip() or "shown again", runtime)
    _say_where_it_changes(Verdict.RESTORE, chosen, corpus, by, runtime)


def _say_where_it_changes(
    verdict: "Verdict", reasons: "Mapping[int, str]", corpus: "Corpus", by: str, runtime: "Runtime"
) -> None:
    """Take pictures down or restore them, by position, each with its reason; those that are so already are left out."""
    from tinytags_tasks.review.takedowns import taken_down
    from tinytags_tasks.store.review_records import Verdict, Word

    takes_down = verdict is Verdict.TAKEDOWN
    down = set(taken_down(corpus, runtime.storage).tolist())
    words = [
        Word(position, verdict, is_public=True, reason=reason)
        for position, reason in reasons.items()
        if (position in down) is not takes_down
    ]
    if len(words) < len(reasons):
        already = "were taken down before" if takes_down else "are not taken down"
        say(f"{len(reasons) - len(words):,} of {len(reasons):,} pictures {already}")
    say_and_show(corpus, words, by, runtime, "taken down" if takes_down else "no longer taken down")


@takedown_app.command("list")
def list_all(
    corpus_name: CorpusName,
    limit: Annotated[int, typer.Option(help="Rows of the table.")] = 200,
    to_file: Annotated[
        Path | None, typer.Option("--to", help="Write all to this new CSV file.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the pictures that are taken down: since when, by whom, and why."""
    from tinytags_tasks.review.takedown_lists import write_takedown_list
    from tinytags_tasks.review.takedowns import list_takedowns
    from tinytags_tasks.store.corpus_records import load_corpus

    storage = clients().storage
    words = list_takedowns(load_corpus(corpus_name, storage), storage)
    columns = ["position", "number", "time", "by", "reason"]
    if to_file is not None:
        write_takedown_list(to_file, words)
        print(f"{to_file}: {len(words):,} pictures that are taken down")
        return
    if as_json:
        print(json.dumps(words.select(columns).to_pylist(), indent=2))
        return
    table = make_table(*columns)
    for row in words.slice(0, limit).select(columns).to_pylist():
        add_row(table, *row.values())
    print_table(table)
    more = f"; --limit {len(words)} shows all" if len(words) > limit else ""
    print(f"{len(words):,} pictures of corpus {corpus_name} are taken down{more}")


def _chosen(
    corpus: "Corpus",
    positions: list[str] | None,
    from_file: Path | None,
    keyword: str,
    reason: str,
    runtime: "Runtime",
) -> dict[int, str]:
    """Return the pictures that a person chose in one of three ways, each with the reason."""
    from tinytags_tasks.review.takedown_lists import parse_positions, read_takedown_list
    from tinytags_tasks.review.takedowns import positions_of_keyword

    if sum(map(bool, (positions, from_file, keyword))) != 1:
        raise BadInputError("choose pictures in one way: POSITIONS, --from FILE or --keyword WORD")
    if from_file:
        return read_takedown_list(from_file, corpus, reason)
    if keyword:
        return dict.fromkeys(positions_of_keyword(corpus, keyword, runtime.storage).tolist(), reason)
    return dict.fromkeys(parse_positions(positions or (), corpus), reason)


def _note_new_tag(tag: str, corpus: "Corpus", runtime: "Runtime") -> None:
    """Say how a model learns a tag that the model of the corpus' live run does not know."""
    from tinytags_tasks.publish.live import live_runs
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.model_records import ModelCard

    for run in live_runs(runtime.settings.alias, runtime.storage, runtime.solr, corpus=corpus.name):
        if tag not in ModelCard.load(runtime.storage, layout.card_file(run.model)).tags:
            say(
                f"model {run.model} does not know the tag {tag!r}: a model learns it with "
                f"`tinytags train --reviews {corpus.name} --new-tags`"
            )


@reviews_app.command()
def carry(corpus_name: CorpusName) -> None:
    """Carry words over from other versions of a corpus whose source changed: pictures are found by their content."""
    from tinytags_tasks.review.carry import carry_words
    from tinytags_tasks.store.corpus_records import load_corpus

    runtime = clients()
    corpus = load_corpus(corpus_name, runtime.storage)
    started = time.monotonic()
    found = carry_words(corpus, storage=runtime.storage, report=say)
    for position, what in found.missing[:_MOST_MISSING]:
        print(f"position {position} ({what}): this version has no such picture")
    if len(found.missing) > _MOST_MISSING:
        print(f"and {len(found.missing) - _MOST_MISSING:,} more that this version does not have")
    gone = f"the pictures of {len(found.missing):,} are gone"
    recorded = f"{found.carried:,} words are carried over, {found.there:,} were there already, {gone}"
    show(corpus, recorded, started, runtime)
