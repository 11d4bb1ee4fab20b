"""### TinyTags: learn again from what people said of a corpus' pictures.

`find >> train, mapped`

| task | once it has succeeded |
| --- | --- |
| `find` | the corpora are known of whose pictures people have said enough that no model has learned yet |
| `train` | such a corpus has a model that learned from all that was said, as its last model was trained otherwise |

A new model starts the Dag `tinytags_retag`, if that is switched on: it tags what is live again from stored embeddings,
and publishes it if it passes the gate.

**When**: every ten minutes if `TINYTAGS_RETAG_REVIEWS` says how many reviews are enough, such as `250` (not set: no
schedule); and manually. Looking at the log cannot miss a word that was said while Airflow was down, whoever wrote it:
the search page, a command or an import.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, get_current_context, task
from tinytags_airflow import (
    MODEL_ASSET,
    NEW_MODELS,
    SHORT,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_forms import learn_form, read_form
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import HDFS, SPARK

_IS_ON = bool(os.environ.get("TINYTAGS_RETAG_REVIEWS", "").strip())


@task(pool=pool(HDFS), execution_timeout=SHORT)
@errors_for_airflow
def find() -> list[str]:
    """Return the corpora to learn from; there may be none."""
    from tinytags_tasks.upkeep.learn import corpora_to_learn

    return corpora_to_learn(read_form()["reviews"], storage=runtime().storage, report=report)


@task(
    map_index_template="{{ corpus }}" + NOTE,
    pool=pool(SPARK),
    execution_timeout=timedelta(hours=24),
    outlets=[NEW_MODELS],
    doc_md="Train the corpus' last model again, with all that people said.",
)
@errors_for_airflow
def train(corpus: str) -> dict[str, Any]:
    """Train the corpus' last model again, with all that people said."""
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.model_records import ModelCard
    from tinytags_tasks.train.step import request_with_reviews, train_model
    from tinytags_tasks.upkeep.learn import last_request

    context = get_current_context()
    context["corpus"] = corpus
    clients = runtime()
    trained = train_model(
        request_with_reviews(corpus, last_request(corpus, clients.storage)),
        storage=clients.storage,
        connect_spark=clients.connect_spark,
        report=report,
        providers=clients.onnx_providers,
        open_source=clients.files_at,
    )
    if trained.trained:
        card = ModelCard.load(clients.storage, layout.card_file(trained.model))
        context["outlet_events"][NEW_MODELS].add(MODEL_ASSET, extra=card.figures)
    return asdict(trained)


@tinytags_dag(learn_form(), __doc__, schedule=CronTriggerTimetable("*/10 * * * *", timezone="UTC") if _IS_ON else None)
def tinytags_learn() -> None:
    """Learn again from what people said of a corpus' pictures."""
    train.expand(corpus=find())


tinytags_learn()
