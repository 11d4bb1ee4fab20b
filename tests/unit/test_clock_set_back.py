"""What was made last is the latest, although the clock was set back between two, or both were made in one second."""

import numpy as np
import pytest
from classifiers import HEIGHT, TAGS, WIDTH, linear_classifier
from foreign_nets import conv_net
from small_run import CORPUS, make_corpus, make_run, publish_model, quiet

from tinytags_tasks.nets.catalogue import list_nets, load_net_card
from tinytags_tasks.nets.importing import NetImport, import_net
from tinytags_tasks.score.plan import PlanRequest, latest_model, plan_run
from tinytags_tasks.store import layout, record
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.models import list_models
from tinytags_tasks.store.record import now_after
from tinytags_tasks.train.import_step import ImportRequest, import_model

CLOCK = ("2026-11-27T10:00:00+00:00", "2026-11-27T10:00:00+00:00", "2026-11-20T00:00:00+00:00")
"""What it says when each of three is made: the same second twice, then a week before."""

EXPECTED = ["2026-11-27T10:00:00+00:00", "2026-11-27T10:00:01+00:00", "2026-11-27T10:00:02+00:00"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Yield each number of what is made; the clock says its time meanwhile."""

    def tick():
        for number, time in enumerate(CLOCK):
            monkeypatch.setattr(record, "now", lambda time=time: time)
            yield number

    return tick()


def test_the_time_of_the_next_is_the_clocks_or_a_second_after_the_latest(monkeypatch) -> None:
    monkeypatch.setattr(record, "now", lambda: "2026-11-27T10:00:00+00:00")
    assert now_after([]) == now_after(["2026-11-27T09:59:58+00:00"]) == "2026-11-27T10:00:00+00:00"
    assert now_after(["2026-12-31T23:59:59+00:00", "2020-01-01T00:00:00+00:00"]) == "2027-01-01T00:00:00+00:00"
    assert now_after(["2026-11-27T11:30:00+01:00"]) == "2026-11-27T11:30:01+01:00"
    assert now_after(["2026-12-31"]) == "2026-12-31T00:00:01+00:00"


def test_models_are_in_the_order_in_which_they_were_made(tmp_path, storage, clock) -> None:
    make_corpus(storage)
    made = []
    for number in clock:
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(linear_classifier().SerializeToString())
        request = ImportRequest(str(path), tags=TAGS, height=HEIGHT, width=WIDTH, name=f"model-{9 - number}")
        made.append(import_model(request, storage=storage, report=quiet).model)
    assert [card.version for card in list_models(storage)] == made
    assert [card.created for card in list_models(storage)] == EXPECTED


def test_the_latest_net_of_a_name_is_the_one_that_was_made_last(tmp_path, storage, clock) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (128, 16, 16, 3), dtype=np.uint8)
    path, made = tmp_path / "net.onnx", []
    path.write_bytes(conv_net().SerializeToString())
    for number in clock:
        request = NetImport(str(path), name="given", arithmetic="float32", scale="0-1", mean=(0.1 * number,) * 3)
        made.append(import_net(request, lambda *size: pictures, "a test", storage=storage, report=quiet).card.version)
        assert load_net_card(storage, "given").version == made[-1]
    assert [card.version for card in list_nets(storage) if card.version in made] == made


def test_runs_are_in_the_order_in_which_they_were_planned(storage, clock) -> None:
    publish_model(storage)
    make_corpus(storage)
    model = latest_model(CORPUS, storage)
    planned = [plan_run(PlanRequest(CORPUS, model, 40 + number), storage=storage).run for number in clock]
    assert [run.name for run in list_runs(storage)] == planned
    assert [run.created for run in list_runs(storage)] == EXPECTED


def test_a_run_that_is_planned_again_keeps_its_time_and_another_runs_damage_does_not_matter(storage, clock) -> None:
    run = make_run(storage)
    storage.write(layout.run_file("other-0123456789ab"), b"{")
    next(clock)
    assert make_run(storage) == run
