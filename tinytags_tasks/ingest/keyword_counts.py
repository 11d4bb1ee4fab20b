"""How often a corpus has each keyword."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_shard_keywords
from tinytags_tasks.store.corpus_records import ShardManifest, load_corpus
from tinytags_tasks.store.protocol import Storage


def count_keywords(name: str, *, storage: Storage) -> list[tuple[str, int]]:
    """Return the keywords of an ingested corpus and how many images have each, the most frequent first.

    Raises
    ------
    MissingError
        If the store has no such corpus.
    BadInputError
        If it has no keywords.
    CorruptError
        If a shard's keywords are damaged.
    """
    corpus = load_corpus(name, storage)
    counts: Counter[str] = Counter()
    has_keywords = False
    for shard in range(corpus.partition.shards):
        manifest = ShardManifest.load(storage, layout.shard_manifest_file(name, shard))
        if manifest.keywords_sha256 is None:
            continue
        has_keywords = True
        column = read_shard_keywords(storage, layout.keywords_file(name, shard), manifest.keywords_sha256)
        found = pc.value_counts(column.cast(pa.string()))
        for keyword, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            if keyword is not None:
                counts[keyword] += count
    if not has_keywords:
        raise BadInputError(
            f"corpus {name} has no keywords: its definition does not say where they come from (`--keywords`)"
        )
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
