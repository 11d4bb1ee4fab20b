"""The command that imports a net; it belongs to ``tinytags nets``."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tinytags_tasks.cli.common import clients, numbers, say
from tinytags_tasks.errors import BadInputError


def import_net(
    file: Annotated[
        str, typer.Argument(metavar="FILE.onnx", help="An ONNX network that describes pictures; or its address.")
    ],
    name: Annotated[str, typer.Option(help="First part of the net's version.")],
    corpus: Annotated[str, typer.Option(help="Calibrate on pictures of this corpus, which must be ingested.")] = "",
    labelled: Annotated[
        str | None, typer.Option(help="Or on pictures of this labelled set, or of the one at this address.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Height of the pictures; default: what its input says.")] = None,
    width: Annotated[int | None, typer.Option(help="Width of the pictures; default: what its input says.")] = None,
    scale: Annotated[str, typer.Option(help="Range of the values that it takes: 0-255 or 0-1.")] = "0-255",
    mean: Annotated[
        str, typer.Option(help="Means of red, green, blue, subtracted after scaling; such as 0.485,0.456,0.406.")
    ] = "",
    std: Annotated[str, typer.Option(help="Deviations of red, green, blue, divided by after that.")] = "",
    layout: Annotated[str, typer.Option(help="hwc or chw; default: from the shape of its input; flat is hwc.")] = "",
    output: Annotated[
        str, typer.Option(help="Name of the output that is the embedding; default: the only one that fits.")
    ] = "",
    tokens: Annotated[str, typer.Option(help="first or mean of the tokens, if the output has a row for each.")] = "",
    arithmetic: Annotated[
        str, typer.Option(help="int8, float32, or auto: int8 if that keeps the ranking of pictures by likeness.")
    ] = "auto",
    licence: Annotated[str, typer.Option(help="Terms of the pictures that it learned from.")] = "",
    preparation: Annotated[str, typer.Option(help="How those pictures were prepared, such as resized.")] = "",
) -> None:
    """Publish an ONNX network from elsewhere as a net, such as DINOv2, CLIP's image encoder, or an export of timm.

    Its numbers are calibrated on pictures of a corpus or a labelled set. The card says how well int8 keeps the ranking.
    """
    from tinytags_tasks.corpus.labelled import refuse_missing
    from tinytags_tasks.corpus.labelled_copy import sets_here
    from tinytags_tasks.nets.calibration import PICTURES, corpus_pictures
    from tinytags_tasks.nets.importing import NetImport, ReadPictures
    from tinytags_tasks.nets.importing import import_net as publish
    from tinytags_tasks.train.encoded_pictures import sample_pictures

    request = NetImport(
        onnx=file,
        name=name,
        height=height,
        width=width,
        scale=scale,  # type: ignore[arg-type] # the request refuses what it does not know
        mean=numbers(mean, "mean"),
        std=numbers(std, "std"),
        layout=layout or None,  # type: ignore[arg-type]
        output=output,
        tokens=tokens or None,  # type: ignore[arg-type]
        arithmetic=arithmetic,  # type: ignore[arg-type]
        licence=licence,
        preparation=preparation,
    )
    if bool(corpus) == bool(labelled):
        raise BadInputError(
            "give pictures to calibrate the net on: --corpus with the name of an ingested corpus, or --labelled with "
            "a labelled set"
        )
    runtime = clients()
    storage = runtime.storage
    refuse_missing(labelled, open_source=runtime.files_at)
    with sets_here(file, labelled, open_source=runtime.files_at, report=say) as files:
        onnx, pictures = (Path(path) if path else None for path in files.paths)
        read_pictures: ReadPictures = lambda height, width: corpus_pictures(storage, corpus)  # noqa: E731
        if pictures:
            read_pictures = lambda height, width: sample_pictures(pictures, PICTURES, height, width)  # noqa: E731
        pictures_from = pictures.name if pictures else f"corpus {corpus}"
        here = replace(request, onnx=str(onnx))
        print(publish(here, read_pictures, pictures_from, storage=storage, report=files.report).card.version)
