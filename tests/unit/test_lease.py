"""Leases: one holder at a time, and no lease outlives its owner."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import psutil
import pytest
from faulty_storage import MODES, FaultyStorage, Killed

from tinytags_tasks.errors import FinalError, LostWriteError, MissingError, TransientError
from tinytags_tasks.store import lease
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import temporary_name

PATH = "folder/00000.lease"
NEVER = 3_600.0
"""Seconds that no test lasts."""


@pytest.fixture
def clock(monkeypatch):
    """The waiters' clock, which the test advances."""
    clock = SimpleNamespace(now=1_000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(lease, "time", clock)
    return clock


def write_lease(storage, **changes):
    """Write the lease of an owner on another machine."""
    owner = {"owner": "a", "place": "elsewhere boot pid:[1]", "pid": os.getpid(), "started": 1.0, "renewed": 0}
    storage.write(PATH, json.dumps({**owner, **changes}).encode())


def is_free(storage, seconds=NEVER):
    with Leases(storage, seconds).hold(PATH) as is_ours:
        return is_ours


class WatchedStorage(FaultyStorage):
    """Lets a test intervene at a call; each call is one atomic step, as in HDFS."""

    def __init__(self, inner):
        super().__init__(inner, 0)
        self.step = threading.RLock()
        self.before = {}
        self.after = {}

    def _watched(self, name, call, *arguments, **options):
        self.before.get(name, lambda *_: None)(*arguments)
        with self.step:
            outcome = call(*arguments, **options)
        self.after.get(name, lambda *_: None)(*arguments)
        return outcome

    def read(self, path, offset=0, length=None):
        return self._watched("read", self.inner.read, path, offset, length)

    def write(self, path, content, *, overwrite=True):
        return self._watched("write", self.inner.write, path, content, overwrite=overwrite)

    def rename(self, source, target):
        return self._watched("rename", self.inner.rename, source, target)

    def delete(self, path):
        return self._watched("delete", self.inner.delete, path)


# One holder


def test_of_two_only_the_first_holds_until_it_is_done(storage):
    with Leases(storage).hold(PATH) as is_first:
        assert is_first
        assert not is_free(storage)
        assert not is_free(storage)
    assert is_free(storage)
    assert storage.names("folder") == []


def test_leases_of_other_names_do_not_matter(storage):
    leases = Leases(storage)
    with leases.hold(PATH) as is_first, leases.hold("folder/00001.lease") as is_second:
        assert is_first
        assert is_second


def test_a_lease_is_returned_when_the_work_fails(storage):
    with pytest.raises(ZeroDivisionError), Leases(storage).hold(PATH):
        raise ZeroDivisionError
    assert storage.names("folder") == []


def test_another_thread_never_takes_a_lease_that_was_just_written_for_one_of_the_dead(storage):
    watched = WatchedStorage(storage)
    others = []

    def other_asks(*_):
        del watched.after["write"]
        others.append(is_free(storage))

    watched.after["write"] = other_asks
    with Leases(watched).hold(PATH) as is_ours:
        assert is_ours
    assert others == [False]


def test_who_holds_a_lease_is_told_to_people(storage):
    leases = Leases(storage)
    assert leases.describe(PATH) == "a writer that has just finished"
    with leases.hold(PATH):
        assert leases.describe(PATH).endswith(f", process {os.getpid()}")
    write_lease(storage, place="machine-7 boot pid:[1]", pid=12)
    assert leases.describe(PATH) == "machine-7, process 12"
    storage.write(PATH, b'{"owner": "a')
    assert leases.describe(PATH) == "someone whose lease cannot be read"


# Owners that do not renew their lease


def test_a_silent_owner_is_taken_over_after_the_time_by_the_waiters_clock(storage, clock):
    write_lease(storage)
    waiter = Leases(storage, 60)
    for now, expected in ((1_000.0, False), (1_059.9, False), (1_060.0, True)):
        clock.now = now
        with waiter.hold(PATH) as is_ours:
            assert is_ours is expected


def test_a_waiter_counts_from_when_it_first_looked_not_from_the_lease(storage, clock):
    write_lease(storage)
    assert not is_free(storage, 60)
    clock.now += 1_000
    assert not is_free(storage, 60)


def test_each_sign_of_life_starts_the_time_again(storage, clock):
    waiter = Leases(storage, 60)
    for renewed in range(5):
        write_lease(storage, renewed=renewed)
        for seconds in (0.0, 59.0):
            clock.now += seconds
            with waiter.hold(PATH) as is_ours:
                assert not is_ours
    clock.now += 60
    with waiter.hold(PATH) as is_ours:
        assert is_ours


def test_an_owner_that_renews_is_never_taken_over(storage, clock):
    waiter = Leases(storage, 60)
    renewals = threading.Semaphore(0)
    watched = WatchedStorage(storage)
    watched.after["write"] = lambda *_: renewals.release()
    with Leases(watched, 0.02).hold(PATH) as is_ours:
        assert is_ours
        for _ in range(5):
            with waiter.hold(PATH) as is_taken_over:
                assert not is_taken_over
            for _ in range(2):  # the second one began after the waiter had checked
                assert renewals.acquire(timeout=30)
            clock.now += 59.9


def test_an_owner_that_lost_its_lease_leaves_the_new_owners_alone(storage, clock):
    waiter = Leases(storage, 60)
    with contextlib.ExitStack() as first:
        assert first.enter_context(Leases(storage, NEVER).hold(PATH))
        with waiter.hold(PATH) as is_taken_over:
            assert not is_taken_over
        clock.now += 60
        with waiter.hold(PATH) as is_taken_over:
            assert is_taken_over
            first.close()
            assert storage.exists(PATH)
            assert not is_free(storage)
    assert storage.names("folder") == []


def test_an_owner_that_lost_its_lease_does_not_renew_it(storage):
    before = set(threading.enumerate())
    with Leases(storage, 0.02).hold(PATH) as is_ours:
        assert is_ours
        (renewer,) = set(threading.enumerate()) - before
        write_lease(storage, owner="another")
        renewer.join(30)
        assert not renewer.is_alive()
        assert json.loads(storage.read(PATH))["owner"] == "another"
    assert json.loads(storage.read(PATH))["owner"] == "another"


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b'{"owner": "a', b"\xff\xfe", b"{}", b'"text"', b"null"])
def test_a_damaged_lease_is_taken_over_when_nobody_renews_it(storage, clock, content):
    storage.write(PATH, content)
    waiter = Leases(storage, 60)
    for now, expected in ((1_000.0, False), (1_059.0, False), (1_060.0, True)):
        clock.now = now
        with waiter.hold(PATH) as is_ours:
            assert is_ours is expected
    assert storage.names("folder") == []


def test_an_owner_mends_its_damaged_or_vanished_lease(storage):
    renewals = threading.Semaphore(0)
    watched = WatchedStorage(storage)
    with Leases(watched, 0.02).hold(PATH) as is_ours:
        assert is_ours
        ours = json.loads(storage.read(PATH))["owner"]
        for damage in (lambda: storage.write(PATH, b"x"), lambda: storage.delete(PATH)):
            with watched.step:
                damage()
            watched.after["write"] = lambda *_: renewals.release()
            for _ in range(2):
                assert renewals.acquire(timeout=30)
            assert json.loads(storage.read(PATH))["owner"] == ours
    assert storage.names("folder") == []


# Owners that have ended

HOLD = """
import sys
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage
with Leases(LocalStorage(sys.argv[1]), 3600).hold(sys.argv[2]) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    """What another process, which lives as long as the tests, writes to its lease."""
    storage = LocalStorage(tmp_path_factory.mktemp("living"))
    with other_process(storage) as process:
        yield json.loads(storage.read(PATH))
        process.kill()


def other_process(storage):
    """Start another process that holds the lease."""
    arguments = [sys.executable, "-c", HOLD, str(storage.root), PATH]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    return process


def test_a_killed_process_of_this_machine_loses_its_lease_at_once(storage):
    with other_process(storage) as process:
        found = storage.read(PATH)
        assert not is_free(storage)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE  # nothing has waited for it yet
        assert is_free(storage)
    storage.write(PATH, found)
    assert is_free(storage)
    assert storage.names("folder") == []


def test_a_process_that_ends_in_order_returns_its_lease(storage):
    with other_process(storage) as process:
        process.communicate("")
    assert storage.names("folder") == []


def test_a_number_that_another_process_has_got_since_is_no_owner(storage, living):
    write_lease(storage, **living)
    assert not is_free(storage)
    write_lease(storage, **{**living, "started": living["started"] - 5})
    assert is_free(storage)


def test_setting_the_clock_makes_no_owner_look_dead(storage, living, monkeypatch):
    write_lease(storage, **living)
    created, booted = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 7_200)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 7_200)
    assert not is_free(storage)


@pytest.mark.parametrize("changes", [{"place": "elsewhere"}, {"pid": "x"}, {"started": None}])
def test_an_owner_that_cannot_be_looked_at_is_taken_for_alive(storage, living, changes):
    write_lease(storage, **{**living, **changes})
    assert not is_free(storage)


def test_a_dead_owner_in_a_newer_format_is_waited_for_like_one_elsewhere(storage, clock):
    dead = {"place": lease._place(), "pid": 2**22 + 1}
    write_lease(storage, **dead, format=2)
    waiter = Leases(storage, 60)
    with waiter.hold(PATH) as is_ours:
        assert not is_ours
    clock.now += 60
    with waiter.hold(PATH) as is_ours:
        assert is_ours


# Waiters that meet


def test_of_two_waiters_that_find_a_dead_owner_one_wins(storage):
    write_lease(storage, place=lease._place(), pid=2**22 + 1)  # more than Linux assigns
    watched = WatchedStorage(storage)
    both_judged, both_asked = threading.Barrier(2), threading.Barrier(2)
    met = threading.local()

    def meet(*_):
        if not hasattr(met, "before"):
            met.before = both_judged.wait(30)

    watched.before["rename"] = meet
    won = []

    def wait():
        with Leases(watched, NEVER).hold(PATH) as is_ours:
            won.append(is_ours)
            both_asked.wait(30)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(won) == [False, True]
    assert storage.names("folder") == []


def test_a_waiter_gives_back_what_its_owner_renewed_in_the_last_moment(storage, clock):
    write_lease(storage)
    watched = WatchedStorage(storage)
    waiter = Leases(watched, 60)
    with waiter.hold(PATH) as is_ours:
        assert not is_ours
    clock.now += 60
    watched.before["rename"] = lambda *_: write_lease(storage, renewed=1) if storage.exists(PATH) else None
    with waiter.hold(PATH) as is_ours:
        assert not is_ours
    assert json.loads(storage.read(PATH))["renewed"] == 1
    assert [path.name for path in (storage.root / "folder").iterdir()] == ["00000.lease"]


def test_a_waiter_that_cannot_give_it_back_because_a_third_was_faster_leaves_nothing_behind(storage, clock):
    write_lease(storage)
    watched = WatchedStorage(storage)
    waiter = Leases(watched, 60)
    with waiter.hold(PATH):
        clock.now += 60
    changes = iter(({"renewed": 1}, {"owner": "c"}))
    watched.before["rename"] = lambda *_: write_lease(storage, **next(changes))
    with waiter.hold(PATH) as is_ours:
        assert not is_ours
    assert json.loads(storage.read(PATH))["owner"] == "c"
    assert [path.name for path in (storage.root / "folder").iterdir()] == ["00000.lease"]


def test_a_waiter_whose_find_is_cleared_away_meanwhile_just_waits_on(storage, clock):
    write_lease(storage)
    watched = WatchedStorage(storage)
    waiter = Leases(watched, 60)
    with waiter.hold(PATH):
        clock.now += 60
    watched.after["rename"] = lambda *_: storage.delete_leftovers(PATH)
    with waiter.hold(PATH) as is_ours:
        assert not is_ours
    assert is_free(storage)


def test_a_lease_that_is_returned_while_a_waiter_looks_is_taken(storage):
    write_lease(storage)
    watched = WatchedStorage(storage)
    watched.before["read"] = lambda *_: storage.delete(PATH)
    with Leases(watched).hold(PATH) as is_ours:
        assert is_ours


# Faults of the store


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [TransientError, Killed])
@pytest.mark.parametrize("fail_at", range(1, 6))
def test_after_a_fault_at_any_change_the_lease_is_free_at_once(storage, fail_at, fault, mode):
    """A takeover makes five changes: it writes, moves away, deletes, writes, and gives back."""
    write_lease(storage, place=lease._place(), pid=2**22 + 1)
    faulty = FaultyStorage(storage, fail_at, mode, fault)
    was_held = False
    is_returned = fail_at == 5 and fault is TransientError
    with contextlib.nullcontext() if is_returned else pytest.raises(fault), Leases(faulty, NEVER).hold(PATH) as is_ours:
        was_held = is_ours
    assert faulty.calls == fail_at
    assert was_held is (fail_at == 5)
    assert is_free(storage)
    assert storage.names("folder") == []


@pytest.mark.parametrize("reads", range(1, 3))
def test_a_store_that_cannot_be_read_is_told_or_leaves_the_lease_to_run_out(storage, reads):
    write_lease(storage, place=lease._place(), pid=2**22 + 1)
    watched = WatchedStorage(storage)
    count = iter(range(1, 100))

    def fail(*_):
        if next(count) == reads:
            raise TransientError("the store is away")

    watched.before["read"] = fail
    with pytest.raises(TransientError, match="away"), Leases(watched, NEVER).hold(PATH):
        pass
    assert is_free(storage)


def test_a_store_that_is_away_when_the_work_is_done_does_not_undo_it(storage):
    watched = WatchedStorage(storage)
    with Leases(watched, NEVER).hold(PATH) as is_ours:
        assert is_ours

        def fail(*_):
            raise TransientError("the store is away")

        watched.before["read"] = fail
    assert storage.exists(PATH)
    assert is_free(storage)


@pytest.mark.parametrize("fault", [TransientError, MissingError])
@pytest.mark.parametrize("call", ["read", "write"])
def test_a_renewal_that_fails_is_tried_again(storage, call, fault):
    watched = WatchedStorage(storage)
    failures, renewals = threading.Semaphore(0), threading.Semaphore(0)

    def fail(*_):
        failures.release()
        raise fault("not now")

    with Leases(watched, 0.02).hold(PATH) as is_ours:
        assert is_ours
        watched.before[call] = fail
        for _ in range(2):
            assert failures.acquire(timeout=30)
        watched.after["write"] = lambda *_: renewals.release()
        del watched.before[call]
        assert renewals.acquire(timeout=30)
    assert storage.names("folder") == []


def test_renewing_ends_quietly_when_the_store_refuses_it_for_good(storage, capfd):
    watched = WatchedStorage(storage)
    before = set(threading.enumerate())

    def refuse(*_):
        raise FinalError("no permission")

    with Leases(watched, 0.02).hold(PATH) as is_ours:
        assert is_ours
        (renewer,) = set(threading.enumerate()) - before
        watched.before["write"] = refuse
        renewer.join(30)
        assert not renewer.is_alive()
    assert capfd.readouterr().err == ""


def test_no_thread_outlives_its_lease(storage):
    before = set(threading.enumerate())
    with Leases(storage).hold(PATH):
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) == before
    with pytest.raises(Killed), Leases(storage).hold(PATH):
        raise Killed
    assert set(threading.enumerate()) == before


def test_a_temporary_file_that_was_cleared_away_while_it_was_written_is_no_error(storage):
    watched = WatchedStorage(storage)

    def clear(*_):
        raise LostWriteError(f"{temporary_name(PATH)}: another writer deleted it")

    watched.before["write"] = clear
    with Leases(watched).hold(PATH) as is_ours:
        assert not is_ours
