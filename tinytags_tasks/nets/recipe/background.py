"""A background: embeddings of general pictures, with the names of what they show."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.nets.recipe.evaluate import decode, embed, rounded
from tinytags_tasks.nets.recipe.kinds import kinds_of
from tinytags_tasks.nets.recipe.training import NamedPictures

A_CLASS = 100


def chosen_pictures(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Return the places of at most a hundred pictures for each class, drawn with a fixed seed."""
    draw = np.random.default_rng(0)
    of_class = [np.flatnonzero(labels == number) for number in range(classes)]
    return np.concatenate([np.sort(draw.permutation(places)[:A_CLASS]) for places in of_class])


def make_background(net: Path, scale: float, general: NamedPictures, names: dict[str, str]) -> tuple[bytes, int]:
    """Return a background's Parquet file, and how many pictures it has.

    All classes are there, also those that show a tag: which ones are left out depends on a user's tags.
    Columns: ``embedding`` (bytes, int8), ``class`` (names), ``kinds`` (everyday names), ``wnid`` (the class' folder).

    Parameters
    ----------
    net, scale
        The net's file, and what a whole number of its embeddings stands for.
    general, names
        The general pictures, and what WordNet's ids among their classes mean.
    """
    chosen = chosen_pictures(general.labels, len(general.names))
    pixels = decode([general.encoded[place] for place in chosen], encode_again=True)
    whole = rounded(embed(net, pixels), scale).astype(np.int8)
    shown = [general.names[number] for number in general.labels[chosen]]
    table = pa.table(
        {
            "embedding": pa.array([row.tobytes() for row in whole], pa.binary(whole.shape[1])),
            "class": pa.array([names.get(name, name) for name in shown]).dictionary_encode(),
            "kinds": pa.array([kinds_of(name) for name in shown], pa.list_(pa.string())),
            "wnid": pa.array(shown).dictionary_encode(),
        }
    )
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, use_dictionary=["class", "wnid", "kinds.list.element"]
    )
    return sink.getvalue(), table.num_rows
