"""`tinytags nets`: what a person reads of the nets there are."""

import json
import sys
from types import SimpleNamespace

import pytest
from small_nets import small_card, small_net

from tinytags_tasks import cli
from tinytags_tasks.cli import nets as nets_commands
from tinytags_tasks.nets.catalogue import net_for, publish_net
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_card
from tinytags_tasks.store import layout


@pytest.fixture
def run(storage, monkeypatch, capsys):
    """Return a function that runs a command and returns its exit code, output and errors."""
    monkeypatch.setattr(nets_commands, "clients", lambda: SimpleNamespace(storage=storage))

    def run_command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinytags", "nets", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_command


@pytest.fixture
def imported(storage):
    net = small_net()
    card = small_card(
        net, data=("drawings",), licence="CC0", parameters={"mean_of_red": 0.5}, figures={"ranking kept": 0.995}
    )
    publish_net(card, net, None, storage)
    return card


def test_the_list_has_a_line_for_each_net_the_one_that_ships_included(run, imported):
    code, printed, _ = run("list")
    assert code == 0
    (shipped,) = [line for line in printed.splitlines() if shipped_card().version in line]
    for text in ("32x32", "256", "int8", "ships with TinyTags", "92.7 %", "20,000 pictures of 200 classes"):
        assert text in shipped
    (other,) = [line for line in printed.splitlines() if imported.version in line]
    for text in ("8x8", "4", "float32", "small.onnx"):
        assert text in other
    assert "%" not in other


@pytest.mark.parametrize("as_json", [False, True])
def test_the_list_names_a_damaged_card_lists_the_others_and_ends_with_1(run, storage, imported, as_json):
    path = layout.net_card_file(imported.version)
    storage.write(path, b"damaged")
    code, printed, errors = run("list", *(["--json"] if as_json else []))
    assert code == 1
    assert shipped_card().version in printed
    assert imported.version not in printed
    assert errors.startswith(f"left out: {path}: ")
    assert "import or train the same net again" in errors


def test_everything_on_a_card_is_shown(run, imported):
    code, printed, _ = run("show", "small")
    assert code == 0
    for text in (imported.version, "8x8", "4 whole numbers", "small.onnx", "drawings", "CC0", "mean of red", "0.995"):
        assert text in printed
    code, printed, _ = run("show", DEFAULT_NET)
    assert code == 0
    card = shipped_card()
    for text in (*card.data, card.licence, card.preparation, card.background_sha256, *card.figures):
        assert text in printed
    for name in card.parameters:
        assert name.replace("_", " ") in printed


def test_json_holds_the_card_as_it_is_stored(run, imported):
    assert json.loads(run("show", "small", "--json")[1]) == json.loads(json.dumps(imported.model_dump()))
    assert [card["version"] for card in json.loads(run("list", "--json")[1])] == [
        imported.version,
        shipped_card().version,
    ]


def test_a_net_whose_file_was_replaced_is_not_shown_as_if_nothing_had_happened(run, storage, imported):
    storage.write(layout.net_file(imported.version), small_net(seed=1))
    code, printed, errors = run("show", "small")
    assert (code, printed) == (2, "")
    assert "is not the net that was published" in errors
    net_for(DEFAULT_NET, storage)
    storage.write(layout.background_file(shipped_card().version), b"other")
    code, printed, errors = run("show", DEFAULT_NET)
    assert (code, printed) == (2, "")
    assert "is not the background that was published" in errors


def test_an_unknown_net_is_one_line_with_the_remedy(run):
    assert run("show", "other") == (
        2,
        "",
        "tinytags: error: other: no such net; `tinytags nets list` lists the nets (there are: general32, "
        f"{shipped_card().version})\n",
    )
