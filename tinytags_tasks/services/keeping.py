"""When an engine is started again: what the keeper decides, apart from processes, files and clocks."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tinytags_tasks.services.keeper_process import History


@dataclass(frozen=True)
class Limits:
    """How patient the keeper is."""

    patience_seconds: float = 120
    """How long an engine that was ready may not answer."""
    standstill_seconds: float = 90
    """Without a look for so long, the keeper stood still itself (a suspended machine), and waits again."""
    first_delay_seconds: float = 2
    longest_delay_seconds: float = 300
    good_run_seconds: float = 600
    """An engine that was ready for so long has recovered."""
    crash_loop: int = 5
    """Number of failures in a row that makes a crash loop, which is reported once."""


@dataclass(frozen=True)
class Sight:
    """What a look at an engine found."""

    name: str
    state: Literal["ready", "unready", "ended"]
    process: str | None = None
    """Tells one process of the engine from the next; None if none is recorded."""
    reason: str = ""
    restart_helps: bool = True
    start_seconds: float | None = None
    """How long it may take until it is ready; None if it was ready before."""
    log_end: str = ""


class Engines(Protocol):
    """The engines of a home, as the keeper needs them."""

    def wanted(self) -> Collection[str]:
        """Return the names of the engines that should run."""

    def look(self, names: Collection[str]) -> Collection[Sight]:
        """Look at engines."""

    def start(self, sight: Sight) -> bool:
        """Start an engine again, once the process that was seen has ended; return False if others are at work."""

    def disk_is_full(self) -> str | None:
        """Return that the disk is full; None if it has room."""


@dataclass
class _Watch:
    """What is known of one process of an engine."""

    process: str | None
    unready_since: float | None = None
    looked_at: float = 0
    ready_since: float | None = None
    is_counted: bool = False
    """Whether its end, or its hanging, is in the history."""
    due: float = 0


class Keeper:
    """Starts engines again that ended or hang, later after each failure in a row."""

    def __init__(
        self,
        engines: Engines,
        histories: dict[str, History],
        limits: Limits,
        *,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self.histories = histories
        self.full: str | None = None
        """That the disk is full."""
        self._engines = engines
        self._limits = limits
        self._tell = tell
        self._clock = clock
        self._time_of_day = time_of_day
        self._watches: dict[str, _Watch] = {}
        self._room_since: float | None = None

    def look(self) -> None:
        """Look at all engines that should run, and start those again that are due."""
        self._look_at_the_disk()
        wanted = self._engines.wanted()
        for name in [name for name in {*self.histories, *self._watches} if name not in wanted]:
            self.histories.pop(name, None)
            self._watches.pop(name, None)
        for sight in self._engines.look(wanted):
            self._judge(sight)

    def _look_at_the_disk(self) -> None:
        full = self._engines.disk_is_full()
        if full and not self.full:
            self._tell(f"{full}; engines that end are started again once there is room")
        if self.full and not full:
            self._tell("the disk has room again")
            self._room_since = self._clock()
            for name, watch in self._watches.items():
                if watch.is_counted:  # it was not its own fault
                    watch.due = self._room_since
                    self.histories[name].failures = 0
        self.full = full

    def _judge(self, sight: Sight) -> None:
        watch = self._watches.get(sight.name)
        if watch is None or watch.process != sight.process:
            watch = self._watches[sight.name] = _Watch(sight.process)
        history = self.histories.setdefault(sight.name, History())
        if sight.state == "ready":
            self._note_ready(sight.name, watch, history)
            return
        watch.ready_since = None
        if sight.state == "unready" and not self._hangs(sight, watch):
            return
        if not watch.is_counted:
            hangs = f"does not answer ({sight.reason})"
            self._count(sight, watch, history, hangs if sight.state == "unready" else sight.reason)
        if self.full is None and self._clock() >= watch.due:
            self._start(sight, watch, history)

    def _note_ready(self, name: str, watch: _Watch, history: History) -> None:
        now = self._clock()
        if watch.ready_since is None:
            watch.ready_since = now
            if 0 < history.failures < self._limits.crash_loop:
                self._tell(f"{name} is ready")
        watch.unready_since = None
        watch.is_counted = False
        history.next_try_at = None
        if history.failures and now - watch.ready_since >= self._limits.good_run_seconds:
            if history.failures >= self._limits.crash_loop:
                self._tell(f"{name} has recovered")
            history.failures = 0
            history.log_end = ""

    def _hangs(self, sight: Sight, watch: _Watch) -> bool:
        """Return whether an engine that is not ready has been so for too long."""
        now = self._clock()
        if watch.unready_since is None or now - watch.looked_at > self._limits.standstill_seconds:
            watch.unready_since = now
        watch.looked_at = now
        since, restart_helps = watch.unready_since, sight.restart_helps
        if self._room_since is not None and since <= self._room_since:
            # Engines that met a full disk may wait for ever: a NameNode in safe mode, a core that did not load.
            since, restart_helps = self._room_since, True
        patience = max(self._limits.patience_seconds, sight.start_seconds or 0)
        return restart_helps and now - since >= patience

    def _count(self, sight: Sight, watch: _Watch, history: History, reason: str) -> None:
        """Add a failure to the history, and set when to try again."""
        limits = self._limits
        history.failures += 1
        doubled = limits.first_delay_seconds * 2.0 ** min(history.failures - 1, 30)
        delay = min(limits.longest_delay_seconds, doubled)
        watch.is_counted = True
        watch.due = self._clock() + delay
        history.next_try_at = self._time_of_day() + delay
        history.reason = reason
        history.log_end = sight.log_end
        if history.failures < limits.crash_loop:
            self._tell(f"{sight.name} {reason}; it is started again in {delay:g} s")
        elif history.failures == limits.crash_loop:
            self._tell(
                f"{sight.name} {reason}, {history.failures} times in a row. It is tried again, at most every "
                f"{limits.longest_delay_seconds / 60:g} minutes, and not reported again; its log ends with:\n"
                f"{sight.log_end}"
            )

    def _start(self, sight: Sight, watch: _Watch, history: History) -> None:
        try:
            if not self._engines.start(sight):
                return
        except Exception as error:  # whatever it is, the other engines need the keeper
            self._count(replace(sight, log_end=str(error)), watch, history, f"cannot be started: {error}")
            return
        history.restarts += 1
        history.restarted_at = self._time_of_day()
        history.next_try_at = None
