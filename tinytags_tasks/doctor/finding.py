"""What a check found, and how errors become findings."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from tinytags_tasks.errors import TinyTagsError, one_line

Verdict = Literal["ok", "warning", "fails"]

SKEW_SECONDS = 30
"""Clocks that differ by more make ages and retention wrong; logins by Kerberos and signed tokens bear five minutes."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes
    ----------
    area, subject
        The engine, or ``machine``; and what of it was checked.
    verdict
        Whether something would fail later, or works with a reservation.
    text
        What was found.
    remedy
        What to do about it; empty if nothing is to be done.
    """

    area: str
    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


class Area:
    """Makes the findings of one area.

    Parameters
    ----------
    name
        Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def ok(self, subject: str, text: str) -> Finding:
        """Return a finding that all is well."""
        return Finding(self.name, subject, "ok", text)

    def warning(self, subject: str, text: str, remedy: str) -> Finding:
        """Return a finding that is no reason to stop."""
        return Finding(self.name, subject, "warning", text, remedy)

    def fails(self, subject: str, text: str, remedy: str = "") -> Finding:
        """Return a finding that makes work fail; an error's own message already has the remedy."""
        return Finding(self.name, subject, "fails", text, remedy)

    def clock(self, seconds: float, asked_at: float) -> Finding:
        """Return how far an engine's clock is from this machine's.

        Parameters
        ----------
        seconds
            The engine's time, in seconds since the epoch.
        asked_at
            This machine's time before it was asked.
        """
        ahead = seconds - time.time() if seconds > asked_at else seconds - asked_at
        ahead = 0.0 if asked_at <= seconds <= time.time() else ahead
        if abs(ahead) <= SKEW_SECONDS:
            return self.ok("clock", f"within {max(1, round(abs(ahead)))} s of this machine's")
        direction = "ahead of" if ahead > 0 else "behind"
        return self.warning(
            "clock", f"{abs(ahead):,.0f} s {direction} this machine's", "synchronise both machines' clocks (NTP)"
        )

    def each(self, subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """Yield the findings of a check; an error of ours becomes one."""
        try:
            yield from check()
        except (TinyTagsError, OSError) as error:
            yield self.fails(subject, one_line(error))


def gigabytes(size: float) -> str:
    """Return a size for people."""
    return f"{size / 1e9:,.1f} GB"
