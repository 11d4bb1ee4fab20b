"""Labels and reviews from other programs, and for them."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_run import CORPUS, make_corpus

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.exchange import read_foreign
from tinytags_tasks.review.exporting import export_words
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import append_words, counting_words, read_words
from tinytags_tasks.store.review_records import Verdict, Why, Word


def said(found):
    return [(one.word.position, one.word.verdict, one.word.tag) for one in found]


@pytest.mark.parametrize("picture", ["position", "id", "filename"])
def test_a_csv_of_labels_names_pictures_by_position_id_or_file_name(tmp_path, picture):
    names = {
        "position": ("3", "4", "5"),
        "id": ("pets:3", "pets:4", "pets:5"),
        "filename": ("a/3.png", "0004.jpg", "5"),
    }
    file = tmp_path / "labels.csv"
    file.write_text(
        f"{picture},label\n"
        + "\n".join(f"{n},{w}" for n, w in zip(names[picture], ("cat", "none", "unclear"), strict=True))
    )
    found = read_foreign(file, "pets")
    assert said(found) == [(3, Verdict.TAG, "cat"), (4, Verdict.NONE, ""), (5, Verdict.UNCLEAR, "")]
    assert {one.word.why for one in found} == {Why.IMPORT}


@pytest.mark.parametrize(
    "content, message",
    [
        ("position,label\n3,cat\n4\n", "line 3: has 1 values, and the first line 2"),
        ("position,label\n3,cat\nfour,dog\n", "line 3: 'four' does not name a picture"),
        ("position,label\n3,\n", "line 2: has no label"),
        ("id,label\nbirds:3,cat\n", "line 2: birds:3 is not of corpus pets"),
        ("position,verdict,tag\n3,takedown,\n", "line 2: 'takedown' is no verdict"),
        ("position,label,label\n3,a,b\n", "has the column label twice"),
        ("picture,label\n3,a\n", "has no column for the picture"),
        ("position\n3\n", "has no column for the label"),
        ("position,label\n", "has no labels"),
        ('position,label\n3,"cat\n', "cannot be read"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_by_line(tmp_path, content, message):
    file = tmp_path / "labels.csv"
    file.write_text(content)
    with pytest.raises(BadInputError, match=message) as error:
        read_foreign(file, "pets")
    assert str(file) in str(error.value)


def test_an_export_of_fiftyone_is_read_as_labels_or_samples(tmp_path):
    (tmp_path / "labels.json").write_text(
        json.dumps({"classes": ["cat", "none"], "labels": {"000003": 0, "000004": 1, "000005": None, "6": "dog"}})
    )
    assert said(read_foreign(tmp_path, "pets")) == [(3, "tag", "cat"), (4, "none", ""), (6, "tag", "dog")]
    samples = [{"filepath": "/x/7.png", "truth": {"_cls": "Classification", "label": "emu"}, "metadata": {"_cls": "X"}}]
    file = tmp_path / "samples.json"
    file.write_text(json.dumps({"samples": samples}))
    assert said(read_foreign(file, "pets")) == [(7, "tag", "emu")]
    samples[0]["guess"] = {"_cls": "Classification", "label": "cat"}
    file.write_text(json.dumps({"samples": samples}))
    with pytest.raises(BadInputError, match="several labels: choose one with --field"):
        read_foreign(file, "pets")
    assert said(read_foreign(file, "pets", field="guess")) == [(7, "tag", "cat")]


def test_of_a_label_studio_task_the_latest_annotation_counts(tmp_path):
    def choice(label, at, **more):
        return {"updated_at": at, "result": [{"type": "choices", "value": {"choices": [label]}}], **more}

    tasks = [
        {"data": {"position": 3}, "annotations": [choice("dog", "2026-02"), choice("cat", "2026-01")]},
        {"data": {"image": "/data/4.png"}, "annotations": [choice("dog", "2026-01", was_cancelled=True)]},
        {"data": {"position": 5}, "annotations": []},
    ]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    assert said(read_foreign(file, "pets")) == [(3, "tag", "dog"), (4, "unclear", "")]


WORDS = [
    Word(3, Verdict.TAG, "cat", picture=b"\x01" * 16, why=Why.MEASURE, shown_tag="dog", shown_confidence=80),
    Word(1, Verdict.NONE, picture=b"\x02" * 16),
    Word(0, Verdict.WRONG, "dog", picture=b"\x03" * 16),
    Word(2, Verdict.UNCLEAR, picture=b"\x04" * 16),
]


@pytest.fixture
def reviewed(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    corpus = make_corpus(storage)
    append_words(corpus, WORDS, by="anna", run="r", storage=storage)
    return storage, corpus, counting_words(read_words(corpus, storage))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_was_exported_can_be_imported_again(tmp_path, reviewed, form):
    storage, corpus, words = reviewed
    file = tmp_path / f"words.{form}"
    assert export_words(words, corpus, file, form, storage=storage, report=print) == 4
    found = [one.word for one in read_foreign(file, CORPUS)]
    key = lambda word: (word.position, word.verdict, word.tag, word.picture, word.shown_tag, word.shown_confidence)  # noqa: E731
    assert sorted(map(key, found)) == sorted(map(key, WORDS))
    with pytest.raises(BadInputError, match="exists; give a new name"):
        export_words(words, corpus, file, form, storage=storage, report=print)


def test_an_export_for_fiftyone_has_the_pictures_and_can_be_imported_again(tmp_path, reviewed):
    storage, corpus, words = reviewed
    lines = []
    folder = tmp_path / "export"
    assert export_words(words, corpus, folder, "fiftyone", storage=storage, report=lines.append) == 3
    assert lines == ["1 words that this form cannot say (such as `wrong`) are left out; csv has them"]
    assert said(read_foreign(folder, CORPUS)) == [(1, "none", ""), (2, "unclear", ""), (3, "tag", "cat")]
    with Image.open(folder / "data" / "000000003.png") as picture:
        assert picture.size == (corpus.width, corpus.height)


def test_an_export_for_label_studio_has_the_models_word_and_can_be_imported_again(tmp_path, reviewed):
    storage, corpus, words = reviewed
    file = tmp_path / "tasks.json"
    export_words(words, corpus, file, "label-studio", storage=storage, report=print)
    assert said(read_foreign(file, CORPUS)) == [(1, "none", ""), (2, "unclear", ""), (3, "tag", "cat")]
    (task,) = [task for task in json.loads(file.read_text()) if task["data"]["position"] == 3]
    assert task["predictions"][0]["result"][0]["value"] == {"choices": ["dog"]}
    assert task["data"]["image"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("form", ["fiftyone", "label-studio"])
def test_pictures_that_are_taken_down_are_not_exported(tmp_path, reviewed, form):
    storage, corpus, words = reviewed
    append_words(corpus, [Word(3, Verdict.TAKEDOWN, reason="asked for", is_public=True)], by="anna", storage=storage)
    lines = []
    assert export_words(words, corpus, tmp_path / "e.json", form, storage=storage, report=lines.append) == 2
    assert lines[1:] == ["1 words on pictures that are taken down are left out"]
    assert said(read_foreign(tmp_path / "e.json", CORPUS)) == [(1, "none", ""), (2, "unclear", "")]
    append_words(corpus, [Word(3, Verdict.RESTORE, is_public=True)], by="anna", storage=storage)
    assert export_words(words, corpus, tmp_path / "again.json", form, storage=storage, report=lines.append) == 3


def test_a_table_with_a_byte_order_mark_and_a_blank_line_is_read(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_bytes("position,label\n\n3,café\n".encode("utf-8-sig"))
    assert said(read_foreign(file, "pets")) == [(3, "tag", "café")]


def test_a_parquet_of_labels_is_read(tmp_path):
    pq.write_table(pa.table({"position": [3, 4], "label": ["cat", None]}), tmp_path / "l.parquet")
    with pytest.raises(BadInputError, match="row 1: has no label"):
        read_foreign(tmp_path / "l.parquet", "pets")
    pq.write_table(pa.table({"position": [3], "label": ["cat"]}), tmp_path / "l.parquet")
    assert said(read_foreign(tmp_path / "l.parquet", "pets")) == [(3, "tag", "cat")]


def test_a_csv_export_has_every_column_of_the_log(tmp_path, reviewed):
    storage, corpus, words = reviewed
    file = tmp_path / "words.csv"
    export_words(words, corpus, file, "csv", storage=storage, report=print)
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    assert {row["by"] for row in rows} == {"anna"}
    assert rows[3]["picture"] == "01" * 16
