"""A proxy in front of the real Solr that fails some requests like a network or a broken Solr, and forwards the others.

A fault is a function of one exchange. It may respond itself, forward the request, or close the connection.
"""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_PASSED_ON = ("Content-Type", "Authorization")


@dataclass
class Exchange:
    """A client's request, and the ways to end it."""

    handler: BaseHTTPRequestHandler
    host: str
    port: int
    body: bytes

    def forward(self) -> tuple[int, str, bytes]:
        """Forward the request to Solr; return its response's status, type and content."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        headers = {name: self.handler.headers[name] for name in _PASSED_ON if name in self.handler.headers}
        try:
            connection.request(self.handler.command, self.handler.path, self.body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def answer(self, status: int, mime: str, content: bytes, *, cut_after: int | None = None) -> None:
        """Send a response, or only its first bytes."""
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", mime)
        self.handler.send_header("Content-Length", str(len(content)))
        self.handler.end_headers()
        self.handler.wfile.write(content[:cut_after])

    def cut(self) -> None:
        """Close the connection, as a broken line would."""
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)


Fault = Callable[[Exchange], None]


def passed_on(exchange: Exchange) -> None:
    """No fault: Solr's own response."""
    try:
        found = exchange.forward()
    except (OSError, http.client.HTTPException):  # Solr is down, so the proxy is down too
        exchange.cut()
    else:
        exchange.answer(*found)


def answering(status: int, message: str) -> Fault:
    """Respond as Solr does if it rejects a request or fails, without forwarding it."""
    content = json.dumps({"responseHeader": {"status": status}, "error": {"msg": message, "code": status}}).encode()
    return lambda exchange: exchange.answer(status, "application/json", content)


def cut_before(exchange: Exchange) -> None:
    """Solr never sees the request."""
    exchange.cut()


def cut_in_request(exchange: Exchange) -> None:
    """Solr sees half of the request."""
    headers = [f"{exchange.handler.command} {exchange.handler.path} HTTP/1.1", "Host: solr"]
    headers += [f"{name}: {exchange.handler.headers[name]}" for name in _PASSED_ON if name in exchange.handler.headers]
    headers += [f"Content-Length: {len(exchange.body)}", "", ""]
    with socket.create_connection((exchange.host, exchange.port), timeout=10) as half:
        half.sendall("\r\n".join(headers).encode() + exchange.body[: len(exchange.body) // 2])
    exchange.cut()


def cut_before_answer(exchange: Exchange) -> None:
    """Solr does what is asked, but its response is lost."""
    exchange.forward()
    exchange.cut()


def cut_in_answer(exchange: Exchange) -> None:
    """Only the first half of Solr's response arrives."""
    status, mime, content = exchange.forward()
    exchange.answer(status, mime, content, cut_after=len(content) // 2)
    exchange.cut()


def delayed(seconds: float) -> Fault:
    """Delay Solr's response."""

    def fault(exchange: Exchange) -> None:
        found = exchange.forward()
        time.sleep(seconds)
        with contextlib.suppress(OSError):  # the client may have disconnected
            exchange.answer(*found)

    return fault


def after(act: Callable[[], object], fault: Fault = passed_on) -> Fault:
    """Do something before the request is forwarded."""

    def acted(exchange: Exchange) -> None:
        act()
        fault(exchange)

    return acted


@dataclass
class Rule:
    """Which requests a fault affects: those to a path, from the n-th on, up to a number of them."""

    fault: Fault
    path: str
    containing: bytes
    skip: int
    times: int | None
    befell: int = 0


@dataclass
class FaultProxy:
    """The address that clients use instead of Solr's, and the faults there."""

    url: str
    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def let(
        self, fault: Fault, *, path: str = "/update", containing: bytes = b"", skip: int = 0, times: int | None = 1
    ) -> Rule:
        """Apply a fault to requests whose path and body contain certain texts.

        Parameters
        ----------
        fault
            The fault.
        path, containing
            What the path and the body must contain.
        skip, times
            How many such requests pass first, and how many are affected then; None means all.
        """
        self._rules.append(rule := Rule(fault, path, containing, skip, times))
        return rule

    def fault_of(self, path: str, body: bytes) -> Fault:
        """Return the fault for a request."""
        with self._lock:
            for rule in self._rules:
                if rule.path not in path or rule.containing not in body:
                    continue
                if rule.skip:
                    rule.skip -= 1
                elif rule.times is None or rule.befell < rule.times:
                    rule.befell += 1
                    return rule.fault
        return passed_on


@contextmanager
def proxy_before(solr_url: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of a Solr on a free local port."""
    solr = urlsplit(solr_url)
    assert solr.hostname
    assert solr.port
    host, port = solr.hostname, solr.port

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # header and content are two writes: otherwise 40 ms per response

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with contextlib.suppress(OSError):  # the client has disconnected
                proxy.fault_of(self.path, body)(Exchange(self, host, port, body))

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Print nothing: clients are expected to disconnect."""

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = FaultProxy(f"http://127.0.0.1:{server.server_port}{solr.path}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()
