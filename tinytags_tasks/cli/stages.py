"""Commands for a run: each stage by itself, and all stages in Airflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from tinytags_tasks.cli.common import (
    Blocks,
    LabelNames,
    RunName,
    clients,
    embed_and_score,
    find_run,
    groups_of,
    named_tags,
    say,
)
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import Similar
    from tinytags_tasks.store.ledger import Totals
    from tinytags_tasks.store.run_records import Run

app = typer.Typer()


@app.command()
def train(
    labelled: Annotated[
        str,
        typer.Argument(
            help="Parquet file with pictures and a column label, folder with a folder for each tag, or WebDataset tar: "
            "a path, or an address such as hdfs:///labelled."
        ),
    ],
    test: Annotated[str | None, typer.Option(help="The same, to measure the model on.")] = None,
    tags: LabelNames = "",
    name: Annotated[str, typer.Option(help="First part of the model's version; default: the head's name.")] = "",
    features: Annotated[
        str, typer.Option(help="What the model sees: a net's name or version, or pixels, as in the original system.")
    ] = "general32",
    head: Annotated[str, typer.Option(help="What is trained on the features: logistic or forest.")] = "logistic",
    none: Annotated[
        bool | None,
        typer.Option(
            "--none/--no-none",
            help="Whether the model can say that an image has none of the tags; default: if its net has a background.",
            show_default=False,
        ),
    ] = None,
    trees: Annotated[int | None, typer.Option(help="Trees of a forest; default: 10.", show_default=False)] = None,
    depth: Annotated[
        int | None, typer.Option(help="Depth of a forest's trees; default: 10.", show_default=False)
    ] = None,
    bins: Annotated[
        int | None, typer.Option(help="Values that a forest's splits choose from; default: 50.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the randomness; default: 42.", show_default=False)] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(help="TOML file of a forest's parameters, as `tinytags lab` writes it; options take precedence."),
    ] = None,
    regularization: Annotated[
        int | None,
        typer.Option(help="Of a logistic head: higher is more cautious; default: 100.", show_default=False),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Of a logistic head, at most; default: 20.", show_default=False)
    ] = None,
    other: Annotated[
        str | None, typer.Option(help="Labelled images of other things; label -1: none of the tags, -2: left out.")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Percentage held out to measure a second model on; 0: none.")] = 10,
    height: Annotated[int, typer.Option(help="Height of the images of the model's corpora.")] = 32,
    width: Annotated[int, typer.Option(help="Width of the images of the model's corpora.")] = 32,
    licence: Annotated[str, typer.Option(help="Licence of the labelled images, for the model's card.")] = "",
    corpus: Annotated[
        str | None,
        typer.Option(
            help="An ingested corpus; warns if its images were prepared in another way; default: that of --reviews."
        ),
    ] = None,
    reviews: Annotated[
        str | None, typer.Option(help="An ingested corpus; also learns from what people said of its pictures.")
    ] = None,
    new_tags: Annotated[
        bool, typer.Option("--new-tags", help="Also learn tags that only reviews name, from 5 pictures on.")
    ] = False,
) -> None:
    """Train a head on a net's embeddings, or on pixels, in Spark, and publish it as a model."""
    from tinytags_tasks.cli.follow import tell_of_model
    from tinytags_tasks.train.parameters import chosen_parameters
    from tinytags_tasks.train.step import TrainRequest, train_model

    runtime = clients()
    options = {"trees": trees, "depth": depth, "bins": bins, "seed": seed}
    options |= {"regularization": regularization, "iterations": iterations}
    request = TrainRequest(
        _whole(labelled),
        _whole(test) or None,
        name,
        tags=named_tags(tags),
        other=_whole(other) or None,
        held_out=held_out,
        height=height,
        width=width,
        licence=licence,
        features=features,
        head=head,
        none=none,
        corpus=corpus or reviews,
        reviews=reviews,
        new_tags=new_tags,
        **chosen_parameters(head, parameters, options),
    )
    trained = train_model(
        request,
        storage=runtime.storage,
        connect_spark=runtime.connect_spark,
        report=say,
        providers=runtime.onnx_providers,
        open_source=runtime.files_at,
    )
    if trained.trained:
        tell_of_model(runtime, trained.model, report=say)
    print(trained.model)


def _whole(labelled: str | None) -> str:
    """Return a labelled set as every folder's commands find it: its address, or its whole path; empty if none is given.

    A corpus' last training is kept with it.
    """
    from tinytags_tasks.corpus.labelled_copy import is_address

    return (labelled or "") if not labelled or is_address(labelled) else str(Path(labelled).absolute())


@app.command()
def embed(
    corpus: Annotated[str, typer.Argument(help="Name of an ingested corpus.")],
    net: Annotated[str, typer.Option(help="A net's name or version.")] = "general32",
    blocks: Blocks = "",
    redo: Annotated[bool, typer.Option("--redo", help="Also embed blocks that are embedded.")] = False,
) -> None:
    """Embed blocks of a corpus in Spark, one committed file per block; all models on this net read them."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
    from tinytags_tasks.store.corpus_records import load_corpus

    runtime = clients()
    partition = load_corpus(corpus, runtime.storage).partition
    result = embed_blocks(
        EmbedRequest(corpus, net, parse_block_numbers(blocks, partition.blocks), redo),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
        report=say,
        providers=runtime.onnx_providers,
    )
    print(
        f"corpus {corpus}: {len(result.blocks):,} blocks are embedded by {result.net}, {result.embedded:,} of them now"
    )


@app.command()
def score(
    name: Annotated[str, typer.Argument(metavar="CORPUS|RUN", help="A corpus' name, or that of a run planned before.")],
    model: Annotated[
        str, typer.Option(help="A model's version; default: the latest that fits the corpus.", show_default=False)
    ] = "",
    threshold: Annotated[
        int | None,
        typer.Option(help="Least confidence in percent of an image to keep; default: 40.", show_default=False),
    ] = None,
    similar: Annotated[
        str,
        typer.Option(help="Whether similar pictures can be found: on, off or auto.", show_default="TINYTAGS_SIMILAR"),
    ] = "",
    blocks: Blocks = "",
    redo: Annotated[bool, typer.Option("--redo", help="Also score blocks that are committed.")] = False,
    export: Annotated[
        str, typer.Option(help="Then export the kept images: json, one object per line.", show_default=False)
    ] = "",
    output: Annotated[str, typer.Option(help="File for --export; - is standard output.")] = "-",
) -> None:
    """Score blocks of a corpus in Spark, one committed file per block; print the name of the run.

    If the model reads embeddings, those that the store lacks are made first. Committed blocks are not scored again, so
    `tinytags score RUN --export json --output FILE` only exports a finished run.
    """
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.score import export as exports
    from tinytags_tasks.score.step import ScoreRequest
    from tinytags_tasks.store.ledger import add_up, read_ledger

    if export not in ("", "json"):
        raise BadInputError(f"--export is {export!r}: the only format is json")
    if output != exports.STANDARD_OUTPUT and not export:
        raise BadInputError(f"--output {output} is for an export: add --export json")
    runtime = clients()
    run = _plan_or_find(name, model, threshold, similar, runtime)
    numbers = parse_block_numbers(blocks, run.blocks)
    chosen = f"{run.corpus} by {run.model}, confidence from {run.threshold} %"
    say(f"run {run.name}: {chosen}; {run.description}".rstrip("; "))
    for group in groups_of(numbers):
        embed_and_score(ScoreRequest(run.name, group, redo), runtime)
    say(_counts(add_up(read_ledger(runtime.storage, run, numbers)), run))
    if export:
        exports.export_run(exports.ExportRequest(run.name, numbers, output), storage=runtime.storage, report=say)
    if not export or output != exports.STANDARD_OUTPUT:
        print(run.name)


def _counts(totals: "Totals", run: "Run") -> str:
    """Return how many images were kept and why others were not, and where to look for those that could not be read."""
    parts = [f"{totals.kept:,} of {totals.read:,} images kept", f"{totals.below:,} below {run.threshold} %"]
    parts += [f"{totals.none:,} of none of the tags"] if totals.none else []
    parts += [f"{totals.taken_down:,} taken down"] if totals.taken_down else []
    where = f"`tinytags corpus show {run.corpus}` names them"
    parts += [f"{totals.unreadable:,} unreadable ({where})"] if totals.unreadable else []
    return ", ".join(parts)


def _plan_or_find(name: str, model: str, threshold: int | None, similar: str, runtime: "Runtime") -> "Run":
    """Return the run for a corpus and options, which is planned if it does not exist, or the run of this name."""
    from tinytags_tasks.score.plan import PlanRequest, latest_model, plan_run
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    storage = runtime.storage
    if not storage.exists(layout.corpus_file(name)) and storage.exists(layout.run_file(name)):
        if model or threshold is not None or similar:
            raise BadInputError(
                f"run {name} has a model, a threshold and vectors, or none, already: name its corpus to choose others"
            )
        return find_run(name)
    chosen = PlanRequest.threshold if threshold is None else threshold
    request = PlanRequest(
        name, model or latest_model(name, storage, report=say), chosen, similar=_similar_or_setting(similar, runtime)
    )
    return Run.load(storage, layout.run_file(plan_run(request, storage=storage, report=say).run))


def _similar_or_setting(similar: str, runtime: "Runtime") -> "Similar":
    """Return the value of --similar, or the setting.

    Raises
    ------
    BadInputError
        If there is no such value.
    """
    from tinytags_tasks.settings import Similar

    choices: tuple[Similar, ...] = get_args(Similar)
    chosen = next((choice for choice in choices if choice == similar), None)
    if similar and chosen is None:
        raise BadInputError(f"--similar is {similar!r}: choose {', '.join(choices)}")
    return chosen or runtime.settings.similar


@app.command()
def index(
    run_name: RunName = None,
    blocks: Blocks = "",
    redo: Annotated[bool, typer.Option("--redo", help="Also index blocks that are verified.")] = False,
) -> None:
    """Index scored blocks into the run's Solr collection, and verify their documents."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection

    runtime = clients()
    run = find_run(run_name)
    numbers = parse_block_numbers(blocks, run.blocks)
    prepare_collection(
        run.name,
        storage=runtime.storage,
        solr=runtime.solr,
        shards=runtime.settings.solr_shards,
        replicas=runtime.settings.solr_replicas,
    )
    documents = 0
    for group in groups_of(numbers):
        request = IndexRequest(run.name, group, redo)
        documents += index_blocks(request, storage=runtime.storage, solr=runtime.solr, report=say).documents
    print(f"{documents:,} documents of {len(numbers)} blocks")


@app.command()
def run(
    corpus: Annotated[
        str, typer.Argument(help="Name of a defined corpus; default: the demo.", show_default=False)
    ] = "",
    grow: Annotated[bool, typer.Option("--grow", help="First append what is new in the corpus' source.")] = False,
    model: Annotated[
        str, typer.Option(help="Version of a published model; default: train one.", show_default=False)
    ] = "",
    labelled: Annotated[
        str | None,
        typer.Option(
            help="Labelled Parquet file, folder of folders, or tar: a path, or an address such as hdfs:///labelled; "
            "default: the demo's."
        ),
    ] = None,
    test: Annotated[str | None, typer.Option(help="The same, for the model's card.")] = None,
    tags: LabelNames = "",
    other: Annotated[str | None, typer.Option(help="The same, of other things, for the card.")] = None,
    features: Annotated[
        str, typer.Option(help="What a trained model sees: a net's embeddings, or pixels as in the original system.")
    ] = "general32",
    head: Annotated[str, typer.Option(help="What is trained on them: logistic or forest.")] = "logistic",
    none: Annotated[
        bool, typer.Option(help="Whether the model can say that an image shows none of the tags, if the net allows it.")
    ] = True,
    reviews: Annotated[
        bool, typer.Option(help="Whether a trained model also learns from what people said of the corpus' pictures.")
    ] = True,
    trees: Annotated[int, typer.Option(help="Trees of a forest.")] = 10,
    depth: Annotated[int, typer.Option(help="Depth of a forest's trees.")] = 10,
    threshold: Annotated[int, typer.Option(help="Least confidence in percent of an image to keep.")] = 40,
    similar: Annotated[
        str,
        typer.Option(help="Whether similar pictures can be found: on, off or auto.", show_default="TINYTAGS_SIMILAR"),
    ] = "",
    blocks_per_task: Annotated[int, typer.Option(help="Blocks per Airflow task.")] = 5,
    publish: Annotated[bool, typer.Option(help="Publish the run, or leave that to `tinytags publish`.")] = True,
    unpause: Annotated[bool, typer.Option("--unpause", help="Un-pause the Dag first, if somebody paused it.")] = False,
) -> None:
    """Trigger the Dag `tinytags` in Airflow, follow it to its end and show the result."""
    from tinytags_tasks.cli.follow import follow_run
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.corpus.labelled import refuse_missing
    from tinytags_tasks.nets.catalogue import load_net_card
    from tinytags_tasks.review.carry import refuse_uncarried
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.model_records import PIXELS
    from tinytags_tasks.store.models import load_card
    from tinytags_tasks.train.families import FAMILIES

    runtime = clients()
    if corpus:
        find_definition(runtime.settings.corpora_folder, corpus, runtime.storage, renew=True)
        if runtime.storage.exists(layout.corpus_file(corpus)):
            refuse_uncarried(Corpus.load(runtime.storage, layout.corpus_file(corpus)), runtime.storage)
    refuse_missing(labelled, test, other, open_source=runtime.files_at)
    if head not in FAMILIES:
        raise BadInputError(f"--head is {head!r}: choose {' or '.join(FAMILIES)}")
    if model:
        model = load_card(runtime.storage, model).version
    elif features != PIXELS:
        load_net_card(runtime.storage, features)
    names = named_tags(tags)
    if names and not labelled:
        raise BadInputError("--tags are the names of labels: add --labelled")
    parameters = {
        "corpus": corpus,
        "new_files": "append" if grow else "leave",
        "model": model,
        "labelled": _whole(labelled),
        "test": _whole(test),
        "other": _whole(other),
        "tags": "\n".join(names or ()),
        "features": features,
        "head": head,
        "none": "yes" if none else "no",
        "reviews": "yes" if reviews else "no",
        "trees": trees,
        "depth": depth,
        "threshold": threshold,
        "similar": _similar_or_setting(similar, runtime),
        "blocks_per_task": blocks_per_task,
        "publish": "yes" if publish else "no",
    }
    follow_run(runtime, parameters, report=say, unpause=unpause)
