"""Give every reader damaged files: each is read, or refused in one line that names it; none crashes, hangs or swells.

``python benchmarks/fuzz_readers.py 600 [READER ...]`` reads damaged files for 600 seconds a reader, each reader in a
process of its own, and prints how many there were and the peak of memory. An example depends on its number alone. One
that fails is kept, its path is printed, and the script exits with 1.
"""

import bz2
import gzip
import io
import lzma
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine, print_table
from PIL import Image

from tinytags_tasks.corpus.class_names import given_tags
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.inspect import guess_definition
from tinytags_tasks.corpus.labelled import read_labelled_set
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.picture_kinds import FORMATS, register_heif
from tinytags_tasks.corpus.pictures.prepare import prepare_picture
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE = 32
MOST_SECONDS, MOST_MEGABYTES = 5, 500
PIXELS = np.random.default_rng(7).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)


def picture(kind: str, pixels: np.ndarray = PIXELS[0], **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind, **options)
    return sink.getvalue()


def pictures() -> dict[str, bytes]:
    """Return a picture of each kind, by a name for its file."""
    register_heif()
    kinds = {f"{kind.lower()}.bin": picture(kind) for kind in FORMATS}
    return kinds | {
        "progressive.jpg": picture("JPEG", progressive=True, xmp=b"<x tiff:Orientation='6'/>"),
        "grey.png": picture("PNG", PIXELS[0, :, :, 0] // 64 * 64, transparency=64, icc_profile=bytes(3_000)),
        "turned.webp": picture("WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
    }


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as written:
        for number in range(4):
            name = f"{'é' * 60 if number == 3 else 'x'}/{number:04d}"
            for ending, content in (("png", picture("PNG", PIXELS[number])), ("cls", b"cat" if number % 2 else b"dog")):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(content)
                written.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("y/0005.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../x/0000.png"
        written.addfile(link)
        label = tarfile.TarInfo("y/0005.cls")
        label.size = 3
        written.addfile(label, io.BytesIO(b"cat"))
    return sink.getvalue()


def tars() -> dict[str, bytes]:
    return {
        "a.tar": tar(),
        "a.tar.gz": gzip.compress(tar(), mtime=0),
        "a.tar.bz2": bz2.compress(tar()),
        "a.tar.xz": lzma.compress(tar()),
        "a.tar.zst": pa.compress(tar(), "zstd", asbytes=True),
    }


def parquets() -> dict[str, bytes]:
    encoded = [picture("PNG", pixels) for pixels in PIXELS]
    structs = pa.array([{"bytes": each, "path": "x.png"} for each in encoded])
    found = {}
    for compression in ("none", "snappy", "gzip", "zstd", "brotli", "lz4"):
        for name, images in (("plain", pa.array(encoded, pa.binary())), ("struct", structs)):
            sink = io.BytesIO()
            table = pa.table({"image": images, "label": pa.array(["cat", "dog", "cat", "dog"]).dictionary_encode()})
            pq.write_table(table, sink, compression=compression, row_group_size=2)
            found[f"{name}-{compression}.parquet"] = sink.getvalue()
    return found


def pixel_files(name: str) -> dict[str, bytes]:
    planes = [pixels.transpose(2, 0, 1).tobytes() for pixels in PIXELS]
    if name == "cifar-pickle":
        rows = np.frombuffer(b"".join(planes), dtype=np.uint8).reshape(-1, 3 * SIDE * SIDE)
        return {
            f"data_batch_{protocol}": pickle.dumps({b"data": rows, b"labels": [1] * 4}, protocol=protocol)
            for protocol in (0, 1, 2, 3, 4, 5)
        }
    before = b"\1" if name == "cifar-binary" else b""
    return {"data_batch_1.bin": b"".join(before + each for each in planes)}


def read_picture(path: Path) -> None:
    try:
        prepare_picture(path.read_bytes(), 8, 8)
    except BadInputError as error:
        raise BadInputError(f"{path}: {error}") from error  # whoever asks knows which picture it is


def read_corpus(format_name: str) -> Callable[[Path], None]:
    """Return a function that reads a corpus of this format."""
    fields: dict[str, object] = {"format": format_name}
    if format_name in ("parquet", "webdataset", "raw"):
        fields |= {"height": SIDE, "width": SIDE}

    def read(path: Path) -> None:
        definition = make_definition("any", fields | {"source": str(path)})
        listing = MemoryListing(list_items(SourceFiles(str(path)), definition))
        with closing(open_reader(definition, SourceFiles(str(path)), listing)) as reader:
            for _ in reader.batches(0, listing.images):
                pass

    return read


READERS: dict[str, tuple[Callable[[], dict[str, bytes]], Callable[[Path], object]]] = {
    "pictures": (pictures, read_picture),
    "webdataset": (tars, read_corpus("webdataset")),
    "parquet": (parquets, read_corpus("parquet")),
    **{
        name: (partial(pixel_files, name), read_corpus(name))
        for name in ("cifar-pickle", "cifar-binary", "tiny-images", "raw")
    },
    "labelled tars": (tars, read_labelled_set),
    "labelled parquet": (parquets, read_labelled_set),
    "lists of tags": (lambda: {"tags.txt": "cat\ndog\ncafé\r\nŁoś\n".encode()}, lambda path: given_tags(str(path))),
    "inspect": (
        lambda: tars() | parquets() | pixel_files("cifar-pickle"),
        lambda path: guess_definition(SourceFiles(str(path))),
    ),
}
"""What each reader is given, and how it is called."""


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Overwrite, insert, leave out and repeat some bytes, and cut."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        at = chance.choice((chance.randint(0, 600), chance.randint(0, len(found)))) % max(len(found), 1)
        length = chance.choice((chance.randint(1, 4), chance.randint(1, 600)))
        some = chance.choice((chance.randbytes(chance.randint(1, 8)), b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"))
        match chance.randint(0, 9):
            case 0 | 1 | 2 | 3:
                found[at : at + len(some)] = some
            case 4 | 5:
                found[at:at] = some
            case 6 | 7:
                del found[at : at + length]
            case 8:
                found[at:at] = found[at : at + length]
            case _:
                del found[at:]
    return bytes(found)


def fuzz(reader: str, seconds: float, folder: Path) -> None:
    """Read damaged files for some seconds; print how many, and end the process at the first that fails."""
    warnings.simplefilter("ignore")
    contents, read = READERS[reader]
    seeds = list(contents().items())
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        chance = random.Random(number)
        name, content = chance.choice(seeds)
        path = folder / name
        path.write_bytes(damaged(content, chance))
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # of the processor: the machine may be busy
        try:
            read(path)
        except BadInputError as error:
            if "\n" in str(error) or str(folder) not in str(error):
                raise AssertionError(f"not one line that names {path}: {error}") from error
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
        number += 1
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000
        if megabytes > MOST_MEGABYTES:
            path.write_bytes(damaged(content, random.Random(number - 1)))
            raise MemoryError(f"{megabytes:,.0f} MB after example {number - 1:,}, of {name}")
    print(f"{number} {megabytes:.0f}")


def main(seconds: float, readers: list[str]) -> int:
    """Fuzz each reader in a process of its own; return 1 if one failed."""
    rows, failed = [], False
    for reader in readers or READERS:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        command = [sys.executable, __file__, "--in-process", reader, str(seconds), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        found = [f"{int(figure):,}" for figure in done.stdout.split()]
        if done.returncode:
            failed = True
            kept = ", ".join(map(str, folder.iterdir()))
            print(f"{reader}: ended with {done.returncode}; kept: {kept}\n{done.stderr[-2_000:]}", flush=True)
        else:
            shutil.rmtree(folder)
        rows.append((reader, f"{seconds:g}", *(found or ("failed", ""))))
        print(*rows[-1], file=sys.stderr, flush=True)
    print(describe_machine())
    print_table(("reader", "seconds", "damaged files", "peak memory, MB"), rows)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1] == "--in-process":
        fuzz(sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
    else:
        sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
