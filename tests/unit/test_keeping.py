"""When the keeper starts an engine again, with a clock and engines of our own."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pytest

from tinytags_tasks.services.keeper_process import History
from tinytags_tasks.services.keeping import Keeper, Limits, Sight

FULL = "the disk is full: /home has 3 MB free. Make room"


@dataclass
class World:
    """Engines whose state is written down here; each start makes a new process."""

    sights: dict[str, Sight] = field(default_factory=dict)
    is_broken: set[str] = field(default_factory=set)
    """Engines that end as soon as they are started."""
    now: float = 1000.0
    full: str | None = None
    is_locked: bool = False
    starts: list[tuple[str, float]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    error: Exception | None = None

    def wanted(self) -> list[str]:
        return list(self.sights)

    def look(self, names: Collection[str]) -> list[Sight]:
        return [self.sights[name] for name in names]

    def disk_is_full(self) -> str | None:
        return self.full

    def start(self, sight: Sight) -> bool:
        if self.is_locked:
            return False
        self.starts.append((sight.name, self.now))
        if self.error:
            raise self.error
        process = f"{sight.name} {len(self.starts)}"
        if sight.name in self.is_broken:
            self.sights[sight.name] = Sight(sight.name, "ended", process, "ended with exit code 1", log_end="no core")
        else:
            self.sights[sight.name] = Sight(sight.name, "ready", process)
        return True

    def kill(self, name: str) -> None:
        self.sights[name] = replace(self.sights[name], state="ended", reason="ended", log_end="the last line")

    def hang(self, name: str, **changes: object) -> None:
        self.sights[name] = replace(self.sights[name], state="unready", reason="ReadTimeoutError", **changes)


@pytest.fixture
def world() -> World:
    return World({name: Sight(name, "ready", f"{name} 0") for name in ("solr", "namenode")})


@pytest.fixture
def keeper(world: World) -> Keeper:
    return Keeper(
        world, {}, Limits(), tell=world.told.append, clock=lambda: world.now, time_of_day=lambda: world.now + 1e9
    )


def watch(keeper: Keeper, world: World, seconds: float) -> None:
    end = world.now + seconds
    while world.now < end:
        keeper.look()
        world.now += 5


def test_an_engine_that_ended_is_started_again_within_seconds(keeper: Keeper, world: World) -> None:
    watch(keeper, world, 60)
    assert not world.starts
    world.kill("solr")
    killed = world.now
    watch(keeper, world, 60)
    [(name, when)] = world.starts
    assert (name, when - killed <= 10) == ("solr", True)
    history = keeper.histories["solr"]
    assert (history.restarts, history.reason, history.restarted_at) == (1, "ended", when + 1e9)
    assert keeper.histories["namenode"] == History()
    assert world.told == ["solr ended; it is started again in 2 s", "solr is ready"]


def test_a_crash_loop_is_told_once_and_tried_ever_more_rarely(keeper: Keeper, world: World) -> None:
    world.is_broken.add("solr")
    world.kill("solr")
    watch(keeper, world, 7200)
    pauses = [later - earlier for (_, earlier), (_, later) in zip(world.starts, world.starts[1:], strict=False)]
    assert max(pauses) <= 310
    assert pauses == sorted(pauses)
    assert 25 <= len(world.starts) <= 35
    (loop,) = [text for text in world.told if "in a row" in text]
    assert "solr ended with exit code 1, 5 times in a row" in loop and loop.endswith("no core")
    assert len(world.told) == 5
    assert keeper.histories["solr"].next_try_at is not None


def test_a_crash_loop_does_not_hold_up_other_engines(keeper: Keeper, world: World) -> None:
    world.is_broken.add("solr")
    world.kill("solr")
    watch(keeper, world, 1000)
    world.kill("namenode")
    killed = world.now
    watch(keeper, world, 20)
    assert [when - killed <= 10 for name, when in world.starts if name == "namenode"] == [True]


def test_after_a_good_run_patience_begins_anew(keeper: Keeper, world: World) -> None:
    world.is_broken.add("solr")
    world.kill("solr")
    watch(keeper, world, 300)
    world.is_broken.clear()
    watch(keeper, world, 300)
    assert keeper.histories["solr"].failures > 5
    watch(keeper, world, 600)
    assert keeper.histories["solr"].failures == 0
    assert world.told[-1] == "solr has recovered"


def test_a_short_good_run_does_not_forget_failures(keeper: Keeper, world: World) -> None:
    for _ in range(3):
        world.kill("solr")
        watch(keeper, world, 60)
    assert keeper.histories["solr"].failures == 3


def test_an_engine_that_hangs_is_started_again_but_not_one_that_is_slow(keeper: Keeper, world: World) -> None:
    watch(keeper, world, 10)
    world.hang("solr")
    watch(keeper, world, 110)
    assert not world.starts
    world.sights["solr"] = Sight("solr", "ready", "solr 0")
    watch(keeper, world, 10)
    world.hang("solr")
    watch(keeper, world, 110)
    assert not world.starts
    watch(keeper, world, 30)
    assert [name for name, _ in world.starts] == ["solr"]
    assert keeper.histories["solr"].reason == "does not answer (ReadTimeoutError)"


def test_an_engine_that_loads_or_waits_for_another_is_left_alone(keeper: Keeper, world: World) -> None:
    world.hang("namenode", restart_helps=False)
    watch(keeper, world, 3600)
    assert not world.starts


def test_an_engine_that_starts_has_its_own_time(keeper: Keeper, world: World) -> None:
    world.hang("solr", start_seconds=300)
    watch(keeper, world, 290)
    assert not world.starts
    watch(keeper, world, 30)
    assert len(world.starts) == 1


def test_a_keeper_that_stood_still_itself_blames_no_engine(keeper: Keeper, world: World) -> None:
    world.hang("solr")
    keeper.look()
    world.now += 3600
    keeper.look()
    assert not world.starts


def test_what_is_no_longer_wanted_is_forgotten(keeper: Keeper, world: World) -> None:
    world.is_broken.add("solr")
    world.kill("solr")
    watch(keeper, world, 30)
    before = len(world.starts)
    del world.sights["solr"]
    watch(keeper, world, 600)
    assert len(world.starts) == before
    assert set(keeper.histories) == {"namenode"}


def test_while_others_are_at_work_nothing_is_counted(keeper: Keeper, world: World) -> None:
    world.kill("solr")
    world.is_locked = True
    watch(keeper, world, 600)
    assert keeper.histories["solr"].failures == 1
    world.is_locked = False
    watch(keeper, world, 10)
    assert keeper.histories["solr"].restarts == 1


def test_a_start_that_fails_is_tried_again_later(keeper: Keeper, world: World) -> None:
    world.error = OSError("cannot fork")
    world.kill("solr")
    watch(keeper, world, 60)
    assert 3 <= len(world.starts) <= 6
    world.error = None
    watch(keeper, world, 120)
    assert world.sights["solr"].state == "ready"
    assert "solr cannot be started: cannot fork; it is started again in 4 s" in world.told


def test_on_a_full_disk_nothing_is_started_until_there_is_room(keeper: Keeper, world: World) -> None:
    world.full = FULL
    world.kill("solr")
    world.hang("namenode", restart_helps=False)  # in safe mode, which it leaves only by hand
    watch(keeper, world, 1200)
    assert not world.starts
    assert keeper.full == FULL
    assert [text for text in world.told if "disk" in text] == [
        f"{FULL}; engines that end are started again once there is room"
    ]
    world.full = None
    freed = world.now
    watch(keeper, world, 10)
    assert [name for name, _ in world.starts] == ["solr"]
    watch(keeper, world, 200)
    assert [(name, 120 <= when - freed <= 140) for name, when in world.starts[1:]] == [("namenode", True)]
