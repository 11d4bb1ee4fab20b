"""What is said of a misspelt name: the nearest one, and those that there are; never where the store is."""

from pathlib import Path

import pytest

from tinytags_tasks.errors import MissingError
from tinytags_tasks.ingest.plan_records import load_plan
from tinytags_tasks.near_names import choices, nearest
from tinytags_tasks.nets.catalogue import load_net_card
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.models import find_version
from tinytags_tasks.store.run_identity import load_run


@pytest.mark.parametrize(
    ("asked", "known", "told"),
    [
        ("brids", ["birds", "pets"], "did you mean birds? there are: birds, pets"),
        ("BIRDS", ["birds"], "did you mean birds? there are: birds"),
        ("x", ["birds", "pets"], "there are: birds, pets"),
        ("x", [], "there are none yet"),
        ("x", list("abcdefghijklmnopqrstuvw"), f"there are: {', '.join('abcdefghijklmnopqrst')} and 3 more"),
    ],
)
def test_the_nearest_name_and_all_names_are_told(asked: str, known: list[str], told: str) -> None:
    assert choices(asked, known) == told


def test_several_near_names_come_nearest_first() -> None:
    assert nearest("trok", ["dog", "truck", "trek"], 2) == ["trek", "truck"]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path)
    for path in (layout.corpus_file("birds"), layout.run_file("birds-logistic-12"), layout.card_file("logistic-12ab")):
        storage.write(path, b"{}")
    return storage


@pytest.mark.parametrize(
    ("load", "asked", "near"),
    [
        (load_corpus, "brids", "birds"),
        (lambda name, storage: load_plan(storage, name), "brids", "birds"),
        (load_run, "birds-logistik-12", "birds-logistic-12"),
        (lambda name, storage: find_version(storage, name), "logistik-12ab", "logistic-12ab"),
        (lambda name, storage: load_net_card(storage, name), "genaral32", "general32"),
    ],
    ids=["corpus", "plan", "run", "model", "net"],
)
def test_a_misspelt_name_is_answered_with_the_nearest_one(storage, load, asked, near, tmp_path) -> None:
    with pytest.raises(MissingError, match=rf"{asked}.*did you mean {near}\?") as raised:
        load(asked, storage)
    assert str(tmp_path) not in str(raised.value)


def test_a_run_whose_record_alone_is_missing_is_not_called_unknown(storage: LocalStorage) -> None:
    storage.write("runs/damaged/ledger/0.json", b"{}")
    with pytest.raises(MissingError, match=r"runs/damaged/run\.json: no such file in the store"):
        load_run("damaged", storage)
