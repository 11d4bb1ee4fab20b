"""What Solr says of its shards and cores: who leads, who rests, and figures of cores as Solr 9 and Solr 10 give them.

Solr 9 gives metrics as JSON by registry, Solr 10 only in Prometheus' text format:
https://solr.apache.org/guide/solr/10_0/deployment-guide/metrics-reporting.html
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tinytags_tasks.store import layout

LEADS = ("active", "true")
"""The state of a shard's leader, and the flag that it is the leader."""

LOG_ACTIVE = 3
"""UpdateLog.State.ACTIVE: neither replaying nor buffering."""

_SAMPLE = re.compile(r'^(?P<name>\w+)\{(?P<labels>(?:[^"}]|"(?:\\.|[^"\\])*")*)\} (?P<value>\S+)')
_LABEL = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')


@dataclass(frozen=True)
class CoreMetric:
    """A figure of each core, by the names that the two forms have for it."""

    registry_name: str
    """In Solr 9: the name in a core's registry."""
    prometheus_name: str
    """In Solr 10: the name of the gauge."""


UPDATE_LOG_STATE = CoreMetric("TLOG.state", "solr_core_update_log_state")
SEGMENTS = CoreMetric("INDEX.segments", "solr_core_segments")


def leaderless_shards(collection: Mapping[str, Any]) -> list[str]:
    """Return the shards of a collection without a live leader, according to CLUSTERSTATUS: nobody can write there.

    Solr reports the replicas of nodes that are not alive as down.
    """
    return [
        name
        for name, shard in collection["shards"].items()
        if shard.get("state", "active") == "active"
        and not any((replica["state"], replica.get("leader")) == LEADS for replica in shard["replicas"].values())
    ]


def leaderless_by_owner(cluster: Mapping[str, Any], live: str) -> tuple[list[str], list[str]]:
    """Return the shards without a live leader: those of TinyTags' collections, and those of others.

    Parameters
    ----------
    cluster
        The cluster in CLUSTERSTATUS.
    live
        What the alias points at: these collections are ours, and those that are named after a run.
    """
    ours: list[str] = []
    others: list[str] = []
    for name, collection in (cluster.get("collections") or {}).items():
        is_ours = name in live.split(",") or layout.run_of_collection(name)
        (ours if is_ours else others).extend(f"{name}/{shard}" for shard in leaderless_shards(collection))
    return ours, others


def resting_replicas(collection: Mapping[str, Any]) -> dict[str, str]:
    """Return the replicas that are not active, ``shard1 core_node3 (down)``, and the core of each.

    Searches and updates go past them, and they catch up with their leader before they are active again.
    """
    return {
        f"{name} {replica_name} ({replica['state']})": str(replica.get("core") or "")
        for name, shard in collection["shards"].items()
        for replica_name, replica in shard["replicas"].items()
        if replica["state"] != "active"
    }


def core_of_registry(registry: str, collection: str) -> str:
    """Return the core that a registry of Solr 9 belongs to; empty if it is not of the collection."""
    start = f"solr.core.{collection}."
    return f"{collection}_{registry.removeprefix(start).replace('.', '_')}" if registry.startswith(start) else ""


def figures_of_registries(metrics: Mapping[str, Mapping[str, Any]], metric: CoreMetric) -> dict[str, float]:
    """Return a figure of each core from the metrics of Solr 9, by registry; cores without it are left out."""
    return {
        registry: float(values[metric.registry_name])
        for registry, values in metrics.items()
        if values.get(metric.registry_name) is not None
    }


def figures_of_text(text: str, metric: CoreMetric) -> dict[str, float]:
    """Return a figure of each core from Prometheus' text format, by the name of the registry that Solr 9 would have."""
    return {_registry(labels): value for labels, value in _samples(text, metric.prometheus_name)}


def _registry(labels: Mapping[str, str]) -> str:
    collection, shard, core = (labels.get(name, "") for name in ("collection", "shard", "core"))
    if not collection:
        return f"solr.core.{core}"
    return f"solr.core.{collection}.{shard}.{core.removeprefix(f'{collection}_{shard}_')}"


def _samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for line in text.splitlines():
        found = _SAMPLE.match(line)
        if found and found["name"] == name:
            yield dict(_LABEL.findall(found["labels"])), float(found["value"])
