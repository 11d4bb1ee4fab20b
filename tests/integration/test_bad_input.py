"""Wrong input to each command: one clear line with the remedy, exit code 2, no traceback."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import assert_one_error_line

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.ingest.step import run as ingest
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest
from tinytags_tasks.score.plan import run as plan

AWAY = {
    "hdfs": {"TINYTAGS_WEBHDFS_URL": "http://127.0.0.1:1", "TINYTAGS_HDFS_URL": "hdfs://127.0.0.1:1"},
    "solr": {"TINYTAGS_SOLR_URL": "http://127.0.0.1:1/solr"},
    "spark": {"TINYTAGS_SPARK_URL": "sc://127.0.0.1:1"},
    "airflow": {"TINYTAGS_AIRFLOW_URL": "http://127.0.0.1:1", "TINYTAGS_AIRFLOW_PASSWORD": "x"},
}


@pytest.fixture(scope="module")
def run(runtime: Runtime, model: str, pictures: dict[str, Path]) -> str:
    """A run that was planned and no more."""
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 500, "blocks_per_shard": 2}
    ingest(make_definition("bad-input", fields), storage=runtime.storage)
    return plan(PlanRequest("bad-input", model, threshold=77), storage=runtime.storage).run


@pytest.mark.parametrize(
    ("arguments", "away", "message"),
    [
        ("train no-such.parquet", "", "no-such.parquet: cannot be read"),
        ("train {corpus}", "", "not a parquet file"),
        ("train {labelled} --trees 0", "", "trees is 0: it must be 1 to 1000"),
        ("train {labelled} --seed 5", "spark", "Spark does not answer"),
        ("score no-such-corpus --model {model}", "", "no such file in the store"),
        ("score bad-input --model {model} --threshold 120", "", "threshold is 120"),
        ("score bad-input --model {model} --blocks 3,6", "", "block 6 is out of range"),
        ("score bad-input --model {model} --blocks 5-3", "", "runs backwards"),
        ("score bad-input --model {model} --threshold 77", "spark", "Spark does not answer"),
        ("index {run} --blocks 99", "", "block 99 is out of range"),
        ("index {run} --blocks 1", "", "block 1 is not scored; run `tinytags score"),
        ("index {run}", "solr", "Solr does not answer"),
        ("index no-such-run", "", "no such file in the store"),
        ("publish {run}", "", "is not published: not verified: blocks 0-5"),
        ("publish {run}", "solr", "Solr does not answer"),
        ("ledger no-such-run", "", "no such file in the store"),
        ("ledger {run} --blocks x", "", "'x' is no block number"),
        ("ledger {run} --state bad", "", "'bad' is no state"),
        ("ledger {run}", "hdfs", "HDFS does not answer"),
        ("search cat", "solr", "Solr"),
        ("search cat --min-accuracy 101", "", "out of range"),
        ("search cat --rows 0", "", "--rows is 0"),
        ("run no-such", "", "no-such.toml: no such corpus is defined"),
        ("run --labelled no-such.parquet", "", "no-such.parquet: no such file"),
        ("run", "airflow", "Airflow does not answer"),
        ("up everything", "", "everything"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tinytags: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    model: str,
    run: str,
    arguments: str,
    away: str,
    message: str,
) -> None:
    filled = arguments.format(corpus=pictures["corpus"], labelled=pictures["labelled"], model=model, run=run)
    assert_one_error_line(tinytags(*filled.split(), **AWAY.get(away, {})), message)
