"""Leases in the store: who works on something now, so that another does not do it at the same time.

A lease saves work and keeps two writers out of each other's way; correctness never rests on it, for every write is
committed by one rename. A waiter takes over a lease whose owner has stopped renewing it, judged by the waiter's own
clock (C. Gray, D. Cheriton, "Leases", SOSP 1989, without trusting that two machines' clocks agree), and at once when
the owner was a process of this machine that is gone.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tinytags_tasks.errors import MissingError, TransientError
from tinytags_tasks.storage import Storage, temporary_name

LEASE_SECONDS = 60.0
"""How long an owner may be silent."""


_held_here: set[str] = set()


def _place() -> str:
    """Return what two processes share when one can see whether the other lives: machine, boot, process namespace."""
    boot = namespace = ""
    with contextlib.suppress(OSError):  # only Linux has them
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()} {boot} {namespace}"


def _is_gone(owner: dict[str, object]) -> bool:
    """Tell whether an owner was a process of this machine that has ended."""
    if owner.get("place") != _place():
        return False
    if owner.get("pid") == os.getpid():
        return owner.get("owner") not in _held_here
    try:
        return psutil.Process(int(str(owner["pid"]))).create_time() != owner["started"]
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, ValueError):
        return False


class Leases:
    """Takes leases, and remembers how long others have been silent.

    Parameters
    ----------
    storage
        Where leases are.
    seconds
        How long an owner may be silent before its lease is taken over; it renews four times as often.
    """

    def __init__(self, storage: Storage, seconds: float = LEASE_SECONDS) -> None:
        self._storage = storage
        self._seconds = seconds
        self._seen: dict[str, tuple[bytes, float]] = {}

    @contextmanager
    def hold(self, path: str) -> Generator[bool]:
        """Hold a lease while the block runs; yields False when another holds it.

        Parameters
        ----------
        path
            The lease's file.
        """
        name = uuid.uuid4().hex
        owner: dict[str, object] = {
            "owner": name,
            "place": _place(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }
        if not self._take(path, owner):
            yield False
            return
        _held_here.add(name)
        ended = threading.Event()
        renewer = threading.Thread(target=self._renew, args=(path, owner, ended), daemon=True)
        renewer.start()
        try:
            yield True
        finally:
            ended.set()
            renewer.join()
            _held_here.discard(name)
            with contextlib.suppress(TransientError):  # then it runs out by itself
                if self._owner(path).get("owner") == name:
                    self._storage.delete(path)

    def describe(self, path: str) -> str:
        """Return who holds a lease, for people."""
        owner = self._owner(path)
        return f"{str(owner.get('place', 'nobody')).split(' ')[0]}, process {owner.get('pid', '?')}"

    def _take(self, path: str, owner: dict[str, object]) -> bool:
        content = json.dumps({**owner, "renewed": 0}).encode()
        if self._create(path, content):
            return True
        try:
            found = self._storage.read(path)
        except MissingError:
            return self._create(path, content)
        last, since = self._seen.get(path, (b"", 0.0))
        if found != last:
            self._seen[path] = (found, since := time.monotonic())
        if not _is_gone(_parse(found)) and time.monotonic() - since < self._seconds:
            return False
        # Moved away before it is judged dead for good: of several waiters one moves it.
        moved = temporary_name(path)
        try:
            self._storage.rename(path, moved)
        except MissingError:
            return False
        if self._storage.read(moved) != found:  # its owner lives after all
            self._storage.rename(moved, path)
            return False
        self._storage.delete(moved)
        return self._create(path, content)

    def _create(self, path: str, content: bytes) -> bool:
        try:
            return self._storage.write(path, content, overwrite=False)
        except MissingError:  # its temporary file went with the leftovers of others: asked again, it will do
            return False

    def _renew(self, path: str, owner: dict[str, object], ended: threading.Event) -> None:
        renewed = 0
        while not ended.wait(self._seconds / 4):
            renewed += 1
            with contextlib.suppress(TransientError, MissingError):  # the next time may do
                if self._owner(path).get("owner") != owner["owner"]:
                    return
                self._storage.write(path, json.dumps({**owner, "renewed": renewed}).encode())

    def _owner(self, path: str) -> dict[str, object]:
        try:
            return _parse(self._storage.read(path))
        except MissingError:
            return {}


def _parse(content: bytes) -> dict[str, object]:
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
