"""A Solr over HTTP that finds the same documents whatever is asked, and keeps what it was asked, for tests of pages."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DOCUMENT = {
    "id": "demo:7",
    "tag": "cat",
    "accuracy": 70,
    "votes": 7,
    "block": 0,
    "position": 7,
    "model": "forest-12ab",
    "corpus": "demo",
    "keyword": "tabby",
}
COUNTS = {"tags": ("cat", 1), "confidences": (70, 1), "models": ("forest-12ab", 1), "corpora": ("demo", 1)}


class SolrOfPages(ThreadingHTTPServer):
    """Listens until it is closed.

    Attributes
    ----------
    asked
        The parameters of each search.
    failure
        Status and body of all answers, instead of documents.
    gone
        Collections that are not there any more.
    searched
        The collections of each search.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, list[str]]] = []
        self.failure: tuple[int, dict[str, Any]] | None = None
        self.gone: set[str] = set()
        self.searched: list[set[str]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/solr"

    def answer(self, collections: set[str], asked: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        self.asked.append(asked)
        self.searched.append(collections)
        if collections & self.gone:
            return 404, {"error": {"msg": "Collection not found", "code": 404}}
        if self.failure:
            return self.failure
        rows = int(asked.get("rows", ["10"])[0])
        facets = json.loads(asked["json.facet"][0]) if "json.facet" in asked else {}
        found: dict[str, Any] = {
            "responseHeader": {"status": 0},
            "response": {"numFound": 1, "start": 0, "docs": [DOCUMENT][:rows]},
            "facets": {name: {"buckets": [{"val": COUNTS[name][0], "count": 1}]} for name in facets if name in COUNTS},
        }
        if "cursorMark" in asked:
            found["nextCursorMark"] = asked["cursorMark"][0]
        return 200, found


class _Handler(BaseHTTPRequestHandler):
    server: SolrOfPages
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, query: str) -> None:
        collections = {*unquote(urlsplit(self.path).path.split("/")[-2]).split(",")}
        status, found = self.server.answer(collections, parse_qs(query, keep_blank_values=True))
        body = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
