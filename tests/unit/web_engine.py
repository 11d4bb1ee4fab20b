"""An engine that starts instantly: Python's web server."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.services import control
from tinytags_tasks.services.control import down
from tinytags_tasks.services.engine import Context, Engine, Group, answers
from tinytags_tasks.services.ports import Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings, load_settings

SERVER = ("-m", "http.server", "--bind", "127.0.0.1")


def web_unready(settings: Settings) -> str | None:
    try:
        answers(settings.address("search_url"))
    except EngineDownError as error:
        return str(error)
    return None


def make_group(command: tuple[str, ...] = SERVER, timeout_seconds: float = 20, name: str = "search") -> Group:
    def launch(context: Context) -> Launch:
        port = str(context.ports["web"]["http"])
        return Launch((sys.executable, *command, *([port] if command is SERVER else [])), dict(os.environ))

    engine = Engine(
        "web",
        launch,
        lambda context: web_unready(context.settings),
        ports=(Port("http"),),
        address="search_url",
        timeout_seconds=timeout_seconds,
    )
    return Group(
        name,
        (engine,),
        ("search_url",),
        lambda ports: {"search_url": f"http://127.0.0.1:{ports['web']['http']}"},
        web_unready,
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Yield the settings of a home whose only engine is the web server; it is stopped afterwards."""
    for name in [name for name in os.environ if name.startswith("TINYTAGS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(control, "GROUPS", (make_group(),))
    settings = load_settings()
    yield settings
    down(settings, report=lambda text: None)
