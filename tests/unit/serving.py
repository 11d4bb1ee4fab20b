"""A web server in this process, which answers as a test's handler does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from certificates import speak_tls


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], certificate: Path | None = None) -> Iterator[ThreadingHTTPServer]:
    """Serve on a free port of loopback, by TLS with a certificate, and yield the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        speak_tls(server, certificate)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
