"""What all benchmarks print, the machine and tables, and how they keep the measured steps quiet."""

import platform
from collections.abc import Sequence
from pathlib import Path

import psutil


def describe_machine() -> str:
    """Return the cores, memory and Python version of this machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return (
        f"{psutil.cpu_count()} cores ({cpu}), {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, "
        f"Python {platform.python_version()}"
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def quiet(line: str) -> None:
    """Report nothing."""
