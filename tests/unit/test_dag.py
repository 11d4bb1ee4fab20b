"""The Dag: light to import, its edges, its retries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinytags_tasks.settings import PROJECT_ROOT

DESCRIBE = """
import json, sys
import airflow.sdk
import tinytags
names = ("pyspark", "numpy", "pandas", "pyarrow", "onnx", "onnxruntime", "PIL", "hdfs")
heavy = [name for name in names if name in sys.modules]
dag = tinytags.tinytags()
print(json.dumps({
    "heavy": heavy,
    "edges": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
    "retries": {task.task_id: [task.retries, bool(task.retry_exponential_backoff)] for task in dag.tasks},
    "mapped": sorted(task.task_id for task in dag.tasks if task.is_mapped or task.get_closest_mapped_task_group()),
    "params": sorted(dag.params),
    "corpora": dag.params.get_param("corpus").schema["examples"],
    "commit_rule": dag.get_task("ingest.commit").trigger_rule,
    "docs": bool(dag.doc_md),
}))
"""


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Describe the Dag in a process of its own, as the Dag processor reads it."""
    corpora = tmp_path_factory.mktemp("corpora")
    for name in ("photos", "birds"):
        (corpora / f"{name}.toml").write_text('source = "/x"\nformat = "folder"\n')
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
            "TINYTAGS_CORPORA": str(corpora),
            "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "dags")]),
        },
    )
    return json.loads(described.stdout.splitlines()[-1])


def test_reading_the_dag_imports_nothing_heavy(dag: dict) -> None:
    assert dag["heavy"] == []


def test_stages_follow_each_other_in_the_datas_order(dag: dict) -> None:
    assert dag["edges"] == {
        "ingest.plan": ["ingest.commit", "ingest.shards"],
        "ingest.shards": ["ingest.commit"],
        "ingest.commit": ["plan", "train"],
        "train": ["plan"],
        "plan": ["blocks.score", "publish"],
        "blocks.score": ["blocks.index"],
        "blocks.index": ["publish"],
        "publish": [],
    }
    assert dag["mapped"] == ["blocks.index", "blocks.score", "ingest.shards"]


def test_every_task_is_tried_again_with_growing_pauses(dag: dict) -> None:
    assert all(retries >= 3 and backs_off for retries, backs_off in dag["retries"].values())


def test_the_form_has_a_field_for_each_choice_and_the_dag_is_documented(dag: dict) -> None:
    assert {"corpus", "shards_per_task", "labelled", "threshold", "blocks_per_task", "trees", "depth"} <= set(
        dag["params"]
    )
    assert dag["docs"]


def test_the_form_proposes_the_defined_corpora(dag: dict) -> None:
    assert dag["corpora"] == ["birds", "photos"]


def test_a_corpus_whose_shards_all_stand_goes_on_without_a_mapped_task(dag: dict) -> None:
    assert dag["commit_rule"] == "none_failed"


def test_a_final_error_fails_a_task_at_once_and_a_transient_one_is_left_to_the_retries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    from airflow.sdk.exceptions import AirflowFailException
    from tinytags_airflow import errors_for_airflow

    from tinytags_tasks.errors import BadInputError, EngineDownError

    @errors_for_airflow
    def work(error: Exception) -> None:
        raise error

    with pytest.raises(AirflowFailException, match="BadInputError: block 9 is out of range"):
        work(BadInputError("block 9 is out of range"))
    with pytest.raises(EngineDownError):
        work(EngineDownError("away"))
