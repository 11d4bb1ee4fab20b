"""Engines that are killed or stopped come back by themselves, and those that were stopped on purpose do not."""

import io
import os
import signal
from collections.abc import Iterator

import psutil
import pytest
from conftest import wait_for
from hdfs import InsecureClient
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


def is_back(now: dict[str, EngineStatus], name: str, restarts: int) -> bool:
    engine = now[name]
    return engine.state == "running" and engine.restarts == restarts and engine.detail.startswith("ready after")


def test_engines_come_back(settings: Settings) -> None:
    client = InsecureClient(settings.address("webhdfs_url"), user=settings.hdfs_user)
    client.write("/kept", io.BytesIO(b"kept"))
    killed = {name: pid(settings, name) for name in ("solr", "namenode")}
    for number in killed.values():
        os.kill(number, signal.SIGKILL)
    now = wait_for(
        lambda: states(settings),
        lambda now: all(is_back(now, name, 1) for name in killed) and is_back(now, "datanode", 0),
    )
    assert all(now[name].pid not in (None, number) for name, number in killed.items())
    assert now["keeper"].state == "running"
    assert load_settings().solr_url == settings.solr_url
    with client.read("/kept") as reader:
        assert reader.read() == b"kept"

    services.down(settings, engines=["solr"])
    stopped = psutil.Process(pid(settings, "namenode"))
    stopped.suspend()
    now = wait_for(lambda: states(settings), lambda now: is_back(now, "namenode", 2) and is_back(now, "datanode", 0))
    assert not stopped.is_running()
    assert now["solr"].state == "stopped"
    assert "does not answer" in now["namenode"].restart_reason
    told = CliRunner().invoke(app, ["status"]).stdout
    assert "namenode was restarted 2 times; last at" in told
    log = keeper_process.log_file(settings).read_text()
    assert "solr ended; it is started again in 2 s" in log
    assert "Traceback" not in log
    with client.read("/kept") as reader:
        assert reader.read() == b"kept"


def test_after_down_nothing_comes_back(settings: Settings) -> None:
    services.up(settings, engines=["solr"], standard_ports=False, die_with_parent=True)
    everyone = [engine.pid for engine in services.status(settings) if engine.pid]
    assert len(everyone) == 4
    services.down(settings)
    assert [number for number in everyone if psutil.pid_exists(number)] == []
    assert {engine.state for engine in services.status(settings)} == {"stopped"}
    assert processes.read_record(keeper_process.folder(settings)) is None
