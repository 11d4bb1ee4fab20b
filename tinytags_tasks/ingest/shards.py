"""The middle step of an ingestion: shards, each committed by itself."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.blocks import Block
from tinytags_tasks.corpus.formats.registry import find_format, open_reader
from tinytags_tasks.corpus.keywords import StopList, read_stop_list
from tinytags_tasks.corpus.listing import open_listing
from tinytags_tasks.corpus.reader import Batch, Reader
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.ingest.plan import IngestPlan, load_plan, same_source
from tinytags_tasks.ingest.shard_hash import ShardHash
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import BlockManifest, ShardManifest, Unreadable
from tinytags_tasks.store.lease import LEASE_SECONDS, Leases
from tinytags_tasks.store.protocol import Storage

_CHUNK_BYTES = 262_144
"""Bytes of one HTTP chunk: 64 KiB to 1 MiB were equally fast, 16 MiB slower."""

_BATCHES_AHEAD = 2
_REPORT_SECONDS = 5.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class ShardsRequest:
    """Which shards of which corpus.

    Attributes
    ----------
    corpus, shards
        The corpus' name, the shards' numbers.
    redo
        Whether shards that stand are written again.
    """

    corpus: str
    shards: tuple[int, ...]
    redo: bool = False


@dataclass(frozen=True)
class ShardsResult:
    """What stands now; ``written`` counts the shards that were not there before."""

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
    """Let these shards stand whole in the store, with their manifests; what stands already is not written again.

    A shard that another writer holds is left to it, and looked at again when the others are done.

    Raises
    ------
    BadInputError
        When the source is not as it was listed, or has too many unreadable images.
    TransientError
        When the store or a remote source cannot do its part now.
    """
    plan = load_plan(storage, request.corpus)
    for shard in request.shards:
        if not 0 <= shard < plan.partition.shards:
            raise BadInputError(f"shard {shard} is out of range: the last one is {plan.partition.shards - 1}")
    listing = open_listing(storage, layout.source_file(request.corpus, plan.source.listing_sha256))
    reader = open_reader(plan.definition, files, listing)
    try:
        return _Writer(request, plan, reader, storage, report, Leases(storage, lease_seconds)).write_all()
    finally:
        reader.close()


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
        """Return the manifest of a shard that is whole and of this source; None when it must be written.

        Raises
        ------
        BadInputError
            When the source's own range is not what the shard was made from.
        """
        manifest = standing_manifest(self._plan, shard, self._storage)
        if manifest is None:
            return None
        passing = self._open(shard)
        for _ in self._pass(passing, decode=self._holds_pixels):
            pass
        check_source_range(manifest, passing.hash, self._plan, holds_pixels=self._holds_pixels)
        if self._plan.has_keywords:
            self._check_keywords(shard, passing)
        return manifest

    def _check_keywords(self, shard: int, passing: "_Passing") -> None:
        """Refuse keywords that are not those that a shard was made with."""
        path = layout.keywords_file(self._request.corpus, shard)
        stored = pq.read_table(io.BytesIO(self._storage.read(path))).column("keyword").to_pylist()
        if stored != [keyword for part in passing.keywords for keyword in part.to_pylist()]:
            raise BadInputError(
                f"{self._plan.definition.keywords or self._plan.source.path}: the keywords of shard {shard} have "
                "changed since it was made; restore them, or remove the corpus with `tinytags corpus remove "
                f"{self._request.corpus} --data`"
            )

    def _write(self, shard: int) -> ShardManifest:
        """Write one shard, then its keywords, then its manifest, each committed by a rename."""
        name = self._request.corpus
        path, manifest_path = layout.shard_file(name, shard), layout.shard_manifest_file(name, shard)
        keywords_path = layout.keywords_file(name, shard)
        self._storage.delete_leftovers(path, keywords_path, manifest_path)
        passing = self._open(shard)
        self._storage.write(path, self._pass_as_before(passing, self._made_before(shard)))
        keywords_sha256 = None
        if self._plan.has_keywords:
            content = _keywords_parquet(passing.keywords)
            keywords_sha256 = hashlib.sha256(content).hexdigest()
            self._storage.write(keywords_path, content)
        manifest = ShardManifest(
            corpus=name,
            shard=shard,
            first=passing.blocks[0].first,
            images=self._plan.partition.images_in_shard(shard),
            image_bytes=self._plan.definition.image_bytes,
            source=self._plan.source,
            source_sha256=passing.hash.encoded,
            blocks=tuple(
                BlockManifest(number=block.number, first=block.first, images=block.images, sha256=digest)
                for block, digest in zip(passing.blocks, passing.hash.blocks, strict=True)
            ),
            checksum=self._storage.checksum(path),
            keywords_sha256=keywords_sha256,
            unreadable=tuple(
                Unreadable(position=position, reason=reason) for position, reason in sorted(passing.unreadable.items())
            ),
        )
        manifest.save(self._storage, manifest_path)
        return manifest

    def _made_before(self, shard: int) -> ShardManifest | None:
        """Return the manifest of a shard that is written again; None when it has none that can be used."""
        try:
            manifest = ShardManifest.load(self._storage, layout.shard_manifest_file(self._request.corpus, shard))
        except (MissingError, CorruptError):
            return None
        is_comparable = same_source(manifest.source, self._plan.source) and _is_cut_alike(manifest, self._plan, shard)
        return manifest if is_comparable else None

    def _pass_as_before(self, passing: "_Passing", made_before: ShardManifest | None) -> Iterator[memoryview]:
        """Yield a shard's bytes; when they are not what it was once made of, fail before they get its name."""
        yield from self._pass(passing, decode=True)
        if made_before is not None:
            check_source_range(made_before, passing.hash, self._plan, holds_pixels=self._holds_pixels)

    def _open(self, shard: int) -> "_Passing":
        blocks = self._plan.partition.blocks_of_shard(shard)
        return _Passing(blocks, ShardHash(blocks, self._plan.definition.image_bytes))

    def _pass(self, passing: "_Passing", *, decode: bool) -> Iterator[memoryview]:
        """Yield a shard's bytes; reading, hashing and the consumer's sending run side by side."""
        first, images = passing.blocks[0].first, sum(block.images for block in passing.blocks)
        batches = prefetch(self._reader.batches(first, images, decode=decode), _BATCHES_AHEAD)
        for pixels in prefetch(self._learn(batches, passing), _BATCHES_AHEAD):
            yield from (pixels[start : start + _CHUNK_BYTES] for start in range(0, len(pixels), _CHUNK_BYTES))

    def _learn(self, batches: Iterator[Batch], passing: "_Passing") -> Iterator[memoryview]:
        """Hash images, note what is known of them, and pass their bytes on."""
        for batch in batches:
            pixels = passing.hash.add(batch)
            passing.unreadable.update(batch.unreadable)
            if len(passing.unreadable) > most_unreadable(self._plan):  # of this shard alone
                raise too_many_unreadable(self._plan, len(passing.unreadable), passing.unreadable)
            if self._plan.has_keywords:
                passing.keywords.append(_encode_keywords(batch, self._stop_list))
            self._progress.add(batch.images)
            if len(pixels):
                yield pixels


@dataclass
class _Passing:
    """What is learned of a shard while its images pass by."""

    blocks: list[Block]
    hash: ShardHash
    unreadable: dict[int, str] = field(default_factory=dict)
    keywords: list[pa.Array] = field(default_factory=list)


def most_unreadable(plan: IngestPlan) -> int:
    """Return how many images of a corpus may be unreadable."""
    return int(plan.definition.most_unreadable_percent * plan.source.images / 100)


def too_many_unreadable(plan: IngestPlan, count: int, examples: dict[int, str]) -> BadInputError:
    """Return the error of a corpus with too many unreadable images."""
    listed = "; ".join(f"{position:,}: {reason}" for position, reason in sorted(examples.items())[:3])
    return BadInputError(
        f"corpus {plan.definition.name}: at least {count:,} of {plan.source.images:,} images are unreadable, more than "
        f"most_unreadable_percent = {plan.definition.most_unreadable_percent:g} allows ({listed}); mend the source, or "
        "raise the limit in the corpus' definition"
    )


def standing_manifest(plan: IngestPlan, shard: int, storage: Storage) -> ShardManifest | None:
    """Return the manifest of a shard whose files are there as it says; None when they are not.

    Bytes are not read: the shard's size and the store's own checksum are compared, and the store is asked for damage
    that it knows of.

    Raises
    ------
    BadInputError
        When the shard is of another source than the plan.
    CorruptError
        When the manifest is damaged.
    """
    name = plan.definition.name
    path = layout.shard_manifest_file(name, shard)
    if not storage.exists(path):
        return None
    manifest = ShardManifest.load(storage, path)
    if not same_source(manifest.source, plan.source):
        raise BadInputError(
            f"{path}: was made from another source ({manifest.source.path}) than the corpus' plan says; remove the "
            f"corpus with `tinytags corpus remove {name} --data`, then define and ingest it again"
        )
    if not _is_cut_alike(manifest, plan, shard):
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


def _is_cut_alike(manifest: ShardManifest, plan: IngestPlan, shard: int) -> bool:
    expected = plan.partition.blocks_of_shard(shard)
    return [(block.number, block.first, block.images) for block in manifest.blocks] == [
        (block.number, block.first, block.images) for block in expected
    ]


def check_source_range(manifest: ShardManifest, found: ShardHash, plan: IngestPlan, *, holds_pixels: bool) -> None:
    """Refuse a source whose range is not what a shard was made from.

    Raises
    ------
    BadInputError
        Naming the first block, or the range, that differs.
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
    """Tells how far a task is, how fast it goes and how long it will take."""

    def __init__(self, corpus: str, total: int, image_bytes: int, report: Callable[[str], None]) -> None:
        self._corpus = corpus
        self._total = total
        self._image_bytes = image_bytes
        self.say = report
        self._done = 0
        self._started = self._told = time.monotonic()

    def add(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now - self._told < _REPORT_SECONDS and self._done < self._total:
            return
        self._told = now
        seconds = max(now - self._started, 1e-9)
        left = seconds / self._done * max(0, self._total - self._done)
        self.say(
            f"corpus {self._corpus}: {self._done:,} of {self._total:,} images, "
            f"{self._done * self._image_bytes / 1e6 / seconds:,.0f} MB/s, {left:,.0f} s left"
        )
