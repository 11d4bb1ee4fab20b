"""A scored block and its pixels as the JSON bodies that Solr takes."""

import base64
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from tinytags_tasks import layout
from tinytags_tasks.block_files import BlockSource

MOST_DOCUMENTS = 2_000
"""Of one body: about 8 MB of JSON at 32x32 pixels; five thousand such documents were no faster, a thousand slower."""

_MOST_IMAGE_BYTES = MOST_DOCUMENTS * 32 * 32 * 3
"""Of one body, so that a few bodies of large images fit into memory, here and in Solr."""


def documents_per_body(image_bytes: int) -> int:
    """Return how many documents one body takes."""
    return max(1, min(MOST_DOCUMENTS, _MOST_IMAGE_BYTES // image_bytes))


def document_bodies(
    scored: pa.Table,
    source: BlockSource,
    pixels: npt.NDArray[np.uint8] | None,
    model: str,
    keywords: Sequence[str | None] | None = None,
) -> Iterator[bytes]:
    """Yield JSON arrays of documents.

    Parameters
    ----------
    scored
        The block's scored file: position, tag, votes, accuracy.
    source
        Where the block lies in the corpus.
    pixels
        uint8, shape (images, values of an image): the block's images, kept or not; None for documents without them.
    model
        The model's version.
    keywords
        One an image of the block, None where an image has none; None when the corpus has no keywords.
    """
    for batch in scored.to_batches(max_chunksize=documents_per_body(source.image_bytes)):
        columns = batch.to_pydict()
        documents = []
        for position, tag, votes, accuracy in zip(
            columns["position"], columns["tag"], columns["votes"], columns["accuracy"], strict=True
        ):
            at = position - source.first
            document = {
                "id": layout.document_id(source.corpus, position),
                "tag": tag,
                "accuracy": accuracy,
                "votes": votes,
                "block": source.block,
                "shard": source.shard,
                "position": position,
                "corpus": source.corpus,
                "model": model,
                "width": source.width,
            }
            if pixels is not None:
                # Solr takes a binary field as base64; its CBOR loader refuses byte strings.
                document["data"] = base64.b64encode(pixels[at]).decode()
            if keywords and (keyword := keywords[at]):
                document["keyword"] = keyword
            documents.append(document)
        yield orjson.dumps(documents)
