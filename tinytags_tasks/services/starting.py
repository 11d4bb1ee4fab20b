"""Start the engines' processes, and wait until each engine is ready."""

import queue
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tinytags_tasks.errors import FinalError, TransientError
from tinytags_tasks.services import processes
from tinytags_tasks.services.engine import Context, Engine, Group, engine_folder
from tinytags_tasks.services.files import last_lines
from tinytags_tasks.services.processes import Launch, Record
from tinytags_tasks.services.started_with import record_environment
from tinytags_tasks.settings import Settings

TOLD_SECONDS = 30
"""How often it is said what an engine still lacks."""


class _Stopped(Exception):
    """Another engine failed, so this one is given up."""


class _Starter:
    """Starts processes in the thread that called ``up``, on request of worker threads.

    ``die_with_parent`` ends a process when the thread that forked it ends, so worker threads must not fork.
    """

    def __init__(self, *, die_with_parent: bool) -> None:
        self.stopped = threading.Event()
        self.started: dict[Path, Record] = {}
        self._die_with_parent = die_with_parent
        self._requests: queue.Queue[tuple[Launch, Path, Future[Record]]] = queue.Queue()

    def start(self, launch: Launch, folder: Path) -> Record:
        """Request a process from a worker thread, and wait until it is started."""
        answer: Future[Record] = Future()
        self._requests.put((launch, folder, answer))
        while not self.stopped.is_set():
            with suppress(TimeoutError):
                return answer.result(timeout=0.2)
        raise _Stopped

    def serve(self, seconds: float) -> None:
        """Start a requested process in the calling thread."""
        with suppress(queue.Empty):
            launch, folder, answer = self._requests.get(timeout=seconds)
            try:
                record = processes.start(launch, folder, die_with_parent=self._die_with_parent)
            except OSError as error:
                answer.set_exception(FinalError(f"cannot start {launch.command[0]}: {error}"))
            else:
                self.started[folder] = record
                answer.set_result(record)


def is_running(settings: Settings, engine: Engine) -> bool:
    """Return whether the process of an engine is running, ready or not."""
    return processes.find(processes.read_record(engine_folder(settings, engine.name))) is not None


def start_all(groups: Collection[Group], context: Context, die_with_parent: bool) -> None:
    """Start the engines that are not running, and return once all are ready.

    Parameters
    ----------
    groups
        The engines; groups start at the same time.
    context
        What engines need to start.
    die_with_parent
        End the engines when the calling thread ends.

    Raises
    ------
    FinalError
        If an engine ends while it is starting.
    TransientError
        If an engine is not ready in time.
    """
    starter = _Starter(die_with_parent=die_with_parent)
    try:
        with ThreadPoolExecutor(max(1, len(groups))) as pool:
            waiting = [pool.submit(_bring_up, group, context, starter) for group in groups]
            try:
                while not all(each.done() for each in waiting):
                    starter.serve(0.1)
                    if any(each.done() and each.exception() for each in waiting):
                        starter.stopped.set()
            finally:
                starter.stopped.set()
        failures = [failure for each in waiting if (failure := each.exception()) is not None]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, _Stopped)):
            raise failure
    finally:
        _kill_unready(starter, context)


def _kill_unready(starter: _Starter, context: Context) -> None:
    unready = {
        folder: record
        for folder, record in starter.started.items()
        if (now := processes.read_record(folder)) is None or now.ready_after_seconds is None
    }
    if unready:
        processes.stop(unready.values(), grace_seconds=3)
        for folder in unready:
            processes.record_file(folder).unlink(missing_ok=True)
        context.report(f"stopped {len(unready)} processes that did not become ready")


def _bring_up(group: Group, context: Context, starter: _Starter) -> None:
    missing = [engine for engine in group.engines if not is_running(context.settings, engine)]
    if missing:
        _prepare(group, context)
    for engine in missing:
        _start_engine(engine, context, starter)
    waiting = list(group.engines)
    began = told = time.monotonic()
    while waiting:
        is_due = time.monotonic() - told > TOLD_SECONDS
        told = time.monotonic() if is_due else told
        for engine in list(waiting):
            reason = engine.unready(context)
            record = processes.read_record(context.folder(engine.name))
            if record is None or processes.find(record) is None:
                if engine in missing:
                    raise FinalError(_obituary(context, engine, record))
                missing.append(engine)  # it was still running a moment ago, but about to end
                _prepare(group, context)
                _start_engine(engine, context, starter)
            elif reason is None:
                waiting.remove(engine)
                if record.ready_after_seconds is None:
                    processes.mark_ready(context.folder(engine.name), record)
                at = f" at {getattr(context.settings, engine.address)}" if engine.address else ""
                context.report(f"{engine.name}: {'ready' if engine in missing else 'already running'}{at}")
            elif time.monotonic() - began > engine.timeout_seconds:
                raise TransientError(
                    f"{engine.name} is not ready after {engine.timeout_seconds:g} s: {reason}. See its log, "
                    f"{processes.log_file(context.folder(engine.name))}; `tinytags down` stops it"
                )
            elif is_due:
                context.report(f"{engine.name}: not ready yet: {reason}")
        if waiting and starter.stopped.wait(0.2):
            raise _Stopped


def _prepare(group: Group, context: Context) -> None:
    group.prepare(context)
    record_environment(context.settings, group.name)  # of all its engines: they share what was prepared


def _start_engine(engine: Engine, context: Context, starter: _Starter) -> None:
    folder = context.folder(engine.name)
    if (dead := processes.read_record(folder)) is not None:
        processes.stop([dead], grace_seconds=0)  # its own child processes may still run
    starter.start(engine.launch(context), folder)


def engine_log(context: Context, engine: Engine) -> Path:
    """Return the log to read: what the engine printed, or its own log if it printed nothing."""
    folder = context.folder(engine.name)
    printed = processes.log_file(folder)
    own = folder / engine.own_log if engine.own_log else printed
    return own if own.exists() and not (printed.exists() and printed.stat().st_size) else printed


def _obituary(context: Context, engine: Engine, record: Record | None) -> str:
    log = engine_log(context, engine)
    code = None if record is None else processes.exit_code(record)
    how = "ended" if code is None else f"ended with exit code {code}"
    return f"{engine.name} {how} while starting; {log} ends with:\n{last_lines(log)}"
