"""The demo's corpus and labelled set: photographs if available, else CIFAR-10 from its authors, or drawn shapes.

Every file is written under a temporary name and renamed when it is complete; ``demo.json`` comes last, so that the
files that it names exist.
"""

import fcntl
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS, TAGS_KEY
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, SIDE, to_column_major
from tinytags_tasks.corpus.labelled import decode_image, iterate_pictures
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
"""The binary version; its authors' page, https://www.cs.toronto.edu/~kriz/cifar.html, states the checksum."""

CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
DOWNLOAD_TIMEOUT = httpx.Timeout(20, connect=5)

TRAIN_FILE = "cifar10-train.parquet"
TEST_FILE = "cifar10-test.parquet"
OTHER_FILE = "other-sample.parquet"

DRAWN_IMAGES = 20_000
DRAWN_LABELLED = 10_000
DRAWN_TEST = 2_000

_SEED = 20_080_131
_BATCH = 1_000
_CIFAR10_FOLDER = "cifar-10-batches-bin"

Report = Callable[[str], None]
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Demo:
    """What the demo runs on.

    Attributes
    ----------
    corpus_name
        The name of the corpus.
    corpus_path
        A Tiny Images ``.bin`` file; ``positions.parquet`` in the same folder says which image is at which position.
    labelled_path, test_path
        Labelled Parquet files to train and to test with.
    tags
        The tags' names, in the order of their labels.
    origin
        Where the images come from.
    description
        The same for people, and how the images were prepared.
    """

    corpus_name: str
    corpus_path: Path
    labelled_path: Path
    test_path: Path | None
    tags: tuple[str, ...]
    origin: Literal["photographs", "cifar10", "drawn"]
    description: str


def make_demo(folder: Path, source: Path, *, report: Report = print, download: bool = True) -> Demo:
    """Return the demo, after making those of its files that do not exist in ``folder`` yet.

    Parameters
    ----------
    folder
        The folder of the files.
    source
        A folder with ``cifar10-train.parquet``, ``cifar10-test.parquet`` and ``other-sample.parquet``; may be missing.
    report
        Called with a line of progress now and then.
    download
        Whether CIFAR-10 may be downloaded if there is no source.

    Raises
    ------
    BadInputError
        If the source's files are not valid, or the folder cannot be written.
    """
    folder, source = folder.absolute(), source.absolute()
    lacking = [name for name in (TRAIN_FILE, TEST_FILE, OTHER_FILE) if not (source / name).is_file()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "demo.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second caller waits, then finds the files
            existing = _find_existing(folder, None if lacking else source)
            if existing:
                return existing
            if not lacking:
                return _make_photographs(folder, source, report)
            if source.is_dir():
                report(f"demo: {source} lacks {', '.join(lacking)}; trying another source")
            if download:
                try:
                    return _make_cifar10(folder, report)
                except (EngineDownError, CorruptError) as error:
                    report(f"demo: {error}")
            return _make_drawn(folder, report)
    except OSError as error:
        raise BadInputError(
            f"{folder}: the demo's files cannot be written ({error}); check the folder and free disk space"
        ) from error


def demo_definition(demo: Demo) -> CorpusDefinition:
    """Return the definition of the demo's corpus: about four shards and twenty blocks."""
    return CorpusDefinition(
        name=demo.corpus_name,
        source=str(demo.corpus_path),
        format="tiny-images",
        shard_images=5_000,
        blocks_per_shard=5,
        description=demo.description,
    )


def write_labelled_parquet(path: Path, images: Images, labels: Labels, tags: tuple[str, ...]) -> None:
    """Write a labelled set as :func:`tinytags_tasks.corpus.labelled.read_labelled_set` reads it, pixels unchanged.

    Parameters
    ----------
    path
        The file; it appears when it is complete.
    images
        uint8, shape (images, row, column, 3).
    labels
        int64, shape (images,): indexes into ``tags``.
    tags
        The names of the tags; stored in the file.
    """
    starts = range(0, len(images), _BATCH)
    _write_labelled(path, ((images[at : at + _BATCH], labels[at : at + _BATCH]) for at in starts), tags)


def _write_labelled(path: Path, batches: Iterable[tuple[Images, Labels]], tags: tuple[str, ...]) -> None:
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("img", image_type), ("label", pa.int64())], metadata={TAGS_KEY: json.dumps(tags)})
    with _whole_file(path) as part, pq.ParquetWriter(part, schema, compression="none") as writer:
        for images, labels in batches:
            pictures = [{"bytes": _encode_png(image), "path": None} for image in images]
            writer.write_table(pa.table([pa.array(pictures, image_type), pa.array(labels, pa.int64())], schema=schema))


def _encode_png(image: Images) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return png.getvalue()


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; the file is renamed on success, and deleted on failure."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _find_existing(folder: Path, source: Path | None) -> Demo | None:
    """Return the demo of ``demo.json`` if its files exist and it is what would be made now."""
    try:
        recorded = json.loads((folder / "demo.json").read_text())
        fields = recorded["demo"]
        paths = {name: Path(fields[name]) for name in ("corpus_path", "labelled_path")}
        test_path = None if fields["test_path"] is None else Path(fields["test_path"])
        demo = Demo(**{**fields, **paths, "test_path": test_path, "tags": tuple(fields["tags"])})
        is_whole = all(Path(path).stat().st_size == size for path, size in recorded["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no demo yet, or an incomplete one: it is made again
    if not is_whole or demo.corpus_path.parent != folder:
        return None
    from_source = demo.origin == "photographs"
    if source is None:
        return None if from_source else demo
    return demo if from_source and demo.labelled_path.parent == source else None


def _finish(demo: Demo, others: tuple[Path, ...], report: Report) -> Demo:
    files = [path for path in (demo.corpus_path, demo.labelled_path, demo.test_path, *others) if path]
    sizes = {str(path): path.stat().st_size for path in files}
    with _whole_file(demo.corpus_path.parent / "demo.json") as part:
        part.write_text(json.dumps({"demo": asdict(demo), "sizes": sizes}, default=str, indent=1))
    report(f"demo: {demo.description}")
    return demo


def _write_positions(folder: Path, sources: list[str], rows: Labels, labels: Labels) -> Path:
    """Write which image is at each position: its source, its row there, its label (negative: none, or unclear)."""
    path = folder / "positions.parquet"
    columns = {"position": np.arange(len(rows)), "source": sources, "row": rows, "label": labels}
    with _whole_file(path) as part:
        pq.write_table(pa.table(columns), part)
    return path


def _make_photographs(folder: Path, source: Path, report: Report) -> Demo:
    paths = [source / TEST_FILE, source / OTHER_FILE]
    try:
        counts = [pq.read_metadata(path).num_rows for path in paths]
    except pa.ArrowException as error:
        raise BadInputError(f"{source}: not a readable Parquet file ({error})") from error
    total = sum(counts)
    # Shuffled, so that every block has images from both files; each image's position is known before any is read.
    positions = np.random.default_rng(_SEED).permutation(total)
    labels = np.empty(total, dtype=np.int64)
    corpus_path = folder / "demo.bin"
    with _whole_file(corpus_path) as part, ThreadPoolExecutor() as pool:
        stored = np.memmap(part, dtype=np.uint8, mode="w+", shape=(total, IMAGE_BYTES))
        done = 0
        for path in paths:
            for encoded, batch_labels in iterate_pictures(path):
                try:
                    images = np.stack(list(pool.map(decode_image, encoded, [SIDE] * len(encoded))))
                except BadInputError as error:
                    raise BadInputError(f"{path}: one of {len(encoded)} rows up to {done}: {error}") from error
                places = positions[done : done + len(images)]
                stored[places] = np.frombuffer(to_column_major(images), dtype=np.uint8).reshape(-1, IMAGE_BYTES)
                labels[places] = batch_labels
                done += len(images)
                if done % 5_000 < _BATCH:
                    report(f"demo: {done:,} of {total:,} images")
        stored.flush()
    order = np.argsort(positions)
    sources = [TEST_FILE if index < counts[0] else OTHER_FILE for index in order]
    listing = _write_positions(folder, sources, np.where(order < counts[0], order, order - counts[0]), labels)
    description = (
        f"{total:,} photographs: the {counts[0]:,} test images of CIFAR-10 and {counts[1]:,} others made 32x32 with a "
        "BOX filter, shuffled; JPEG-encoded at their source"
    )
    demo = Demo("demo", corpus_path, source / TRAIN_FILE, source / TEST_FILE, CIFAR10_TAGS, "photographs", description)
    return _finish(demo, (listing, source / OTHER_FILE), report)


def _make_cifar10(folder: Path, report: Report) -> Demo:
    train, test, corpus = (folder / f"demo-cifar10{end}" for end in ("-train.parquet", "-test.parquet", ".bin"))
    test_batch = f"{_CIFAR10_FOLDER}/test_batch.bin"
    archive = folder / "cifar-10-binary.tar.gz.part"
    try:
        _download(archive, report)
        report("demo: converting CIFAR-10")
        with tarfile.open(archive, "r:gz") as tar:
            names = [f"{_CIFAR10_FOLDER}/data_batch_{number}.bin" for number in range(1, 6)]
            images, labels = _read_member(tar, test_batch)
            _write_labelled(train, (_read_member(tar, name) for name in names), CIFAR10_TAGS)
    except (tarfile.TarError, zlib.error, EOFError, KeyError, ValueError) as error:
        raise CorruptError(f"{CIFAR10_URL} is not CIFAR-10's binary version ({error})") from error
    finally:
        archive.unlink(missing_ok=True)
    write_labelled_parquet(test, images, labels, CIFAR10_TAGS)
    with _whole_file(corpus) as part:
        part.write_bytes(to_column_major(images))
    listing = _write_positions(folder, [test_batch] * len(images), np.arange(len(images)), labels)
    description = f"the {len(images):,} test images of CIFAR-10, as its authors publish them"
    demo = Demo("demo-cifar10", corpus, train, test, CIFAR10_TAGS, "cifar10", description)
    return _finish(demo, (listing,), report)


def _download(path: Path, report: Report) -> None:
    md5 = hashlib.md5(usedforsecurity=False)  # the only checksum that the authors publish
    report(f"demo: downloading {CIFAR10_URL}")
    try:
        with (
            path.open("wb") as file,
            httpx.stream("GET", CIFAR10_URL, timeout=DOWNLOAD_TIMEOUT, follow_redirects=True) as response,
        ):
            response.raise_for_status()
            size, done, reported = int(response.headers.get("Content-Length", 0)), 0, 0
            for chunk in response.iter_raw(1 << 20):
                file.write(chunk)
                md5.update(chunk)
                done += len(chunk)
                if done - reported >= 20_000_000:
                    reported = done
                    report(
                        f"demo: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB" if size else f"demo: {done / 1e6:,.0f} MB"
                    )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise EngineDownError(f"{CIFAR10_URL} cannot be downloaded ({type(error).__name__}: {error})") from error
    if md5.hexdigest() != CIFAR10_MD5:
        raise CorruptError(f"{CIFAR10_URL} has the MD5 {md5.hexdigest()}, not {CIFAR10_MD5}: it is not used")


def _read_member(tar: tarfile.TarFile, name: str) -> tuple[Images, Labels]:
    """Read one batch: records of a label's byte and three row-major planes R, G, B."""
    member = tar.extractfile(name)
    if member is None:
        raise KeyError(f"{name} is not a file")
    records = np.frombuffer(member.read(), dtype=np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    labels = records[:, 0].astype(np.int64)
    if not len(labels) or labels.max() >= len(CIFAR10_TAGS):
        raise ValueError(f"{name} has no images, or an unknown label")
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels


def _make_drawn(folder: Path, report: Report) -> Demo:
    report(f"demo: drawing {DRAWN_IMAGES:,} pictures and {DRAWN_LABELLED + DRAWN_TEST:,} labelled ones")
    train, test, corpus = (folder / f"drawn{end}" for end in ("-train.parquet", "-test.parquet", ".bin"))
    _write_labelled(train, draw_pictures(DRAWN_LABELLED, seed=_SEED, batch=_BATCH), SHAPES)
    _write_labelled(test, draw_pictures(DRAWN_TEST, seed=_SEED + 1, batch=_BATCH), SHAPES)
    labels = []
    with _whole_file(corpus) as part, part.open("wb") as file:
        for images, batch_labels in draw_pictures(DRAWN_IMAGES, seed=_SEED + 2, batch=_BATCH, scribbles=0.25):
            file.write(to_column_major(images))
            labels.append(batch_labels)
    rows = np.arange(DRAWN_IMAGES)
    listing = _write_positions(folder, ["drawn"] * DRAWN_IMAGES, rows, np.concatenate(labels))
    description = (
        f"{DRAWN_IMAGES:,} generated pictures of drawn shapes, not photographs; about a quarter are scribbles, no shape"
    )
    demo = Demo("drawn", corpus, train, test, SHAPES, "drawn", description)
    report(f"demo: for photographs set TINYTAGS_DEMO_SOURCE, or remove {folder / 'demo.json'} and start again online")
    return _finish(demo, (listing,), report)
