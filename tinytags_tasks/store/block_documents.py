"""What a block's documents must say, and the checksum by which this is compared with what Solr holds.

What a document says follows from the scored file, people's words, the shard's manifest and keywords, and the run: Solr
is not asked.

A checksum begins with the number of its version. Version 2 covers every field but what says how an
image looks (pixels, looks, vector). Checksums without a number are of the first version, which covers five fields;
blocks that were verified by one are not indexed again. See ``docs/adr/0020-verified-means-now.md``.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.document_fields import (
    CHECKSUM_FIELDS,
    FIRST_CHECKSUM_FIELDS,
    LATER_FIELDS,
    document_field,
    solr_names,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, BlockSource

_VERSION = "2:"
_AT_ONCE = 5_000
_CONFIDENCE = document_field("confidence").solr_name
_CORRECTED = document_field("corrected").solr_name


def is_present_version(checksum: str) -> bool:
    """Tell whether a checksum is of the present version: all fields but pixels, looks and vector."""
    return checksum.startswith(_VERSION)


def compared_fields(collection_fields: Collection[str]) -> tuple[str, ...]:
    """Return the names in Solr of the fields that the checksum covers, as far as a collection has them."""
    return tuple(name for name in solr_names(CHECKSUM_FIELDS) if name in collection_fields)


class DocumentsHash:
    """Hashes a block's documents as they come.

    What is hashed is the documents' JSON, separated by commas: UTF-8, no spaces, names sorted, absent fields left out.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._is_first = True

    def add(self, documents: Sequence[Mapping[str, object]]) -> None:
        """Add documents, in the order of their positions."""
        if not documents:
            return
        if not self._is_first:
            self._hash.update(b",")
        self._is_first = False
        self._hash.update(memoryview(orjson.dumps(documents, option=orjson.OPT_SORT_KEYS))[1:-1])

    def checksum(self) -> str:
        """Return the checksum of all that was added."""
        return _VERSION + self._hash.hexdigest()


def documents_checksum(documents: Sequence[Mapping[str, object]]) -> str:
    """Return the checksum of a block's documents, given in the order of their positions."""
    found = DocumentsHash()
    found.add(documents)
    return found.checksum()


def expected_checksum(
    table: pa.Table,
    source: BlockSource,
    model: str,
    keywords: Sequence[str | None] | None,
    collection_fields: Collection[str],
) -> str:
    """Return the checksum that a block's documents must have.

    Parameters
    ----------
    table
        The block's scored file, corrected by people's words; see :mod:`tinytags_tasks.store.corrections`.
    source
        Where the block lies in the corpus.
    model
        The run's model.
    keywords
        One for each image of the block, None where an image has none; None if the corpus has no keywords.
    collection_fields
        The collection's fields.
    """
    found = DocumentsHash()
    for documents in _expected_documents(table, source, model, keywords, collection_fields):
        found.add(documents)
    return found.checksum()


def _expected_documents(
    table: pa.Table,
    source: BlockSource,
    model: str,
    keywords: Sequence[str | None] | None,
    collection_fields: Collection[str],
) -> Iterator[list[dict[str, Any]]]:
    lacking = LATER_FIELDS.difference(collection_fields)
    block = {
        "block": source.block,
        "shard": source.shard,
        "corpus": source.corpus,
        "model": model,
        "width": source.width,
    }
    block = {name: value for name, value in block.items() if name not in lacking}
    if "keyword" in lacking:
        keywords = None
    for batch in table.to_batches(max_chunksize=_AT_ONCE):
        columns = batch.to_pydict()
        documents = [
            {
                **block,
                "id": layout.document_id(source.corpus, position),
                "position": position,
                "tag": tag,
                "votes": votes,
                _CONFIDENCE: confidence,
            }
            for position, tag, votes, confidence in zip(
                columns["position"], columns["tag"], columns["votes"], columns[CONFIDENCE_COLUMN], strict=True
            )
        ]
        if _CORRECTED in columns and _CORRECTED not in lacking:
            for document, number in zip(documents, columns[_CORRECTED], strict=True):
                if number is not None:
                    document[_CORRECTED] = number
        if "shuffle" not in lacking:
            places = shuffle_numbers(source.corpus, batch.column("position").to_numpy())
            for document, place in zip(documents, places, strict=True):
                document["shuffle"] = place
        if keywords:
            for document in documents:
                if keyword := keywords[document["position"] - source.first]:
                    document["keyword"] = keyword
                    if "word" not in lacking and (words := keyword_words(keyword)):
                        document["word"] = words
        yield documents


def first_checksum(table: pa.Table, corpus: str, model: str) -> str:
    """Return the checksum of the first version: sha256 of a line for each document, five fields separated by tabs."""
    columns = table.to_pydict()
    values = {
        "id": [layout.document_id(corpus, position) for position in columns["position"]],
        "tag": columns["tag"],
        "votes": columns["votes"],
        "confidence": columns[CONFIDENCE_COLUMN],
        "model": [model] * table.num_rows,
    }
    digest = hashlib.sha256()
    for row in zip(*(values[name] for name in FIRST_CHECKSUM_FIELDS), strict=True):
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()
