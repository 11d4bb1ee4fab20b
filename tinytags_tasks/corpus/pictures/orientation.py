"""Which way up a picture is: what its camera, or the program that turned it, noted."""

import re

from PIL import Image

_ORIENTATION = 0x0112
"""The tag of Exif 2.32 (CIPA DC-008), 4.6.4 A, with the orientation of the camera."""

_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
"""The same in XMP, as an attribute or as an element (XMP part 2, 3.6)."""

_RAW_PROFILES = ("exif", "APP1", "app1", "xmp")
"""How ImageMagick names the profiles that it keeps as hexadecimal text in a PNG."""

_NOTES = frozenset({"exif", "xmp", "XML:com.adobe.xmp", *(f"Raw profile type {name}" for name in _RAW_PROFILES)})

_EXIF_HEAD = b"Exif\0\0"

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its orientation; 1 is upright."""


def orientation_of(picture: Image.Image) -> int:
    """Return a picture's orientation, 1 to 8: that of Exif, else that of XMP, else 1.

    Notes that are damaged are passed over. Notes of a PNG may stand after its pixels: load it first.

    Parameters
    ----------
    picture
        An opened picture.
    """
    info = picture.info
    if _NOTES.isdisjoint(info):
        return 1  # at once: most small pictures have none
    profiles = [profile for name in _RAW_PROFILES if (profile := _raw_profile(info.get(f"Raw profile type {name}")))]
    exifs = [info.get("exif"), *(profile for profile in profiles if profile.startswith(_EXIF_HEAD))]
    found = (_in_exif(exif) for exif in exifs if isinstance(exif, bytes))
    if orientation := next(filter(None, found), None):
        return orientation
    for xmp in (info.get("xmp"), info.get("XML:com.adobe.xmp"), *profiles):
        content = xmp.encode() if isinstance(xmp, str) else xmp
        if isinstance(content, bytes) and (match := _IN_XMP.search(content)):
            return int(match[1])
    return 1


def _in_exif(content: bytes) -> int | None:
    exif = Image.Exif()
    try:
        exif.load(content)
        orientation = exif.get(_ORIENTATION)
    except Exception:  # whatever Pillow raises: damaged notes do not make a picture unreadable
        return None
    return orientation if orientation in range(1, 9) else None


def _raw_profile(text: object) -> bytes | None:
    """Return a profile that is kept as text: an empty line, its name, its length, then hexadecimal digits."""
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None
