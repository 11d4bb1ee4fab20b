"""Leases in the store: they record who is working on something, so that nobody else does so at the same time.

A lease saves work and keeps two writers out of each other's way. Correctness does not depend on it, because every write
is committed by one rename. A waiter takes over a lease if its owner has stopped renewing it, according to the waiter's
own clock (C. Gray, D. Cheriton, "Leases", SOSP 1989, but without assuming that the clocks of two machines agree). It
does so at once if the owner was a process on this machine that has ended.
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
"""How long an owner may go without renewing its lease."""

_FORMAT = 1
"""The number of a lease's format. A newer format is not parsed: only whether it is being renewed counts."""

_POLL_SECONDS = 1.0
_SAME_START_SECONDS = 0.1

_held_here: set[str] = set()


def _place() -> str:
    """Return what two processes share if one can see whether the other is alive: machine, boot, process namespace."""
    boot = namespace = ""
    with contextlib.suppress(OSError):  # only Linux has them
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()} {boot} {namespace}"


def _started(process: psutil.Process) -> float:
    """Return the seconds between the starts of the machine and of a process; setting the clock does not change them."""
    return process.create_time() - psutil.boot_time()


def _is_gone(owner: dict[str, object]) -> bool:
    """Return whether an owner was a process on this machine that has ended."""
    if owner.get("format", 1) != _FORMAT or owner.get("place") != _place():
        return False
    if owner.get("pid") == os.getpid():
        return owner.get("owner") not in _held_here
    try:
        process = psutil.Process(int(str(owner["pid"])))
        if process.status() == psutil.STATUS_ZOMBIE:  # it has ended, but its parent has not waited for it yet
            return True
        return abs(_started(process) - float(str(owner["started"]))) > _SAME_START_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, KeyError, ValueError):
        return False


class Leases:
    """Takes leases, and remembers when the leases of others were last renewed.

    Parameters
    ----------
    storage
        The store.
    seconds
        How long an owner may go without renewing its lease before it is taken over. Owners renew four times as often.
    """

    def __init__(self, storage: Storage, seconds: float = LEASE_SECONDS) -> None:
        self._storage = storage
        self._seconds = seconds
        self._seen: dict[str, tuple[bytes, float]] = {}

    @contextmanager
    def hold(self, path: str) -> Generator[bool]:
        """Hold a lease while the block runs; yield False if another owner holds it.

        Parameters
        ----------
        path
            The lease's file.

        Raises
        ------
        TransientError
            If the store cannot say at the moment whether the lease is free.
        """
        name = uuid.uuid4().hex
        owner: dict[str, object] = {
            "format": _FORMAT,
            "owner": name,
            "place": _place(),
            "pid": os.getpid(),
            "started": _started(psutil.Process()),
        }
        _held_here.add(name)  # before the lease is visible, or another thread would think that its owner has ended
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
                with contextlib.suppress(TransientError):  # then it expires by itself
                    if _parse(self._read(path)).get("owner") == name:
                        self._storage.delete(path)
        finally:
            _held_here.discard(name)

    @contextmanager
    def wait_for(self, path: str, subject: str, report: Callable[[str], None] | None = None) -> Generator[None]:
        """Wait for a lease, and hold it while the block runs.

        Parameters
        ----------
        path
            The lease's file.
        subject
            What the lease is on, for people.
        report
            Called with a message that says who holds the lease; None reports nothing.
        """
        reported = ""
        while True:
            with self.hold(path) as is_ours:
                if is_ours:
                    yield
                    return
            if report and (owner := self.describe(path)) != reported:
                report(f"{subject} is being written by {owner}: waiting for it")
                reported = owner
            time.sleep(_POLL_SECONDS)

    def describe(self, path: str) -> str:
        """Return who holds a lease, for people."""
        content = self._read(path)
        if content is None:
            return "a writer that has just finished"
        owner = _parse(content)
        if "place" not in owner:
            return "someone whose lease cannot be read"
        return f"{str(owner['place']).split(' ')[0]}, process {owner.get('pid', '?')}"

    def _take(self, path: str, owner: dict[str, object]) -> bool:
        content = _content(owner, 0)
        if self._create(path, content):
            return True
        found = self._read(path)
        if found is None:
            return self._create(path, content)
        return self._has_expired(path, found) and self._remove(path, found) and self._create(path, content)

    def is_abandoned(self, path: str) -> bool:
        """Return whether a lease was given back, its owner ended, or it was not renewed for too long; take nothing."""
        found = self._read(path)
        return found is None or self._has_expired(path, found)

    def _has_expired(self, path: str, found: bytes) -> bool:
        now = time.monotonic()
        last, since = self._seen.get(path, (None, now))
        if found != last:
            self._seen[path] = found, since = found, now
        return now - since >= self._seconds or _is_gone(_parse(found))

    def _remove(self, path: str, found: bytes) -> bool:
        """Remove an unchanged lease; only one of several waiters succeeds, because only one can move it away."""
        moved = temporary_name(path)
        try:
            if not self._storage.rename(path, moved):
                return False
            if self._storage.read(moved) == found:
                self._storage.delete(moved)
                return True
            if not self._storage.rename(moved, path):  # its owner is alive after all
                self._storage.delete(moved)
        except (MissingError, LostWriteError):  # another waiter was faster
            pass
        return False

    def _create(self, path: str, content: bytes) -> bool:
        try:
            return self._storage.write(path, content, overwrite=False)
        except LostWriteError:  # its temporary file was deleted as a leftover; the caller tries again
            return False

    def _renew(self, path: str, owner: dict[str, object], ended: threading.Event) -> None:
        renewed = 0
        while not ended.wait(self._seconds / 4):
            renewed += 1
            try:
                found = self._read(path)
                if found is None:  # a waiter has moved it away to check whether it changed
                    self._create(path, _content(owner, renewed))
                elif _parse(found).get("owner", owner["owner"]) == owner["owner"]:
                    self._storage.write(path, _content(owner, renewed))
                else:
                    return
            except (TransientError, MissingError):  # the next attempt may succeed
                continue
            except FinalError:  # the work itself will fail for the same reason, and report it
                return

    def _read(self, path: str) -> bytes | None:
        try:
            return self._storage.read(path)
        except MissingError:
            return None


def _content(owner: dict[str, object], renewed: int) -> bytes:
    return json.dumps({**owner, "renewed": renewed}).encode()


def _parse(content: bytes | None) -> dict[str, object]:
    """Return what a lease says; empty if it does not exist or is damaged."""
    try:
        owner = json.loads(content or b"")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
