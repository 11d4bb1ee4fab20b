"""What a person answers on the review pages, as words for the review log."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.search.forms import Form
from tinytags_tasks.search.review_session import ReviewSession
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.tags import tag_form

GOAL = 250
"""Looks of one sitting."""

MOST_ON_A_WALL = 200

_MOST = 10**12
_ANSWERS = {"right", "wrong", "none", "unclear"}


@dataclass(frozen=True)
class Sitting:
    """How somebody reviews; it is in the address of the page, so that it lasts.

    Attributes
    ----------
    seat
        Distinguishes this page from others; empty if it has none yet.
    begin, end
        Looks at the run when the sitting began, and when its goal is reached.
    is_hidden
        Whether the model's tag is hidden, so that it influences nobody.
    is_public
        Whether readers see corrections at once.
    chosen
        The set of pictures that are looked at; empty if they are drawn.
    """

    seat: str
    begin: int
    end: int
    is_hidden: bool = False
    is_public: bool = False
    chosen: str = ""

    @classmethod
    def read(cls, fields: Form, session: ReviewSession) -> "Sitting":
        """Return the sitting of an address or a form; without one, a new one with the usual goal begins.

        A set of pictures is looked at from its first to its last one, whoever does it.

        Raises
        ------
        BadInputError
            If a field is malformed.
        MissingError
            If it is of a set that is not there.
        """
        chosen = fields.get("set", "")
        seat = fields.get("seat", "")
        if not re.fullmatch("[0-9a-f]{0,32}", seat):
            raise BadInputError(f"{seat[:40]!r} is no seat: start again on the page Review")
        is_hidden, is_public = fields.get("hide", "") == "1", fields.get("public", "") == "1"
        if chosen:
            return cls(seat, 0, len(session.chosen(chosen).pictures), is_hidden, is_public, chosen)
        begin = whole_number(fields, "from", session.looks)
        end = whole_number(fields, "to", begin + GOAL)
        return cls(seat, begin, max(begin + 1, end), is_hidden, is_public)

    def at(self, seat: str) -> "Sitting":
        """Return it at a seat."""
        return replace(self, seat=seat)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of its address and of its forms."""
        found = [("seat", self.seat)]
        if self.chosen:
            found.append(("set", self.chosen))
        else:
            found += [("from", str(self.begin)), ("to", str(self.end))]
        return found + [(name, "1") for name, is_on in self.switches.items() if is_on]

    @property
    def switches(self) -> dict[str, bool]:
        """What can be switched on and off."""
        return {"hide": self.is_hidden, "public": self.is_public}

    def address(self, page: str, **more: str) -> str:
        """Return the address of a page on which it goes on."""
        return f"{page}?{urlencode([*self.fields, *more.items()])}"


def whole_number(fields: Form, name: str, default: int) -> int:
    """Return the value of a field that is a whole number, 0 or more.

    Raises
    ------
    BadInputError
        If it is anything else.
    """
    text = fields.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text) < _MOST):
        raise BadInputError(f"{name} must be a whole number, 0 or more (got {text[:40]!r})")
    return int(text)


def read_look(session: ReviewSession, fields: Form, sitting: Sitting) -> Word:
    """Return what is said of one picture.

    Raises
    ------
    BadInputError
        If the picture was not drawn, or the answer says nothing.
    """
    position = whole_number(fields, "position", -1)
    drawn = session.drawn(position, fields.get("why", ""), sitting.chosen)
    answer = fields.get("answer", "")
    tag = _known_tag(session, fields.get("tag", "").strip())
    if answer == "tag" or (tag and not answer):
        if not tag:
            raise BadInputError("say which tag: write it, or press the button of one")
        return _word(drawn, Verdict.TAG, tag, sitting)
    if answer not in _ANSWERS:
        raise BadInputError(f"{answer[:40]!r} is no answer: use {', '.join(sorted(_ANSWERS))} or tag")
    if answer == "right":
        # Of a picture that the run dropped, "right" says that it shows none of the tags.
        return _word(drawn, Verdict.TAG if drawn.tag else Verdict.NONE, drawn.tag, sitting)
    if answer == "wrong":
        if not drawn.tag:
            raise BadInputError(f"the run gave picture {position} no tag: say which tag it should have")
        return _word(drawn, Verdict.WRONG, drawn.tag, sitting)
    return _word(drawn, Verdict(answer), "", sitting)


def read_wall(session: ReviewSession, fields: Form, sitting: Sitting) -> list[Word]:
    """Return what is said of a wall: those that are struck out do not show the tag, all others do.

    Raises
    ------
    BadInputError
        If a picture was not drawn, or has another tag.
    """
    tag = fields.get("tag", "")
    out = _positions(fields.getlist("out"))
    pictures = dict(_picture(text) for text in fields.getlist("picture"))
    if not 1 <= len(pictures) <= MOST_ON_A_WALL:
        raise BadInputError(f"a wall has 1 to {MOST_ON_A_WALL} pictures, not {len(pictures)}")
    if strange := sorted(out - set(pictures)):
        raise BadInputError(f"position {strange[0]} is not on this wall, so it cannot be struck out")
    words = []
    for position, why in pictures.items():
        drawn = session.drawn(position, why)
        if drawn.tag != tag:
            raise BadInputError(f"position {position} is not on a wall of the tag {tag[:100]!r}")
        words.append(_word(drawn, Verdict.WRONG if position in out else Verdict.TAG, tag, sitting))
    return words


def picture_field(drawn: Drawn) -> str:
    """Return the value of a wall's field that names a picture."""
    return f"{drawn.position}:{drawn.why}"


def _word(drawn: Drawn, verdict: Verdict, tag: str, sitting: Sitting) -> Word:
    is_correction = verdict is not Verdict.UNCLEAR and (verdict, tag) != (Verdict.TAG, drawn.tag)
    if verdict is Verdict.NONE and not drawn.tag:
        is_correction = False
    return Word(
        position=drawn.position,
        verdict=verdict,
        tag=tag,
        is_public=sitting.is_public and is_correction,
        why=drawn.why,
        shown_tag="" if sitting.is_hidden else drawn.tag,
        shown_confidence=-1 if sitting.is_hidden else drawn.confidence,
    )


def _known_tag(session: ReviewSession, tag: str) -> str:
    """Return the model's own spelling of a tag that somebody wrote; a tag that it lacks stays as it is."""
    spelling: Mapping[str, str] = {tag_form(known): known for known in session.frame.tags}
    return spelling.get(tag_form(tag), tag)


def _picture(text: str) -> tuple[int, str]:
    number, _, why = text.partition(":")
    (position,) = _positions([number])
    return position, why


def _positions(texts: Iterable[str]) -> set[int]:
    found = set()
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise BadInputError(f"{text[:40]!r} is no position")
        found.add(int(text))
    return found
