"""WebHDFS and S3 on this machine, for tests of sources."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest


class NameNode(BaseHTTPRequestHandler):
    """The part of WebHDFS that reading needs: it redirects to a DataNode for bytes."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        path = unquote(url.path).removeprefix("/webhdfs/v1")
        asked = {name: value[0] for name, value in parse_qs(url.query).items()}
        server.asked.append((path, asked | {"login": self.headers.get("Authorization")}))
        if path.startswith("/datanode"):
            path = path.removeprefix("/datanode")
            if server.how.get("datanode"):
                return self.send(server.how["datanode"], b"x" * int(asked["length"]))
            start = int(asked["offset"])
            return self.send(200, server.content[path][start : start + int(asked["length"])])
        if path == server.how.get("forbidden"):
            denied = {"exception": "AccessControlException", "message": f"Permission denied: {path}"}
            return self.send_json(403, {"RemoteException": denied})
        if exception := server.how.get("exception"):
            status, name = exception
            return self.send_json(status, {"RemoteException": {"exception": name, "message": "said so"}})
        below = {name.removeprefix(f"{path.rstrip('/')}/") for name in server.content if name.startswith(f"{path}/")}
        if path not in server.content and not below:
            return self.send_json(404, {"RemoteException": {"exception": "FileNotFoundException", "message": path}})
        if asked["op"] == "OPEN":
            where = f"/datanode{quote(path)}?offset={asked['offset']}&length={asked['length']}"
            return self.send(307, b"", Location=server.how.get("location", server.url) + where)
        if asked["op"] == "GETFILESTATUS":
            return self.send_json(200, {"FileStatus": self.status("", path)})
        names = sorted({name.partition("/")[0] for name in below})
        statuses = [self.status(name, f"{path.rstrip('/')}/{name}") for name in names]
        return self.send_json(200, {"FileStatuses": {"FileStatus": statuses}})

    def status(self, name, path):
        content = self.server.content.get(path)
        kind, length = ("DIRECTORY", 0) if content is None else ("FILE", len(content))
        return {"pathSuffix": name, "type": kind, "length": length, "modificationTime": 1_600_000_000_000}

    def send_json(self, status, content):
        self.send(status, json.dumps(content).encode())

    def send(self, status, content, **fields):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving_s3():
    """Start an S3 without buckets, and yield its client."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            patch.setenv(name, "dummy")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "5")
        patch.delenv("AWS_PROFILE", raising=False)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        import boto3

        yield boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        server.stop()


def s3_options(client, **more):
    """Return the options by which a source is read from this S3, without retries."""
    once = {"retries": {"max_attempts": 0}}
    return {"client_kwargs": {"endpoint_url": client.meta.endpoint_url}, "config_kwargs": once, **more}
