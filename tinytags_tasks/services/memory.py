"""How much memory the machine has, and how much of it each embedded engine gets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tinytags_tasks.settings import Profile as ProfileName
from tinytags_tasks.settings import Settings

GB = 10**9
MEBIBYTE = 2**20

UNLIMITED = 2**60
"""Version 1 of control groups says "no limit" with a number of this size."""

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """The memory that this process and its children may use, in bytes."""

    total: int
    available: int


@dataclass(frozen=True)
class Profile:
    """What the engines may take."""

    name: ProfileName
    namenode_megabytes: int
    datanode_megabytes: int
    solr_megabytes: int
    spark_megabytes: int
    spark_cores: int | None
    """Tasks of Spark at the same time, each with a Python process; None for the machine's cores."""
    airflow_tasks: int
    needed_bytes: int
    """What all engines take in a run, and room to spare: 4.9 GB (normal) and 4.0 GB (small) were measured."""


SMALL_BELOW = 10 * GB
"""The total memory of a machine that gets the small profile by itself."""


def machine_memory(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> Memory:
    """Return the memory of the machine, or of the container if that has less."""
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for limit, used in _limits(cgroups, own):
        if limit < total:
            total = limit
        available = min(available, max(0, limit - used))
    return Memory(total, available)


def profile_of(settings: Settings, memory: Memory | None = None) -> Profile:
    """Return the profile of the settings, or the one that suits the memory, by default the machine's."""
    memory = memory or machine_memory()
    name = settings.profile or ("small" if memory.total < SMALL_BELOW else "normal")
    if name == "small":
        return Profile("small", 192, 160, 512, 1024, 2, 2, 6 * GB)
    megabytes = memory.total // MEBIBYTE
    return Profile(
        "normal",
        # A NameNode needs a gigabyte for a million files and blocks; Solr leaves most to the cache of the system.
        namenode_megabytes=_between(512, megabytes // 32, 8192),
        datanode_megabytes=_between(512, megabytes // 64, 2048),
        solr_megabytes=_between(1024, megabytes // 16, 8192),
        spark_megabytes=min(8192, megabytes * 2 // 5),
        spark_cores=None,
        airflow_tasks=4,
        needed_bytes=10 * GB,
    )


def describe(profile: Profile, memory: Memory) -> str:
    """Return a line that says what there is, what is needed, and whether that is too little."""
    there = f"{memory.total / GB:.1f} GB of memory, {memory.available / GB:.1f} GB available"
    needed = f"the {profile.name} profile needs up to {profile.needed_bytes / GB:.0f} GB"
    if memory.available >= profile.needed_bytes:
        return f"{there}; {needed}"
    remedy = "Stop other programs" + (", or set TINYTAGS_PROFILE=small" if profile.name == "normal" else "")
    return f"this machine may be too small: {there}, but {needed}. {remedy}"


def _between(least: int, number: int, most: int) -> int:
    return max(least, min(number, most))


def _limits(cgroups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and use of each control group that this process is in, also of those above it."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        root, limit, use = (
            (cgroups, "memory.max", "memory.current")
            if not controllers
            else (cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        # In a container, the path may be one of the host, which does not exist here; the root is the container's.
        folder = root / path.strip("/")
        for each in (folder, *folder.parents):
            if each.is_relative_to(root) and (found := _read(each / limit)) is not None and found < UNLIMITED:
                # Cached files are given back when memory is needed.
                yield found, max(0, (_read(each / use) or 0) - _cached(each / "memory.stat"))


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _cached(stat: Path) -> int:
    try:
        numbers = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(numbers.get("total_inactive_file", numbers.get("inactive_file", 0)))
