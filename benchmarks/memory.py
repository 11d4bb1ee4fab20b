"""Measure the memory of the engines that run, with what they have started: ``python benchmarks/memory.py SECONDS``.

It asks every two seconds and prints Markdown: the median of the first quarter, the median of all, and the highest.
Memory that processes share is divided between them (proportional set size), so that the sum is what the machine lacks.
"""

import statistics
import sys
import time
from collections import defaultdict

import psutil
from machine import describe_machine, print_table

from tinytags_tasks import services
from tinytags_tasks.services.memory import profile_of
from tinytags_tasks.settings import load_settings

PAUSE_SECONDS = 2.0


def used_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants; those that end meanwhile have none."""
    total = 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += member.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    settings = load_settings()
    ends = time.monotonic() + float(sys.argv[1])
    found: dict[str, list[int]] = defaultdict(list)
    while time.monotonic() < ends:
        sample = {one.name: used_bytes(one.pid) for one in services.status(settings) if one.pid is not None}
        for name, size in sample.items():
            found[name].append(size)
        found["all"].append(sum(sample.values()))
        time.sleep(PAUSE_SECONDS)
    print(f"Profile {profile_of(settings).name}; {describe_machine()}.\n")
    rows = [
        [
            name,
            *(
                f"{size / 1e6:,.0f}"
                for size in (statistics.median(sizes[: len(sizes) // 4 + 1]), statistics.median(sizes), max(sizes))
            ),
        ]
        for name, sizes in found.items()
    ]
    print_table(["engine", "at first, MB", "median, MB", "highest, MB"], rows)


if __name__ == "__main__":
    main()
