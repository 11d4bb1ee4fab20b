"""Reads people's labels and reviews that were made elsewhere: CSV, Parquet, and exports of FiftyOne and Label Studio.

Each row must name a picture of the corpus: by its position, by its document's id (``<corpus>:<position>``), or by a
file name that is its position, such as ``000017.png``. Nothing is said of any picture unless the whole file can be
read.

The formats are ``FiftyOneImageClassificationDataset`` and ``FiftyOneDataset`` of
https://docs.voxel51.com/user_guide/export_datasets.html, and https://labelstud.io/guide/task_format.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.review_records import OPINIONS, Verdict, Why, Word

NONE_LABEL = "none"
UNCLEAR_LABEL = "unclear"
"""Labels of other programs that mean no tag, whatever their case."""

_LABEL_COLUMNS = ("tag", "label", "ground_truth", "class")
_PICTURE_COLUMNS = ("position", "id", "filename", "filepath", "image")


@dataclass(frozen=True)
class ForeignWord:
    """A word as a file has it: where it stands there, the word, and the picture's hash if the file tells it."""

    where: str
    word: Word


def read_foreign(
    path: Path, corpus: str, *, field: str = "", none_label: str = NONE_LABEL, images: int | None = None
) -> list[ForeignWord]:
    """Return all words of a file, in its order.

    Parameters
    ----------
    path
        A ``.csv``, ``.parquet`` or ``.json`` file, or the folder of a FiftyOne export.
    corpus
        The name of the corpus that the pictures are of.
    field
        The column, FiftyOne field or Label Studio control that holds the label; empty finds it if there is only one.
    none_label
        The label that means none of the tags.
    images
        How many pictures the corpus has; None takes any position.

    Raises
    ------
    BadInputError
        Naming the file, the row and the remedy.
    """
    if path.is_dir():
        path = next((path / name for name in ("labels.json", "samples.json") if (path / name).is_file()), path)
        if path.is_dir():
            raise BadInputError(f"{path}: is no export of FiftyOne: it has neither labels.json nor samples.json")
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows, ".json": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadInputError(f"{path}: labels come as .csv, .parquet or .json, or as the folder of a FiftyOne export")
    found = []
    try:
        for where, row in reader(path, field):
            try:
                word = _word(row, corpus, none_label)
                if images is not None and word.position >= images:
                    raise BadInputError(
                        f"position {word.position} is not in corpus {corpus}, which has {images:,} images, from 0; "
                        "nothing was recorded"
                    )
                found.append(ForeignWord(where, word))
            except BadInputError as error:
                raise BadInputError(f"{path}, {where}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise BadInputError(f"{path}: cannot be read ({error})") from error
    if not found:
        raise BadInputError(f"{path}: has no labels")
    return found


Rows = Iterator[tuple[str, dict[str, Any]]]
"""Where a row stands, and its ``picture`` and ``label``, or ``verdict`` and ``tag``; more if the file is our own."""


def _word(row: Mapping[str, Any], corpus: str, none_label: str) -> Word:
    verdict, tag = _opinion(row, none_label)
    return Word(
        position=_position(row["picture"], corpus),
        verdict=verdict,
        tag=tag,
        picture=bytes.fromhex(_picture_hash(row.get("hash"))),
        why=Why.IMPORT,
        shown_tag=str(row.get("shown_tag") or ""),
        shown_confidence=_confidence(row.get("shown_confidence")),
        reason=str(row.get("reason") or ""),
    )


def _opinion(row: Mapping[str, Any], none_label: str) -> tuple[Verdict, str]:
    given, tag = str(row.get("verdict") or "").strip().lower(), str(row.get("label") or "").strip()
    if not given:
        if not tag:
            raise BadInputError(f"has no label; write {none_label!r} for none of the tags, or leave the row out")
        if tag.lower() == none_label.lower():
            return Verdict.NONE, ""
        return (Verdict.UNCLEAR, "") if tag.lower() == UNCLEAR_LABEL else (Verdict.TAG, tag)
    if given not in OPINIONS:
        remedy = "; import take-downs with `tinytags takedown add`" if given == Verdict.TAKEDOWN else ""
        raise BadInputError(f"{given!r} is no verdict: use {', '.join(OPINIONS)}{remedy}")
    verdict = Verdict(given)
    return verdict, tag if verdict in (Verdict.TAG, Verdict.WRONG) else ""


def _position(picture: object, corpus: str) -> int:
    text = str(picture if picture is not None else "").strip()
    if ":" in text and "/" not in text:
        named, _, text = text.rpartition(":")
        if named != corpus:
            raise BadInputError(f"{named}:{text} is not of corpus {corpus}")
    stem = PurePosixPath(text.replace("\\", "/")).stem
    if not re.fullmatch(r"[0-9]{1,18}", stem):
        raise BadInputError(
            f"{text[:100]!r} does not name a picture: give its position, its id ({corpus}:17) or a file name that is "
            "its position (17.png)"
        )
    return int(stem)


def _picture_hash(given: object) -> str:
    text = str(given or "")
    if not re.fullmatch("([0-9a-f]{32})?", text):
        raise BadInputError(f"{text[:40]!r} is no hash of a picture; leave the column `picture` out")
    return text


def _confidence(given: object) -> int:
    try:
        return int(str(given)) if given not in (None, "") else -1
    except ValueError as error:
        raise BadInputError(f"{given!r} is no confidence in percent") from error


def _column(names: list[str], wanted: tuple[str, ...], path: Path, what: str) -> str:
    for name in wanted:
        if name in names:
            return name
    raise BadInputError(f"{path}: has no column for {what}: name one of its columns {' or '.join(wanted)}")


def _columns(names: list[str], field: str, path: Path) -> tuple[str, str]:
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise BadInputError(f"{path}: has the column {repeated[0]} twice")
    if field and field not in names:
        raise BadInputError(f"{path}: has no column {field!r}; it has {', '.join(names)}")
    picture = _column(names, _PICTURE_COLUMNS, path, "the picture")
    if field:
        return picture, field
    return picture, _column(names, (*_LABEL_COLUMNS, "verdict"), path, "the label")


def _own_row(values: Mapping[str, Any], picture: str, label: str) -> dict[str, Any]:
    """Return a table's row; ``verdict`` and what else our own exports have are taken if they are there."""
    kept = {name: values.get(name) for name in ("verdict", "shown_tag", "shown_confidence", "reason")}
    return {**kept, "picture": values[picture], "label": values[label], "hash": values.get("picture")}


def _csv_rows(path: Path, field: str) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        names = [name.strip() for name in next(rows, [])]
        picture, label = _columns(names, field, path)
        for row in rows:
            if not row:
                continue
            where = f"line {rows.line_num}"
            if len(row) != len(names):
                raise BadInputError(f"{path}, {where}: has {len(row)} values, and the first line {len(names)}")
            yield where, _own_row(dict(zip(names, row, strict=True)), picture, label)


def _parquet_rows(path: Path, field: str) -> Rows:
    file = pq.ParquetFile(path)
    names = list(file.schema_arrow.names)
    picture, label = _columns(names, field, path)
    number = 0
    for batch in file.iter_batches(10_000):
        for values in batch.to_pylist():
            if isinstance(values.get("picture"), bytes):
                values["picture"] = values["picture"].hex()
            yield f"row {number}", _own_row(values, picture, label)
            number += 1


def _json_rows(path: Path, field: str) -> Rows:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInputError(f"{path}: is no JSON ({error})") from error
    if isinstance(content, list):
        yield from _label_studio_rows(content, field)
    elif isinstance(content, dict) and isinstance(content.get("labels"), dict):
        yield from _fiftyone_labels(content, path)
    elif isinstance(content, dict) and isinstance(content.get("samples"), list):
        yield from _fiftyone_samples(content["samples"], field, path)
    else:
        raise BadInputError(f"{path}: is neither an export of Label Studio (a list of tasks) nor one of FiftyOne")


def _fiftyone_labels(content: Mapping[str, Any], path: Path) -> Rows:
    classes = content.get("classes") or []
    for name, label in content["labels"].items():
        if isinstance(label, dict):
            label = label.get("label")
        if isinstance(label, int) and not isinstance(label, bool):
            if not 0 <= label < len(classes):
                raise BadInputError(f"{path}, {name!r}: has label {label}, and there are {len(classes)} classes")
            label = classes[label]
        if label is not None:  # FiftyOne writes null for a sample without a label
            yield repr(name), {"picture": name, "label": label}


def _fiftyone_samples(samples: list[Any], field: str, path: Path) -> Rows:
    for number, sample in enumerate(samples):
        where = f"sample {number}"
        labels = {
            name: value.get("label")
            for name, value in (sample.items() if isinstance(sample, dict) else ())
            if isinstance(value, dict) and value.get("_cls") == "Classification"
        }
        if field:
            labels = {name: label for name, label in labels.items() if name == field}
        if len(labels) > 1:
            raise BadInputError(f"{path}, {where}: has several labels: choose one with --field ({', '.join(labels)})")
        for label in labels.values():
            yield where, {"picture": sample.get("position", sample.get("filepath")), "label": label}


def _label_studio_rows(tasks: list[Any], field: str) -> Rows:
    for number, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            raise BadInputError(f"task {number}: has no data")
        annotations = [found for found in task.get("annotations") or [] if isinstance(found, dict)]
        if not annotations:
            continue  # nobody has looked at it yet
        latest = max(annotations, key=lambda found: str(found.get("updated_at") or found.get("created_at") or ""))
        picture = next((data[name] for name in _PICTURE_COLUMNS if name in data), None)
        label = UNCLEAR_LABEL if latest.get("was_cancelled") else _choice(latest, field, number)
        yield f"task {number}", {"picture": picture, "label": label}


def _choice(annotation: Mapping[str, Any], field: str, number: int) -> str | None:
    choices = [
        choice
        for result in annotation.get("result") or []
        if result.get("type") == "choices" and field in ("", result.get("from_name"))
        for choice in result.get("value", {}).get("choices", [])
    ]
    if len(choices) > 1:
        raise BadInputError(
            f"task {number}: has several choices ({', '.join(map(str, choices[:5]))}); a picture has one"
        )
    return str(choices[0]) if choices else None
