"""What the templates of the review pages show."""

import math
from collections.abc import Sequence
from typing import Any

from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.review.precision import NOT_MEASURED, Estimate, PrecisionTable, TagPrecision
from tinytags_tasks.search.review_answers import GOAL, Sitting, picture_field
from tinytags_tasks.search.review_session import ReviewSession
from tinytags_tasks.search.thumbnails import ENLARGED_BELOW

TAG_KEYS = "1234567890qweasdfgrcvpoijlmbk"
"""Keys of the first tags; the letters that answer something else are not among them."""

AHEAD = 12
"""Pictures that a page has ready besides the one that it shows."""

WALL_PICTURES = 50

_MEASURING_SHARE = 0.6
"""About the share of looks that measures; see :func:`tinytags_tasks.review.draw.next_pictures`."""

_Z = 1.96
_GUESS = 0.7
"""The precision that is assumed of a tag at which nobody has looked."""


def overview(session: ReviewSession) -> dict[str, Any]:
    """Return what the page of a run's review shows."""
    table = session.precision()
    return {
        "looks": session.looks,
        "measured": table,
        "overall": say_estimate(table.overall),
        "not_measured": NOT_MEASURED,
        "outlook": say_outlook(table, GOAL),
        "goal": GOAL,
        "tags": [_tag_row(tag, table) for tag in table.tags],
    }


def say_estimate(estimate: Estimate | None) -> str:
    """Return a measured share with its interval; empty if there is none."""
    return f"{estimate.percent:.0f} % ({estimate.low:.0f}–{estimate.high:.0f})" if estimate else ""  # noqa: RUF001


def say_outlook(table: PrecisionTable, looks: int) -> str:
    """Return what some more looks would buy.

    They are assumed to be spread evenly over the tags and the dropped pictures. The width of an interval shrinks with
    the square root of the number of looks; that of a tag without any is Wilson's.
    """
    tags = [tag for tag in table.tags if tag.images]
    if not tags:
        return ""
    more = looks * _MEASURING_SHARE / (len(tags) + 1)
    later = sum(_half_width_later(tag, more) for tag in tags) / len(tags)
    if not any(tag.precision and tag.looks for tag in tags):
        return f"{looks} looks measure the precision of each tag to about ±{max(1, round(later))} points."
    now = sum(_half_width(tag) for tag in tags) / len(tags)
    return (
        f"{looks} more looks narrow the 95 % interval of a tag's precision from about ±{max(1, round(now))} to "
        f"±{max(1, round(later))} points."
    )


def picture_view(session: ReviewSession, drawn: Drawn) -> dict[str, Any]:
    """Return a picture as the page and its script show it."""
    return {
        "position": drawn.position,
        "tag": drawn.tag,
        "confidence": drawn.confidence,
        "why": str(drawn.why),
        "keyword": session.keyword(drawn.position),
        # With the version, so that no picture of a later one stands beside this run's tag.
        "source": f"/pictures/{session.corpus.name}/{drawn.position}.png?version={session.corpus.digest[:16]}",
        "field": picture_field(drawn),
    }


def looking_view(
    session: ReviewSession, sitting: Sitting, pictures: Sequence[Drawn], last_number: int
) -> dict[str, Any]:
    """Return what the page of one picture shows, and what its script begins with."""
    tags = session.frame.tags
    keys = dict(zip(tags, TAG_KEYS, strict=False))
    shown = [picture_view(session, drawn) for drawn in pictures]
    return {
        **_common(session, sitting),
        "picture": shown[0] if shown else None,
        "tags": [(tag, keys.get(tag, "")) for tag in tags],
        "last_number": last_number,
        "state": {
            "run": session.run.name,
            "pictures": shown,
            "tags": [(tag, keys.get(tag, "")) for tag in tags],
            "looks": session.looks_at(sitting.chosen),
            "ahead": AHEAD,
            "last": last_number,
            "is_enlarged": _is_enlarged(session),
            **dict(zip(("seat", "from", "to"), (sitting.seat, sitting.begin, sitting.end), strict=True)),
            "set": sitting.chosen,
            **sitting.switches,
        },
    }


def wall_view(
    session: ReviewSession, sitting: Sitting, tag: str, pictures: Sequence[Drawn], last_number: int
) -> dict[str, Any]:
    """Return what a wall shows."""
    return {
        **_common(session, sitting),
        "tag": tag,
        "tags": sorted({stratum.tag for stratum in session.frame.strata if stratum.tag}),
        "pictures": [picture_view(session, drawn) for drawn in pictures],
        "last_number": last_number,
    }


def _common(session: ReviewSession, sitting: Sitting) -> dict[str, Any]:
    looks = session.looks_at(sitting.chosen)
    return {
        "run": session.run,
        "sitting": sitting,
        "chosen": session.chosen(sitting.chosen).record if sitting.chosen else None,
        "done": min(max(0, looks - sitting.begin), sitting.end - sitting.begin),
        "of": sitting.end - sitting.begin,
        "is_over": looks >= sitting.end,
        "is_enlarged": _is_enlarged(session),
        "goal": GOAL,
    }


def _is_enlarged(session: ReviewSession) -> bool:
    """Return whether the corpus' pictures are so small that their pixels are to be seen."""
    return max(session.corpus.height, session.corpus.width) < ENLARGED_BELOW


def _tag_row(tag: TagPrecision, table: PrecisionTable) -> dict[str, Any]:
    bands = [row for row in table.rows if row.tag == tag.tag]
    return {
        "tag": tag.tag,
        "images": tag.images,
        "looks": tag.looks,
        "right": tag.right,
        "precision": say_estimate(tag.precision),
        "recall": say_estimate(tag.recall),
        "bands": [
            {
                "band": f"{row.band_low}–{row.band_high} %",  # noqa: RUF001
                "images": row.images,
                "looks": row.looks,
                "right": row.right,
                "precision": ""
                if row.precision is None or row.low is None or row.high is None
                else say_estimate(Estimate(row.precision, row.low, row.high)),
            }
            for row in bands
        ],
    }


def _half_width(tag: TagPrecision) -> float:
    """Return half the width of a tag's interval, in points; 50 if nothing is known of it."""
    return (tag.precision.high - tag.precision.low) / 2 if tag.precision and tag.looks else 50.0


def _half_width_later(tag: TagPrecision, more: float) -> float:
    if tag.precision and tag.looks:
        return _half_width(tag) * math.sqrt(tag.looks / (tag.looks + more))
    return 100 * _Z * math.sqrt(_GUESS * (1 - _GUESS) / more + _Z**2 / (4 * more**2)) / (1 + _Z**2 / more)
