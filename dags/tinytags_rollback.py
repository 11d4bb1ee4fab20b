"""### TinyTags: give readers back what was live before.

`choose >> rollback`

| task | what is true after it |
| --- | --- |
| `choose` | the run to take back is known: the one that the form names, else what is live now |
| `rollback` | the alias points at what was live before that run, which stands whole |

What is taken back stays until it is pruned, and can be published again. Clearing `rollback` does not go a second step
back: it takes back the run that `choose` named, and finds that done.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import dag, task
from tinytags_airflow import (
    DEFAULTS,
    INDEX_ASSET,
    SHORT,
    SOLR,
    alias_param,
    errors_for_airflow,
    form,
    pool,
    report,
    run_param,
    runtime,
)
from tinytags_blocks import tell_asset

PARAMS = {
    "run": run_param("The run to take back, which must be live; empty: whatever is live"),
    "alias": alias_param("Params"),
}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params=PARAMS,
    tags=["tinytags"],
    doc_md=__doc__,
    default_args=DEFAULTS,
)
def tinytags_rollback() -> None:
    """Give readers back what was live before."""

    @task(pool=pool(SOLR), execution_timeout=SHORT)
    @errors_for_airflow
    def choose() -> str:
        """Name the run to take back."""
        from tinytags_tasks.publish.history import live_run

        params = form()
        clients = runtime()
        return str(params["run"]) or live_run(params["alias"], clients.storage, clients.solr).name

    @task(pool=pool(SOLR), outlets=[INDEX_ASSET])
    @errors_for_airflow
    def rollback(unwanted: str) -> dict[str, Any]:
        """Let the alias point at what was live before the run."""
        from tinytags_tasks.publish.rollback import RollbackRequest, run

        alias = form()["alias"]
        clients = runtime()
        request = RollbackRequest(alias, unwanted)
        result = asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))
        tell_asset(INDEX_ASSET, alias=alias, **result)
        return result

    rollback(choose())


tinytags_rollback()
