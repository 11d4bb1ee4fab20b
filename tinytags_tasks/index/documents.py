"""A scored block and its pixels as the JSON bodies that Solr takes."""

import base64
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from tinytags_tasks import layout
from tinytags_tasks.block_files import BlockSource

DOCUMENTS_PER_BODY = 1_000
"""About 4 MB of JSON; a thousand to five thousand documents were equally fast."""


def document_bodies(
    scored: pa.Table, source: BlockSource, pixels: npt.NDArray[np.uint8], model: str
) -> Iterator[bytes]:
    """Yield JSON arrays of documents.

    Parameters
    ----------
    scored
        The block's scored file: position, tag, votes, accuracy.
    source
        Where the block lies in the corpus.
    pixels
        uint8, shape (images, values of an image): the block's images, kept or not.
    model
        The model's version.
    """
    for batch in scored.to_batches(max_chunksize=DOCUMENTS_PER_BODY):
        columns = batch.to_pydict()
        yield orjson.dumps(
            [
                {
                    "id": layout.document_id(source.corpus, position),
                    "tag": tag,
                    "accuracy": accuracy,
                    "votes": votes,
                    "block": source.block,
                    "shard": source.shard,
                    "position": position,
                    "corpus": source.corpus,
                    "model": model,
                    # Solr takes a binary field as base64; its CBOR loader refuses byte strings.
                    "data": base64.b64encode(pixels[position - source.first]).decode(),
                }
                for position, tag, votes, accuracy in zip(
                    columns["position"], columns["tag"], columns["votes"], columns["accuracy"], strict=True
                )
            ]
        )
