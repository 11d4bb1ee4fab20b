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
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tinytags_tasks.errors import FinalError, LostWriteError, MissingError, TransientError
from tinytags_tasks.store.protocol import Storage, temporary_name

LEASE_SECONDS = 60.0
"""How long an owner may be silent."""

_FORMAT = 1
"""Number of a lease's format. What a newer one says of its owner is not read: only its silence counts."""

_POLL_SECONDS = 1.0
_SAME_START_SECONDS = 0.1

_held_here: set[str] = set()


def _place() -> str:
    """Return what two processes share when one can see whether the other lives: machine, boot, process namespace."""
    boot = namespace = ""
    with contextlib.suppress(OSError):  # only Linux has them
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()} {boot} {namespace}"


def _started(process: psutil.Process) -> float:
    """Return the seconds from the machine's start to the process': setting the clock does not change them."""
    return process.create_time() - psutil.boot_time()


def _is_gone(owner: dict[str, object]) -> bool:
    """Tell whether an owner was a process of this machine that has ended."""
    if owner.get("format", 1) != _FORMAT or owner.get("place") != _place():
        return False
    if owner.get("pid") == os.getpid():
        return owner.get("owner") not in _held_here
    try:
        process = psutil.Process(int(str(owner["pid"])))
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended, and its parent has not asked yet how
            return True
        return abs(_started(process) - float(str(owner["started"]))) > _SAME_START_SECONDS
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

        Raises
        ------
        TransientError
            If the store cannot tell now whether the lease is free.
        """
        name = uuid.uuid4().hex
        owner: dict[str, object] = {
            "format": _FORMAT,
            "owner": name,
            "place": _place(),
            "pid": os.getpid(),
            "started": _started(psutil.Process()),
        }
        _held_here.add(name)  # before the lease can be seen: another thread would take it for one of the dead
        try:
            if not self._take(path, owner):
                yield False
                return
            ended = threading.Event()
            renewer = threading.Thread(target=self._renew, args=(path, owner, ended), daemon=True)
            renewer.start()
            try:
                yield True
            finally:
                ended.set()
                renewer.join()
                with contextlib.suppress(TransientError):  # then it runs out by itself
                    if _parse(self._read(path)).get("owner") == name:
                        self._storage.delete(path)
        finally:
            _held_here.discard(name)

    @contextmanager
    def wait_for(self, path: str, subject: str, report: Callable[[str], None] | None = None) -> Generator[None]:
        """Hold a lease while the block runs, and wait for whoever holds it now.

        Parameters
        ----------
        path
            The lease's file.
        subject
            What is written, for people.
        report
            Is told who is waited for; None tells nobody.
        """
        told = ""
        while True:
            with self.hold(path) as is_ours:
                if is_ours:
                    yield
                    return
            if report and (owner := self.describe(path)) != told:
                report(f"{subject} is being written by {owner}: waiting for it")
                told = owner
            time.sleep(_POLL_SECONDS)

    def describe(self, path: str) -> str:
        """Return who holds a lease, for people."""
        content = self._read(path)
        if content is None:
            return "nobody any more"
        owner = _parse(content)
        if "place" not in owner:
            return "somebody whose lease cannot be read"
        return f"{str(owner['place']).split(' ')[0]}, process {owner.get('pid', '?')}"

    def _take(self, path: str, owner: dict[str, object]) -> bool:
        content = _content(owner, 0)
        if self._create(path, content):
            return True
        found = self._read(path)
        if found is None:
            return self._create(path, content)
        return self._is_silent(path, found) and self._remove(path, found) and self._create(path, content)

    def is_abandoned(self, path: str) -> bool:
        """Tell whether the owner of a lease has returned it, is gone, or was silent for too long; nothing is taken."""
        found = self._read(path)
        return found is None or self._is_silent(path, found)

    def _is_silent(self, path: str, found: bytes) -> bool:
        now = time.monotonic()
        last, since = self._seen.get(path, (None, now))
        if found != last:
            self._seen[path] = found, since = found, now
        return now - since >= self._seconds or _is_gone(_parse(found))

    def _remove(self, path: str, found: bytes) -> bool:
        """Remove a lease that is as it was found; of several waiters one succeeds, for one moves it away."""
        moved = temporary_name(path)
        try:
            if not self._storage.rename(path, moved):
                return False
            if self._storage.read(moved) == found:
                self._storage.delete(moved)
                return True
            if not self._storage.rename(moved, path):  # its owner lives after all
                self._storage.delete(moved)
        except MissingError:  # another was faster
            pass
        return False

    def _create(self, path: str, content: bytes) -> bool:
        try:
            return self._storage.write(path, content, overwrite=False)
        except LostWriteError:  # its temporary file went with the leftovers of others: asked again, it will do
            return False

    def _renew(self, path: str, owner: dict[str, object], ended: threading.Event) -> None:
        renewed = 0
        while not ended.wait(self._seconds / 4):
            renewed += 1
            try:
                found = self._read(path)
                if found is None:  # a waiter has moved it away, to look whether it is still as it was
                    self._create(path, _content(owner, renewed))
                elif _parse(found).get("owner", owner["owner"]) == owner["owner"]:
                    self._storage.write(path, _content(owner, renewed))
                else:
                    return
            except (TransientError, MissingError):  # the next time may do
                continue
            except FinalError:  # what refuses the lease refuses the work, which tells
                return

    def _read(self, path: str) -> bytes | None:
        try:
            return self._storage.read(path)
        except MissingError:
            return None


def _content(owner: dict[str, object], renewed: int) -> bytes:
    return json.dumps({**owner, "renewed": renewed}).encode()


def _parse(content: bytes | None) -> dict[str, object]:
    """Return what a lease says; nothing when it is not there or damaged."""
    try:
        owner = json.loads(content or b"")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
