"""The middle step of an ingestion: write shards, and commit each one separately."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.blocks import Block
from tinytags_tasks.corpus.formats.registry import find_format, open_reader
from tinytags_tasks.corpus.keywords import StopList, normal_keyword, read_stop_list
from tinytags_tasks.corpus.places import ListedPlaces
from tinytags_tasks.corpus.reader import Batch, Reader
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, ReconcileError
from tinytags_tasks.ingest.plan_records import IngestPlan, committed_parts, load_plan, open_plan_listing, same_source
from tinytags_tasks.ingest.refused import refusal_noted
from tinytags_tasks.ingest.shard_hash import ShardHash
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import BlockManifest, ShardManifest, Source, Unreadable
from tinytags_tasks.store.lease import LEASE_SECONDS, Leases
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import Storage

_CHUNK_BYTES = 262_144
"""Size of an HTTP chunk: 64 KiB to 1 MiB were equally fast, 16 MiB was slower."""

_BATCHES_AHEAD = 2
_REPORT_SECONDS = 5.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class ShardsRequest:
    """Which shards of which corpus to write.

    Attributes
    ----------
    corpus, shards
        The corpus' name and the shards' numbers.
    redo
        Whether shards that are complete are written again.
    """

    corpus: str
    shards: tuple[int, ...]
    redo: bool = False


@dataclass(frozen=True)
class ShardsResult:
    """What is committed now; ``written`` counts the shards that this call wrote."""

    corpus: str
    shards: tuple[int, ...]
    images: int
    unreadable: int
    written: int


def ingest_shards(
    request: ShardsRequest,
    *,
    storage: Storage,
    files: SourceFiles,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> ShardsResult:
    """Write these shards and their manifests to the store, except for those that are complete already.

    A shard that another writer holds is left to that writer, and checked again once the other shards are done.

    Raises
    ------
    BadInputError
        If the source has changed since it was listed, or has too many unreadable images.
    TransientError
        If the store or a remote source is unavailable.
    """
    plan = load_plan(storage, request.corpus)
    for shard in request.shards:
        if not 0 <= shard < plan.partition.shards:
            raise BadInputError(f"shard {shard} is out of range: the last shard is {plan.partition.shards - 1}")
    listing = open_plan_listing(plan, storage)
    with refusal_noted(plan, storage), closing(open_reader(plan.definition, files, listing)) as reader:
        return _Writer(request, plan, reader, storage, report, Leases(storage, lease_seconds)).write_all()


class _Writer:
    """Writes the shards of one request."""

    def __init__(
        self,
        request: ShardsRequest,
        plan: IngestPlan,
        reader: Reader,
        storage: Storage,
        report: Callable[[str], None],
        leases: Leases,
    ) -> None:
        self._request = request
        self._plan = plan
        self._reader = reader
        self._holds_pixels = find_format(plan.definition.format).holds_pixels
        self._storage = storage
        self._leases = leases
        self._stop_list = read_stop_list(plan.definition.keyword_stop_list)
        total = sum(plan.partition.images_in_shard(shard) for shard in request.shards)
        self._progress = _Progress(request.corpus, total, plan.definition.image_bytes, report)

    def write_all(self) -> ShardsResult:
        manifests: dict[int, ShardManifest] = {}
        written = 0
        waiting = list(self._request.shards)
        while waiting:
            held = []
            for shard in waiting:
                lease = layout.lease_file(self._request.corpus, shard)
                with self._leases.hold(lease) as is_ours:
                    if not is_ours:
                        held.append(shard)
                        continue
                    manifest = None if self._request.redo else self._committed(shard)
                    if manifest is None:
                        manifest = self._write(shard)
                        written += 1
                    manifests[shard] = manifest
            if len(held) == len(waiting):
                self._progress.say(
                    f"shard {held[0]} is being written by "
                    f"{self._leases.describe(layout.lease_file(self._request.corpus, held[0]))}: waiting for it"
                )
                time.sleep(_POLL_SECONDS)
            waiting = held
        return ShardsResult(
            corpus=self._request.corpus,
            shards=self._request.shards,
            images=sum(manifest.images for manifest in manifests.values()),
            unreadable=sum(len(manifest.unreadable) for manifest in manifests.values()),
            written=written,
        )

    def _committed(self, shard: int) -> ShardManifest | None:
        """Return the manifest of a shard that is complete and matches the source; None if it must be written.

        Raises
        ------
        BadInputError
            If the shard's range of the source has changed since the shard was made.
        """
        manifest = complete_manifest(self._plan, shard, self._storage)
        if manifest is None:
            return None
        stream = self._open(shard)
        for _ in self._stream(stream, decode=self._holds_pixels):
            pass
        check_source_range(manifest, stream.hash, self._plan, holds_pixels=self._holds_pixels)
        if self._plan.has_keywords:
            self._check_keywords(shard, stream)
        return manifest

    def _check_keywords(self, shard: int, stream: "_ShardStream") -> None:
        """Refuse keywords that are not those that a shard was made with."""
        path = layout.keywords_file(self._request.corpus, shard)
        stored = read_parquet(self._storage.read(path)).column("keyword").to_pylist()
        now = [keyword for part in stream.keywords for keyword in part.to_pylist()]
        # An earlier TinyTags stored other forms of the same keywords.
        if [keyword and normal_keyword(keyword) for keyword in stored] != now:
            raise BadInputError(
                f"{self._plan.definition.keywords or self._plan.source.path}: the keywords of shard {shard} have "
                "changed since it was made; restore them, or remove the corpus with `tinytags corpus remove "
                f"{self._request.corpus} --data`"
            )

    def _write(self, shard: int) -> ShardManifest:
        """Write one shard, then its keywords, then its manifest; each is committed by a rename."""
        name = self._request.corpus
        path, manifest_path = layout.shard_file(name, shard), layout.shard_manifest_file(name, shard)
        keywords_path = layout.keywords_file(name, shard)
        self._storage.delete_leftovers(path, keywords_path, manifest_path)
        stream = self._open(shard)
        self._storage.write(path, self._stream_unchanged(stream, self._earlier_manifest(shard)))
        keywords_sha256 = None
        if self._plan.has_keywords:
            content = _keywords_parquet(stream.keywords)
            keywords_sha256 = hashlib.sha256(content).hexdigest()
            self._storage.write(keywords_path, content)
        manifest = ShardManifest(
            corpus=name,
            shard=shard,
            first=stream.blocks[0].first,
            images=self._plan.partition.images_in_shard(shard),
            image_bytes=self._plan.definition.image_bytes,
            source=self._plan.source_of(shard),
            source_sha256=stream.hash.encoded,
            blocks=tuple(
                BlockManifest(number=block.number, first=block.first, images=block.images, sha256=digest)
                for block, digest in zip(stream.blocks, stream.hash.blocks, strict=True)
            ),
            checksum=self._storage.checksum(path),
            keywords_sha256=keywords_sha256,
            unreadable=tuple(
                Unreadable(position=position, reason=reason) for position, reason in sorted(stream.unreadable.items())
            ),
        )
        manifest.save(self._storage, manifest_path)
        return manifest

    def _earlier_manifest(self, shard: int) -> ShardManifest | None:
        """Return the earlier manifest of a shard that is written again; None if there is none that can be used."""
        try:
            manifest = ShardManifest.load(self._storage, layout.shard_manifest_file(self._request.corpus, shard))
        except (MissingError, CorruptError):
            return None
        is_comparable = same_source(manifest.source, self._plan.source_of(shard)) and _has_same_blocks(
            manifest, self._plan, shard
        )
        return manifest if is_comparable else None

    def _stream_unchanged(self, stream: "_ShardStream", earlier: ShardManifest | None) -> Iterator[memoryview]:
        """Yield a shard's bytes; if they differ from those of its earlier manifest, fail before they are committed."""
        yield from self._stream(stream, decode=True)
        if earlier is not None:
            check_source_range(earlier, stream.hash, self._plan, holds_pixels=self._holds_pixels)
            is_same = stream.hash.blocks == [block.sha256 for block in earlier.blocks]
            if not is_same and self._storage.exists(layout.corpus_file(self._request.corpus)):
                raise decoded_differently(self._request.corpus)

    def _open(self, shard: int) -> "_ShardStream":
        blocks = self._plan.partition.blocks_of_shard(shard)
        return _ShardStream(blocks, ShardHash(blocks, self._plan.definition.image_bytes))

    def _stream(self, stream: "_ShardStream", *, decode: bool) -> Iterator[memoryview]:
        """Yield a shard's bytes; reading, hashing and the consumer's sending run in parallel."""
        first, images = stream.blocks[0].first, sum(block.images for block in stream.blocks)
        batches = prefetch(self._reader.batches(first, images, decode=decode), _BATCHES_AHEAD)
        for pixels in prefetch(self._collect(batches, stream), _BATCHES_AHEAD):
            yield from (pixels[start : start + _CHUNK_BYTES] for start in range(0, len(pixels), _CHUNK_BYTES))

    def _collect(self, batches: Iterator[Batch], stream: "_ShardStream") -> Iterator[memoryview]:
        """Hash images, collect their keywords and the unreadable ones, and yield their bytes."""
        for batch in batches:
            pixels = stream.hash.add(batch)
            stream.unreadable.update(batch.unreadable)
            source = self._plan.source_of(stream.blocks[0].shard)
            if len(stream.unreadable) > most_unreadable(self._plan, source):  # of this shard alone
                raise too_many_unreadable(self._plan, source, stream.unreadable, self._storage)
            if self._plan.has_keywords:
                stream.keywords.append(_encode_keywords(batch, self._stop_list))
            self._progress.add(batch.images)
            if len(pixels):
                yield pixels


@dataclass
class _ShardStream:
    """What is collected about a shard while its images are streamed."""

    blocks: list[Block]
    hash: ShardHash
    unreadable: dict[int, str] = field(default_factory=dict)
    keywords: list[pa.Array] = field(default_factory=list)


def most_unreadable(plan: IngestPlan, source: Source) -> int:
    """Return how many images of what a corpus began with, or of one growth, may be unreadable."""
    return int(plan.definition.most_unreadable_percent * source.images / 100)


def too_many_unreadable(
    plan: IngestPlan, source: Source, unreadable: dict[int, str], storage: Storage, count: int = 0
) -> BadInputError:
    """Return the error for too many unreadable images in what a corpus began with, or in one growth.

    Parameters
    ----------
    plan, source
        The plan, and the source of the part.
    unreadable
        Unreadable images by position, and why; the error names the files of three of them.
    storage
        The store, which has the listings.
    count
        How many there are; 0 if these are all.
    """
    first = sorted(unreadable.items())[:3]
    places = ListedPlaces(storage, plan.definition.name, plan.sources).find(position for position, _ in first)
    listed = "; ".join(f"{position:,} ({places[position]}): {reason}" for position, reason in first)
    count = count or len(unreadable)
    return BadInputError(
        f"corpus {plan.definition.name}: at least {count:,} of {source.images:,} images are unreadable, more than "
        f"most_unreadable_percent = {plan.definition.most_unreadable_percent:g} allows ({listed}); repair the source, "
        "or raise the limit in the corpus' definition"
    )


def complete_manifest(plan: IngestPlan, shard: int, storage: Storage) -> ShardManifest | None:
    """Return the manifest of a shard that is complete; None if a file is missing or does not match the manifest.

    The shard's bytes are not read: its size and the store's own checksum are compared, and the store is asked whether
    it knows of any damage.

    Raises
    ------
    BadInputError
        If the shard was made from a different source than the plan says.
    CorruptError
        If the manifest is damaged.
    """
    name = plan.definition.name
    path = layout.shard_manifest_file(name, shard)
    if not storage.exists(path):
        return None
    manifest = ShardManifest.load(storage, path)
    if not same_source(manifest.source, plan.source_of(shard)):
        if 0 < committed_parts(plan, storage) <= plan.partition.part_of_shard(shard):
            return None  # a slow process wrote it for a growth that was forgotten
        raise BadInputError(
            f"{path}: was made from a different source ({manifest.source.path}) than the corpus' plan says; remove the "
            f"corpus with `tinytags corpus remove {name} --data`, then define and ingest it again"
        )
    if not _has_same_blocks(manifest, plan, shard):
        return None
    shard_path = layout.shard_file(name, shard)
    if not storage.exists(shard_path) or storage.size_bytes(shard_path) != manifest.images * manifest.image_bytes:
        return None
    if storage.known_damage(shard_path) or (manifest.checksum and storage.checksum(shard_path) != manifest.checksum):
        return None
    if plan.has_keywords:
        keywords_path = layout.keywords_file(name, shard)
        if not storage.exists(keywords_path):
            return None
        if hashlib.sha256(storage.read(keywords_path)).hexdigest() != manifest.keywords_sha256:
            return None
    return manifest


def _has_same_blocks(manifest: ShardManifest, plan: IngestPlan, shard: int) -> bool:
    expected = plan.partition.blocks_of_shard(shard)
    return [(block.number, block.first, block.images) for block in manifest.blocks] == [
        (block.number, block.first, block.images) for block in expected
    ]


def decoded_differently(corpus: str) -> ReconcileError:
    """Return the error for a committed corpus whose source is the same, but whose pixels are not."""
    return ReconcileError(
        f"corpus {corpus}: its shards have changed since it was committed, although its source has not (perhaps "
        "another version of Pillow decodes it differently); its runs were scored on the earlier bytes: remove it "
        f"with `tinytags corpus remove {corpus} --data`, then define and ingest it again"
    )


def check_source_range(manifest: ShardManifest, found: ShardHash, plan: IngestPlan, *, holds_pixels: bool) -> None:
    """Refuse a source that has changed in the range that a shard was made from.

    Raises
    ------
    BadInputError
        If it has: the first block, or the range, that differs.
    """
    first, images = manifest.first, manifest.images
    if holds_pixels:
        pairs = zip(manifest.blocks, found.blocks, strict=True)
        wrong = next((entry for entry, digest in pairs if entry.sha256 != digest), None)
        if wrong is None:
            return
        first, images = wrong.first, wrong.images
    elif manifest.source_sha256 == found.encoded:
        return
    raise BadInputError(
        f"{plan.source.path}: images {first:,} to {first + images - 1:,} have changed since shard {manifest.shard} was "
        f"made from them; restore it, or remove the corpus with `tinytags corpus remove {plan.definition.name} --data`"
    )


def _encode_keywords(batch: Batch, stop_list: StopList) -> pa.Array:
    keywords = stop_list.filtered(batch.keywords or [None] * batch.images)
    return pa.array(keywords, pa.string()).dictionary_encode()


def _keywords_parquet(keywords: list[pa.Array]) -> bytes:
    sink = io.BytesIO()
    column = pa.chunked_array(keywords, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()
    pq.write_table(pa.table({"keyword": column}), sink, compression="zstd")
    return sink.getvalue()


class _Progress:
    """Reports a task's progress, its speed and the remaining time."""

    def __init__(self, corpus: str, total: int, image_bytes: int, report: Callable[[str], None]) -> None:
        self._corpus = corpus
        self._total = total
        self._image_bytes = image_bytes
        self.say = report
        self._done = 0
        self._started = self._reported = time.monotonic()

    def add(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS and self._done < self._total:
            return
        self._reported = now
        seconds = max(now - self._started, 1e-9)
        left = seconds / self._done * max(0, self._total - self._done)
        self.say(
            f"corpus {self._corpus}: {self._done:,} of {self._total:,} images, "
            f"{self._done * self._image_bytes / 1e6 / seconds:,.0f} MB/s, {left:,.0f} s left"
        )
