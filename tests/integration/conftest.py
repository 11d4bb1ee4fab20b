"""Real engines, started once per session on free ports, in a home of their own."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import numpy as np
import psutil
import pytest
from hdfs import InsecureClient
from playwright.sync_api import Browser, Page, sync_playwright

from tinytags_tasks import services
from tinytags_tasks.cli import main
from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, to_column_major
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import ADDRESSES, PROJECT_ROOT, Settings, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.train.step import TrainRequest, train_model

Answer = TypeVar("Answer")

IMAGES = 1_003
"""Divides by nothing here, so that blocks differ in size."""

DEPTH = 6

KEYWORDS = ("guinea_pig", "größe", "", "a b:c")
"""Dealt out by turns; the empty one is none."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Only HDFS; all engines end with the session, even if it is killed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ADDRESSES:
            patch.delenv(f"TINYTAGS_{name.upper()}", raising=False)
        patch.setenv("TINYTAGS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TINYTAGS_WAIT_PAUSE_SECONDS", "1")  # tasks that wait for an engine ask it again soon
        if "PYTHONDONTWRITEBYTECODE" in os.environ:  # else each of a hundred processes compiles a thousand modules
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
        try:
            yield Runtime(services.up(load_settings(), engines=["hdfs"], standard_ports=False, die_with_parent=True))
        finally:
            services.down(load_settings())


@pytest.fixture(scope="session")
def engines(hdfs: Runtime) -> Settings:
    """Solr and Spark as well."""
    return services.up(load_settings(), engines=["solr", "spark"], standard_ports=False, die_with_parent=True)


@pytest.fixture(scope="session")
def airflow(engines: Settings) -> Settings:
    """Airflow and the search page as well."""
    return services.up(load_settings(), engines=["airflow", "search"], standard_ports=False, die_with_parent=True)


@pytest.fixture(scope="module")
def open_page(airflow: Settings) -> Iterator[Callable[[str], Page]]:
    """Open Airflow as one of its users."""
    url = airflow.address("airflow_url")
    with chromium() as browser:

        def open_page(user: str) -> Page:
            context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 860})
            context.set_default_timeout(30_000)
            page = context.new_page()
            page.goto("/auth/login")
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", secret(airflow, f"airflow_{user}_password"))
            page.click("button[type=submit]")
            page.wait_for_url(lambda address: "/auth/login" not in address)
            return page

        yield open_page


@pytest.fixture(scope="session")
def runtime(engines: Settings) -> Runtime:
    return Runtime(engines)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small corpus with the metadata that holds its keywords, and a labelled set, of drawn shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    ((images, _),) = draw_pictures(IMAGES, seed=1, batch=IMAGES, scribbles=0.25)
    (folder / "corpus.bin").write_bytes(to_column_major(images))
    records = (keyword_of(position).encode().ljust(METADATA_BYTES) for position in range(IMAGES))
    (folder / "tiny_metadata.bin").write_bytes(b"".join(records))
    ((images, labels),) = draw_pictures(900, seed=2)
    write_labelled_parquet(folder / "labelled.parquet", images, labels, SHAPES)
    return {
        "corpus": folder / "corpus.bin",
        "metadata": folder / "tiny_metadata.bin",
        "labelled": folder / "labelled.parquet",
    }


@pytest.fixture(scope="session")
def model(runtime: Runtime, pictures: dict[str, Path]) -> str:
    """The version of a model that the real Spark trained, as the original did: a forest on pixels."""
    request = TrainRequest(str(pictures["labelled"]), features="pixels", head="forest", depth=DEPTH)
    return train_model(request, storage=runtime.storage, connect_spark=runtime.connect_spark).model


@pytest.fixture(scope="session")
def tinytags(hdfs: Runtime) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a person does."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tinytags_tasks.cli", *arguments],
            capture_output=True,
            text=True,
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment},
            timeout=600,
        )

    return command


@pytest.fixture(scope="session")
def tinytags_here(hdfs: Runtime) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in this process, which saves a second per call."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(sys, "argv", ["tinytags", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return command


@pytest.fixture
def own_store(hdfs: Runtime, request: pytest.FixtureRequest) -> Runtime:
    """A store for a single test, in the same HDFS."""
    root = "/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return Runtime(hdfs.settings.model_copy(update={"store": root}))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the distribution's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "install chromium: it is in the distribution's packages"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def hdfs_client(runtime: Runtime) -> InsecureClient:
    """Return a client that accesses the store without TinyTags' own code."""
    settings = runtime.settings
    return InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user, root=settings.store)


def stored_files(runtime: Runtime) -> dict[str, bytes]:
    """Return every file of a store by path, including temporary files and leases; times are removed from records.

    Only copies of definitions are left out: they come from the hosts' files, and bind nobody.
    """
    client = hdfs_client(runtime)
    client.makedirs("")
    found = {}
    for folder, _, names in client.walk(""):
        inside = folder.removeprefix(runtime.settings.store).strip("/")
        for name in names if inside != layout.DEFINITIONS else ():
            path = f"{inside}/{name}"
            with client.read(f"{folder}/{name}") as reader:
                found[path], times = re.subn(rb'"created": "[^"]*"', b"", reader.read())
                if times:  # they are in the record's checksum
                    found[path] = re.sub(rb'"record_sha256": "[^"]*"', b"", found[path])
    return found


def assert_one_error_line(outcome: subprocess.CompletedProcess[str], message: str) -> None:
    """Assert that a command failed as it does for wrong input: one line, exit code 2, nothing on standard output."""
    assert outcome.returncode == 2, outcome.stderr
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("tinytags: error: ")]
    assert outcome.stderr.rstrip().endswith(line)
    assert message in line
    assert "Traceback" not in outcome.stderr + outcome.stdout
    assert outcome.stdout == ""


def keyword_of(position: int) -> str:
    """Return the keyword in the metadata for an image of the small corpus."""
    return KEYWORDS[position % len(KEYWORDS)]


def ask_solr(url: str, collection: str, **parameters: object) -> dict:
    """Query Solr without TinyTags' own code, as curl would, with the reader's password."""
    password = (load_settings().secrets_folder / "solr_reader_password").read_text().strip()
    request = urllib.request.Request(f"{url}/{collection}/select?{urlencode({'wt': 'json', **parameters})}")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"reader:{password}".encode()).decode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def all_documents(url: str, collection: str) -> dict[str, dict]:
    """Return every document by its id."""
    documents = ask_solr(url, collection, q="*:*", rows=100_000)["response"]["docs"]
    return {document.pop("id"): document for document in documents}


def walk(tree: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Return the class that a tree votes for, for each image: just the definition, vectorised."""
    node = np.zeros(len(pixels), dtype=np.int64)
    while (inner := tree["left"][node] >= 0).any():
        value = pixels[np.arange(len(pixels)), np.where(inner, tree["feature"][node], 0)]
        child = np.where(value <= tree["threshold"][node], tree["left"][node], tree["right"][node])
        node = np.where(inner, child, node)
    return tree["prediction"][node]


def engine_process(settings: Settings, name: str) -> psutil.Process:
    """Return the process of a running engine."""
    (status,) = [status for status in services.status(settings) if status.name == name]
    assert status.pid is not None
    return psutil.Process(status.pid)


def kill_engine(settings: Settings, name: str) -> None:
    """Kill an engine, as a power cut would."""
    process = engine_process(settings, name)
    for victim in (*process.children(recursive=True), process):
        victim.kill()
    process.wait(30)


def wait_for(ask: Callable[[], Answer], is_so: Callable[[Answer], object] = bool, seconds: float = 180) -> Answer:
    """Ask until the answer is the expected one, and return it."""
    deadline = time.monotonic() + seconds
    while not is_so(answer := ask()):
        assert time.monotonic() < deadline, f"after {seconds:g} s: {answer}"
        time.sleep(0.2)
    return answer


def restart(*engines: str) -> None:
    """Restart engines that were killed."""
    services.up(load_settings(), engines=engines, standard_ports=False, die_with_parent=True)
