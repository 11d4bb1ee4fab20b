"""Ports: the standard ones if free, the recorded ones again, and never one that another copy is about to take."""

import socket
import threading

import pytest

from tinytags_tasks.errors import FinalError
from tinytags_tasks.services import ports
from tinytags_tasks.services.ports import Port, PortChooser, free_range, is_free


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PATIENCE_SECONDS", 0.5)


@pytest.fixture
def taken() -> int:
    """A port that another process listens on during the test."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    with PortChooser(use_standard=False) as chooser:
        return chooser.choose(Port("any"), None, may_move=True, owner="test")


def choose(port: Port, recorded: int | None = None, *, standard: bool = True, may_move: bool = True) -> int:
    with PortChooser(use_standard=standard) as chooser:
        return chooser.choose(port, recorded, may_move=may_move, owner="solr")


def test_the_standard_port_is_preferred(free: int) -> None:
    assert choose(Port("http", free)) == free


def test_the_standard_port_is_not_used_when_not_wanted(free: int) -> None:
    assert choose(Port("http", free), standard=False) != free


def test_a_taken_standard_port_is_replaced_by_a_free_one(taken: int) -> None:
    chosen = choose(Port("http", taken))
    assert chosen != taken and is_free(chosen)


def test_a_recorded_port_is_used_again(free: int) -> None:
    assert choose(Port("http", 1), recorded=free) == free


def test_a_port_that_a_killed_engine_still_holds_is_waited_for() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Timer(0.2, server.close).start()
    number = server.getsockname()[1]
    assert choose(Port("http", is_identity=True), recorded=number) == number


def test_a_port_whose_companion_is_taken_is_not_used(taken: int) -> None:
    assert choose(Port("http", taken - 1, companion=1)) != taken - 1


def test_an_engine_tied_to_its_port_names_who_has_it(taken: int) -> None:
    with pytest.raises(FinalError, match=rf"solr needs port {taken} again .*process \d+"):
        choose(Port("http", 1, is_identity=True), recorded=taken)


def test_a_port_that_running_engines_know_does_not_move(taken: int) -> None:
    with pytest.raises(FinalError, match="running engines use that port"):
        choose(Port("http", 1), recorded=taken, may_move=False)


def test_two_copies_that_start_at_once_choose_different_ports(free: int) -> None:
    with PortChooser(use_standard=True) as first, PortChooser(use_standard=True) as second:
        port = Port("http", free)
        one = first.choose(port, None, may_move=True, owner="first")
        other = second.choose(port, None, may_move=True, owner="second")
    assert one == free != other


def test_free_ports_lie_below_those_of_outgoing_connections(tmp_path: object) -> None:
    first, last = free_range()
    assert 1024 < first < last < 65_535 - 1000
