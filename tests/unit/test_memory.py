"""The memory of the machine or the container, and what the engines get of it."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tinytags_tasks.services import memory
from tinytags_tasks.services.memory import GB, Memory, Profile, describe, machine_memory, profile_of
from tinytags_tasks.settings import Settings


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB, available=40 * GB))


def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def heaps(profile: Profile) -> int:
    return (
        profile.namenode_megabytes + profile.datanode_megabytes + profile.solr_megabytes + profile.spark_megabytes
    ) * memory.MEBIBYTE


def test_without_control_groups_the_machines_memory_counts(tmp_path: Path) -> None:
    assert machine_memory(tmp_path, tmp_path / "none") == Memory(64 * GB, 40 * GB)


def test_a_container_has_what_its_control_group_allows(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "cgroup",
        {
            "memory.max": str(8 * GB),
            "memory.current": str(5 * GB),
            "memory.stat": f"anon 1\ninactive_file {3 * GB}",
        },
    )
    own = tree(tmp_path, {"own": "0::/"}) / "own"
    assert machine_memory(root, own) == Memory(8 * GB, 6 * GB)


def test_the_tightest_group_above_this_process_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "cgroup",
        {
            "user/memory.max": str(12 * GB),
            "user/memory.current": str(11 * GB),
            "user/me/memory.max": "max",
            "user/me/memory.current": str(1 * GB),
            "other/memory.max": str(1 * GB),
        },
    )
    own = tree(tmp_path, {"own": "0::/user/me"}) / "own"
    assert machine_memory(root, own) == Memory(12 * GB, 1 * GB)


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "cgroup",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/job/memory.limit_in_bytes": str(6 * GB),
            "memory/job/memory.usage_in_bytes": str(2 * GB),
            "memory/job/memory.stat": f"total_inactive_file {1 * GB}",
        },
    )
    own = tree(tmp_path, {"own": "4:memory:/job\n1:cpu:/\n0::/"}) / "own"
    assert machine_memory(root, own) == Memory(6 * GB, 5 * GB)


def test_a_group_that_is_named_as_the_host_sees_it_is_no_error(tmp_path: Path) -> None:
    root = tree(tmp_path / "cgroup", {"memory.max": str(4 * GB), "memory.current": "1"})
    own = tree(tmp_path, {"own": "0::/docker/0123/../../.."}) / "own"
    assert machine_memory(root, own).total == 4 * GB


@pytest.mark.parametrize(("total", "name"), [(6, "small"), (9, "small"), (10, "normal"), (512, "normal")])
def test_a_small_machine_gets_the_small_profile(total: int, name: str, tmp_path: Path) -> None:
    assert profile_of(Settings(home=tmp_path), Memory(total * GB, GB)).name == name


def test_the_settings_choose_the_profile(tmp_path: Path) -> None:
    small = profile_of(Settings(home=tmp_path, profile="small"), Memory(64 * GB, 60 * GB))
    assert heaps(small) < 2 * GB


@pytest.mark.parametrize("total", [10, 16, 64, 1024])
def test_heaps_leave_room_for_python_and_files(total: int, tmp_path: Path) -> None:
    profile = profile_of(Settings(home=tmp_path), Memory(total * GB, GB))
    assert heaps(profile) < 0.7 * total * GB
    assert profile.spark_megabytes <= 8192


def test_a_machine_that_is_too_small_is_told_with_a_remedy(tmp_path: Path) -> None:
    there = Memory(16 * GB, 4 * GB)
    text = describe(profile_of(Settings(home=tmp_path), there), there)
    assert text.startswith("this machine may be too small: 16.0 GB of memory, 4.0 GB available, but the normal profile")
    assert "TINYTAGS_PROFILE=small" in text
    small = profile_of(Settings(home=tmp_path, profile="small"), there)
    assert "TINYTAGS_PROFILE=small" not in describe(small, there)
    enough = Memory(64 * GB, 60 * GB)
    assert "too small" not in describe(profile_of(Settings(home=tmp_path), enough), enough)
