"""Small sources with the same bytes, names and times on every machine, so that their identities can be pinned."""

import io
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition

CHANGED_NS = 1_700_000_000_123_456_789
"""When every file was changed last."""

_DATA = Path(__file__).with_name("data")


def pixels(number: int, side: int = 4) -> bytes:
    """Return the bytes of a picture."""
    return bytes((number * 31 + at * 7) % 256 for at in range(side * side * 3))


def png(number: int, side: int = 4) -> bytes:
    """Return a picture as PNG, stored without compression: no version of zlib or Pillow changes its bytes."""
    rows = pixels(number, side)
    raw = b"".join(b"\0" + rows[row * side * 3 : (row + 1) * side * 3] for row in range(side))
    stored = (
        b"\x78\x01\x01" + struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF) + raw + struct.pack(">I", zlib.adler32(raw))
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def write(path: Path, content: bytes) -> Path:
    """Write a file with the modification time :data:`CHANGED_NS`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(CHANGED_NS, CHANGED_NS))
    return path


def raw(folder: Path) -> dict[str, object]:
    """Two files of raw pictures, the second one empty."""
    write(folder / "a.bin", b"".join(pixels(number) for number in range(7)))
    write(folder / "b.bin", b"")
    return {"source": str(folder), "format": "raw", "height": 4, "width": 4}


def cifar_binary(folder: Path) -> dict[str, object]:
    """CIFAR-10's binary version with five pictures."""
    records = (bytes([number]) + pixels(number, 32) for number in range(5))
    return {"source": str(write(folder / "data_batch_1.bin", b"".join(records))), "format": "cifar-binary"}


def tiny_images(folder: Path) -> dict[str, object]:
    """Tiny Images with its metadata."""
    source = write(folder / "tiny_images.bin", b"".join(pixels(number, 32) for number in range(5)))
    metadata = write(folder / "tiny_metadata.bin", b"".join(f"bird {n}".encode().ljust(768) for n in range(5)))
    return {"source": str(source), "format": "tiny-images", "keywords": str(metadata)}


def pictures(folder: Path) -> dict[str, object]:
    """A folder with names that need escaping, and a picture that cannot be read."""
    names = (
        "a'b/1.png",
        'a"b/2.png',
        "a'\"b/3.png",
        "back\\slash/4.png",
        "größe 猫 🐈/5.png",
        "soft\xadhyphen\u2028new 🫨/6.png",
        "7.png",
    )
    for number, name in enumerate(names):
        write(folder / name, png(number))
    write(folder / "tab\tline\n/8.png", b"no picture")
    return {"source": str(folder), "format": "folder", "keywords": "folder", **_SMALL}


def parquet(folder: Path) -> dict[str, object]:
    """A stored Parquet file: another version of pyarrow would write different bytes."""
    source = folder / "pets.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_DATA / "pets.parquet", source)
    os.utime(source, ns=(CHANGED_NS, CHANGED_NS))
    return {"source": str(source), "format": "parquet", "keywords": "kind", **_SMALL}


def webdataset(folder: Path) -> dict[str, object]:
    """A tar of three samples; the last one has no keyword."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, member in (
            ("0.cls", "größe".encode()),
            ("0.png", png(0)),
            ("1.cls", b"it's"),
            ("1.png", png(1)),
            ("2.png", png(2)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member))
    return {
        "source": str(write(folder / "pets.tar", content.getvalue())),
        "format": "webdataset",
        "keywords": "cls",
        **_SMALL,
    }


_SMALL = {"height": 4, "width": 4, "most_unreadable_percent": 100.0}

SOURCES = {
    "raw": raw,
    "cifar-binary": cifar_binary,
    "tiny-images": tiny_images,
    "folder": pictures,
    "parquet": parquet,
    "webdataset": webdataset,
}
"""What writes a source into a folder and returns the definition's fields, by format."""


def define(format_name: str, folder: Path, **fields: object) -> CorpusDefinition:
    """Write a source and return its corpus' definition."""
    cut = {"shard_images": 4, "blocks_per_shard": 2}
    return make_definition("pets", {**cut, **SOURCES[format_name](folder / "source"), **fields})
