"""Up, down and status, with engines that start instantly."""

import fcntl
import json
import os
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import web_engine
from serving import serving
from typer.testing import CliRunner
from web_engine import make_group, web_unready

from tinytags_tasks import cli
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError
from tinytags_tasks.services import control, processes, starting
from tinytags_tasks.services.control import down, up
from tinytags_tasks.services.engine_status import status
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings, load_settings

settings = web_engine.settings


def quiet_up(settings: Settings) -> Settings:
    return up(settings, report=lambda text: None)


def kill_web(settings: Settings) -> None:
    pid = status(settings)[0].pid
    assert pid
    os.kill(pid, 9)
    while processes.find(processes.read_record(settings.home / "services" / "web")):
        time.sleep(0.01)


def test_up_starts_what_is_missing_and_records_where_it_is(settings: Settings) -> None:
    told = quiet_up(settings)
    assert web_unready(told) is None
    assert load_settings().search_url == told.search_url
    [engine] = status(settings)
    assert (engine.state, engine.address) == ("running", told.search_url)
    assert engine.memory_bytes


def test_up_again_leaves_a_running_engine_alone(settings: Settings) -> None:
    quiet_up(settings)
    before = status(settings)[0].pid
    quiet_up(settings)
    assert status(settings)[0].pid == before


def test_a_dead_engine_is_named_and_started_again_at_its_address(settings: Settings) -> None:
    told = quiet_up(settings)
    kill_web(settings)
    assert status(settings)[0].state == "dead"
    assert quiet_up(settings).search_url == told.search_url
    assert status(settings)[0].state == "running"


def test_down_forgets_the_addresses_but_not_the_ports(settings: Settings) -> None:
    told = quiet_up(settings)
    down(settings, report=lambda text: None)
    assert status(settings)[0].state == "stopped"
    assert load_settings().search_url is None
    assert quiet_up(settings).search_url == told.search_url


def test_an_engine_that_ends_while_starting_is_reported_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "GROUPS", (make_group(("-c", "raise SystemExit('no such disk')")),))
    with pytest.raises(FinalError, match=r"(?s)web ended with exit code 1 while starting.*no such disk"):
        quiet_up(settings)
    assert status(settings)[0].state == "stopped"


def test_an_engine_that_is_not_ready_in_time_is_ended(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "GROUPS", (make_group(("-c", "import time; time.sleep(600)"), timeout_seconds=0.3),))
    started: list[processes.Record] = []
    start = processes.start

    def noted(launch: Launch, folder: Path, *, die_with_parent: bool = False) -> processes.Record:
        record = start(launch, folder, die_with_parent=die_with_parent)
        started.append(record)
        return record

    monkeypatch.setattr(processes, "start", noted)
    with pytest.raises(TransientError, match="web is not ready after"):
        quiet_up(settings)
    assert [processes.find(record) for record in started] == [None]
    assert status(settings)[0].state == "stopped"


def test_a_slow_start_says_what_is_missing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "TOLD_SECONDS", 0.1)
    monkeypatch.setattr(control, "GROUPS", (make_group(("-c", "import time; time.sleep(600)"), timeout_seconds=1),))
    told: list[str] = []
    with pytest.raises(TransientError, match="web is not ready after"):
        up(settings, report=told.append)
    assert 3 <= sum("web: not ready yet: " in line for line in told) <= 10


def test_a_keeper_goes_on_with_an_engine_that_is_not_ready_in_time_if_it_was_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: all engines start at once, each more slowly than ever, and nobody is there."""
    keepers: list[Path] = []
    monkeypatch.setattr(control.keeper_process, "start", lambda settings, **how: keepers.append(settings.home))

    def slow_up() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(control, "GROUPS", (make_group(("-c", "import time; time.sleep(600)"), timeout_seconds=0.3),))
            with pytest.raises(TransientError, match="web is not ready after"):
                up(settings, report=lambda text: None, keep=True)

    slow_up()
    assert keepers == []  # it never ran here, so it may be wrong
    quiet_up(settings)
    kill_web(settings)
    slow_up()
    assert keepers == [settings.home]


def test_an_external_engine_is_asked_but_not_started(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_SEARCH_URL", "http://127.0.0.1:1")
    with pytest.raises(EngineDownError, match="search is external"):
        quiet_up(settings)
    assert status(settings)[0].state == "away"
    answer = CliRunner().invoke(cli.app, ["status"])
    assert answer.exit_code == 1
    assert "no keeper" not in answer.stdout
    with serving(SimpleHTTPRequestHandler) as server:
        monkeypatch.setenv("TINYTAGS_SEARCH_URL", f"http://127.0.0.1:{server.server_port}")
        assert status(settings)[0].state == "external"
        assert CliRunner().invoke(cli.app, ["status"]).exit_code == 0
    assert not (settings.home / "services" / "web").exists()


def test_half_an_external_hdfs_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_HDFS_URL", "hdfs://namenode:8020")
    with pytest.raises(BadInputError, match="both"):
        quiet_up(settings)


def test_an_unknown_engine_is_refused(settings: Settings) -> None:
    with pytest.raises(BadInputError, match="no such engine: solar"):
        up(settings, engines=["solar"])


def test_down_waits_for_an_up_and_says_so(settings: Settings) -> None:
    settings.home.mkdir()
    said: list[str] = []
    with (settings.home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=down, args=(settings,), kwargs={"report": said.append})
        waiting.start()
        while not said:
            time.sleep(0.01)
    waiting.join(10)
    assert "waiting for another tinytags" in said[0]
    assert said[-1] == "no engine is running"


def test_status_prints_json_and_a_dead_engine_is_exit_code_1(settings: Settings) -> None:
    quiet_up(settings)
    answer = CliRunner().invoke(cli.app, ["status", "--json"])
    [engine] = json.loads(answer.stdout)
    assert (answer.exit_code, engine["name"], engine["state"]) == (0, "web", "running")
    os.kill(engine["pid"], 9)
    answer = CliRunner().invoke(cli.app, ["status"])
    assert answer.exit_code == 1
    assert "web is dead" in answer.stdout


def test_nobody_misses_a_keeper_where_nothing_runs(settings: Settings) -> None:
    quiet_up(settings)
    assert "no keeper" in CliRunner().invoke(cli.app, ["status"]).stdout
    down(settings, report=lambda text: None)
    assert "no keeper" not in CliRunner().invoke(cli.app, ["status"]).stdout


def test_an_error_on_purpose_is_one_line_and_exit_code_2(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tinytags", "up", "solar"])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("tinytags: error: no such engine: solar")
