r"""Names that are not UTF-8, as text that can be stored: their other bytes are written like ``\xe9``."""

import os
import re

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


def escaped(path: str) -> str:
    """Return a path of this machine as text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def found_by(folder: str, path: str) -> str:
    r"""Return the path by which the system finds a file in a folder: with the bytes that were escaped.

    A name that really has ``\xe9`` in it is taken as it is.
    """
    whole = f"{folder}/{path}"
    if "\\x" not in path or os.path.lexists(whole):
        return whole
    raw = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), path.encode())
    return f"{folder}/{os.fsdecode(raw)}"
