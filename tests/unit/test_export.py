"""Exporting a scored run: the original's lines, only from committed blocks, and no half-written files."""

import base64
import json
import os
import sys
from types import SimpleNamespace

import pytest
from faulty_storage import Killed
from small_run import (
    BLOCKS,
    CORPUS,
    MODEL,
    TAGS,
    UNREADABLE,
    VOTES,
    SparkHere,
    address_of,
    make_corpus,
    make_run,
    pictures,
    publish_model,
    quiet,
    score_all,
)
from typer.testing import CliRunner

from tinytags_tasks.cli import app, stages
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.score import export
from tinytags_tasks.score.export import ExportRequest
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import add_up, list_runs, read_ledger
from tinytags_tasks.store.record import CHECKSUM_KEY

ALL = tuple(range(BLOCKS))
FIRST_OF_BLOCK = (0, 2, 4, 6, 7, 9, 11)


@pytest.fixture
def scored(storage):
    run = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, run)
    return run


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_lines(blocks=ALL) -> list[dict]:
    """Return what follows from each picture's votes."""
    return [
        {
            "block": block,
            "data": base64.b64encode(pictures()[position].tobytes()).decode(),
            "label": TAGS[VOTES[position].index(max(VOTES[position]))],
            "accuracy": 10 * max(VOTES[position]),
        }
        for block in blocks
        for position in range(FIRST_OF_BLOCK[block], FIRST_OF_BLOCK[block + 1])
        if position not in UNREADABLE and max(VOTES[position]) >= 4
    ]


def write(storage, run, output, blocks=ALL):
    return export.export_run(ExportRequest(run.name, tuple(blocks), str(output)), storage=storage, report=quiet)


def test_every_kept_image_is_a_line_in_the_order_of_positions(storage, scored, tmp_path):
    output = tmp_path / "scored.jsonl"
    result = write(storage, scored, output)
    assert lines_of(output) == expected_lines()
    assert (result.run, result.blocks, result.images) == (scored.name, ALL, len(expected_lines()))


def test_a_line_has_the_names_of_the_original_and_no_others(storage, scored, tmp_path):
    output = tmp_path / "scored.jsonl"
    write(storage, scored, output)
    assert [tuple(line) for line in lines_of(output)] == [("block", "data", "label", "accuracy")] * len(
        expected_lines()
    )


def test_only_the_blocks_asked_for_are_written(storage, scored, tmp_path):
    output = tmp_path / "scored.jsonl"
    write(storage, scored, output, [4, 2])
    assert lines_of(output) == expected_lines([4, 2])


def test_the_standard_output_gets_the_same_lines(storage, scored, capfd):
    write(storage, scored, "-")
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == expected_lines()


def test_a_long_export_says_how_far_it_is(storage, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "REPORT_SECONDS", 0.0)
    lines = []
    request = ExportRequest(scored.name, ALL, str(tmp_path / "scored.jsonl"))
    export.export_run(request, storage=storage, report=lines.append)
    after = [sum(line["block"] < block for line in expected_lines()) for block in ALL]
    said = [f"{images} images of {done} of {BLOCKS} blocks are written" for done, images in enumerate(after)]
    assert lines[:-1] == said


def test_blocks_that_are_not_scored_are_named_and_nothing_is_written(storage, scored, tmp_path):
    for block in (1, 2, 5):
        storage.delete(layout.scored_file(scored.name, block))
    output = tmp_path / "scored.jsonl"
    with pytest.raises(MissingError, match=rf"3 of 6 .* 1-2,5; run `tinytags score {scored.name} --blocks 1-2,5` "):
        write(storage, scored, output)
    assert not output.exists()
    write(storage, scored, output, [0, 3, 4])
    assert lines_of(output) == expected_lines([0, 3, 4])


def test_a_block_that_the_run_does_not_have_is_refused(storage, scored, tmp_path):
    with pytest.raises(BadInputError, match="block 6 is out of range"):
        write(storage, scored, tmp_path / "scored.jsonl", [6])


def test_a_block_scored_on_other_bytes_is_corrupt(storage, scored, tmp_path):
    path = layout.shard_manifest_file(CORPUS, 0)
    manifest = json.loads(storage.read(path))
    del manifest[CHECKSUM_KEY]
    manifest["blocks"][1]["sha256"] = "0" * 64
    storage.write(path, json.dumps(manifest).encode())
    output = tmp_path / "scored.jsonl"
    with pytest.raises(CorruptError, match=r"block 1 was scored on bytes other than .*; score block 1 again with"):
        write(storage, scored, output)
    assert list(tmp_path.glob("*scored.jsonl*")) == []


def test_a_damaged_shard_leaves_what_stood_under_the_files_name(storage, scored, tmp_path):
    output = tmp_path / "scored.jsonl"
    output.write_text("the last export")
    path = storage.root / layout.shard_file(CORPUS, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptError, match="block 5"):
        write(storage, scored, output)
    assert output.read_text() == "the last export"
    assert [found.name for found in tmp_path.glob("*scored.jsonl*")] == ["scored.jsonl"]


def test_an_export_killed_in_the_middle_leaves_no_file_of_its_name(storage, scored, tmp_path, monkeypatch):
    genuine = export.read_pixels

    def read_until_the_kill(storage, source):
        if source.block == 3:
            raise Killed
        return genuine(storage, source)

    monkeypatch.setattr(export, "read_pixels", read_until_the_kill)
    output = tmp_path / "scored.jsonl"
    with pytest.raises(Killed):
        write(storage, scored, output)
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_named(storage, scored, tmp_path):
    with pytest.raises(BadInputError, match="no-such-folder/a: cannot be written"):
        write(storage, scored, tmp_path / "no-such-folder" / "a")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "store"):
        with pytest.raises(BadInputError, match=f"{name}: is not a regular file"):
            write(storage, scored, tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()


def test_a_reader_that_goes_away_is_told(storage, scored, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BadInputError, match="standard output was closed before the export was complete"):
            write(storage, scored, "-")


# The command


@pytest.fixture
def command(storage, monkeypatch):
    """Run `tinytags score` on a store without engines; return its outcome and how many Spark sessions it opened."""
    spark = SparkHere()

    class Clients:
        def __init__(self) -> None:
            self.storage, self.store_address, self.connect_spark = storage, address_of(storage), spark
            self.settings = SimpleNamespace(similar="auto")

    monkeypatch.setattr(stages, "clients", Clients)
    monkeypatch.setattr(stages, "find_run", lambda name: next(run for run in list_runs(storage) if run.name == name))

    def score(*arguments: str):
        outcome = CliRunner().invoke(app, ["score", *arguments])
        return outcome, spark.sessions

    return score


def test_scoring_says_how_many_images_were_kept_and_where_unreadable_ones_are_named(storage, command):
    make_corpus(storage, unreadable=(3,))
    publish_model(storage)
    outcome, _ = command(CORPUS)
    (run,) = list_runs(storage)
    totals = add_up(read_ledger(storage, run))
    told = f"{totals.kept} of {totals.read} images kept, {totals.below} below 40 %, 1 unreadable"
    assert f"{told} (`tinytags corpus show {CORPUS}` names them)" in outcome.stderr


def test_a_corpus_is_scored_and_its_run_named(storage, command):
    make_corpus(storage)
    publish_model(storage)
    outcome, _ = command(CORPUS, "--threshold", "60")
    (run,) = list_runs(storage)
    assert (outcome.exit_code, outcome.stdout) == (0, f"{run.name}\n")
    assert (run.model, run.threshold) == (MODEL, 60)
    assert len(storage.names(layout.scored_folder(run.name))) == BLOCKS


def test_a_run_is_scored_by_its_name_and_only_what_is_missing(storage, command):
    run = make_run(storage, threshold=50)
    command(run.name, "--blocks", "1-2")
    assert storage.names(layout.scored_folder(run.name)) == ["000001.parquet", "000002.parquet"]
    outcome, _ = command(run.name)
    assert "2 of 6 blocks are committed, 4 to score" in outcome.stderr
    assert [found.name for found in list_runs(storage)] == [run.name]


def test_a_finished_run_is_exported_without_spark(storage, scored, command, tmp_path):
    output = tmp_path / "scored.jsonl"
    outcome, sessions = command(scored.name, "--export", "json", "--output", str(output))
    assert (outcome.exit_code, outcome.stdout, sessions) == (0, f"{scored.name}\n", 0)
    assert lines_of(output) == expected_lines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export", "csv"], "--export is 'csv': the only format is json"),
        (["--output", "a"], "--output a is for an export: add --export json"),
        (["--threshold", "50"], "has a model, a threshold and vectors, or none, already"),
        (["--model", MODEL], "has a model, a threshold and vectors, or none, already"),
        (["--blocks", "6"], "block 6 is out of range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(scored, command, arguments, message):
    outcome, _ = command(scored.name, *arguments)
    assert isinstance(outcome.exception, BadInputError)
    assert message in str(outcome.exception)


def test_a_name_that_is_neither_corpus_nor_run_is_missing(storage, command):
    publish_model(storage)
    outcome, _ = command("nobody")
    assert isinstance(outcome.exception, MissingError)
    assert "corpus nobody is not in the store" in str(outcome.exception)
