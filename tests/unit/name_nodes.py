"""A NameNode that answers as a test says."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from serving import serving

FILE = (200, {"FileStatus": {"type": "FILE", "length": 7, "fileId": 5, "modificationTime": 0}})
DONE = (200, {"boolean": True})

RESET = None
"""An answer that does not come: the connection is closed."""

HALF = "half"
"""The status of an answer after half of which the connection breaks."""


class NameNode(BaseHTTPRequestHandler):
    """Responds to each operation as the test says: with a status and JSON, or with a page; of a list, one at a time."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        self.server.asked.append((self.command, unquote(url.path), asked))
        self.server.logins.append(self.headers.get("Authorization"))
        while "chunked" in self.headers.get("Transfer-Encoding", "") and self.rfile.readline().strip() != b"0":
            pass  # the bytes of a file
        answers = self.server.answers[asked["op"]]
        answer = answers if isinstance(answers, tuple) else answers.pop(0)
        if answer is RESET:
            return
        status, content = answer
        if status == 307:
            self.send_response(status)
            self.send_header("Location", f"{self.server.url}{url.path}?op={content}")
            self.end_headers()
            return
        if status is HALF:
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_DELETE = do_GET


def refusal(status, exception, message="said so"):
    return status, {"RemoteException": {"exception": exception, "message": message}}


@contextmanager
def name_node(**answers):
    with serving(NameNode) as server:
        server.answers, server.asked, server.logins = answers, [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
