"""Engines that are killed or stopped come back by themselves, and those that were stopped on purpose do not."""

import io
import os
import signal
from collections.abc import Iterator

import psutil
import pytest
from conftest import wait_for
from hdfs import HdfsError, InsecureClient
from typer.testing import CliRunner

from tinytags_tasks import services
from tinytags_tasks.cli import app
from tinytags_tasks.services import EngineStatus, keeper_process, processes
from tinytags_tasks.settings import ADDRESSES, Settings, load_settings

PATIENCE_SECONDS = 8


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """HDFS and Solr with a keeper, in a home of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ADDRESSES:
            patch.delenv(f"TINYTAGS_{name.upper()}", raising=False)
        patch.setenv("TINYTAGS_HOME", str(tmp_path_factory.mktemp("kept")))
        patch.setenv("TINYTAGS_KEEPER_PATIENCE_SECONDS", str(PATIENCE_SECONDS))
        try:
            yield services.up(
                load_settings(), engines=["hdfs", "solr"], standard_ports=False, die_with_parent=True, keep=True
            )
        finally:
            services.down(load_settings())


def states(settings: Settings) -> dict[str, EngineStatus]:
    return {engine.name: engine for engine in services.status(settings)}


def pid(settings: Settings, name: str) -> int:
    number = states(settings)[name].pid
    assert number is not None
    return number


def is_alive(number: int) -> bool:
    """Return whether a process runs; one that ended may wait for its parent to notice."""
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_back(now: dict[str, EngineStatus], name: str, restarts: int) -> bool:
    engine = now[name]
    return engine.state == "running" and engine.restarts == restarts and engine.detail.startswith("ready after")


def read(settings: Settings) -> bytes | None:
    """Return the file in HDFS; None while the DataNode has not reported its block to a new NameNode."""
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    try:
        with client.read("/kept") as reader:
            return reader.read()
    except HdfsError:
        return None


def test_engines_that_are_killed_or_stopped_come_back(settings: Settings) -> None:
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    client.write("/kept", io.BytesIO(b"kept"))
    before = {name: pid(settings, name) for name in ("solr", "namenode", "datanode")}
    os.kill(before["datanode"], signal.SIGSTOP)
    os.kill(before["solr"], signal.SIGKILL)
    os.kill(before["namenode"], signal.SIGKILL)
    now = wait_for(lambda: states(settings), lambda now: all(is_back(now, name, 1) for name in before))
    assert not any(is_alive(number) for number in before.values())
    assert now["solr"].restart_reason == now["namenode"].restart_reason == "ended"
    assert "does not answer" in now["datanode"].restart_reason
    assert now["keeper"].state == "running"
    assert load_settings().solr_url == settings.solr_url
    assert wait_for(lambda: read(settings)) == b"kept"
    assert "datanode was restarted 1 times; last at" in CliRunner().invoke(app, ["status"]).stdout

    services.down(settings, engines=["solr"])
    os.kill(pid(settings, "datanode"), signal.SIGKILL)
    now = wait_for(lambda: states(settings), lambda now: is_back(now, "datanode", 2))
    assert (now["solr"].state, now["solr"].restarts) == ("stopped", 0)
    assert "Traceback" not in keeper_process.log_file(settings).read_text()
    assert wait_for(lambda: read(settings)) == b"kept"


def test_after_down_nothing_comes_back(settings: Settings) -> None:
    services.up(settings, engines=["solr"], standard_ports=False, die_with_parent=True)
    # The keeper was replaced, and in tests, what the old one had started ends with it.
    everyone = wait_for(
        lambda: [engine.pid for engine in services.status(settings) if engine.pid], lambda now: len(now) == 4
    )
    services.down(settings)
    assert not any(is_alive(number) for number in everyone)
    assert {engine.state for engine in services.status(settings)} == {"stopped"}
    assert processes.read_record(keeper_process.folder(settings)) is None
