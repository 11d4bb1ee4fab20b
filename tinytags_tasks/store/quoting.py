"""How text is written in identities, the bytes whose hash identifies a corpus (``docs/adr/0017-identities.md``)."""

from bisect import bisect_right
from functools import cache
from importlib import resources

_UNPRINTABLE = resources.files("tinytags_tasks.store") / "unprintable.txt"  # on Spark's executors, in a zip file
_SHORT = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


def quoted(text: str | None) -> str:
    r"""Return text as it is written in identities: as a string literal of Python 3.11, or ``None`` without quotes.

    The quotes are ``'``, or ``"`` if the text contains ``'`` but not ``"``. A backslash is escaped by a backslash, and
    so is ``'`` between ``'``. Tab, line feed and carriage return are ``\t``, ``\n``, ``\r``. Any other character that
    is not printable in Unicode 14 is ``\xhh``, ``\uhhhh`` or ``\Uhhhhhhhh``.

    ``repr`` itself changes with every Python version, because newer Unicode databases have more printable characters.
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
    """Return where ranges of unprintable characters begin and end, alternately, in ascending order."""
    bounds = []
    for line in _UNPRINTABLE.read_text().splitlines():
        for first_last in () if line.startswith("#") else line.split():
            first, _, last = first_last.partition("-")
            bounds += [int(first, 16), int(last or first, 16) + 1]
    return bounds
