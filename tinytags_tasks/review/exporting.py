"""Writes people's words for other programs: CSV, Parquet, and what FiftyOne and Label Studio import."""

import base64
import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.exchange import NONE_LABEL, UNCLEAR_LABEL
from tinytags_tasks.review.takedowns import taken_down
from tinytags_tasks.store.block_files import block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_records import Verdict

ExportFormat = Literal["csv", "parquet", "fiftyone", "label-studio"]
FORMATS: tuple[ExportFormat, ...] = ("csv", "parquet", "fiftyone", "label-studio")

_LABELS = {Verdict.NONE: NONE_LABEL, Verdict.UNCLEAR: UNCLEAR_LABEL}


def export_words(
    words: pa.Table, corpus: Corpus, path: Path, form: ExportFormat, *, storage: Storage, report: Callable[[str], None]
) -> int:
    """Write words on a corpus' pictures to a new file or folder, which appears when it is complete.

    Parameters
    ----------
    words
        Columns of the review log's ``SCHEMA``.
    corpus
        The corpus, in the version that the words are on.
    path
        The file; for ``fiftyone``, the folder.
    form
        ``csv`` and ``parquet`` hold every column. ``fiftyone`` and ``label-studio`` hold the pictures, too, but cannot
        say ``wrong``: such words are left out, as are those on pictures that are taken down.

    Returns
    -------
    int
        How many words were written.

    Raises
    ------
    BadInputError
        If the path exists or cannot be written.
    """
    if path.exists():
        raise BadInputError(f"{path}: exists; give a new name")
    part = path.with_name(f".{path.name}.part")
    try:
        if part.is_dir():
            shutil.rmtree(part)
        if form in ("fiftyone", "label-studio"):
            words = _without_taken_down(_labels_only(words, report), corpus, storage, report)
            write = _write_fiftyone if form == "fiftyone" else _write_label_studio
            write(words, part, corpus, storage)
        else:
            (_write_csv if form == "csv" else _write_parquet)(words, part)
        part.rename(path)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error})") from error
    return len(words)


def _without_taken_down(words: pa.Table, corpus: Corpus, storage: Storage, report: Callable[[str], None]) -> pa.Table:
    """Return the words on pictures that may be shown: these forms hold the pictures themselves."""
    is_down = np.isin(words.column("position").to_numpy(), taken_down(corpus, storage))
    if left_out := int(is_down.sum()):
        report(f"{left_out:,} words on pictures that are taken down are left out")
    return words.filter(pa.array(~is_down))


def _labels_only(words: pa.Table, report: Callable[[str], None]) -> pa.Table:
    verdicts = words.column("verdict").to_pylist()
    said = [verdict in (Verdict.TAG, Verdict.NONE, Verdict.UNCLEAR) for verdict in verdicts]
    if left_out := len(said) - sum(said):
        report(f"{left_out:,} words that this form cannot say (such as `wrong`) are left out; csv has them")
    return words.filter(pa.array(said, pa.bool_()))


def _write_csv(words: pa.Table, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(words.column_names)
        for batch in words.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                rows.writerow([value.hex() if isinstance(value, bytes) else value for value in row.values()])


def _write_parquet(words: pa.Table, path: Path) -> None:
    pq.write_table(words, path, compression="zstd")


def _write_fiftyone(words: pa.Table, folder: Path, corpus: Corpus, storage: Storage) -> None:
    """Write a ``FiftyOneImageClassificationDataset``: ``data/<position>.png`` and ``labels.json``."""
    (folder / "data").mkdir(parents=True)
    labels: dict[str, str] = {}
    for row, image in _with_pictures(words, corpus, storage):
        name = f"{row['position']:09d}"
        labels[name] = _label(row)
        (folder / "data" / f"{name}.png").write_bytes(_png(image))
    classes = sorted(set(labels.values()))
    numbered = {name: classes.index(label) for name, label in labels.items()}
    (folder / "labels.json").write_text(json.dumps({"classes": classes, "labels": numbered}, ensure_ascii=False))


def _write_label_studio(words: pa.Table, path: Path, corpus: Corpus, storage: Storage) -> None:
    """Write tasks, one a line of a JSON list, each with its picture, the model's tag and the person's word."""
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, (row, image) in enumerate(_with_pictures(words, corpus, storage)):
            file.write(",\n" if number else "\n")
            file.write(json.dumps(_task(row, image, corpus), ensure_ascii=False))
        file.write("\n]\n")


def _task(row: dict[str, Any], image: npt.NDArray[np.uint8], corpus: Corpus) -> dict[str, Any]:
    is_unclear = row["verdict"] == Verdict.UNCLEAR
    task: dict[str, Any] = {
        "data": {
            "image": f"data:image/png;base64,{base64.b64encode(_png(image)).decode()}",
            "corpus": corpus.name,
            "position": row["position"],
        },
        "annotations": [
            {
                "result": [] if is_unclear else [_choices(_label(row))],
                "was_cancelled": is_unclear,
                "created_at": row["time"],
            }
        ],
    }
    if row["shown_tag"]:
        score = max(row["shown_confidence"], 0) / 100
        task["predictions"] = [{"model_version": row["run"], "score": score, "result": [_choices(row["shown_tag"])]}]
    return task


def _choices(label: str) -> dict[str, Any]:
    return {"from_name": "tag", "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def _label(row: dict[str, Any]) -> str:
    return _LABELS.get(row["verdict"], str(row["tag"]))


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "PNG")
    return sink.getvalue()


def _with_pictures(
    words: pa.Table, corpus: Corpus, storage: Storage
) -> Iterator[tuple[dict[str, Any], npt.NDArray[np.uint8]]]:
    """Yield words with their pictures, by position; each block is read once, and checked."""
    rows = sorted(words.to_pylist(), key=lambda row: row["position"])
    for block, own in _by_block(rows, corpus):
        (source,) = block_sources(storage, corpus, [block])
        pixels = read_pixels(storage, source).reshape(-1, corpus.height, corpus.width, corpus.channels)
        for row in own:
            yield row, pixels[row["position"] - source.first]


def _by_block(rows: Sequence[dict[str, Any]], corpus: Corpus) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    block = -1
    own: list[dict[str, Any]] = []
    for row in rows:
        number = corpus.partition.block_at(row["position"])
        if number != block and own:
            yield block, own
            own = []
        block = number
        own.append(row)
    if own:
        yield block, own
