"""The ingestion step: a source file in, verified shards out."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinytags_tasks import layout
from tinytags_tasks.blocks import Block, Partition
from tinytags_tasks.corpus.tiny_images import IMAGE_BYTES, SIDE, TinyImagesReader
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.records import BlockManifest, Corpus, ShardManifest, Source, now
from tinytags_tasks.storage import Storage

_IMAGES_PER_READ = 5_000


@dataclass(frozen=True)
class IngestRequest:
    """Which file becomes which corpus, and how it is cut.

    Attributes
    ----------
    corpus
        The corpus' name.
    source
        A Tiny Images ``.bin`` file.
    shard_images, blocks_per_shard
        Images a shard, blocks a shard.
    description
        What the pictures are, for people.
    """

    corpus: str
    source: str
    shard_images: int = 1_000_000
    blocks_per_shard: int = 50
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse a name or numbers that cannot be used.

        Raises
        ------
        BadInputError
            When one is out of range.
        """
        layout.checked_name(self.corpus, "corpus")
        Partition(0, self.shard_images, self.blocks_per_shard)


@dataclass(frozen=True)
class IngestResult:
    """What the corpus holds now; ``written`` counts the shards that were not there before."""

    corpus: str
    images: int
    shards: int
    blocks: int
    unreadable: int
    written: int


def run(request: IngestRequest, *, storage: Storage, report: Callable[[str], None] = print) -> IngestResult:
    """Put every image of the source into the store's shards, doing only the shards that are not committed.

    Raises
    ------
    BadInputError
        When the source cannot be used, or is another one than the corpus was made from.
    """
    reader = TinyImagesReader(Path(request.source))
    try:
        source = _describe(reader)
        partition = Partition(reader.images, request.shard_images, request.blocks_per_shard)
        if storage.exists(layout.corpus_file(request.corpus)):
            corpus = Corpus.load(storage, layout.corpus_file(request.corpus))
            _refuse_another_source(request, corpus.source, source)
            if corpus.partition != partition:
                raise BadInputError(
                    f"corpus {request.corpus} is cut into shards of {corpus.shard_images:,} images with "
                    f"{corpus.blocks_per_shard} blocks; use these numbers, or another name for the corpus"
                )
            report(f"corpus {corpus.name} stands: {corpus.images:,} images in {partition.shards} shards")
            return _result(corpus, written=0)
        manifests = []
        written = 0
        started = time.monotonic()
        for shard in range(partition.shards):
            manifest = _committed(request, partition, shard, source, storage)
            if manifest is None:
                manifest = _write_shard(request, partition, shard, source, reader, storage)
                written += 1
            manifests.append(manifest)
            done = sum(manifest.images for manifest in manifests)
            seconds = time.monotonic() - started
            report(
                f"shard {shard + 1} of {partition.shards}: {done:,} of {partition.images:,} images, "
                f"{done * IMAGE_BYTES / 1e6 / max(seconds, 1e-9):,.0f} MB/s, "
                f"{seconds / done * (partition.images - done):,.0f} s left"
            )
    finally:
        reader.close()
    corpus = _summarise(request, partition, source, manifests)
    storage.delete_leftovers(layout.corpus_file(request.corpus))
    corpus.save(storage, layout.corpus_file(request.corpus))
    return _result(corpus, written)


def _describe(reader: TinyImagesReader) -> Source:
    try:
        modified = reader.path.stat().st_mtime
    except OSError as error:
        raise BadInputError(f"{reader.path}: went away while it was read ({error.strerror}); put it back") from error
    return Source(
        path=str(reader.path.absolute()),
        format="tiny-images",
        size_bytes=reader.size_bytes,
        modified=modified,
    )


def _refuse_another_source(request: IngestRequest, stored: Source, source: Source) -> None:
    if (stored.size_bytes, stored.modified, stored.format) != (source.size_bytes, source.modified, source.format):
        raise BadInputError(
            f"corpus {request.corpus} was made from {stored.path} ({stored.size_bytes:,} bytes), and {source.path} "
            f"({source.size_bytes:,} bytes) is not that file or has changed since; give it another name"
        )


def _committed(
    request: IngestRequest, partition: Partition, shard: int, source: Source, storage: Storage
) -> ShardManifest | None:
    """Return the manifest of a shard that is whole and of this source; None when it must be written."""
    path = layout.shard_manifest_file(request.corpus, shard)
    if not storage.exists(path):
        return None
    manifest = ShardManifest.load(storage, path)
    _refuse_another_source(request, manifest.source, source)
    expected = [(block.number, block.first, block.images) for block in partition.blocks_of_shard(shard)]
    if [(block.number, block.first, block.images) for block in manifest.blocks] != expected:
        return None
    shard_path = layout.shard_file(request.corpus, shard)
    if not storage.exists(shard_path) or storage.size_bytes(shard_path) != manifest.images * IMAGE_BYTES:
        return None
    return manifest


def _write_shard(
    request: IngestRequest,
    partition: Partition,
    shard: int,
    source: Source,
    reader: TinyImagesReader,
    storage: Storage,
) -> ShardManifest:
    """Write one shard and then its manifest, each committed by a rename."""
    path = layout.shard_file(request.corpus, shard)
    manifest_path = layout.shard_manifest_file(request.corpus, shard)
    storage.delete_leftovers(path, manifest_path)
    hashes: list[str] = []
    blocks = partition.blocks_of_shard(shard)
    storage.write(path, _stream(reader, blocks, hashes))
    _refuse_another_source(request, source, _describe(reader))  # it may have changed while it was read
    manifest = ShardManifest(
        corpus=request.corpus,
        shard=shard,
        first=blocks[0].first,
        images=partition.images_in_shard(shard),
        image_bytes=IMAGE_BYTES,
        source=source,
        blocks=tuple(
            BlockManifest(number=block.number, first=block.first, images=block.images, sha256=digest)
            for block, digest in zip(blocks, hashes, strict=True)
        ),
    )
    manifest.save(storage, manifest_path)
    return manifest


def _stream(reader: TinyImagesReader, blocks: list[Block], hashes: list[str]) -> Iterator[bytes]:
    """Yield a shard's bytes and append each block's sha256 to ``hashes`` as it ends."""
    for block in blocks:
        digest = hashlib.sha256()
        for start in range(block.first, block.first + block.images, _IMAGES_PER_READ):
            images = reader.read(start, min(_IMAGES_PER_READ, block.first + block.images - start)).tobytes()
            digest.update(images)
            yield images
        hashes.append(digest.hexdigest())


def _summarise(request: IngestRequest, partition: Partition, source: Source, manifests: list[ShardManifest]) -> Corpus:
    digest = hashlib.sha256(repr(partition).encode())
    for manifest in manifests:
        for block in manifest.blocks:
            digest.update(f"{block.number} {block.sha256}\n".encode())
        digest.update(repr(manifest.unreadable).encode())
    return Corpus(
        name=request.corpus,
        description=request.description,
        images=partition.images,
        shard_images=partition.shard_images,
        blocks_per_shard=partition.blocks_per_shard,
        height=SIDE,
        width=SIDE,
        preparation=f"as the source holds them ({TinyImagesReader.pixel_order}, turned to row-major)",
        source=source,
        unreadable=sum(len(manifest.unreadable) for manifest in manifests),
        digest=digest.hexdigest(),
        created=now(),
    )


def _result(corpus: Corpus, written: int) -> IngestResult:
    partition = corpus.partition
    return IngestResult(corpus.name, corpus.images, partition.shards, partition.blocks, corpus.unreadable, written)
