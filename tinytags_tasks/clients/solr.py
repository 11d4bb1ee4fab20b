"""The pipeline's Solr client: configsets, collections and aliases, and the documents of runs.

Reference: https://solr.apache.org/guide/solr/9_10/deployment-guide/collections-api.html
"""

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

from tinytags_tasks.blocks import Block
from tinytags_tasks.clients.solr_http import CONNECTIONS, PAUSES_SECONDS, SOLR, ForbiddenError, SolrHttp
from tinytags_tasks.clients.solr_state import (
    LEADS,
    LOG_ACTIVE,
    SEGMENTS,
    UPDATE_LOG_STATE,
    CoreMetric,
    core_of_registry,
    figures_of_registries,
    figures_of_text,
    leaderless_shards,
    resting_replicas,
)
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError, TransientError
from tinytags_tasks.settings import Login, SolrRole
from tinytags_tasks.store.configsets import Configset

_PAGE = 5_000
EXPORT_POSITIONS = 30_000
"""Positions to export at once: about 25 MB of documents. Solr collects 30,000 documents a pass."""

_MERGE_SECONDS = 3600
"""How long Solr may take to merge an index: a million documents with vectors took 65 s."""

_OFTEN_SAME = frozenset({"block", "corpus", "model", "shard", "width"})
"""Fields that neighbouring documents have in common: half of what an export would send."""


class SolrClient:
    """A client of one Solr, or of a SolrCloud cluster through one of its nodes.

    Parameters
    ----------
    url
        Solr's address, such as ``http://host:8983/solr``.
    admin
        User and password for configsets, collections, aliases and the cluster's state.
    writer
        User and password for writing, deleting and counting documents. Both are None if Solr requires no
        authentication.
    as_writer
        Whether the writer makes the requests of the admin, too; those that manage anything are then refused.
    pauses_seconds
        How long to wait before each retry of a request for which Solr was busy or down.
    timeout_seconds
        How long a response may take.
    """

    def __init__(
        self,
        url: str,
        *,
        admin: Login | None = None,
        writer: Login | None = None,
        as_writer: bool = False,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
        timeout_seconds: float = 180,
    ) -> None:
        role: SolrRole = "writer" if as_writer else "admin"
        login = writer if as_writer else admin
        self._admin = SolrHttp(url, role, login, pauses_seconds=pauses_seconds, timeout_seconds=timeout_seconds)
        self._writer = SolrHttp(
            url,
            "writer",
            writer,
            pauses_seconds=pauses_seconds,
            timeout_seconds=timeout_seconds,
            explain_refused=self._explain_refused,
        )
        # Without retries: Solr goes on merging when nobody waits for it any more, and would merge twice at once.
        self._merger = SolrHttp(url, "writer", writer, pauses_seconds=(), timeout_seconds=_MERGE_SECONDS)
        self._speaks_prometheus = False
        self.url = self._admin.url

    def request(
        self, path: str, parameters: Mapping[str, object] | None = None, body: bytes | None = None, mime: str = ""
    ) -> dict[str, Any]:
        """Send a request: as the admin if its path begins with ``admin/``, otherwise as the writer.

        Raises the errors of :meth:`SolrHttp.request`; see :meth:`_explain_refused` for what Solr refuses the writer.
        """
        http = self._admin if path.startswith("admin/") else self._writer
        return http.request(path, parameters, body, mime)

    def _explain_refused(self, path: str, error: ForbiddenError | MissingError) -> TransientError | FinalError:
        """Return the error for a request that Solr forbids the writer, or whose collection it does not find.

        Either the collection does not exist, or Solr has just lost ZooKeeper and knows no users, or has just started
        and does not serve the collection yet.
        """
        name = unquote(path.partition("/")[0])
        if name not in self.collections() and name not in self.aliases():
            return MissingError(f"{self.url}: the collection {name} does not exist")
        if isinstance(error, ForbiddenError):
            return TransientError(str(error))
        return EngineDownError(f"{self.url}: Solr knows the collection {name}, but does not serve it yet", SOLR)

    # Configsets and collections

    def configset_names(self) -> list[str]:
        """Return the names of all configsets, whether they are used or not."""
        return sorted(self.request("admin/configs", {"action": "LIST"})["configSets"])

    def upload_configset(self, configset: Configset) -> None:
        """Upload a configset, and replace what Solr has under its name."""
        self.request(
            f"admin/configs?action=UPLOAD&name={configset.name}&overwrite=true&cleanup=true&wt=json",
            body=configset.packed(),
            mime="application/octet-stream",
        )

    def delete_configset(self, name: str) -> None:
        """Delete a configset; Solr rejects this while a collection uses it."""
        self.request("admin/configs", {"action": "DELETE", "name": name})

    def ensure_collection(self, name: str, configset: str, *, shards: int = 1, replicas: int = 1) -> bool:
        """Create a collection unless it exists, with whatever configset; return whether it was created."""
        if name not in self.collections():
            try:
                self.request(
                    "admin/collections",
                    {
                        "action": "CREATE",
                        "name": name,
                        "collection.configName": configset,
                        "numShards": shards,
                        "replicationFactor": replicas,
                        "waitForFinalState": "true",
                    },
                )
                return True
            except (FinalError, TransientError):
                if name not in self.collections():  # otherwise another writer was faster, or only the response was lost
                    raise
        return False

    def collections(self) -> list[str]:
        """Return the names of all collections."""
        return sorted(self.request("admin/collections", {"action": "LIST"})["collections"])

    def delete_collection(self, name: str) -> None:
        """Delete a collection with all its documents."""
        self.request("admin/collections", {"action": "DELETE", "name": name})

    def aliases(self) -> dict[str, str]:
        """Return each alias and its collections, separated by commas."""
        return dict(self.request("admin/collections", {"action": "LISTALIASES"}).get("aliases") or {})

    def set_alias(self, alias: str, collections: str) -> None:
        """Point an alias at collections, separated by commas, in one atomic step."""
        self.request("admin/collections", {"action": "CREATEALIAS", "name": alias, "collections": collections})

    def delete_alias(self, alias: str) -> None:
        """Delete an alias; its collections stay."""
        self.request("admin/collections", {"action": "DELETEALIAS", "name": alias})

    def _cluster(self, collection: str) -> dict[str, Any]:
        try:
            status = self.request("admin/collections", {"action": "CLUSTERSTATUS", "collection": collection})
        except FinalError as error:
            if collection in self.collections():
                raise
            raise MissingError(f"{self.url}: the collection {collection} does not exist") from error
        found: dict[str, Any] = status["cluster"]["collections"][collection]
        return found

    def wait_until_settled(self, collection: str, timeout_seconds: float = 120) -> None:
        """Wait until every shard has a live leader, and no update log of an active replica is being replayed.

        After a crash, Solr answers before it has replayed its log; until then, counts are too low and commits do
        nothing. Replicas that are down do not matter: searches and updates go past them.

        Raises
        ------
        EngineDownError
            If that takes longer than the timeout.
        """
        deadline = time.monotonic() + timeout_seconds
        while unsettled := self._unsettled(collection):
            if time.monotonic() > deadline:
                problem = f"collection {collection}: not ready after {timeout_seconds:g} s: {unsettled}"
                raise EngineDownError(problem, SOLR)
            time.sleep(0.3)

    def _unsettled(self, collection: str) -> str:
        cluster = self._cluster(collection)
        resting = resting_replicas(cluster)
        if leaderless := leaderless_shards(cluster):
            said = f"{', '.join(leaderless)} without a live leader"
            return f"{said}; {', '.join(resting)}" if resting else said
        for registry, state in self.core_figures(UPDATE_LOG_STATE).items():
            core = core_of_registry(registry, collection)
            if core and core not in resting.values() and state != LOG_ACTIVE:
                return f"{registry} is replaying its update log"
        return ""

    def core_figures(self, metric: CoreMetric) -> dict[str, float]:
        """Return a figure of each core on the node that answers, by the core's registry, ``solr.core.run.shard1.x``."""
        if not self._speaks_prometheus:
            try:
                asked = {"group": "core", "prefix": metric.registry_name}
                return figures_of_registries(self.request("admin/metrics", asked)["metrics"], metric)
            except (ForbiddenError, MissingError, BadInputError):
                raise
            except FinalError:
                pass  # Solr 10 refuses JSON
        text = self._admin.text("admin/metrics", {"wt": "prometheus", "name": metric.prometheus_name})
        self._speaks_prometheus = True
        return figures_of_text(text, metric)

    def field_names(self, collection: str) -> frozenset[str]:
        """Return the fields that a collection's schema declares."""
        path = f"{quote(collection)}/schema/fields"
        try:
            answer = self._admin.request(path)
        except MissingError:
            if collection not in self.collections():
                raise
            self.wait_until_settled(collection)  # a node that has just lost ZooKeeper knows no collection
            answer = self._admin.request(path)
        return frozenset(field["name"] for field in answer["fields"])

    # Documents

    @contextmanager
    def posting(self, collection: str, mime: str) -> Generator[Callable[[bytes], Future[dict[str, Any]]]]:
        """Yield a function that posts bodies of one format in parallel; all requests have ended when the block exits.

        The function waits while many requests are in progress, so that only a few bodies are in memory at once.
        """
        path = f"{quote(collection)}/update?wt=json"
        sent: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(CONNECTIONS) as pool:

            def post(body: bytes) -> Future[dict[str, Any]]:
                if len(sent) == 3 * CONNECTIONS:
                    wait([sent.popleft()])
                sent.append(pool.submit(self.request, path, None, body, mime))
                return sent[-1]

            try:
                yield post
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def commit(self, collection: str) -> None:
        """Make all acknowledged updates durable and visible."""
        self.request(f"{quote(collection)}/update?wt=json", body=b'{"commit": {}}', mime="application/json")

    def segments(self, collection: str) -> tuple[int, ...]:
        """Return how many segments each replica of a collection searches; empty if some are on other nodes."""
        figures = self.core_figures(SEGMENTS)
        found = tuple(int(count) for core, count in figures.items() if core_of_registry(core, collection))
        replicas = sum(len(shard["replicas"]) for shard in self._cluster(collection)["shards"].values())
        return found if len(found) == replicas else ()

    def merge_segments(self, collection: str, most: int) -> None:
        """Merge every replica of a collection into at most so many segments, commit, and wait for it.

        Nothing happens where there are no more. Commits of other writers wait meanwhile.

        Raises
        ------
        EngineDownError
            If Solr is away, or not done within an hour; it may go on, and the next call waits for what is left.
        """
        self._merger.request(f"{quote(collection)}/update", {"optimize": "true", "maxSegments": int(most)})

    def count(self, collection: str) -> int:
        """Return how many documents are visible."""
        return int(self._select(collection, {"query": "*:*", "limit": 0})["response"]["numFound"])

    def count_by_block(self, collection: str, blocks: Sequence[int] | None = None) -> dict[int, int]:
        """Return how many documents are visible in each block, or in each of these blocks, that has any."""
        query: dict[str, object] = {
            "query": "*:*",
            "limit": 0,
            "facet": {"blocks": {"type": "terms", "field": "block", "limit": -1}},
        }
        if blocks is not None:
            query["filter"] = ["{!terms f=block v=$blocks}"]
            query["params"] = {"blocks": ",".join(str(block) for block in blocks)}
        facets = self._select(collection, query)["facets"]
        return {bucket["val"]: bucket["count"] for bucket in facets.get("blocks", {}).get("buckets", [])}

    def ids_of_block(self, collection: str, block: int) -> list[str]:
        """Return the ids of the visible documents of a block."""
        query = {"query": "{!term f=block v=$block}", "fields": "id", "sort": "id asc"}
        return [document["id"] for document in self._pages(collection, query, {"block": str(int(block))})]

    def _pages(
        self, collection: str, query: Mapping[str, object], parameters: Mapping[str, object]
    ) -> Iterator[dict[str, Any]]:
        """Yield all documents that match a query, page by page."""
        cursor = "*"
        while True:
            asked = {**query, "limit": _PAGE, "params": {**parameters, "cursorMark": cursor}}
            answer = self._select(collection, asked)
            yield from answer["response"]["docs"]
            if answer["nextCursorMark"] == cursor:
                return
            cursor = answer["nextCursorMark"]

    def export_cores(self, collection: str) -> tuple[str, ...]:
        """Return whom :meth:`export` must ask for all documents of a collection; a core answers for its shard."""
        shards = self._cluster(collection)["shards"].values()
        if len(shards) == 1:
            return (collection,)
        leaders = (
            max(shard["replicas"].values(), key=lambda replica: (replica["state"], replica.get("leader")) == LEADS)
            for shard in shards
        )
        return tuple(replica["core"] for replica in leaders)

    def export(
        self,
        cores: Sequence[str],
        fields: Sequence[str],
        *,
        first: int | None = None,
        last: int | None = None,
        block: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return fields of all visible documents by position, then id; fields that a document lacks are left out.

        All are held in memory, so ask for a range of positions. A field that has the same value in all of them is
        counted instead of read, which takes a tenth of the time.

        Parameters
        ----------
        cores
            What :meth:`export_cores` returns.
        fields
            Their names in Solr; all need docValues.
        first, last
            The first and last position; None does not bound them.
        block
            Only documents that say they are of this block; None does not ask.

        Raises
        ------
        TransientError
            If Solr breaks off.
        """
        low, high = ("*" if bound is None else int(bound) for bound in (first, last))
        query = f"position:[{low} TO {high}]" + ("" if block is None else f" AND block:{int(block)}")
        found: list[dict[str, Any]] = []
        for core in cores:
            count, same = self._same_in_all(core, query, _OFTEN_SAME.intersection(fields))
            documents = self._export_core(core, query, [name for name in fields if name not in same])
            if len(documents) != count:  # there was a writer in between
                documents, same = self._export_core(core, query, fields), {}
            for document in documents:
                document.update(same)
            found += documents
        if len(cores) > 1:
            found.sort(key=lambda document: (document["position"], document["id"]))
        return found

    def _same_in_all(self, core: str, query: str, fields: Iterable[str]) -> tuple[int, dict[str, Any]]:
        """Return how many documents of a core match a query, and the values that all have in common, by field."""
        asked = {
            "query": f"{{!cache=false}}{query}",
            "limit": 0,
            "facet": {name: {"type": "terms", "field": name, "limit": 1} for name in sorted(fields)},
            "params": {"distrib": "false"},
        }
        facets = self._select(core, asked)["facets"]
        most_frequent = {name: facets.get(name, {}).get("buckets", []) for name in fields}
        count: int = facets["count"]
        return count, {
            name: each[0]["val"] for name, each in most_frequent.items() if each and each[0]["count"] == count
        }

    def _export_core(self, core: str, query: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        asked = {"q": query, "fl": ",".join(fields), "sort": "position asc,id asc", "indent": "false"}
        answer = self.request(f"{quote(core)}/export", asked)["response"]
        documents: list[dict[str, Any]] = answer["docs"]
        if documents and "EXCEPTION" in documents[-1]:
            raise TransientError(f"{self.url}/{core}/export: {documents[-1]['EXCEPTION']}")
        if len(documents) != answer["numFound"]:
            raise TransientError(
                f"{self.url}/{core}/export: {len(documents):,} of {answer['numFound']:,} documents came; try again"
            )
        return documents

    def export_block(self, cores: Sequence[str], fields: Sequence[str], block: Block) -> Iterator[list[dict[str, Any]]]:
        """Yield the documents that say they are of a block, at the block's positions, in parts as :meth:`export`."""
        end = block.first + block.images
        for first in range(block.first, end, EXPORT_POSITIONS):
            last = min(first + EXPORT_POSITIONS, end) - 1
            yield self.export(cores, fields, first=first, last=last, block=block.number)

    def images_at(self, collection: str, block: int, first: int, last: int, most: int) -> tuple[int, dict[str, bytes]]:
        """Return how many documents of a block are at these positions, and images of ``most`` of them at most, by id.

        Documents without an image are omitted. All images are held in memory. Ranges are twice as fast as lists of ids,
        and Solr's binary format is twice as fast as base64 in JSON.
        """
        query = {
            "query": f"{{!cache=false}}position:[{int(first)} TO {int(last)}]",
            "filter": f"{{!cache=false}}block:{int(block)}",
            "fields": ["id", "data"],
            "limit": most,
        }
        body = json.dumps(query).encode()
        path = f"{quote(collection)}/select?wt=javabin"
        found = self.request(path, body=body, mime="application/json")["response"]
        return found["numFound"], {document["id"]: document["data"] for document in found["docs"] if "data" in document}

    def picture_values_at(
        self, collection: str, block: int, first: int, last: int, most: int, fields: Sequence[str]
    ) -> tuple[int, dict[str, dict[str, Any]]]:
        """Return how many documents of a block are at these positions, and fields of ``most`` of them at most, by id.

        In JSON, because lists of numbers are read faster from it than from Solr's binary format.
        """
        query = {
            "query": f"{{!cache=false}}position:[{int(first)} TO {int(last)}]",
            "filter": f"{{!cache=false}}block:{int(block)}",
            "fields": ["id", *fields],
            "limit": most,
        }
        found = self._select(collection, query)["response"]
        return found["numFound"], {document["id"]: document for document in found["docs"]}

    def delete_ids(self, collection: str, ids: Sequence[str]) -> None:
        """Delete documents by id."""
        for start in range(0, len(ids), _PAGE):
            self._update(collection, {"delete": list(ids[start : start + _PAGE])})

    def delete_block(self, collection: str, block: int) -> None:
        """Delete all documents of a block. Solr delays updates meanwhile, so delete one block at a time."""
        self._update(collection, {"delete": {"query": f"block:{int(block)}"}})

    def _update(self, collection: str, command: Mapping[str, object]) -> None:
        self.request(f"{quote(collection)}/update?wt=json", body=json.dumps(command).encode(), mime="application/json")

    def _select(self, collection: str, query: Mapping[str, object]) -> dict[str, Any]:
        body = json.dumps(query).encode()
        return self.request(f"{quote(collection)}/select?wt=json", body=body, mime="application/json")

    # Collections and their configsets

    def configsets(self) -> dict[str, str]:
        """Return the configset's name for each collection's name; empty if Solr does not report it."""
        status = self.request("admin/collections", {"action": "CLUSTERSTATUS"})
        found = status["cluster"].get("collections") or {}
        return {name: str(collection.get("configName") or "") for name, collection in found.items()}
