"""### TinyTags: drop collections that readers neither see nor can get back by a rollback.

`show >> prune`

| task | once it has succeeded |
| --- | --- |
| `show` | its log lists what would be dropped, and why the rest is kept |
| `prune` | exactly what was shown is dropped, if **Really** is on; skipped otherwise |

These are never dropped: what is live of any corpus, what a rollback would restore, what was never published and is
newer than what is live of its corpus, and what is being written. Embeddings that no model sees and no run has as
vectors are dropped, too, unless somebody is embedding; nets and models are kept. Pictures that were sent to review are
dropped a week later if people have looked at all of them, and at once if their run cannot be reviewed any more.
What was said of them is kept. Temporary files of killed writers are deleted once they are a day old. Run the Dag once
as it is, read the log of `show`, then run it again with **Really**.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import errors_for_airflow, pool, report, runtime, tinytags_dag
from tinytags_forms import prune_form, read_form

from tinytags_tasks.airflow_names import SOLR


@task(pool=pool(SOLR))
@errors_for_airflow
def show() -> dict[str, Any]:
    """Show what would be dropped, and change nothing."""
    from tinytags_tasks.upkeep.prune import PruneRequest, plan_prune

    form = read_form()
    clients = runtime()
    request = PruneRequest(form["alias"], form["keep"], form["scored"])
    found = plan_prune(request, storage=clients.storage, solr=clients.solr)
    for collection, reason in found.kept.items():
        report(f"keeps {collection}: {reason}")
    for line in found.lines("would drop"):
        report(line)
    if found.is_empty:
        report("there is nothing to drop")
    return asdict(found)


@task(pool=pool(SOLR))
@errors_for_airflow
def prune(shown: dict[str, Any]) -> dict[str, Any]:
    """Drop what was shown and may still be dropped; skipped unless Really is on."""
    from tinytags_tasks.upkeep.prune import PruneRequest, prune_collections
    from tinytags_tasks.upkeep.prune_embeddings import PrunableEmbeddings
    from tinytags_tasks.upkeep.prune_review_sets import PrunableSet

    form = read_form()
    if not form["really"]:
        raise AirflowSkipException("nothing is dropped: trigger the Dag again with Really on")
    clients = runtime()
    runs = tuple(one["run"] for one in shown["drop"])
    embeddings = tuple(PrunableEmbeddings(**one).name for one in shown["embeddings"])
    sets = tuple(PrunableSet(**one).key for one in shown["review_sets"])
    request = PruneRequest(form["alias"], form["keep"], form["scored"], runs, embeddings, sets)
    dropped = prune_collections(request, storage=clients.storage, solr=clients.solr, report=report)
    report(f"deleted {dropped.leftovers:,} temporary files of killed writers")
    return asdict(dropped)


@tinytags_dag(prune_form(), __doc__)
def tinytags_prune() -> None:
    """Drop collections that readers neither see nor can get back by a rollback."""
    prune(show())


tinytags_prune()
