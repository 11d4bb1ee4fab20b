"""Who somebody is by the claims of the provider: their name in records, and their role."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.openid.exchange import RefusedError
from tinytags_tasks.search.openid.provider import ANYBODY, Provider

_SUBJECT = re.compile(r"[!-~]{1,255}")
_READABLE = ("preferred_username", "email", "name")
_LONGEST_NAME = 64


def recorded_name(claims: Mapping[str, Any], provider: Provider) -> str:
    """Return what is recorded as who said something: ``ada (248289761001 at login.example)``.

    The subject tells people apart, and never changes; the name before it is for readers. No account of the file has
    such a name.

    Raises
    ------
    RefusedError
        If there is no subject.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise RefusedError(f"The answer of {provider.name} cannot be used: it does not say who signed in.")
    names = (_readable(claims.get(claim)) for claim in _READABLE)
    return f"{next(filter(None, names), 'somebody')} ({subject} at {provider.name})"


def find_role(claims: Mapping[str, Any], provider: Provider) -> Role | None:
    """Return the highest role that somebody has; None if it is none."""
    values = {*_values(claims, provider.role_claim), ANYBODY}
    return max((role for value, role in provider.roles.items() if value in values), default=None)


def has_roles(claims: Mapping[str, Any], provider: Provider) -> bool:
    """Return whether the claims say which roles somebody has, be it none."""
    return _find(claims, provider.role_claim) is not None


def _values(claims: Mapping[str, Any], name: str) -> set[str]:
    found = _find(claims, name)
    if isinstance(found, str):
        return {found} - {ANYBODY}
    return {value for value in found if isinstance(value, str)} - {ANYBODY} if isinstance(found, list) else set()


def _find(claims: Mapping[str, Any], name: str) -> object:
    """Return a claim by its name or, if none is called so, by its path."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _readable(claim: object) -> str:
    """Return a name without what could pass for the subject behind it, or hide it."""
    if not isinstance(claim, str):
        return ""
    kept = "".join(
        letter for letter in unicodedata.normalize("NFKC", claim[:1000]) if letter.isprintable() and letter not in "()"
    )
    return " ".join(kept.split())[:_LONGEST_NAME].strip()
