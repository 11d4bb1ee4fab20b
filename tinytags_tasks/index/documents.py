"""A scored block and its pixels as the bodies that Solr takes."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks import layout
from tinytags_tasks.block_files import BlockSource
from tinytags_tasks.index.javabin import Body, Value

MOST_DOCUMENTS = 2_000
"""Of one body: about 6 MB at 32x32 pixels."""

LATER_FIELDS = frozenset({"width", "keyword"})
"""Fields that the schema got later: into a collection that was made before, a document goes without them.

All that read documents must do without them. Every field that is added to the schema belongs here.
"""

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
    fields: Collection[str] = LATER_FIELDS,
) -> Iterator[bytes]:
    """Yield the bodies of update requests, in Solr's binary format.

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
    fields
        Those that the collection's schema has; of :data:`LATER_FIELDS`, others are left out.
    """
    block: dict[str, int | str] = {
        "block": source.block,
        "shard": source.shard,
        "corpus": source.corpus,
        "model": model,
        "width": source.width,
    }
    lacking = LATER_FIELDS.difference(fields)
    block = {name: value for name, value in block.items() if name not in lacking}
    if "keyword" in lacking:
        keywords = None
    every_pixel = None if pixels is None else pixels.reshape(-1).data
    common: dict[tuple[str, int, int], dict[str, int | str]] = {}
    for batch in scored.to_batches(max_chunksize=documents_per_body(source.image_bytes)):
        columns = batch.to_pydict()
        body = Body()
        for position, tag, accuracy, votes in zip(
            columns["position"], columns["tag"], columns["accuracy"], columns["votes"], strict=True
        ):
            shared = common.get((tag, accuracy, votes))
            if shared is None:
                shared = common[tag, accuracy, votes] = {"tag": tag, "accuracy": accuracy, "votes": votes, **block}
            own: dict[str, Value] = {"id": layout.document_id(source.corpus, position), "position": position}
            at = position - source.first
            if every_pixel is not None:
                own["data"] = every_pixel[at * source.image_bytes : (at + 1) * source.image_bytes]
            if keywords and (keyword := keywords[at]):
                own["keyword"] = keyword
            body.add(own, shared)
        yield body.finished()
