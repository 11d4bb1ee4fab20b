"""Ports of the embedded engines: the standard ones if they are free, recorded and used again."""

import random
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from tinytags_tasks.errors import FinalError

LOOPBACK = "127.0.0.1"

PATIENCE_SECONDS = 5.0
"""A large process that was killed keeps its port for a moment after it counts as dead."""


@dataclass(frozen=True)
class Port:
    """One port of an engine."""

    name: str
    preferred: int | None = None
    companion: int | None = None
    """Offset of a second port that the engine opens by itself."""
    is_identity: bool = False
    """Whether the engine's stored state contains the port, so that it cannot change."""

    def numbers(self, port: int) -> tuple[int, ...]:
        """Return all port numbers that are used if ``port`` is chosen."""
        return (port,) if self.companion is None else (port, port + self.companion)


class PortChooser:
    """Chooses free ports, and reserves them against other ``tinytags up`` on this machine until it is closed."""

    def __init__(self, *, use_standard: bool) -> None:
        self.use_standard = use_standard
        self._reservations = ExitStack()

    def __enter__(self) -> "PortChooser":
        """Return the chooser."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Release the reservations."""
        self._reservations.close()

    def choose(self, port: Port, recorded: int | None, *, may_move: bool, owner: str) -> int:
        """Return the port number for an engine that is about to start.

        Parameters
        ----------
        port
            The port to choose a number for.
        recorded
            Its number at the last start.
        may_move
            Whether another number may be used if the recorded one is taken.
        owner
            Name of the engine, for messages.

        Raises
        ------
        FinalError
            If the recorded port is taken and the engine must have it, or no port is free.
        """
        if recorded is not None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (taken_again := self._take(port, recorded)) and time.monotonic() < deadline:
                time.sleep(0.1)
            if taken_again:
                return recorded
            if port.is_identity or not may_move:
                taken = next(number for number in port.numbers(recorded) if not is_free(number))
                why = "its data contains that port" if port.is_identity else "running engines use that port"
                raise FinalError(
                    f"{owner} needs port {taken} again ({why}), but {holder(taken)} has it: stop that first"
                )
        if self.use_standard and port.preferred is not None and self._take(port, port.preferred):
            return port.preferred
        first, last = free_range()
        for number in random.sample(range(first, last), 1000):
            if self._take(port, number):
                return number
        raise FinalError(f"no free port between {first} and {last} for {owner}")

    def _take(self, port: Port, number: int) -> bool:
        with ExitStack() as taken:
            for each in port.numbers(number):
                if sys.platform == "linux":
                    reservation = taken.enter_context(socket.socket(socket.AF_UNIX))
                    try:
                        reservation.bind(f"\0tinytags-port-{each}")
                    except OSError:
                        return False
                if not is_free(each):
                    return False
            self._reservations.push(taken.pop_all())
        return True


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_range(path: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> tuple[int, int]:
    """Return a range below the kernel's range for outgoing connections, so that none of these takes a chosen port."""
    try:
        ephemeral = int(path.read_text().split()[0])
    except (OSError, ValueError):
        ephemeral = 32_768
    # The last thousand ports are left for companions.
    return (20_000, ephemeral - 1_000) if ephemeral > 25_000 else (32_768, 60_000)


def holder(port: int) -> str:
    """Return a name for the process that listens on a port, as far as the user may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another process"
