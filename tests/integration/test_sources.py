"""Sources on other machines: HDFS itself, a web server, S3. The bytes are those of a local ingestion."""

import http.server
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import pytest
from conftest import assert_one_error_line, hdfs_client
from moto.server import ThreadedMotoServer

from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout

Command = Callable[..., subprocess.CompletedProcess[str]]

CUT = ("--format", "tiny-images", "--shard-images", "2500", "--blocks-per-shard", "3")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (3_001, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def served(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in two files."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "a.bin").write_bytes(to_column_major(images[:2_999]))
    (folder / "b.bin").write_bytes(to_column_major(images[2_999:]))
    (folder / "all.bin").write_bytes(to_column_major(images))
    return folder


def ingested(hdfs: Runtime, tinytags_here: Command, name: str, source: str, *options: str) -> bytes:
    """Define, ingest, resume and verify a corpus on the command line, and return its bytes."""
    for arguments in (
        ("corpus", "add", name, source, *CUT, *options),
        ("ingest", name),
        ("ingest", name),
        ("corpus", "verify", name, "--deep"),
    ):
        outcome = tinytags_here(*arguments)
        assert outcome.returncode == 0, outcome.stderr
    return b"".join(hdfs.storage.read(layout.shard_file(name, shard)) for shard in range(2))


@pytest.mark.parametrize("source", ["/whole/all.bin", "/parts", "/parts/*.bin"])
def test_a_source_in_hdfs(hdfs: Runtime, images: np.ndarray, served: Path, tinytags_here: Command, source: str) -> None:
    for file in ("whole/all.bin", "parts/a.bin", "parts/b.bin"):
        hdfs_client(hdfs).upload(f"/{file}", str(served / Path(file).name), overwrite=True)
    name = re.sub(r"[^a-z]+", "-", f"hdfs{source}")
    assert ingested(hdfs, tinytags_here, name, f"hdfs://{source}") == images.tobytes()


class WholeFiles(http.server.SimpleHTTPRequestHandler):
    """Serves only whole files, as Python's own server does."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class Ranges(WholeFiles):
    """Serves parts of files as well."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            super().do_GET()
            return
        size = path.stat().st_size
        first, last = int(asked[1]), min(int(asked[2]), size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(first)
            self.wfile.write(file.read(last + 1 - first))


class WebServer(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Print nothing about clients that disconnect."""


@pytest.fixture
def web(request: pytest.FixtureRequest, served: Path) -> Iterator[str]:
    """A web server's address."""
    server = WebServer(("127.0.0.1", 0), partial(request.param, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("web", [Ranges], indirect=True)
def test_a_source_on_a_web_server(hdfs: Runtime, images: np.ndarray, tinytags_here: Command, web: str) -> None:
    assert ingested(hdfs, tinytags_here, "web", f"{web}/all.bin") == images.tobytes()


@pytest.mark.parametrize("web", [Ranges], indirect=True)
def test_an_address_at_which_there_is_nothing(tinytags_here: Command, web: str) -> None:
    assert tinytags_here("corpus", "add", "web-gone", f"{web}/gone.bin", *CUT).returncode == 0
    assert_one_error_line(tinytags_here("ingest", "web-gone"), f"{web}/gone.bin: no such file or folder")


@pytest.mark.parametrize("web", [WholeFiles], indirect=True)
def test_a_web_server_without_ranges_is_refused(tinytags_here: Command, web: str) -> None:
    assert tinytags_here("corpus", "add", "web-whole", f"{web}/all.bin", *CUT).returncode == 0
    assert_one_error_line(tinytags_here("ingest", "web-whole"), "its server does not support ranges; download it")


def test_a_web_server_that_is_away_is_named(tinytags_here: Command) -> None:
    assert tinytags_here("corpus", "add", "web-away", "http://127.0.0.1:1/all.bin", *CUT).returncode == 0
    assert_one_error_line(tinytags_here("ingest", "web-away"), "http://127.0.0.1:1/all.bin: ")


@pytest.fixture
def s3(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of our own S3, with the source's files in a bucket."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    bucket = boto3.resource("s3", endpoint_url=url).create_bucket(Bucket="pictures")
    for file in ("a.bin", "b.bin"):
        bucket.upload_file(str(served / file), f"tiny/{file}")
    yield url
    server.stop()


def test_a_source_in_s3(hdfs: Runtime, images: np.ndarray, tinytags_here: Command, s3: str) -> None:
    option = f'client_kwargs={{"endpoint_url": "{s3}"}}'
    found = ingested(hdfs, tinytags_here, "s3", "s3://pictures/tiny", "--option", option)
    assert found == images.tobytes()


def test_a_bucket_that_is_not_there_and_a_secret_in_the_definition(tinytags_here: Command, s3: str) -> None:
    option = f'client_kwargs={{"endpoint_url": "{s3}"}}'
    assert tinytags_here("corpus", "add", "s3-gone", "s3://gone/tiny", *CUT, "--option", option).returncode == 0
    assert_one_error_line(tinytags_here("ingest", "s3-gone"), "s3://gone/tiny: no such file or folder")
    told = tinytags_here("corpus", "add", "s3-secret", "s3://pictures/tiny", *CUT, "--option", "secret=x")
    assert_one_error_line(told, "a definition must not contain secrets")
