"""The commands about what readers see: what they print, ask and change."""

import json
import re
from types import SimpleNamespace

import pytest
from published_runs import ALIAS, add_corpus, make_world
from small_run import make_another_run
from typer.testing import CliRunner

from tinytags_tasks.cli import app, common, publishing
from tinytags_tasks.cli import runs as runs_commands
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, FinalError
from tinytags_tasks.store import layout
from tinytags_tasks.upkeep.overview import RunsRequest, summarize_runs


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(prepared, tmp_path, monkeypatch):
    """Three runs, none of them published, and the commands that work on them."""
    world = prepared.copy(tmp_path / "store")
    settings = SimpleNamespace(alias=ALIAS, keep_collections=1)
    runtime = SimpleNamespace(storage=world.storage, solr=world.solr, settings=settings)
    for module in (common, publishing, runs_commands):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    monkeypatch.setenv("COLUMNS", "80")
    return world


def tinytags(*arguments, typed=None, code=0):
    outcome = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
    assert outcome.exit_code == code, outcome.output
    return outcome.stdout


def test_publish_and_rollback_tell_what_is_live(world):
    first, second, _ = world.runs
    assert tinytags("publish", first.name) == f"11 documents are live in {first.collection}\n"
    tinytags("publish", second.name)
    said = tinytags("rollback")
    assert said == f"11 documents are live in {first.collection} again; {second.collection} was rolled back\n"
    assert tinytags("rollback", second.name) == said
    assert world.live() == first.collection


def test_publish_takes_the_run_that_was_planned_last(world):
    tinytags("publish")
    assert world.live() == world.runs[2].collection


def test_the_gates_are_options(world):
    first, _, third = world.runs
    tinytags("publish", first.name, "--gate-documents", "90")
    with pytest.raises(FinalError, match=r"36\.4 % of the 11"):
        tinytags("publish", third.name, "--gate-documents", "90")
    with pytest.raises(FinalError, match="its card has no figures"):
        tinytags("publish", third.name, "--gate-precision", "50")
    assert world.live() == first.collection


# Runs


def test_runs_are_listed_with_what_became_of_them(world):
    first, second, third = world.runs
    world.publish(first, second)
    tinytags("prune", "--keep", "0", "--yes")
    found = {one["run"]: one for one in json.loads(tinytags("runs", "--json"))}
    assert list(found) == [third.name, second.name, first.name]
    assert found[second.name] == {
        "run": second.name,
        "corpus": "pets",
        "model": second.model,
        "threshold": 50,
        "created": second.created,
        "blocks": 6,
        "by_state": {"verified": 6},
        "kept": world.solr.count(second.collection),
        "collection": second.collection,
        "documents": world.solr.count(second.collection),
        "pruned": "",
        "live_under": [ALIAS],
        "precision": None,
    }
    assert found[third.name]["live_under"] == []
    assert found[first.name]["documents"] is None
    assert found[first.name]["pruned"] >= "2024"


def test_the_table_of_runs_shows_what_is_live_and_what_was_pruned(world):
    first, second, _ = world.runs
    world.publish(first, second)
    tinytags("prune", "--keep", "0", "--yes")
    lines = tinytags("runs").splitlines()
    live, of_corpus = [line for line in lines if second.collection in line]
    for cell in ("6 verified", second.model, "50", ALIAS, str(world.solr.count(second.collection))):
        assert cell in live
    gone = next(line for line in lines if first.name in line)
    assert "pruned" in gone
    assert "pets" in of_corpus
    assert first.collection in of_corpus, "a rollback leads to it, once it is indexed again"


def test_the_runs_of_a_corpus_are_listed_with_all_that_was_live_of_it(world):
    (birds,) = add_corpus(world, "birds", 40)
    world.publish(world.runs[0], birds)
    assert "birds is not live under live; " in tinytags("unpublish", "birds", "--yes")
    assert birds.name in tinytags("runs")
    listed = tinytags("runs", "--corpus", "birds")
    assert world.runs[0].name not in listed
    (taken_out,) = [line for line in listed.splitlines() if "unpublished" in line]
    assert "nothing" in taken_out
    assert "nothing of corpus cats was ever live under live" in tinytags("runs", "--corpus", "cats")


def test_a_corpus_is_taken_out_only_if_a_person_says_so(world):
    world.publish(world.runs[0])
    tinytags("unpublish", "pets", typed="n\n", code=1)
    assert world.live() == world.runs[0].collection
    tinytags("unpublish", "pets", typed="y\n")
    assert world.live() == ""
    assert "11 documents are live" in tinytags("rollback", "--corpus", "pets")


def test_a_narrow_terminal_folds_names_and_cuts_none(world, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    listed = tinytags("runs")
    assert "…" not in listed
    assert world.runs[0].name not in listed
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip("│") for line in listed.splitlines() if "│" in line]
    names = "".join(line.split("│")[0].strip() for line in lines)
    for one in world.runs:
        assert one.name in names


def test_no_more_runs_are_shown_than_asked_for(world):
    third = world.runs[2]
    listed = tinytags("runs", "--limit", "1")
    assert third.name in listed
    assert "the latest 1 of 3 runs; --limit 3 shows all" in listed
    assert [one["run"] for one in json.loads(tinytags("runs", "--limit", "1", "--json"))] == [third.name]


def test_a_run_that_was_only_planned_is_listed(world):
    planned = make_another_run(world.storage, 70)
    result = summarize_runs(RunsRequest(), storage=world.storage, solr=world.solr)
    found = result.runs[0]
    assert (found.run, found.by_state, found.documents, result.known) == (planned.name, {"planned": 6}, None, 4)


def test_runs_are_listed_while_solr_is_away(world, monkeypatch):
    def away():
        raise EngineDownError("Solr does not answer")

    world.publish(world.runs[0])
    monkeypatch.setattr(world.solr, "aliases", away)
    outcome = CliRunner().invoke(app, ["runs"], catch_exceptions=False)
    assert world.runs[0].name in outcome.stdout
    assert "what is live is what was recorded last: Solr does not answer" in outcome.stderr
    assert "as recorded" in outcome.stdout
    live = {one["run"]: one["live_under"] for one in json.loads(tinytags("runs", "--json"))}
    assert live == {run.name: [ALIAS] if run is world.runs[0] else [] for run in world.runs}
    assert all(one["documents"] is None for one in json.loads(tinytags("runs", "--json")))


def test_an_empty_store_says_how_to_make_a_run(world):
    world.storage.delete("runs")
    assert "there is no run yet" in tinytags("runs")
    assert json.loads(tinytags("runs", "--json")) == []


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_run_whose_record_is_damaged_is_named_and_the_others_are_listed(world, options):
    first, second, third = world.runs
    world.storage.write(layout.run_file(second.name), b"{")
    outcome = CliRunner().invoke(app, ["runs", *options], catch_exceptions=False)
    assert outcome.exit_code == 1
    assert first.name in outcome.stdout
    assert third.name in outcome.stdout
    assert second.name not in outcome.stdout
    assert f"tinytags audit {second.name} --repair" in outcome.stderr


def test_no_command_guesses_which_run_is_the_latest_while_a_record_is_damaged(world):
    world.storage.write(layout.run_file(world.runs[2].name), b"{")
    with pytest.raises(CorruptError, match=f"tinytags audit {world.runs[2].name} --repair"):
        tinytags("publish")
    assert world.live() == ""
    tinytags("publish", world.runs[0].name)
    assert world.live() == world.runs[0].collection


def test_less_than_one_run_cannot_be_listed(world):
    with pytest.raises(BadInputError, match="--limit is 0: it must be 1 or more"):
        tinytags("runs", "--limit", "0")


# Prune


def test_prune_shows_what_it_would_do_and_a_no_does_nothing(world):
    world.publish(*world.runs)
    before = world.outcome()
    first, second, third = world.runs
    shown = tinytags("prune", typed="n\n", code=1)
    assert f"drops {first.collection} (11 documents)" in shown
    assert f"keeps {second.collection}: was live under live before, and is kept for a rollback" in shown
    assert f"keeps {third.collection}: is live under live" in shown
    assert world.outcome() == before


def test_prune_drops_what_it_showed_after_a_yes(world):
    world.publish(*world.runs)
    first = world.runs[0]
    assert "dropped 1 collections" in tinytags("prune", typed="y\n")
    assert first.collection not in world.solr.collections()
    assert "there is nothing to drop" in tinytags("prune")


def test_prune_deletes_scored_files_only_when_told(world):
    world.publish(*world.runs)
    first = world.runs[0]
    shown = tinytags("prune", "--scored", "--yes")
    assert f"drops {first.collection} (11 documents) and the scored files of run {first.name}" in shown
    assert world.outcome()["scored"] == {run.name: 0 if run is first else 6 for run in world.runs}


# Diff


def test_diff_prints_counts_and_writes_a_sheet(world, tmp_path):
    first, _, third = world.runs
    said = tinytags("diff", first.name, third.name, "--sheet", str(tmp_path / "diff.png"))
    assert "of 11 images: 4 kept their tag, 0 changed it, 0 gained, 7 lost" in said
    assert (tmp_path / "diff.png").read_bytes().startswith(b"\x89PNG")
    (mean,) = [line for line in said.splitlines() if "mean confidence" in line]
    assert "58.2 %" in mean
    assert "87.5 %" in mean


def test_diff_of_some_blocks_counts_these(world):
    first, _, third = world.runs
    found = json.loads(tinytags("diff", first.name, third.name, "--blocks", "0", "--json"))
    assert found["blocks"] == "0"
    assert 0 < found["images"] < 11
    assert found["same"] + found["lost"] == sum(found["old_by_tag"].values()) > 0


def test_diff_as_json_has_the_figures_and_the_examples(world):
    first, _, third = world.runs
    found = json.loads(tinytags("diff", first.name, third.name, "--json"))
    assert (found["old"], found["new"], found["lost"], len(found["lost_examples"])) == (first.name, third.name, 7, 7)
    assert found["changes"] == []
