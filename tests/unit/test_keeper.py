"""The keeper and the processes of a home: one copy of each engine, at its ports, and none that is not wanted."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import urllib3
import web_engine
from typer.testing import CliRunner
from web_engine import make_group, web_unready

from tinytags_tasks import cli
from tinytags_tasks.errors import BadInputError, FinalError
from tinytags_tasks.services import control, disk, engine, keeper, keeper_process, processes
from tinytags_tasks.services.control import down, up
from tinytags_tasks.services.engine_status import status
from tinytags_tasks.services.keeper import Ending, HomeEngines
from tinytags_tasks.services.keeper_process import History, KeeperState
from tinytags_tasks.services.keeping import Keeper, Limits, Sight
from tinytags_tasks.services.started_with import forget_environment, record_environment
from tinytags_tasks.services.wanted import read_wanted
from tinytags_tasks.settings import Settings, load_settings

settings = web_engine.settings


@pytest.fixture
def engines(settings: Settings) -> HomeEngines:
    up(settings, report=lambda text: None)
    return HomeEngines(settings, Ending())


def web(settings: Settings) -> processes.Record:
    record = processes.read_record(settings.home / "services" / "web")
    assert record is not None
    return record


def kill(settings: Settings, signal_number: int = signal.SIGKILL) -> None:
    record = web(settings)
    os.kill(record.pid, signal_number)
    while signal_number == signal.SIGKILL and processes.find(record):
        time.sleep(0.01)


def look(engines: HomeEngines) -> Sight:
    [sight] = engines.look(["web"])
    return sight


def wait_until_ready(engines: HomeEngines) -> None:
    deadline = time.monotonic() + 60
    while look(engines).state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def servers(settings: Settings) -> list[int]:
    """Return the processes that serve at the engine's port."""
    port = control.known_context(settings).ports["web"]["http"]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-1:] == [str(port)] and "http.server" in words and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_an_engine_that_was_killed_is_back_at_its_address(settings: Settings, engines: HomeEngines) -> None:
    address = load_settings().search_url
    kill(settings)
    sight = look(engines)
    assert (sight.state, sight.reason) == ("ended", "was ended by signal 9")
    assert engines.start(sight)
    wait_until_ready(engines)
    assert load_settings().search_url == address
    assert web_unready(load_settings()) is None
    assert web(settings).ready_after_seconds is not None


def test_an_engine_that_hangs_is_replaced(
    settings: Settings, engines: HomeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_http", urllib3.PoolManager(retries=False, timeout=1))
    monkeypatch.setattr(keeper, "HUNG_GRACE_SECONDS", 0.5)
    hung = web(settings)
    kill(settings, signal.SIGSTOP)
    sight = look(engines)
    assert sight.state == "unready" and sight.restart_helps
    assert engines.start(sight)
    wait_until_ready(engines)
    assert processes.find(hung) is None
    assert servers(settings) == [web(settings).pid]


def test_an_engine_that_is_ready_again_is_not_replaced(settings: Settings, engines: HomeEngines) -> None:
    sight = look(engines)
    assert not engines.start(sight)
    assert servers(settings) == [int((sight.process or "").split()[0])]


def test_no_second_copy_is_started_if_others_were_faster(settings: Settings, engines: HomeEngines) -> None:
    kill(settings)
    sight = look(engines)
    up(settings, report=lambda text: None)
    assert not engines.start(sight)
    assert servers(settings) == [web(settings).pid]


def test_while_another_tinytags_is_at_work_nothing_is_started(settings: Settings, engines: HomeEngines) -> None:
    kill(settings)
    sight = look(engines)
    with (settings.home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not engines.start(sight)
    assert engines.start(sight)


def test_what_was_stopped_on_purpose_stays_so(settings: Settings, engines: HomeEngines) -> None:
    kill(settings)
    sight = look(engines)
    down(settings, engines=["search"], report=lambda text: None)
    assert engines.wanted() == read_wanted(settings) == []
    assert not engines.start(sight)
    assert servers(settings) == []


def test_an_external_engine_is_never_started(
    settings: Settings, engines: HomeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_environment(settings, "search")  # no `up` has started it
    monkeypatch.setenv("TINYTAGS_SEARCH_URL", "http://127.0.0.1:1")
    assert engines.wanted() == []


def environment_of_web(settings: Settings) -> dict[str, str]:
    return psutil.Process(web(settings).pid).environ()


def restart(settings: Settings, engines: HomeEngines) -> dict[str, str]:
    """Kill the engine, let the keeper start it again, and return its environment."""
    kill(settings)
    assert engines.start(look(engines))
    wait_until_ready(engines)
    return environment_of_web(settings)


def test_an_engine_is_started_again_with_the_environment_of_the_up_that_started_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYTAGS_STORE", "/first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "first-key")
    up(settings, report=lambda text: None)
    monkeypatch.setenv("TINYTAGS_STORE", "/second")
    monkeypatch.setenv("TINYTAGS_SEARCH_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    engines = HomeEngines(settings, Ending())
    assert engines.wanted() == ["web"]
    told = restart(settings, engines)
    assert (told["TINYTAGS_STORE"], told["AWS_SECRET_ACCESS_KEY"]) == ("/first", "first-key")
    assert not {"TINYTAGS_SEARCH_URL", "HTTPS_PROXY"} & told.keys()
    assert os.environ["TINYTAGS_STORE"] == "/second" and "AWS_SECRET_ACCESS_KEY" not in os.environ

    monkeypatch.delenv("TINYTAGS_SEARCH_URL")
    up(settings, report=lambda text: None)
    assert restart(settings, engines)["TINYTAGS_STORE"] == "/first", "that `up` started nothing"
    down(settings, engines=["search"], report=lambda text: None)
    up(settings, report=lambda text: None)
    assert restart(settings, engines)["TINYTAGS_STORE"] == "/second"


def test_an_engine_is_asked_with_the_settings_that_it_has(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    up(settings, report=lambda text: None)
    asked: list[str] = []
    monkeypatch.setattr(web_engine, "web_unready", lambda settings: asked.append(settings.store))
    monkeypatch.setenv("TINYTAGS_STORE", "/second")
    look(HomeEngines(load_settings(), Ending()))
    assert asked == ["/tinytags"]


def test_the_recorded_environment_is_private_and_gone_after_down(
    settings: Settings, engines: HomeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "needed")
    monkeypatch.setenv("GITHUB_TOKEN", "of no engine")
    record_environment(settings, "search")
    file = settings.home / "services" / "started_with" / "search.json"
    assert file.stat().st_mode & 0o077 == 0
    assert "needed" in file.read_text() and "of no engine" not in file.read_text()
    file.write_text("{'hidden")
    with pytest.raises(BadInputError, match=r"search.json is damaged: `tinytags down search`") as damaged:
        engines.look(["web"])
    assert "hidden" not in str(damaged.value)
    down(settings, engines=["search"], report=lambda text: None)
    assert not file.exists()


def test_a_port_that_somebody_took_is_no_reason_to_move(settings: Settings, engines: HomeEngines) -> None:
    port = control.known_context(settings).ports["web"]["http"]
    kill(settings)
    sight = look(engines)
    with subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]) as taker:
        while control.known_context(settings) and not psutil.Process(taker.pid).net_connections():
            time.sleep(0.05)
        with pytest.raises(FinalError, match=f"web needs port {port} again"):
            engines.start(sight)
        taker.kill()
    assert engines.start(sight)
    assert control.known_context(settings).ports["web"]["http"] == port


def test_a_failing_check_is_a_sight_not_an_error(
    settings: Settings, engines: HomeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("broken answer")

    monkeypatch.setattr(HomeEngines, "_look_at", fail)
    assert (look(engines).state, look(engines).reason) == ("unready", "its check failed: RuntimeError('broken answer')")


def test_an_engine_that_cannot_be_recorded_is_not_left_running(
    settings: Settings, engines: HomeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(settings)
    sight = look(engines)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(processes, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            engines.start(sight)
    assert servers(settings) == []


def test_the_end_waits_for_the_record_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    ending = Ending()
    with ending.held():
        ending.on_signal(signal.SIGTERM, None)
        assert not ended
    assert ended == [0]


def test_status_tells_restarts(settings: Settings, engines: HomeEngines) -> None:
    kill(settings)
    state = KeeperState(os.getpid())
    watching = Keeper(engines, state.engines, Limits(first_delay_seconds=0), tell=lambda text: None)
    watching.look()
    wait_until_ready(engines)
    keeper_process.write_state(settings, state)
    [web_server] = status(settings)
    assert (web_server.restarts, web_server.restart_reason) == (1, "was ended by signal 9")
    assert web_server.restarted_at and web_server.restarted_at.startswith("20")
    answer = CliRunner().invoke(cli.app, ["status"])
    assert "web was restarted 1 times; last at 20" in answer.stdout
    assert "no keeper: an engine that ends stays so" in answer.stdout


def test_the_end_of_the_log_outlives_the_next_start(settings: Settings, engines: HomeEngines) -> None:
    kill(settings)
    history = History(restarts=7, reason="ended with exit code 1", failures=8, next_try_at=2e9, log_end="no such core")
    keeper_process.write_state(settings, KeeperState(os.getpid(), engines={"web": history}))
    answer = CliRunner().invoke(cli.app, ["status"])
    assert answer.exit_code == 1
    assert answer.stdout.rstrip().endswith("no such core")
    assert "failures in a row: 8, next try at 2033-05-18T03:33:20+00:00" in answer.stdout


def test_a_full_disk_is_called_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_free_bytes", lambda home: 42_000_000)
    answer = CliRunner().invoke(cli.app, ["status"])
    assert answer.exit_code == 1
    assert f"the disk is full: {settings.home} has 42 MB free" in answer.output
    with pytest.raises(FinalError, match=r"the disk is full: .* has 42 MB free"):
        up(settings)
    assert not settings.home.exists()


def test_a_disk_that_fills_up_is_foreseen(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "_free_bytes", lambda home: 900_000_000)
    answer = CliRunner().invoke(cli.app, ["status"])
    assert answer.exit_code == 0
    assert f"the disk is almost full: {settings.home} has 900 MB free" in answer.output


def test_a_keeper_is_replaced_when_an_engine_is_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GROUPS", (make_group(name="web"),))  # a real keeper knows no such group
    up(settings, engines=[], report=lambda text: None, keep=True)
    first = keeper_process.running(settings)
    up(settings, report=lambda text: None)
    second = keeper_process.running(settings)
    assert second is not None and second != first
    assert processes.find(first) is None
    up(settings, report=lambda text: None)
    assert keeper_process.running(settings) == second


def test_up_leaves_a_keeper_in_the_foreground_alone(settings: Settings) -> None:
    keeper_process.write_state(settings, KeeperState(os.getpid(), in_foreground=True))
    record = processes.record_this(keeper_process.folder(settings))
    told: list[str] = []
    up(settings, report=told.append)
    assert keeper_process.running(settings) == record
    assert not [text for text in told if "keeper:" in text]


def test_a_home_has_one_keeper_and_down_ends_it(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    """A real keeper process: it knows no engine of ours, and has nothing to do."""
    up(settings, engines=[], report=lambda text: None, keep=True)
    record = keeper_process.running(settings)
    assert record is not None
    [_, last] = status(settings)
    assert (last.name, last.state, last.pid) == ("keeper", "running", record.pid)
    second = subprocess.run(
        [sys.executable, "-m", "tinytags_tasks.cli", "keep"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 2 and "has a keeper already" in second.stderr
    up(settings, engines=[], report=lambda text: None)
    assert keeper_process.running(settings) == record
    os.kill(record.pid, signal.SIGKILL)
    while processes.find(record):
        time.sleep(0.01)
    assert status(settings)[-1].state == "dead"
    up(settings, engines=[], report=lambda text: None)
    started_again = keeper_process.running(settings)
    assert started_again is not None
    down(settings, report=lambda text: None)
    assert processes.find(started_again) is None
    assert not keeper_process.is_started(settings)
