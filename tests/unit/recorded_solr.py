"""A small HTTP server in the place of Solr."""

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tinytags_tasks.clients.solr import SolrClient


class RecordedSolr:
    """Returns prepared responses in order, and records its requests."""

    def __init__(self) -> None:
        self.answers: deque[tuple[int, bytes]] = deque()
        self.asked: list[tuple[str, str, bytes]] = []
        self.authorizations: list[str] = []
        solr = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two packets

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                solr.asked.append((self.command, self.path, body))
                solr.authorizations.append(self.headers.get("Authorization", ""))
                status, content = solr.answers.popleft() if solr.answers else (200, b"{}")
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/solr"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def will_answer(self, *answers: tuple[int, object]) -> None:
        self.answers.extend(
            (status, content if isinstance(content, bytes) else json.dumps(content).encode())
            for status, content in answers
        )

    def __enter__(self) -> "RecordedSolr":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def solr():
    with RecordedSolr() as solr:
        yield solr


@pytest.fixture
def client(solr):
    return SolrClient(solr.url, pauses_seconds=(0, 0))
