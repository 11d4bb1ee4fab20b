"""### TinyTags: drop the collections that readers neither see nor can be given back.

`show >> prune`

| task | what is true after it |
| --- | --- |
| `show` | its log says what would go, and why each other collection stays |
| `prune` | just what was shown is gone, when **Really** was switched on; skipped otherwise |

What is live, what a rollback would lead to, what was never published and is newer than what is live, and what somebody
writes now is never touched. Files that killed writers left under temporary names go after a day. Run it once as it is,
read the log of `show`, then run it again with **Really**.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import (
    DEFAULTS,
    SOLR,
    alias_param,
    errors_for_airflow,
    form,
    pool,
    report,
    runtime,
    settings_or_none,
)

_SETTINGS = settings_or_none()

PARAMS = {
    "really": Param(
        False, type="boolean", title="Really", description="Drop what is shown; off: show it, and change nothing"
    ),
    "keep": Param(
        _SETTINGS.keep_collections if _SETTINGS else 1,
        type="integer",
        minimum=0,
        title="Keep",
        description="Collections to keep behind the live one, to roll back to",
    ),
    "scored": Param(
        False,
        type="boolean",
        title="Scored files, too",
        description="Delete the scored files of runs whose collection goes; they must be scored again to be indexed",
    ),
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
def tinytags_prune() -> None:
    """Drop the collections that readers neither see nor can be given back."""

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def show() -> dict[str, Any]:
        """Tell what would go, and change nothing."""
        from tinytags_tasks.publish.prune import PruneRequest, plan_prune

        params = form()
        clients = runtime()
        request = PruneRequest(params["alias"], params["keep"], params["scored"])
        found = plan_prune(request, storage=clients.storage, solr=clients.solr)
        for collection, reason in found.stays.items():
            report(f"keeps {collection}: {reason}")
        for line in found.lines("would drop"):
            report(line)
        if found.is_empty:
            report("there is nothing to drop")
        return asdict(found)

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def prune(shown: dict[str, Any]) -> dict[str, Any]:
        """Drop what was shown and may still go; skipped unless it is really wanted."""
        from tinytags_tasks.publish.prune import PruneRequest, run

        params = form()
        if not params["really"]:
            raise AirflowSkipException("nothing is dropped: trigger again with Really switched on")
        clients = runtime()
        runs = tuple(one["run"] for one in shown["drop"])
        request = PruneRequest(params["alias"], params["keep"], params["scored"], runs)
        dropped = run(request, storage=clients.storage, solr=clients.solr, report=report)
        report(f"dropped {dropped.leftovers:,} files that killed writers left")
        return asdict(dropped)

    prune(show())


tinytags_prune()
