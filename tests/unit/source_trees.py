"""Files, folders and servers for tests of sources."""

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONTENT = bytes(range(256)) * 40

TREE = ("B.jpg", "a/2.JPG", "a/10.jpg", "a/b/x.jpg", "a.b/x.jpg", "a.jpg", "c d/ü.jpg", "note.txt", "猫.jpg")

HIDDEN = (".DS_Store", "a/.1.jpg", ".cache/x.jpg")

IN_ORDER = ["B.jpg", "a/10.jpg", "a/2.JPG", "a/b/x.jpg", "a.b/x.jpg", "a.jpg", "c d/ü.jpg", "猫.jpg"]
"""The pictures of the tree, by the code points of their paths, part by part."""


def paths(files, *endings):
    return [file.path for file in files.files(*endings)]


def make_tree(folder):
    for name in (*TREE, *HIDDEN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


class Server(ThreadingHTTPServer):
    """Serves bytes by path; ``how`` says how it misbehaves."""

    daemon_threads = True

    def __init__(self, handler=None):
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.content = {}
        self.how = {}
        self.sent = 0
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer(head=False)

    def answer(self, *, head):
        how, path = self.server.how, urlsplit(self.path).path
        self.server.asked.append((self.command, self.path, self.headers.get("Range")))
        if status := how.get("head_status" if head else "get_status", how.get("status")):
            return self.send(status, how.get("page", b"an error page"), head=head)
        if path in how.get("pages", ()):
            return self.send(200, b"<html>a page</html>", head=head, type="text/html; charset=utf-8")
        if path not in self.server.content and path.endswith("/"):
            return self.send(200, self.index(path), head=head, type="text/html")
        if any(name.startswith(f"{path}/") for name in self.server.content):
            return self.send(301, b"", head=head, Location=f"{path}/")
        if path not in self.server.content:
            return self.send(404, b"not here", head=head)
        content, wanted = self.server.content[path], self.headers.get("Range")
        fields = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if how.get("etag", True) else {}
        if how.get("modified"):
            fields["Last-Modified"] = how["modified"]
        if not wanted or not how.get("ranges", True):
            return self.send(200, content, head=head, **fields)
        first, last = (int(number) for number in re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
        if first >= len(content):
            return self.send(416, b"", head=head)
        part = content[first : last + 1]
        fields["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
        return self.send(206, part[: how.get("cut", len(part))], head=head, announced=len(part), **fields)

    def index(self, path):
        below = {name.removeprefix(path) for name in self.server.content if name.startswith(path)}
        links = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in below}, reverse=True)
        return "".join(f'<a href="{link}">{link}</a>' for link in ["../", *links]).encode()

    def send(self, status, content, *, head, announced=None, type="application/octet-stream", **fields):
        self.send_response(status)
        if self.server.how.get("close"):
            fields["Connection"] = "close"
        if self.server.how.get("length", True):
            self.send_header("Content-Length", str(len(content) if announced is None else announced))
        else:
            self.close_connection = True
        for name, value in {"Content-Type": type, **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, 0 if head else len(content), 65_536):
            try:
                self.wfile.write(content[start : start + 65_536])
            except OSError:
                return
            self.server.sent += len(content[start : start + 65_536])
        if announced not in (None, len(content)):
            self.close_connection = True


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
