"""Indexers and publishers that are killed, or run at the same time: each block and the alias stay intact."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_proxy import FaultProxy, delayed
from faulty_site import (
    BLOCKS,
    CLEAN,
    STORE,
    assert_clean,
    assert_history_is_whole,
    audit,
    client,
    index_run,
    leases,
    publish,
    repair,
    visible,
)

from tinytags_tasks.errors import ReconcileError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.run_records import Run

pytest_plugins = ["faulty_site"]


def start(site: Runtime, *command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TINYTAGS_STORE": STORE, **environment},
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_indexers_of_the_same_blocks_leave_each_block_whole(site: Runtime, run: Run) -> None:
    indexers = [start(site, "-m", "tinytags_tasks.cli", "index", run.name, "--blocks", "0-5") for _ in range(2)]
    for indexer in indexers:
        _, told = indexer.communicate(timeout=120)
        assert indexer.returncode == 0, told
    assert_clean(site, run)


KILLED_WHILE_POSTING = """
import os, signal, sys
from tinytags_tasks.cli import main
from tinytags_tasks.clients.solr import SolrClient
SolrClient.commit = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["tinytags", "index", {run!r}, "--blocks", "0-5"]
main()
"""


def test_the_leases_of_a_killed_indexer_are_taken_over_at_once(site: Runtime, run: Run) -> None:
    killed = start(site, "-c", KILLED_WHILE_POSTING.format(run=run.name))
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(leases(site, run)) == BLOCKS + 1  # and the writer's lease
    index_run(site, run)
    assert_clean(site, run)


KILLED_WHILE_PUBLISHING = """
import os, signal, sys
from tinytags_tasks.cli import main
from tinytags_tasks.clients.solr import SolrClient

def change_a_document_and_die(solr, *arguments, **options):
    solr._update({collection!r}, {{"add": {{"doc": {document!r}}}}})
    solr.commit({collection!r})
    os.kill(os.getpid(), signal.SIGKILL)

SolrClient.{moment} = change_a_document_and_die
sys.argv = ["tinytags", "publish", {run!r}]
main()
"""


@pytest.mark.parametrize("moment", ["export", "set_alias"])
def test_a_document_that_is_changed_while_publishing_is_killed_is_found_and_repaired(
    site: Runtime, run: Run, alias: str, moment: str
) -> None:
    index_run(site, run)
    name = next(name for name, document in CLEAN.items() if document["block"] == 2)
    changed = {**CLEAN[name], "id": name, "tag": "gnu"}
    script = KILLED_WHILE_PUBLISHING.format(collection=run.collection, document=changed, moment=moment, run=run.name)
    killed = start(site, "-c", script, TINYTAGS_ALIAS=alias)
    _, told = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, told
    with pytest.raises(ReconcileError, match=f"run {run.name} cannot be published: block 2 has documents with ids or"):
        publish(site, run, alias)
    assert alias not in site.solr.aliases()
    assert audit(site, run).wrong == (2,)
    repair(site, run)
    publish(site, run, alias)
    assert visible(site, alias) == CLEAN
    assert_clean(site, run)
    assert_history_is_whole(site, alias)
    assert len(read_history(alias, site.storage)) == 1
    assert not site.storage.exists(layout.alias_lease_file(alias))


def test_two_publishers_at_once_with_a_slow_solr_take_turns(
    site: Runtime, proxy: FaultProxy, new_run: Callable[[], Run], alias: str
) -> None:
    runs = new_run(), new_run()
    for run in runs:
        index_run(site, run)
    slow = proxy.let(delayed(0.5), path="CREATEALIAS", times=None)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: publish(site, run, alias, client(site, proxy)), runs))
    assert slow.befell == 2
    assert_history_is_whole(site, alias)
    assert {record.run for record in read_history(alias, site.storage)} == {run.name for run in runs}
    assert visible(site, alias) == CLEAN
