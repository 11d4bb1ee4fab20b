"""The command that learns a net, or fine-tunes one; it belongs to ``tinytags nets``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import clients, named_tags, say

if TYPE_CHECKING:
    from tinytags_tasks.nets.recipe.make_net import Sources
    from tinytags_tasks.nets.recipe.training import NamedPictures
    from tinytags_tasks.nets.recipe.tuning import NetTuning
    from tinytags_tasks.store.protocol import Storage


def train_net(
    labelled: Annotated[
        str,
        typer.Argument(
            metavar="LABELLED",
            help="Labelled Parquet file, folder with a folder for each class, or tar; or the address of one.",
        ),
    ],
    name: Annotated[str, typer.Option(help="First part of the net's version.")],
    general: Annotated[
        str | None,
        typer.Option(
            help="General pictures with classes of their own, in the same form; they also become the background."
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="The same, to measure the net on; default: every 20th labelled picture.")
    ] = None,
    tags: Annotated[
        str, typer.Option(help="Names of the labels, as for `tinytags train`.", show_default="those in the set")
    ] = "",
    reviews: Annotated[
        list[str] | None,
        typer.Option(help="A corpus whose reviewed pictures fine-tune a net, with the labelled ones; may be repeated."),
    ] = None,
    review_weight: Annotated[
        int, typer.Option(help="How many times as often as a labelled picture a reviewed one is drawn.")
    ] = 20,
    base: Annotated[
        str | None,
        typer.Option("--from", metavar="NET", help="The net to fine-tune.", show_default="general32 with --reviews"),
    ] = None,
    tuning_epochs: Annotated[
        float, typer.Option(help="How often a net that is fine-tuned sees as many pictures as there are.")
    ] = 5,
    size: Annotated[str, typer.Option(help="Widths of student and teacher: general32, small or tiny.")] = "general32",
    teacher_epochs: Annotated[
        float, typer.Option(help="How often the teacher sees as many pictures as there are; 0: no teacher.")
    ] = 90,
    student_epochs: Annotated[float, typer.Option(help="The same for the student, which becomes the net.")] = 271,
    rounding_epochs: Annotated[float, typer.Option(help="The same for the student in int8.")] = 9,
    batch: Annotated[
        int | None, typer.Option(help="Pictures per training step.", show_default="1536; fine-tuning: 128")
    ] = None,
    preparations: Annotated[
        int | None,
        typer.Option(help="Differently prepared copies of each picture.", show_default="16; fine-tuning: 8"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the randomness.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; default: below .tinytags, by what is learned.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="How often a checkpoint is written.")] = 60,
    licence: Annotated[str, typer.Option(help="Terms of the pictures, for the card.")] = "",
    eager: Annotated[bool, typer.Option("--eager", help="On a GPU: do not compile first.")] = False,
) -> None:
    """Learn a net for 32x32 pictures with PyTorch, on a GPU if there is one, and publish it.

    With --reviews or --from, a net is fine-tuned: one that this command learned, or general32. Else one is learned from
    nothing, and the defaults made the net that ships (in 12 minutes on one H200). On a processor, begin small: --size
    tiny --batch 128 --preparations 4 --teacher-epochs 2 --student-epochs 4 --rounding-epochs 1. If it is killed, give
    the same command again: it goes on from its last checkpoint.
    """
    from tinytags_tasks.corpus.labelled import refuse_missing
    from tinytags_tasks.corpus.labelled_copy import sets_here
    from tinytags_tasks.nets.recipe.make_net import Sources, make_net, require_torch
    from tinytags_tasks.nets.recipe.pictures import wordnet_names
    from tinytags_tasks.nets.recipe.training import NetTraining
    from tinytags_tasks.nets.recipe.tuning import NetTuning
    from tinytags_tasks.nets.shipped import DEFAULT_NET

    require_torch()  # before pictures are read
    schedule = {"batch": batch, "preparations": preparations, "seed": seed}
    given = {option: value for option, value in schedule.items() if value is not None}
    training: NetTraining | NetTuning
    if reviews or base:
        training = NetTuning(name=name, base=base or DEFAULT_NET, tuning_epochs=tuning_epochs, **given)
    else:
        training = NetTraining(
            name=name,
            size=size,
            teacher_epochs=teacher_epochs,
            student_epochs=student_epochs,
            rounding_epochs=rounding_epochs,
            **given,
        )
    runtime = clients()
    storage = runtime.storage  # an hour of learning for a store that does not answer would be lost
    refuse_missing(labelled, general, test, open_source=runtime.files_at)
    with sets_here(labelled, general, test, open_source=runtime.files_at, report=say) as sets:
        labelled_here, general_here, test_here = sets.paths
        sources = Sources(
            labelled=_read(labelled, labelled_here, named_tags(tags)),
            general=_read(general, general_here) if general else None,
            general_names=wordnet_names(Path(general_here)) if general_here else {},
            test=_read(test, test_here, named_tags(tags)) if test else None,
            licence=licence,
        )
    if isinstance(training, NetTuning):
        training, sources = _with_base(training, sources, reviews or [], review_weight, storage)
    card = make_net(
        training,
        sources,
        folder=lambda identity: work or runtime.settings.home / "trainings" / identity,
        storage=storage,
        report=say,
        checkpoint_seconds=checkpoint_seconds,
        eager=eager,
    )
    print(card.version)


def _with_base(
    training: "NetTuning", sources: "Sources", reviews: list[str], weight: int, storage: "Storage"
) -> "tuple[NetTuning, Sources]":
    """Return a fine-tuning with the version of its net, and what it learns from with that net and the reviews."""
    from tinytags_tasks.nets.recipe.base import find_base
    from tinytags_tasks.nets.recipe.reviewed import read_reviewed

    base = find_base(training.base, storage)
    reviewed = read_reviewed(reviews, sources.labelled.names, weight, storage, say)
    if not sources.general and base.card.background_sha256:
        say(
            f"the net will have no background, since that of {base.card.version} is kept as embeddings alone: models "
            "on it learn none of the tags from reviews; give --general for a background"
        )
    return replace(training, base=base.card.version), replace(sources, base=base, reviewed=reviewed)


def _read(given: str, here: str | None, tags: tuple[str, ...] | None = None) -> "NamedPictures":
    """Return the pictures of a labelled set that is on this machine now, called by its address if it has one."""
    from tinytags_tasks.corpus.labelled import file_sha256, is_folder_of_pictures
    from tinytags_tasks.corpus.labelled_copy import is_address
    from tinytags_tasks.nets.recipe.pictures import read_folder
    from tinytags_tasks.nets.recipe.training import NamedPictures
    from tinytags_tasks.train.encoded_pictures import read_encoded

    path = Path(here or given)
    if is_folder_of_pictures(path):
        pictures = read_folder(path)
    else:
        pictures = NamedPictures(path.name, file_sha256(path), *read_encoded(path, tags))
    return replace(pictures, source=given) if is_address(given) else pictures
