"""The background that ships: embeddings of general pictures, with the names of what they show."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.nets.recipe.evaluate import decode, embed, rounded
from tinytags_tasks.nets.recipe.kinds import kinds_of
from tinytags_tasks.nets.recipe.pictures import read_tiny_imagenet

A_CLASS = 100


def write_background(net: Path, scale: float, tiny_imagenet: Path, path: Path) -> int:
    """Write embeddings of a hundred training pictures a class of Tiny-ImageNet, and return how many.

    All classes are there, also those that show a CIFAR-10 tag: which ones are left out depends on a user's tags.
    Columns: ``embedding`` (256 bytes, int8), ``class`` (WordNet's names), ``kinds`` (everyday names), ``wnid``.
    """
    pictures = read_tiny_imagenet(tiny_imagenet)
    wnids = sorted(place.name for place in (tiny_imagenet / "train").iterdir())
    names = dict(line.split("\t") for line in (tiny_imagenet / "words.txt").read_text().splitlines())
    draw = np.random.default_rng(0)
    of_class = [np.flatnonzero(pictures.classes == number) for number in range(len(wnids))]
    chosen = np.concatenate([np.sort(draw.permutation(places)[:A_CLASS]) for places in of_class])
    pixels = decode([pictures.encoded[place] for place in chosen], encode_again=True)
    whole = rounded(embed(net, pixels), scale).astype(np.int8)
    shown = [wnids[number] for number in pictures.classes[chosen]]
    table = pa.table(
        {
            "embedding": pa.array([row.tobytes() for row in whole], pa.binary(whole.shape[1])),
            "class": pa.array([names[wnid] for wnid in shown]).dictionary_encode(),
            "kinds": pa.array([kinds_of(wnid) for wnid in shown], pa.list_(pa.string())),
            "wnid": pa.array(shown).dictionary_encode(),
        }
    )
    pq.write_table(
        table, path, compression="zstd", compression_level=19, use_dictionary=["class", "wnid", "kinds.list.element"]
    )
    return table.num_rows
