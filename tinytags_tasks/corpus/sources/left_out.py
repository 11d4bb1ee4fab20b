"""What is in a folder and does not belong to a source: which names are left out, and how many of each sort."""

from collections.abc import Iterator

from tinytags_tasks.corpus.picture_kinds import ENDINGS, remedy_of
from tinytags_tasks.errors import one_line
from tinytags_tasks.store.record import Part

HIDDEN = "names that begin with . or _"
JUNK = "what file systems keep for themselves"
LINKS = "links that lead out of the folder (the option follow_links=true takes them)"
FORBIDDEN = "what may not be read (permission denied)"
WEB_PAGES = "web pages"
OTHER_ENDINGS = "files with other endings"

_MOST_SORTS = 50
_LONGEST_ENDING = 12

_JUNK = frozenset(
    (
        *("@eadir", "@recently-snapshot", "@recycle", "@tmp", "#recycle", "#snapshot"),  # of Synology and QNAP
        *("$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("lost+found", "__macosx", "icon\r"),
    )
)
_UNFINISHED = "._copying_"
"""How names end while ``hdfs dfs -put`` writes them."""


def why_left_out(name: str, *, is_folder: bool) -> str:
    """Return why a name in a folder is left out; empty if it is not.

    The rule for ``_`` and ``.`` is that of Spark, Hive and Hadoop, whose unfinished and deleted files have such names;
    ``_year=2020`` is a partition. Cameras name photographs ``_MG_0001.JPG``, so that pictures with ``_`` are taken.

    Parameters
    ----------
    name
        Of a file or folder, without the path.
    is_folder
        Whether it is a folder.
    """
    lower = name.lower()
    if lower in _JUNK:
        return JUNK
    if name.startswith(".") or lower.endswith(_UNFINISHED):
        return HIDDEN
    is_hidden = name.startswith("_") and "=" not in name and (is_folder or not lower.endswith(ENDINGS))
    return HIDDEN if is_hidden else ""


def is_junk_path(path: str) -> bool:
    """Return whether a file's path, with slashes, has a hidden folder, or one that file systems keep for themselves."""
    return any(part.lower() in _JUNK or (part.startswith(".") and part not in (".", "..")) for part in path.split("/"))


class LeftOutGroup(Part):
    """How many files and folders were left out for one reason, and the first of them."""

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.reason}: {self.count:,}, such as {one_line(self.example)}"


class LeftOut:
    """Counts what is left out while a source is listed; a folder counts as one."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Count a file or folder."""
        if reason not in self._groups and len(self._groups) >= _MOST_SORTS:
            reason = OTHER_ENDINGS
        count, example = self._groups.get(reason, (0, path))
        self._groups[reason] = count + 1, example

    def add_ending(self, path: str) -> None:
        """Count a file whose ending is not one of those that were asked for."""
        dot, ending = path.rpartition("/")[2].lower().rpartition(".")[1:]
        if not dot or len(ending) > _LONGEST_ENDING:
            return self.add("files without an ending that is known", path)
        remedy = remedy_of(f".{ending}")
        return self.add(f"files that end in .{ending}" + (f" ({remedy})" if remedy else ""), path)

    def has(self, reason: str) -> bool:
        """Return whether something was left out for this reason."""
        return reason in self._groups

    def __iter__(self) -> Iterator[LeftOutGroup]:
        """Yield the groups, the largest first."""
        ordered = sorted(self._groups.items(), key=lambda group: (-group[1][0], group[0]))
        for reason, (count, example) in ordered:
            yield LeftOutGroup(reason=reason, count=count, example=example)

    def __str__(self) -> str:
        """Return it for the end of a message; empty if nothing was left out."""
        return "".join(f"; left out: {group}" for group in self)
