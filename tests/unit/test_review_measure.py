"""Frames, draws and measured precision, on the small store and on made-up votes."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from small_run import TAGS, make_run, quiet, score_all

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import Frame, load_frame
from tinytags_tasks.review.precision import measure
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import append_words, read_words
from tinytags_tasks.store.review_records import Verdict, Why, Word
from tinytags_tasks.store.run_records import Run


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def run(storage: LocalStorage) -> Run:
    run = make_run(storage, unreadable=(1, 9))
    score_all(storage, run)
    return run


def corpus_of(run: Run, storage: LocalStorage) -> Corpus:
    return Corpus.load(storage, layout.corpus_file(run.corpus))


def test_a_frame_holds_every_readable_picture_of_a_small_corpus_once(run: Run, storage: LocalStorage) -> None:
    frame = load_frame(run, storage, quiet)

    assert sorted(frame.columns["position"].tolist()) == [0, 2, 3, 4, 5, 6, 7, 8, 10]
    assert sum(stratum.images for stratum in frame.strata) == 9
    assert {stratum.name: stratum.images for stratum in frame.strata} == {
        "cat 40-64": 4,
        "cat 90-100": 1,
        "dog 40-64": 2,
        "emu 40-64": 1,
        "emu 90-100": 1,
    }


def test_a_frame_that_is_stored_is_not_made_again(run: Run, storage: LocalStorage) -> None:
    load_frame(run, storage, quiet)
    before = storage.versions(layout.REVIEWS + f"/{run.corpus}/frames")

    load_frame(run, storage, quiet)

    assert storage.versions(layout.REVIEWS + f"/{run.corpus}/frames") == before
