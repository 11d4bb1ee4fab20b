"""Solr: version and mode, its users, its nodes, and whether every shard has a leader."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, get_args

from tinytags_tasks.clients.solr_http import ForbiddenError, SolrHttp
from tinytags_tasks.clients.solr_state import leaderless_by_owner, resting_replicas
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import SolrRole

KNOWN = ("9", "10")
"""The major versions that TinyTags speaks with."""

_area = Area("solr")


def examine_solr(runtime: Runtime) -> Iterator[Finding]:
    """Yield what would make indexing, publishing or searching fail."""
    server = list(_area.each("server", lambda: _server(runtime)))
    yield from server
    if [finding.verdict for finding in server] == ["fails"]:  # then it answers nothing else
        return
    for role in get_args(SolrRole):
        yield from _area.each("rights", lambda role=role: _login(runtime, role))  # type: ignore[misc]
    yield from _area.each("replicas", lambda: _replicas(runtime))


def _server(runtime: Runtime) -> Iterator[Finding]:
    began = time.time()
    system = runtime.solr.request("admin/info/system")
    version = str(system.get("lucene", {}).get("solr-spec-version") or "unknown")
    if system.get("mode") != "solrcloud":
        yield _area.fails("server", "Solr runs alone, without ZooKeeper", "start it in cloud mode (`solr start -c`)")
        return
    if version.partition(".")[0] in KNOWN:
        yield _area.ok("version", f"Solr {version}, in cloud mode")
    else:
        yield _area.warning("version", f"Solr {version}", "TinyTags is tested with Solr 9.10: upgrade it")
    jmx = system.get("jvm", {}).get("jmx", {})
    if "startTime" in jmx and "upTimeMS" in jmx:
        started = datetime.fromisoformat(str(jmx["startTime"]).replace("Z", "+00:00")).timestamp()
        yield _area.clock(started + float(jmx["upTimeMS"]) / 1000, began)


def _login(runtime: Runtime, role: SolrRole) -> Iterator[Finding]:
    login = runtime.settings.solr_login(role)
    http = SolrHttp(runtime.settings.address("solr_url"), role, login, pauses_seconds=(), timeout_seconds=20)
    path = {"admin": "admin/configs", "writer": "admin/collections"}.get(role)
    who = f"the {role} {login[0]!r}" if login else f"the {role}, without a password"
    try:
        if path:
            http.request(path, {"action": "LIST"})
        else:
            http.select(runtime.settings.alias, {"q": "*:*", "rows": 0})
    except ForbiddenError as error:
        if role != "reader":  # Solr answers a reader so for an alias that does not exist yet, too
            yield _area.fails("rights", str(error), f"give {who} that right, or set another user")
            return
    except EngineDownError:
        raise
    except Exception as error:
        if role != "reader" or "exist" not in str(error):  # nothing is published yet
            raise
    yield _area.ok("rights", f"{who} is accepted")


def _replicas(runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    cluster: dict[str, Any] = runtime.solr.request("admin/collections", {"action": "CLUSTERSTATUS"})["cluster"]
    nodes = cluster.get("live_nodes") or []
    if settings.solr_replicas > len(nodes):
        yield _area.warning(
            "replicas",
            f"TINYTAGS_SOLR_REPLICAS is {settings.solr_replicas}, and {len(nodes)} nodes are alive: copies would share "
            "a node",
            "start more nodes, or ask for fewer replicas",
        )
    leaderless, of_others = leaderless_by_owner(cluster, runtime.solr.aliases().get(settings.alias, ""))
    resting = [
        f"{name}/{replica}"
        for name, collection in (cluster.get("collections") or {}).items()
        for replica in resting_replicas(collection)
    ]
    if leaderless:
        yield _area.fails("replicas", f"no live leader: {_some(leaderless)}", "start the nodes that hold these shards")
    if of_others:
        yield _area.warning(
            "replicas",
            f"no live leader, in collections that are not TinyTags': {_some(of_others)}",
            "tell their owner; TinyTags does not need them",
        )
    if resting:
        yield _area.warning(
            "replicas",
            f"not active: {_some(resting)}",
            "start their nodes; until then, the other replicas serve alone",
        )
    if not (leaderless or of_others or resting):
        yield _area.ok("replicas", f"{len(nodes)} nodes; every shard has its leader, every replica is active")


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}"
