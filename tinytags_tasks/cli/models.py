"""Commands for models: list, show, compare, import and remove them; and the lab, which finds a forest's parameters."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import (
    AsJson,
    add_row,
    clients,
    make_table,
    named_tags,
    numbers,
    print_table,
    refuse_damaged,
    say,
)
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinytags_tasks.store.model_records import ModelCard

app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True)
app.add_typer(models_app, name="models", help="Published models: list, show, compare, import, remove.")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's version, or its beginning.")]


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the published models, the latest at the end; exit code 1 if a card is damaged."""
    from tinytags_tasks.store.models import list_models

    damaged: list[str] = []
    cards = list_models(clients().storage, on_damage=damaged.append)
    if as_json:
        print(json.dumps([card.model_dump() for card in cards], indent=2))
    elif cards or not damaged:
        _print_models(cards)
    refuse_damaged(damaged)


def _print_models(cards: "Sequence[ModelCard]") -> None:
    from tinytags_tasks.store.model_figures import share

    table = make_table("model", "created", "tags", "size", "output", "test accuracy", "kept", "right", "AUROC")
    for card in cards:
        output = f"{card.trees} trees" if card.output == "votes" else "percent"
        accuracy = f"{card.test.accuracy:.2f} %" if card.test else ""
        kept = share(card.test.thresholds[0].kept, card.test.images) if card.test else ""
        right = share(card.test.thresholds[0].right, card.test.thresholds[0].kept) if card.test else ""
        auroc = f"{card.other.auroc:.3f}" if card.other and card.other.auroc is not None else ""
        size = f"{card.height}x{card.width}"
        add_row(table, card.version, card.created[:10], len(card.tags), size, output, accuracy, kept, right, auroc)
    # A version is there to be copied, so it is never cut.
    table.columns[0].min_width = max((len(card.version) for card in cards), default=0)
    print_table(table)
    if cards:
        print(
            "kept: share of the test set with a confidence of 40 % or more; right: of these; AUROC: tag against none "
            "in images of other things"
        )
    else:
        print("none yet: make one with `tinytags train`, or import one with `tinytags models import`")


@models_app.command()
def show(
    model: Model,
    report: Annotated[Path | None, typer.Option(help="Write the model's report to this file (HTML).")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is known about a model."""
    from tinytags_tasks.store.models import describe_model, load_card, load_report, read_model

    storage = clients().storage
    card = load_card(storage, model)
    read_model(storage, card.version)  # else figures would be shown of a file that has been replaced
    if report:
        part = report.with_name(f".{report.name}.tmp")
        part.write_text(load_report(storage, card.version), encoding="utf-8")
        part.replace(report)
        say(f"wrote {report}")
    if as_json:
        print(json.dumps(card.model_dump(), indent=2))
        return
    table = make_table("", card.version)
    for heading, text in describe_model(card).items():
        add_row(table, heading, text)
    print_table(table)


@models_app.command()
def compare(one: Model, other: Model) -> None:
    """Compare two models."""
    from tinytags_tasks.store.models import compare_models, load_card

    storage = clients().storage
    cards = load_card(storage, one), load_card(storage, other)
    rows, remarks = compare_models(*cards)
    table = make_table("", *(card.version for card in cards))
    for row in rows:
        add_row(table, *row)
    print_table(table)
    for remark in remarks:
        print(f"note: {remark}")


@models_app.command("import")
def import_model(
    file: Annotated[str, typer.Argument(metavar="FILE.onnx", help="An ONNX classifier; or its address.")],
    tags: Annotated[
        str,
        typer.Option(help="The tags, in the order of its output: such as cat,dog,emu, or a file with a name a line."),
    ],
    name: Annotated[str, typer.Option(help="First part of the model's version.")] = "imported",
    height: Annotated[int, typer.Option(help="Height of the images that it takes.")] = 32,
    width: Annotated[int, typer.Option(help="Width of the images that it takes.")] = 32,
    scale: Annotated[str, typer.Option(help="Range of the values that it takes: 0-255 or 0-1.")] = "0-255",
    mean: Annotated[
        str, typer.Option(help="Means of red, green, blue, subtracted after scaling; such as 0.49,0.48,0.45.")
    ] = "",
    std: Annotated[str, typer.Option(help="Deviations of red, green, blue, divided by after that.")] = "",
    layout: Annotated[str, typer.Option(help="hwc or chw; default: from the shape of its input; flat is hwc.")] = "",
    output: Annotated[str, typer.Option(help="Name of its output; default: the one that fits the tags.")] = "",
    kind: Annotated[str, typer.Option(help="votes, scores or probabilities; default: from its values.")] = "",
    test: Annotated[str | None, typer.Option(help="Labelled set to measure it on, or its address.")] = None,
    other: Annotated[str | None, typer.Option(help="The same, of other things; label -1: none of the tags.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the images that it learned from.")] = "",
    preparation: Annotated[str, typer.Option(help="How these were resized.")] = "",
) -> None:
    """Publish an ONNX classifier from elsewhere, so that it tags like a trained model."""
    from tinytags_tasks.cli.follow import tell_of_model
    from tinytags_tasks.train.import_step import ImportRequest, import_model

    request = ImportRequest(
        onnx=file,
        tags=named_tags(tags) or (),
        name=name,
        height=height,
        width=width,
        scale=scale,  # type: ignore[arg-type] # the request refuses what it does not know
        mean=numbers(mean, "mean"),
        std=numbers(std, "std"),
        layout=layout or None,  # type: ignore[arg-type]
        output=output,
        kind=kind or None,  # type: ignore[arg-type]
        test=test or None,
        other=other or None,
        licence=licence,
        preparation=preparation,
    )
    runtime = clients()
    imported = import_model(request, storage=runtime.storage, report=say, open_source=runtime.files_at)
    if imported.imported:
        tell_of_model(runtime, imported.model, report=say)
    print(imported.model)


@models_app.command()
def remove(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a model with its card and report; refused if a run was made with it.

    Training or importing the same again restores it.
    """
    from tinytags_tasks.cli.spoken import user
    from tinytags_tasks.upkeep.removals import finish_removals
    from tinytags_tasks.upkeep.remove import plan_model_removal, remove_model

    storage = clients().storage
    if any(done.folder.startswith(f"models/{model}") for done in finish_removals(storage, say)):
        return  # a command that was killed had removed it
    version = plan_model_removal(model, storage=storage)
    if not yes and not typer.confirm(f"Remove model {version}, its card and its report?"):
        raise typer.Exit(1)
    print(remove_model(version, user(), storage=storage, report=say).line)


@app.command()
def lab(
    labelled: Annotated[
        str, typer.Argument(help="Labelled Parquet file, folder of folders, or tar; or the address of one.")
    ],
    tags: Annotated[
        str, typer.Option(help="Names of the labels, as for `tinytags train`.", show_default="those in the set")
    ] = "",
    sample: Annotated[int, typer.Option(help="Number of images to try on.")] = 10_000,
    trees: Annotated[str, typer.Option(help="Numbers of trees to try.")] = "5,10,20",
    depth: Annotated[str, typer.Option(help="Depths to try.")] = "6,8,10",
    bins: Annotated[str, typer.Option(help="Numbers of bins to try.")] = "50",
    folds: Annotated[int, typer.Option("--cv", help="Folds of the cross-validation.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the randomness.")] = 42,
    height: Annotated[int, typer.Option(help="Height of the images of the model's corpora.")] = 32,
    width: Annotated[int, typer.Option(help="Width of the images of the model's corpora.")] = 32,
    out: Annotated[
        Path | None, typer.Option(help="File for the chosen parameters (TOML), for `tinytags train --parameters`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try all combinations of a forest's parameters on pixels in scikit-learn, on a sample, and choose the best."""
    from tinytags_tasks.store.model_records import PIXELS
    from tinytags_tasks.train.lab import LabRequest, search_parameters
    from tinytags_tasks.train.parameters import TrainRequest

    training = TrainRequest(
        labelled, tags=named_tags(tags), seed=seed, height=height, width=width, features=PIXELS, head="forest"
    )
    request = LabRequest(
        training,
        sample,
        _whole_numbers(trees, "trees"),
        _whole_numbers(depth, "depth"),
        _whole_numbers(bins, "bins"),
        folds,
        str(out) if out else None,
    )
    findings = search_parameters(request, report=say, open_source=clients().files_at)
    if as_json:
        print(
            json.dumps(
                [
                    {
                        **finding.training.parameters,
                        "accuracy": finding.accuracy,
                        "deviation": finding.deviation,
                        "kept": finding.kept,
                        "precision": finding.precision,
                        "seconds": finding.seconds,
                    }
                    for finding in findings
                ],
                indent=2,
            )
        )
        return
    table = make_table("trees", "depth", "bins", "accuracy", "± sd", "kept", "right", "seconds")
    for finding in findings:
        parameters = (finding.training.trees, finding.training.depth, finding.training.bins)
        precision = "-" if finding.precision is None else f"{finding.precision:.1f} %"
        measured = (f"{finding.accuracy:.2f} %", f"{finding.deviation:.2f}", f"{finding.kept:.1f} %", precision)
        add_row(table, *parameters, *measured, f"{finding.seconds:.1f}")
    print_table(table)
    print("kept: images with a confidence of 40 % or more; right: of these; seconds: to fit one forest")


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError as error:
        raise BadInputError(
            f"--{option} is {text!r}: write whole numbers with commas between, such as 5,10,20"
        ) from error
