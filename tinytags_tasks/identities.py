"""How text is written in an identity: the bytes whose hash a corpus is known by (``docs/adr/0017-identities.md``)."""

from bisect import bisect_right
from functools import cache
from pathlib import Path

_UNPRINTABLE = Path(__file__).with_name("unprintable.txt")
_SHORT = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def quoted(text: str | None) -> str:
    r"""Return text as identities have it: as Python 3.11 writes a string literal, and ``None`` without quotes.

    The quotes are ``'``, or ``"`` if the text has a ``'`` and no ``"``. A backslash precedes a backslash, and a ``'``
    inside ``'``. Tab, line feed and carriage return are ``\t``, ``\n``, ``\r``; any other character that Unicode 14
    does not count as printable is ``\xhh``, ``\uhhhh`` or ``\Uhhhhhhhh``.

    ``repr`` itself changes with each Python, whose Unicode database has more printable characters.
    """
    if text is None:
        return "None"
    quote = '"' if "'" in text and '"' not in text else "'"
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = "".join(map(_written, text))
    if quote == "'":
        text = text.replace("'", r"\'")
    return f"{quote}{text}{quote}"


@cache
def _written(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if bisect_right(_bounds(), code) % 2 == 0:
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@cache
def _bounds() -> list[int]:
    """Return where unprintable characters begin and end, by turns, ascending."""
    bounds = []
    for line in _UNPRINTABLE.read_text().splitlines():
        for first_last in () if line.startswith("#") else line.split():
            first, _, last = first_last.partition("-")
            bounds += [int(first, 16), int(last or first, 16) + 1]
    return bounds
