"""All votes of a picture, which its model is asked for again: what is known, and what pages say otherwise."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_nets import make_net_run, publish_net_model
from small_run import CORPUS, VOTES, pictures

from tinytags_tasks.search import all_votes
from tinytags_tasks.search.all_votes import AllVotes, NotKnownError, Share
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.waiting import Waiting
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    found = LocalStorage(tmp_path / "store")
    make_net_run(found)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(all_votes, "PATIENCE_SECONDS", 20.0)  # however slow the machine is
    found = AllVotes()
    yield found
    found.close()


def document(card: ModelCard, position: int, tag: str, confidence: int) -> TaggedImage:
    """Return an image as a search finds it."""
    values = {
        "id": f"{CORPUS}:{position}",
        "corpus": CORPUS,
        "position": position,
        "tag": tag,
        "confidence": confidence,
        "model": card.version,
    }
    return TaggedImage(values, image=np.asarray(pictures()[position]))


def ask(votes: AllVotes, image: TaggedImage, storage: LocalStorage) -> tuple[Share, ...]:
    return votes.of(image, lambda: storage, Waiting())


def test_percentages_of_all_tags_and_of_none_come_from_the_net_and_its_head(
    asked: AllVotes, storage: LocalStorage
) -> None:
    card = publish_net_model(storage, total=100, output="probabilities", trees=100)
    shares = ask(asked, document(card, 1, "dog", 60), storage)
    assert VOTES[1] == (0, 6, 4)
    assert [(share.tag, round(share.votes), share.total, share.is_percent) for share in shares] == [
        ("dog", 60, 100, True),
        ("none of the tags", 40, 100, True),
        ("cat", 0, 100, True),
    ]


def test_a_model_is_opened_once_and_a_picture_asked_for_once(asked: AllVotes, storage: LocalStorage) -> None:
    card = publish_net_model(storage)
    first = ask(asked, document(card, 1, "dog", 60), storage)
    storage.delete(layout.model_file(card.version))
    assert ask(asked, document(card, 1, "dog", 60), storage) is first
    assert ask(asked, document(card, 9, "dog", 90), storage)[0] == Share("dog", 9.0, 10, False)


def test_votes_that_differ_from_what_the_run_stored_are_not_shown(asked: AllVotes, storage: LocalStorage) -> None:
    card = publish_net_model(storage)
    for tag, confidence in (("cat", 60), ("dog", 80)):
        with pytest.raises(NotKnownError, match="is not what the run stored"):
            ask(asked, document(card, 1, tag, confidence), storage)


def test_a_model_that_is_gone_damaged_or_too_large_is_said_so(
    asked: AllVotes, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = publish_net_model(storage)
    image, path = document(card, 1, "dog", 60), layout.model_file(card.version)
    stored = storage.read(path)
    storage.write(path, b"nothing")
    with pytest.raises(NotKnownError, match="cannot be asked at the moment"):
        ask(asked, image, storage)
    storage.delete(path)
    with pytest.raises(NotKnownError, match="not in the store any more"):
        ask(asked, image, storage)
    storage.write(path, stored)
    monkeypatch.setattr(all_votes, "MOST_MODEL_BYTES", 10)
    with pytest.raises(NotKnownError, match="too large"):
        ask(asked, image, storage)


def test_a_store_that_hangs_holds_no_page_up_and_what_comes_late_is_kept(
    asked: AllVotes, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = publish_net_model(storage)
    go_on = threading.Event()

    def open_storage() -> LocalStorage:
        assert go_on.wait(20)
        return storage

    monkeypatch.setattr(all_votes, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(all_votes, "MOST_WAITING", 1)
    for position in (1, 9, 1):  # the second one finds all places taken
        with pytest.raises(NotKnownError, match="load the page again"):
            asked.of(document(card, position, "dog", 60), open_storage, Waiting())
    go_on.set()
    monkeypatch.setattr(all_votes, "PATIENCE_SECONDS", 20.0)
    assert asked.of(document(card, 1, "dog", 60), open_storage, Waiting())[0].tag == "dog"
