"""### TinyTags: append what is new in the sources of corpora.

`find >> append, mapped`

| task | once it has succeeded |
| --- | --- |
| `find` | the corpora are known that are complete and whose definition is there |
| `append` | what was new in the corpus' source, if it was enough, is in new shards; all that was there is as it was |

A corpus that has grown starts the Dag `tinytags_retag`, if that is switched on: it embeds and scores the new blocks,
takes over what was said of the others, indexes all, and publishes the result if it passes the gate.

A source that is away changes nothing. If files that a corpus was made from have changed or are missing, `append` fails
and names them; other corpora do not wait for that.

**When**: on the schedule in `TINYTAGS_GROW_CRON`, a cron expression in UTC such as `30 * * * *` (not set: no schedule);
and manually. A task that was killed goes on where it was: it is the next one to append, whatever else is new by then.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context, task
from tinytags_airflow import (
    GROWN_ASSET,
    NEW_IMAGES,
    SHORT,
    cron_schedule,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_forms import grow_form, read_form
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import HDFS


@task(pool=pool(HDFS), execution_timeout=SHORT)
@errors_for_airflow
def find() -> list[str]:
    """Return the corpora whose sources to look at; there may be none."""
    from tinytags_tasks.ingest.standing import standing_corpora

    clients = runtime()
    return standing_corpora(read_form()["corpus"], clients.settings.corpora_folder, clients.storage)


@task(
    map_index_template="{{ corpus }}" + NOTE,
    pool=pool(HDFS),
    execution_timeout=timedelta(hours=24),
    outlets=[NEW_IMAGES],
    doc_md="Append what is new in the corpus' source.",
)
@errors_for_airflow
def append(corpus: str) -> dict[str, Any]:
    """Append what is new in the corpus' source."""
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.ingest.standing import is_untagged
    from tinytags_tasks.ingest.step import ingest_corpus

    context = get_current_context()
    context["corpus"] = corpus
    clients = runtime()
    definition = find_definition(clients.settings.corpora_folder, corpus, clients.storage)
    grown = ingest_corpus(
        definition,
        storage=clients.storage,
        files=clients.source_files(definition),
        grow=True,
        least_new=read_form()["least_new"],
        report=report,
    )
    if is_untagged(corpus, clients.storage):
        context["outlet_events"][NEW_IMAGES].add(GROWN_ASSET, extra=asdict(grown))
    return asdict(grown)


@tinytags_dag(grow_form(), __doc__, schedule=cron_schedule("TINYTAGS_GROW_CRON"))
def tinytags_grow() -> None:
    """Append what is new in the sources of corpora."""
    append.expand(corpus=find())


tinytags_grow()
