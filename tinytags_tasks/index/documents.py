"""Documents: turns a scored block and its pixels into the bodies of Solr update requests.

This is where the fields of :mod:`tinytags_tasks.document_fields` are filled.
"""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.document_fields import LATER_FIELDS, LOOK_FIELDS, VECTOR_FIELD, VECTOR_NUMBERS, document_field
from tinytags_tasks.index.javabin import Body, Numbers, Value, encode_numbers
from tinytags_tasks.look import Looks, looks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, BlockSource, Pixels
from tinytags_tasks.store.embedding_files import Embeddings

_CONFIDENCE = document_field("confidence").solr_name
_CORRECTED = document_field("corrected").solr_name

MOST_DOCUMENTS = 2_000
"""The most documents in one body: about 6 MB at 32x32 pixels."""


_MOST_IMAGE_BYTES = MOST_DOCUMENTS * 32 * 32 * 3
"""The most image bytes in one body, so that a few bodies of large images fit into memory, both here and in Solr."""


def documents_per_body(image_bytes: int) -> int:
    """Return how many documents go into one body."""
    return max(1, min(MOST_DOCUMENTS, _MOST_IMAGE_BYTES // image_bytes))


_MOST_WITH_VECTORS = 500
"""The most documents with vectors in a body: Solr takes milliseconds for each, and must take a body within seconds."""


def document_bodies(
    scored: pa.Table,
    source: BlockSource,
    pixels: Pixels | None,
    model: str,
    keywords: Sequence[str | None] | None = None,
    fields: Collection[str] = LATER_FIELDS,
    *,
    seen: Pixels | None = None,
    known_looks: Looks | None = None,
    embeddings: Embeddings | None = None,
) -> Iterator[bytes]:
    """Yield the bodies of update requests, in Solr's binary format.

    Parameters
    ----------
    scored
        The block's scored file, corrected: position, tag, votes and confidence of each image that is kept, and
        ``corrected`` where a person decided the tag.
    source
        Where the block is in the corpus.
    pixels
        uint8, shape (images, values per image): all of the block's images, kept or not; None for documents without
        pixels.
    model
        The model's version.
    keywords
        One for each image of the block, or None for an image without one; None if the corpus has no keywords.
    fields
        The collection's fields. Fields of :data:`LATER_FIELDS` that it lacks are omitted.
    seen
        As ``pixels``, for the pictures' looks, if documents are to be without pixels.
    known_looks
        The looks of all of the block's images that are kept, instead of ``seen``.
    embeddings
        int8, shape (images, dimensions): of all of the block's images; None for documents without a vector.
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
    has_words, has_shuffle = "word" not in lacking, "shuffle" not in lacking
    has_corrected = _CORRECTED in scored.column_names and _CORRECTED not in lacking
    every_pixel = None if pixels is None else pixels.reshape(-1).data
    seen = pixels if seen is None else seen
    if lacking.issuperset(LOOK_FIELDS):
        seen = known_looks = None
    if VECTOR_FIELD in lacking:
        embeddings = None
    at_once = documents_per_body(source.image_bytes)
    if embeddings is not None:
        at_once = min(at_once, _MOST_WITH_VECTORS)
    common: dict[tuple[str, int, int], dict[str, int | str]] = {}
    for batch in scored.to_batches(max_chunksize=at_once):
        columns = batch.to_pydict()
        rows = batch.column("position").to_numpy() - source.first
        every_look = _looks(rows, source, seen, known_looks)
        every_vector = None if embeddings is None else _vectors(embeddings[rows])
        corrected = columns[_CORRECTED] if has_corrected else [None] * batch.num_rows
        shuffled = shuffle_numbers(source.corpus, batch.column("position").to_numpy())
        body = Body()
        for row, (position, tag, confidence, votes, number) in enumerate(
            zip(
                columns["position"],
                columns["tag"],
                columns[CONFIDENCE_COLUMN],
                columns["votes"],
                corrected,
                strict=True,
            )
        ):
            shared = common.get((tag, confidence, votes))
            if shared is None:
                shared = common[tag, confidence, votes] = {"tag": tag, _CONFIDENCE: confidence, "votes": votes, **block}
            own: dict[str, Value] = {"id": layout.document_id(source.corpus, position), "position": position}
            at = position - source.first
            if every_pixel is not None:
                own["data"] = every_pixel[at * source.image_bytes : (at + 1) * source.image_bytes]
            if keywords and (keyword := keywords[at]):
                own["keyword"] = keyword
                if has_words and (words := keyword_words(keyword)):
                    own["word"] = words
            if has_shuffle:
                own["shuffle"] = shuffled[row]
            if number is not None:
                own[_CORRECTED] = number
            if every_look is not None:
                own.update(zip(LOOK_FIELDS, every_look[row], strict=True))
            if every_vector is not None:
                own[VECTOR_FIELD] = every_vector[row]
            body.add(own, shared)
        yield body.finished()


def _looks(
    rows: npt.NDArray[np.int64], source: BlockSource, seen: Pixels | None, known: Looks | None
) -> list[list[int]] | None:
    """Return the looks of images of a block; None if documents have none."""
    if known is not None:
        found = known[rows]
    elif seen is not None:
        found = looks(seen[rows], source.width)
    else:
        return None
    values: list[list[int]] = found.tolist()
    return values


def _vectors(embeddings: Embeddings) -> list[Numbers]:
    """Return embeddings as documents hold them: filled up with zeros, which changes no angle between two."""
    return encode_numbers(np.pad(embeddings, ((0, 0), (0, VECTOR_NUMBERS - embeddings.shape[1]))))
