"""The pictures of the review pages: whole, once, and never those that were taken down."""

import io

import pytest
import test_review_pages
from fastapi.testclient import TestClient
from PIL import Image
from review_world import CORPUS

from tinytags_tasks.review.words import say
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import Verdict, Word

storage, start = test_review_pages.storage, test_review_pages.start
open_as, ann = test_review_pages.open_as, test_review_pages.ann


def test_a_picture_is_served_whole_and_only_once(ann: TestClient, storage: LocalStorage) -> None:
    found = ann.get(f"/pictures/{CORPUS}/151.png")
    assert found.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(found.content)).size == (32, 32)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    stored = storage.read(layout.shard_file(CORPUS, 1), corpus.image_bytes, corpus.image_bytes)
    assert Image.open(io.BytesIO(found.content)).tobytes() == stored
    again = ann.get(f"/pictures/{CORPUS}/151.png", headers={"If-None-Match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_picture_that_was_taken_down_is_not_served_even_if_a_browser_has_it(
    ann: TestClient, storage: LocalStorage
) -> None:
    etag = ann.get(f"/pictures/{CORPUS}/7.png").headers["etag"]
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(corpus, [Word(7, Verdict.TAKEDOWN, reason="asked by its owner")], by="oli", storage=storage)
    ann.app.state.context.logs.forget()  # what is said elsewhere is read every two seconds
    gone = ann.get(f"/pictures/{CORPUS}/7.png", headers={"If-None-Match": etag})
    assert gone.status_code == 404
    assert "taken down" in gone.text
    assert ann.get(f"/pictures/{CORPUS}/8.png").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("pets/200.png", 404),
        ("pets/x.png", 400),
        ("pets/1.jpg", 400),
        ("nowhere/1.png", 404),
        ("P!/1.png", 400),
        ("pets/" + "9" * 13 + ".png", 400),
    ],
)
def test_a_picture_that_is_not_there_is_said_so(ann: TestClient, path: str, status: int) -> None:
    assert ann.get(f"/pictures/{path}").status_code == status
