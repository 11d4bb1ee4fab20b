"""The kinds of picture files that can be read, and how the names of such files end."""

from functools import cache
from importlib.util import find_spec

from PIL import features

COMMON_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
"""Endings of the kinds that every browser shows."""

_MORE_ENDINGS = {"GIF": (".gif",), "BMP": (".bmp",), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",)}
_HEIF_ENDINGS = (".heic", ".heif")
_CAMERA_ENDINGS = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2")
_OTHER_ENDINGS = {*_CAMERA_ENDINGS, *_MORE_ENDINGS["AVIF"], ".ico", ".j2k", ".jp2", ".jxl", ".psd", ".svg", ".tga"}

_HAS_HEIF = find_spec("pillow_heif") is not None
_MORE = [kind for kind in _MORE_ENDINGS if kind != "AVIF" or features.check("avif")]

FORMATS = ("JPEG", "PNG", "WEBP", *_MORE, *(("HEIF",) if _HAS_HEIF else ()))
"""The formats that are tried, by Pillow's names; AVIF and HEIF where they are installed."""

ENDINGS = (
    *COMMON_ENDINGS,
    *(ending for kind in _MORE for ending in _MORE_ENDINGS[kind]),
    *(_HEIF_ENDINGS if _HAS_HEIF else ()),
)
"""How the names of such files end, in lower case."""

MORE_KINDS = ", ".join((*_MORE, *(("HEIC",) if _HAS_HEIF else ())))
"""The kinds that are read besides JPEG, PNG and WebP, for people."""


def kind_of(head: bytes) -> str | None:
    """Return which of the kinds that every browser shows a file's first bytes name: JPEG, PNG or WebP."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WebP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def remedy_of(ending: str) -> str:
    """Return what to do about pictures of a kind that is not read; empty if the ending is not known as a picture's."""
    if ending in _HEIF_ENDINGS and not _HAS_HEIF:
        return "pictures: install tinytags[heic], or convert them to JPEG"
    return "pictures: convert them to JPEG" if ending in _OTHER_ENDINGS and ending not in ENDINGS else ""


@cache
def register_heif() -> None:
    """Let Pillow read HEIC, if the package for it is installed."""
    if _HAS_HEIF:
        import pillow_heif

        pillow_heif.register_heif_opener()
