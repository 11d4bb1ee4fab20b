"""The command that learns a net; it belongs to ``tinytags nets``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import clients, named_tags, say
from tinytags_tasks.errors import BadInputError

if TYPE_CHECKING:
    from tinytags_tasks.nets.recipe.training import NamedPictures


def train_net(
    labelled: Annotated[
        Path,
        typer.Argument(metavar="LABELLED", help="Labelled Parquet file, folder with a folder for each class, or tar."),
    ],
    name: Annotated[str, typer.Option(help="First part of the net's version.")],
    general: Annotated[
        Path | None,
        typer.Option(
            help="General pictures with classes of their own, in the same form; they also become the background."
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="The same, to measure the net on; default: every 20th labelled picture.")
    ] = None,
    tags: Annotated[
        str, typer.Option(help="Names of the labels, as for `tinytags train`.", show_default="those in the set")
    ] = "",
    size: Annotated[str, typer.Option(help="Widths of student and teacher: general32, small or tiny.")] = "general32",
    teacher_epochs: Annotated[
        float, typer.Option(help="How often the teacher sees as many pictures as there are; 0: no teacher.")
    ] = 90,
    student_epochs: Annotated[float, typer.Option(help="The same for the student, which becomes the net.")] = 271,
    rounding_epochs: Annotated[float, typer.Option(help="The same for the student in int8.")] = 9,
    batch: Annotated[int, typer.Option(help="Pictures per training step.")] = 1536,
    preparations: Annotated[int, typer.Option(help="Differently prepared copies of each picture.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the randomness.")] = 0,
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; default: below .tinytags, by what is learned.")
    ] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="How often a checkpoint is written.")] = 60,
    licence: Annotated[str, typer.Option(help="Terms of the pictures, for the card.")] = "",
    eager: Annotated[bool, typer.Option("--eager", help="On a GPU: do not compile first.")] = False,
) -> None:
    """Learn a net for 32x32 pictures with PyTorch, on a GPU if there is one, and publish it.

    The defaults made the net that ships (in 12 minutes on one H200). On a processor, begin small: --size tiny --batch
    128 --preparations 4 --teacher-epochs 2 --student-epochs 4 --rounding-epochs 1. If it is killed, give the same
    command again: it goes on from its last checkpoint.
    """
    from tinytags_tasks.nets.recipe.make_net import Sources, make_net, require_torch
    from tinytags_tasks.nets.recipe.pictures import wordnet_names
    from tinytags_tasks.nets.recipe.training import NetTraining

    require_torch()  # before pictures are read
    training = NetTraining(
        name=name,
        size=size,
        teacher_epochs=teacher_epochs,
        student_epochs=student_epochs,
        rounding_epochs=rounding_epochs,
        batch=batch,
        preparations=preparations,
        seed=seed,
    )
    runtime = clients()
    storage = runtime.storage  # an hour of learning for a store that does not answer would be lost
    sources = Sources(
        labelled=_read(labelled, named_tags(tags)),
        general=_read(general) if general else None,
        general_names=wordnet_names(general) if general else {},
        test=_read(test, named_tags(tags)) if test else None,
        licence=licence,
    )
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


def _read(path: Path, tags: tuple[str, ...] | None = None) -> "NamedPictures":
    """Return the pictures of a labelled set."""
    from tinytags_tasks.corpus.labelled import file_sha256, is_folder_of_pictures
    from tinytags_tasks.nets.recipe.pictures import read_folder
    from tinytags_tasks.nets.recipe.training import NamedPictures
    from tinytags_tasks.train.encoded_pictures import read_encoded

    if not path.exists():
        raise BadInputError(
            f"{path}: does not exist; give a labelled Parquet file, a folder with a folder for each class, or a tar"
        )
    if is_folder_of_pictures(path):
        return read_folder(path)
    return NamedPictures(path.name, file_sha256(path), *read_encoded(path, tags))
