"""The keeper: a process that starts engines again that ended or hang. ``python -m tinytags_tasks.services.keeper``."""

import argparse
import fcntl
import os
import signal
import time
import traceback
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType

from tinytags_tasks.errors import FinalError
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services import control, disk, keeper_process, processes
from tinytags_tasks.services.engine import Context, Engine, Group, Waiting
from tinytags_tasks.services.files import last_lines, locked_if_free
from tinytags_tasks.services.keeper_process import KeeperState
from tinytags_tasks.services.keeping import Keeper, Limits, Sight
from tinytags_tasks.services.log_rotation import cut_grown_logs
from tinytags_tasks.services.ports import PortChooser
from tinytags_tasks.services.processes import Record
from tinytags_tasks.services.started_with import Variables, environment_of, recorded_environment
from tinytags_tasks.services.starting import engine_log
from tinytags_tasks.services.wanted import read_wanted
from tinytags_tasks.settings import Settings, load_settings

LOOK_SECONDS = 5.0
CHECK_SECONDS = 30.0
"""No check of an engine takes as long, unless its thread is stuck."""
SAVE_SECONDS = 30.0
"""How often the keeper says that it lives."""
HUNG_GRACE_SECONDS = 10.0
"""How long an engine that hangs may take to end before it is killed."""


class Ending:
    """Ends this process at a signal, but not between the start of an engine and its record."""

    def __init__(self) -> None:
        self._is_told = False
        self._is_held = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """End the process, now or when :meth:`held` is over."""
        self._is_told = True
        if not self._is_held:
            os._exit(0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the end back."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            if self._is_told:
                os._exit(0)


class HomeEngines:
    """The embedded engines of a home, each with the environment with which ``up`` started its group."""

    def __init__(self, settings: Settings, ending: Ending, *, die_with_parent: bool = False) -> None:
        self._settings = settings
        self._ending = ending
        self._die_with_parent = die_with_parent
        self._pool = ThreadPoolExecutor(16)

    def wanted(self) -> list[str]:
        """Return the names of the engines that should run; external ones are not ours to start."""
        names = read_wanted(self._settings)
        embedded = control.embedded_groups(names)
        return [
            engine.name
            for group in control.GROUPS
            # What `up` has started is ours, even if this process knows the address of an external one.
            if group in embedded or (group.name in names and recorded_environment(self._settings, group.name))
            for engine in group.engines
        ]

    def look(self, names: Collection[str]) -> list[Sight]:
        """Look at engines, all at the same time."""
        asked = [(engine, group) for group in control.GROUPS for engine in group.engines if engine.name in names]
        contexts = self._contexts({group.name for _, group in asked})
        waiting = [
            (engine, contexts[group.name], self._pool.submit(self._look_at, engine, contexts[group.name]))
            for engine, group in asked
        ]
        sights = []
        for engine, context, check in waiting:
            try:
                sights.append(check.result(CHECK_SECONDS))
            except Exception as error:  # a timeout, or whatever an engine in trouble answers
                process = _identity(processes.read_record(context.folder(engine.name)))
                sights.append(Sight(engine.name, "unready", process, f"its check failed: {error!r}"))
        return sights

    def start(self, sight: Sight) -> bool:
        """Start an engine again at its ports, unless that is no longer wanted or others have done so."""
        with self._ending.held(), locked_if_free(self._settings.home) as is_locked:
            return is_locked and self._start(sight)

    def disk_is_full(self) -> str | None:
        """Return that the disk is full; None if it has room."""
        return disk.disk_is_full(self._settings.home)

    def _contexts(self, groups: Collection[str]) -> dict[str, Context]:
        """Return what is known with the environment of each group; most have the same."""
        known: list[tuple[Variables | None, Context]] = []
        contexts = {}
        for group in groups:
            variables = recorded_environment(self._settings, group)
            context = next((context for others, context in known if others == variables), None)
            if context is None:
                with environment_of(variables):
                    context = control.known_context(load_settings())
                known.append((variables, context))
            contexts[group] = context
        return contexts

    def _look_at(self, engine: Engine, context: Context) -> Sight:
        folder = context.folder(engine.name)
        record = processes.read_record(folder)
        if record is None or processes.find(record) is None:
            log_end = last_lines(engine_log(context, engine))
            return Sight(engine.name, "ended", _identity(record), _how_it_ended(record), log_end=log_end)
        reason = engine.unready(context)
        if reason is None:
            self._mark_ready(engine, record, context)
            return Sight(engine.name, "ready", _identity(record))
        return Sight(
            engine.name,
            "unready",
            _identity(record),
            str(reason),
            restart_helps=not isinstance(reason, Waiting),
            start_seconds=engine.timeout_seconds if record.ready_after_seconds is None else None,
            log_end=last_lines(engine_log(context, engine)),
        )

    def _mark_ready(self, engine: Engine, record: Record, context: Context) -> None:
        if record.ready_after_seconds is None:
            with locked_if_free(self._settings.home) as is_locked, suppress(OSError):
                if is_locked and processes.read_record(context.folder(engine.name)) == record:
                    processes.mark_ready(context.folder(engine.name), record)

    def _start(self, sight: Sight) -> bool:
        if sight.name not in self.wanted():
            return False
        (group,) = [group for group in control.GROUPS if sight.name in [engine.name for engine in group.engines]]
        (engine,) = [engine for engine in group.engines if engine.name == sight.name]
        with environment_of(recorded_environment(self._settings, group.name)):
            return self._start_engine(engine, group, sight, control.known_context(load_settings()))

    def _start_engine(self, engine: Engine, group: Group, sight: Sight, context: Context) -> bool:
        folder = context.folder(engine.name)
        record = processes.read_record(folder)
        if _identity(record) != sight.process:
            return False
        if record is not None:
            is_alive = processes.find(record) is not None
            if is_alive and engine.unready(context) is None:
                return False
            # Child processes may have outlived an engine that ended.
            processes.stop([record], grace_seconds=HUNG_GRACE_SECONDS if is_alive else 0)
        with PortChooser(use_standard=False) as chooser:
            for port in engine.ports:
                if (known := context.ports.get(engine.name, {}).get(port.name)) is None:
                    raise FinalError(f"no port of {engine.name} is recorded: run `tinytags up`")
                chooser.choose(port, known, may_move=False, owner=engine.name)
            group.prepare(context)
            processes.start(engine.launch(context), folder, die_with_parent=self._die_with_parent)
        return True


def _identity(record: Record | None) -> str | None:
    return None if record is None else f"{record.pid} {record.create_time}"


def _how_it_ended(record: Record | None) -> str:
    if record is None:  # an `up` stopped it because it did not become ready
        return "does not run"
    code = processes.exit_code(record)
    if code is None:
        return "ended"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def keep(settings: Settings, *, in_foreground: bool = False, die_with_parent: bool = False) -> None:
    """Look after the engines of a home until this process is ended.

    Parameters
    ----------
    settings
        The settings, with the engines' home.
    in_foreground
        Whether others, such as systemd, look after this process.
    die_with_parent
        End the engines that were started again with this process, for tests.

    Raises
    ------
    FinalError
        If the home has another keeper.
    """
    with _as_only_keeper(settings):
        if in_foreground:
            processes.record_this(keeper_process.folder(settings))
        ending = Ending()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ending.on_signal)
        engines = HomeEngines(settings, ending, die_with_parent=die_with_parent)
        state = KeeperState(os.getpid(), in_foreground, time.time(), keeper_process.read_state(settings).engines)
        limits = Limits(patience_seconds=settings.keeper_patience_seconds)
        keeper = Keeper(engines, state.engines, limits, tell=tell)
        keeper_process.write_state(settings, state)
        _look_for_ever(settings, keeper, state)


def _look_for_ever(settings: Settings, keeper: Keeper, state: KeeperState) -> None:
    saved = problem = ""
    while True:
        try:
            keeper.look()
            if repr(state.engines) != saved or time.time() - state.looked_at > SAVE_SECONDS:
                state.looked_at = time.time()
                saved = repr(state.engines)
                keeper_process.write_state(settings, state)
                cut_grown_logs(settings)
            problem = ""
        except Exception as error:  # the keeper must outlive whatever it meets
            if repr(error) != problem:
                problem = repr(error)
                tell(f"the keeper goes on after an error:\n{traceback.format_exc()}")
        time.sleep(min(LOOK_SECONDS, settings.keeper_patience_seconds / 10))


def tell(text: str) -> None:
    """Write a line to the log, if the disk has room for it."""
    with suppress(OSError):
        os.write(1, f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n".encode())


@contextmanager
def _as_only_keeper(settings: Settings) -> Iterator[None]:
    with (make_folder(keeper_process.folder(settings)) / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FinalError(f"{settings.home} has a keeper already; `tinytags status` shows it") from error
        yield


def main() -> None:
    """Run the keeper."""
    parser = argparse.ArgumentParser(prog="tinytags_tasks.services.keeper")
    parser.add_argument("--die-with-parent", action="store_true")
    keep(load_settings(), die_with_parent=parser.parse_args().die_with_parent)


if __name__ == "__main__":
    main()
