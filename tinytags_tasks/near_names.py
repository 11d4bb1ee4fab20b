"""What to say of a name that nothing has: the nearest one, and those that there are."""

from collections.abc import Collection
from difflib import get_close_matches

_MOST_SHOWN = 20


def nearest(asked: str, known: Collection[str], most: int = 1) -> list[str]:
    """Return the known names that are most like another, which may be misspelt; upper and lower case are alike."""
    by_form: dict[str, str] = {}
    for name in known:
        by_form.setdefault(name.casefold(), name)
    return [by_form[form] for form in get_close_matches(asked.casefold(), by_form, most)]


def choices(asked: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: what it may mean, and the names that there are.

    Parameters
    ----------
    asked
        The unknown name.
    known
        The names that there are, in the order in which they are shown.
    """
    if not known:
        return "there are none yet"
    near = nearest(asked, known)
    meant = f"did you mean {near[0]}? " if near else ""
    shown = [*known][:_MOST_SHOWN]
    rest = f" and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    return f"{meant}there are: {', '.join(shown)}{rest}"
