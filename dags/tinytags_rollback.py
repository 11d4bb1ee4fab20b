"""### TinyTags: restore what was live of a corpus before.

`choose >> rollback`

| task | once it has succeeded |
| --- | --- |
| `choose` | the run to roll back is known: the form's, else the live one; or the corpus that was taken out |
| `rollback` | the alias points to what was live of the corpus before that run, and that collection is complete |

What other corpora have live stays.

The run that was rolled back stays until it is pruned, and can be published again. Clearing `rollback` does not go back
a second step: it rolls back the run that `choose` named, and finds that this is done.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import task
from tinytags_airflow import (
    INDEX_ASSET,
    SHORT,
    describe_asset_event,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_forms import read_form, rollback_form

from tinytags_tasks.airflow_names import SOLR


@task(pool=pool(SOLR), execution_timeout=SHORT)
@errors_for_airflow
def choose() -> dict[str, Any]:
    """Find the run to roll back, or the corpus to bring back."""
    from tinytags_tasks.publish.rollback import RollbackRequest, name_rollback

    form = read_form()
    clients = runtime()
    request = RollbackRequest(form["alias"], form["run"], form["corpus"])
    return asdict(name_rollback(request, storage=clients.storage, solr=clients.solr))


@task(pool=pool(SOLR), outlets=[INDEX_ASSET])
@errors_for_airflow
def rollback(chosen: dict[str, Any]) -> dict[str, Any]:
    """Point the alias to what was live before the run."""
    from tinytags_tasks.publish.rollback import RollbackRequest, roll_back

    clients = runtime()
    request = RollbackRequest(**chosen)
    result = asdict(roll_back(request, storage=clients.storage, solr=clients.solr, report=report))
    describe_asset_event(INDEX_ASSET, alias=request.alias, **result)
    return result


@tinytags_dag(rollback_form(), __doc__)
def tinytags_rollback() -> None:
    """Restore what was live before."""
    rollback(choose())


tinytags_rollback()
