"""The Dags: light to import, their edges, retries, priorities and forms."""

import json
import os
import subprocess
import sys

import pytest

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.train.parameters import TrainRequest

DAGS = (
    "tinytags",
    "tinytags_audit",
    "tinytags_backfill",
    "tinytags_clean",
    "tinytags_grow",
    "tinytags_learn",
    "tinytags_prune",
    "tinytags_retag",
    "tinytags_rollback",
)

TOLD = {
    "TINYTAGS_POOLS": "1",
    "TINYTAGS_RETAG_CRON": "0 2 * * 6",
    "TINYTAGS_GROW_CRON": "30 * * * *",
    "TINYTAGS_RETAG_REVIEWS": "100",
    "TINYTAGS_AUDIT_CRON": "0 3 * * 0",
    "TINYTAGS_AUDIT_REPAIR": "true",
    "TINYTAGS_ALIAS": "photos",
    "TINYTAGS_KEEP_LOG_DAYS": "14",
}

DESCRIBE = """
import importlib, json, os, sys
import airflow.sdk
names = ("pyspark", "numpy", "pandas", "pyarrow", "onnx", "onnxruntime", "PIL", "hdfs", "sklearn")
before = {name for name in names if name in sys.modules}
DAGS = sys.argv[1].split()
heavy = {}


def describe():
    dags = {}
    for name in DAGS:
        dag = getattr(importlib.import_module(name), name)()
        ours = {module for module in sys.modules if module.startswith("tinytags_tasks.")}
        heavy[name] = sorted({name for name in names if name in sys.modules} - before)
        light = ("airflow_names", "airflow_parts", "errors", "parts", "secrecy", "settings")
        heavy[name] += sorted(ours - {f"tinytags_tasks.{module}" for module in light})
        dags[name] = {
            "edges": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
            "retries": {task.task_id: [task.retries, bool(task.retry_exponential_backoff)] for task in dag.tasks},
            "time_outs": {task.task_id: task.execution_timeout is not None for task in dag.tasks},
            "pools": {task.task_id: task.pool for task in dag.tasks},
            "priorities": {task.task_id: task.priority_weight for task in dag.tasks},
            "tells_success": sorted(task.task_id for task in dag.tasks if task.on_success_callback),
            "notifies": {task.task_id: bool(task.on_failure_callback) for task in dag.tasks},
            "owners": {task.task_id: task.owner for task in dag.tasks},
            "rules": {task.task_id: task.trigger_rule for task in dag.tasks},
            "mapped": sorted(t.task_id for t in dag.tasks if t.is_mapped or t.get_closest_mapped_task_group()),
            "values": {name: dag.params.get_param(name).value for name in dag.params},
            "params": {name: dag.params.get_param(name).schema for name in dag.params},
            "must_be_filled": [  # Airflow's form insists on a value where there may be no null
                name
                for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
                if param.value in ("", None) and "null" not in param.schema["type"]
            ],
            "described": all(
                dag.params.get_param(name).description or dag.params.get_param(name).schema.get("title")
                for name in dag.params
            ),
            "documented": {"dag": bool(dag.doc_md)} | {task.task_id: bool(task.doc_md) for task in dag.tasks},
            "tags": sorted(dag.tags),
            "timetable": type(dag.timetable).__name__,
            "active_runs": dag.max_active_runs,
            "paused": dag.is_paused_upon_creation,
        }
    return dags


bare = describe()
for name in [name for name in sys.modules if name.startswith("tinytags")]:
    del sys.modules[name]
os.environ.update(json.loads(sys.argv[2]))
print(json.dumps({"heavy": dict(heavy), "dags": bare, "set_up": describe()}))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The Dags in a separate process, as the Dag processor reads them: by default, then with all settings of Dags."""
    folder = tmp_path_factory.mktemp("dags")
    corpora = folder / "corpora"
    corpora.mkdir()
    for name in ("photos", "birds"):
        (corpora / f"{name}.toml").write_text('source = "/x"\nformat = "folder"\n')
    seen = {"corpora": ["elsewhere"], "models": ["forest-000000000001", "forest-000000000002"]}
    seen["nets"] = ["dino-000000000003"]
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE, " ".join(DAGS), json.dumps(TOLD), "dag-processor"],
        capture_output=True,
        text=True,
        check=True,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("TINYTAGS_")},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW_VAR_TINYTAGS_SUGGESTIONS": json.dumps(seen),
            "TINYTAGS_HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(PROJECT_ROOT), str(PROJECT_ROOT / "dags")]),
        },
    )
    return json.loads(described.stdout.splitlines()[-1])


@pytest.fixture
def set_up(described: dict) -> dict:
    return described["set_up"]


@pytest.fixture
def dag(described: dict) -> dict:
    return described["dags"]["tinytags"]


def test_airflow_is_told_which_files_hold_no_dag() -> None:
    folder = PROJECT_ROOT / "dags"
    others = {path.name for path in folder.glob("*.py")} - {f"{name}.py" for name in DAGS}
    assert others == set((folder / ".airflowignore").read_text().split())


@pytest.mark.parametrize("name", DAGS)
def test_reading_a_dag_imports_nothing_heavy(described: dict, name: str) -> None:
    assert described["heavy"][name] == []


@pytest.mark.parametrize("name", DAGS)
def test_every_dag_and_task_is_documented_owned_and_bounded_in_time(described: dict, name: str) -> None:
    dag = described["dags"][name]
    assert {what for what, is_documented in dag["documented"].items() if not is_documented} == set()
    assert set(dag["owners"].values()) == {"tinytags"}
    assert all(dag["time_outs"].values())
    assert dag["tags"] == ["tinytags"]
    assert dag["described"]


@pytest.mark.parametrize("name", DAGS)
def test_every_task_is_tried_again_with_growing_pauses_and_tells_of_its_failure(described: dict, name: str) -> None:
    dag = described["dags"][name]
    assert all(retries == 4 and backs_off for retries, backs_off in dag["retries"].values())
    assert all(dag["notifies"].values())


def test_stages_follow_each_other_in_the_datas_order(dag: dict) -> None:
    assert dag["edges"] == {
        "check": ["ingest.plan"],
        "ingest.plan": ["ingest.commit", "ingest.shards"],
        "ingest.shards": ["ingest.commit"],
        "ingest.commit": ["plan", "train"],
        "train": ["plan"],
        "plan": ["blocks", "reconcile"],
        "blocks": ["reconcile"],
        "reconcile": ["propose", "publish"],
        "propose": ["ask"],
        "ask": ["publish"],
        "publish": [],
    }
    assert dag["mapped"] == ["blocks", "ingest.shards"]
    assert dag["rules"]["publish"] == "none_failed_min_one_success", "that nobody is asked does not skip it"


def test_a_backfill_scores_indexes_reconciles_and_publishes_or_deletes(described: dict) -> None:
    dag = described["dags"]["tinytags_backfill"]
    assert dag["edges"] == {
        "plan": ["blocks", "delete", "reconcile"],
        "delete": [],
        "blocks": ["reconcile"],
        "reconcile": ["publish"],
        "publish": [],
    }
    assert dag["mapped"] == ["blocks"]


def test_tagging_again_publishes_what_agrees_and_starts_a_run_for_each_of_several_indexes(described: dict) -> None:
    dag = described["dags"]["tinytags_retag"]
    assert dag["edges"] == {
        "choose": ["groups", "others", "publish"],
        "others": ["each"],
        "each": [],
        "groups": ["blocks"],
        "blocks": ["publish"],
        "publish": [],
    }
    assert dag["mapped"] == ["blocks", "each", "publish"]
    assert dag["rules"]["publish"] == "all_done"


def test_the_small_dags_look_before_they_act(described: dict) -> None:
    edges = {name: described["dags"][name]["edges"] for name in DAGS}
    assert edges["tinytags_audit"] == {
        "choose": ["audit"],
        "audit": ["conclude", "judge"],
        "conclude": [],
        "judge": ["backfill"],
        "backfill": [],
    }
    assert described["dags"]["tinytags_audit"]["mapped"] == ["audit", "backfill"]
    assert edges["tinytags_clean"] == {"database": ["logs"], "logs": []}
    assert edges["tinytags_grow"] == {"find": ["append"], "append": []}
    assert edges["tinytags_learn"] == {"find": ["train"], "train": []}
    assert edges["tinytags_prune"] == {"show": ["prune"], "prune": []}
    assert edges["tinytags_rollback"] == {"choose": ["rollback"], "rollback": []}


def test_what_is_nearer_to_the_reader_goes_first(dag: dict) -> None:
    priorities = dag["priorities"]
    assert priorities["ingest.shards"] < priorities["blocks"] < priorities["publish"]
    assert {priorities[task] for task in set(priorities) - {"ingest.shards", "blocks"}} == {priorities["publish"]}


def test_tasks_use_pools_only_where_these_were_made(described: dict, set_up: dict) -> None:
    assert {pool for dag in described["dags"].values() for pool in dag["pools"].values()} == {"default_pool"}
    assert set_up["tinytags"]["pools"] == {
        "check": "default_pool",
        "ingest.plan": "tinytags_hdfs",
        "ingest.shards": "tinytags_hdfs",
        "ingest.commit": "tinytags_hdfs",
        "train": "tinytags_spark",
        "plan": "tinytags_solr",
        "blocks": "tinytags_spark",
        "reconcile": "tinytags_solr",
        "propose": "tinytags_solr",
        "ask": "default_pool",
        "publish": "tinytags_solr",
    }


def test_nothing_runs_by_itself_until_it_is_asked_to(described: dict, set_up: dict) -> None:
    timetables = {name: dag["timetable"] for name, dag in described["dags"].items()}
    assert timetables == dict.fromkeys(DAGS, "NullTimetable") | {"tinytags_retag": "AssetTriggeredTimetable"}
    assert {name for name in DAGS if described["dags"][name]["paused"] is not False} == {
        "tinytags_audit",
        "tinytags_retag",
    }
    assert set_up["tinytags_retag"]["timetable"] == "AssetOrTimeSchedule"
    assert set_up["tinytags_grow"]["timetable"] == "CronTriggerTimetable"
    assert set_up["tinytags_learn"]["timetable"] == "CronTriggerTimetable"
    assert set_up["tinytags_learn"]["values"] == {"reviews": 100}
    assert set_up["tinytags_audit"]["timetable"] == "CronTriggerTimetable"
    assert set_up["tinytags_clean"]["timetable"] == "CronTriggerTimetable"
    assert set_up["tinytags_clean"]["values"] == {"days": 14}


def test_corpora_are_tagged_side_by_side(dag: dict) -> None:
    assert dag["active_runs"] > 1


def test_the_form_has_a_field_for_each_choice(dag: dict) -> None:
    fields = {"corpus", "shards_per_task", "model", "labelled", "threshold", "blocks_per_task", "blocks", "publish"}
    assert fields | {"gate_documents", "gate_precision", "alias", "trees", "depth"} <= set(dag["params"])
    assert dag["params"]["publish"]["enum"] == ["yes", "gate", "ask", "no"]
    assert (dag["params"]["threshold"]["minimum"], dag["params"]["threshold"]["maximum"]) == (0, 100)
    assert dag["params"]["head"]["enum"] == ["logistic", "forest"]
    assert dag["params"]["none"]["enum"] == ["yes", "no"]


def test_a_form_sent_as_it_is_trains_what_a_training_without_options_trains(dag: dict) -> None:
    assert dag["values"]["features"] == TrainRequest("x").features
    assert dag["values"]["head"] == TrainRequest("x").head
    assert dag["values"]["none"] == "yes"


def test_a_form_may_be_sent_as_it_is_but_for_the_run_to_backfill(described: dict) -> None:
    must_be_filled = {name: described["dags"][name]["must_be_filled"] for name in DAGS}
    assert must_be_filled == {name: ["run"] if name == "tinytags_backfill" else [] for name in DAGS}


def test_the_form_proposes_the_defined_corpora_and_the_models_and_nets_seen_last(dag: dict) -> None:
    assert dag["params"]["features"]["examples"] == ["general32", "dino-000000000003", "pixels"]
    assert dag["params"]["corpus"]["examples"] == ["birds", "elsewhere", "photos"]
    assert dag["params"]["model"]["examples"] == ["forest-000000000001", "forest-000000000002"]


def test_a_corpus_whose_shards_all_stand_goes_on_without_a_mapped_task(dag: dict) -> None:
    assert dag["rules"]["ingest.commit"] == "none_failed"


def test_runs_that_are_published_send_a_message(described: dict) -> None:
    told = {name: dag["tells_success"] for name, dag in described["dags"].items() if dag["tells_success"]}
    assert told == {"tinytags": ["publish"], "tinytags_retag": ["publish"]}
