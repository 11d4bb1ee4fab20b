"""Lists of take-downs as CSV: ``position,reason``, checked to the last line before anything is done."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.corpus_records import Corpus

COLUMNS = ("position", "reason", "by", "time")
"""The columns of an exported list; of an imported one, only the first two are read."""

_MOST_NAMED = 5


def read_takedown_list(path: Path, corpus: Corpus, reason: str = "") -> dict[int, str]:
    """Return the reason for each position of a list, in its order.

    The first line names the columns, of which ``position`` must be one; without ``reason``, or where it is empty, the
    given reason counts. A file whose first line begins with a number has no such line: its columns are the position and
    the reason, if any.

    Raises
    ------
    BadInputError
        Naming the lines that cannot be used: not whole, no position, not in the corpus, named twice, without a reason.
    """
    found: dict[int, str] = {}
    line_of: dict[int, int] = {}
    problems: list[str] = []
    unnamed = 0
    for line, cells in _rows(path):
        try:
            position, said = _entry(cells, corpus, reason)
            if position in found:
                raise BadInputError(f"position {position} is in line {line_of[position]} as well")
        except BadInputError as error:
            unnamed += len(problems) >= _MOST_NAMED
            problems += [f"line {line}: {error}"] if len(problems) < _MOST_NAMED else []
            continue
        found[position], line_of[position] = said, line
    if problems:
        more = f"; and {unnamed:,} more lines" if unnamed else ""
        raise BadInputError(f"{path}: {'; '.join(problems)}{more}; nothing was recorded")
    if not found:
        raise BadInputError(f"{path}: has no positions")
    return found


def write_takedown_list(path: Path, words: pa.Table) -> None:
    """Write the words by which pictures are taken down to a file that does not exist yet.

    Raises
    ------
    BadInputError
        If the file exists.
    """
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*words.select(list(COLUMNS)).to_pydict().values(), strict=True))
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(sink.getvalue())
    except FileExistsError as error:
        raise BadInputError(f"{path}: exists already; name a new file") from error


def parse_positions(texts: Iterable[str], corpus: Corpus) -> list[int]:
    """Return the positions that a person named: numbers, ranges such as ``17-20``, or ids of documents.

    Raises
    ------
    BadInputError
        If one is none of these, or not in the corpus.
    """
    found: dict[int, None] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        match = re.fullmatch(rf"(?:{re.escape(corpus.name)}:)?(\d+)(?:-(\d+))?", text)
        first = int(match[1]) if match else -1
        last = int(match[2] or first) if match else -1
        if not match or last < first:
            raise BadInputError(f"{text!r} is no position: write numbers and ranges, such as 3 17-20")
        if last >= corpus.images:
            raise BadInputError(
                f"position {last} is not in corpus {corpus.name}, which has {corpus.images:,} images, from 0"
            )
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def _rows(path: Path) -> Iterator[tuple[int, Sequence[str | None]]]:
    """Yield each line's number, and its cells for position and reason; None where it has none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path}: byte {error.start:,} is not UTF-8; save it as CSV in UTF-8") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror})") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                is_header = not cells[0].strip().isdecimal()
                names = [cell.strip().lower() for cell in cells] if is_header else ["position", "reason"][: len(cells)]
                if "position" not in names:
                    raise BadInputError(f"{path}: line {reader.line_num} names no column 'position'")
                if is_header:
                    continue
            if len(cells) != len(names):
                yield reader.line_num, ()
                continue
            by_name = dict(zip(names, cells, strict=True))
            yield reader.line_num, (by_name["position"], by_name.get("reason"))
    except csv.Error as error:
        raise BadInputError(f"{path}: line {reader.line_num}: {error}; nothing was recorded") from error


def _entry(cells: Sequence[str | None], corpus: Corpus, reason: str) -> tuple[int, str]:
    if not cells:
        raise BadInputError("is not whole: it has another number of columns than the first line")
    position = str(cells[0]).strip()
    if not re.fullmatch(r"[0-9]{1,15}", position):
        raise BadInputError(f"{position[:40]!r} is no position")
    if int(position) >= corpus.images:
        raise BadInputError(f"position {position} is not in the corpus, which has {corpus.images:,} images, from 0")
    said = (cells[1] or "").strip() or reason
    if not said:
        raise BadInputError(f"position {position} has no reason; give one for all with --reason")
    return int(position), said
