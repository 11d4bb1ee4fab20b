"""Signs people in: with an account of the file, or as ``search_user``, the operator of the settings.

A login that was right is remembered for minutes, under a keyed hash, because Argon2 is slow on purpose. Wrong ones are
counted by name and address, and after a few of them that address has to wait. After many, from whatever addresses,
everybody has to wait who tries that name and is not remembered.
"""

import hmac
import secrets
import threading

from cachetools import TTLCache

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.account_file import HASHER, AccountFile, has_password
from tinytags_tasks.search.accounts import Account, Role
from tinytags_tasks.settings import Settings

REMEMBERED_SECONDS = 300
MOST_FAILURES = 10
MOST_FAILURES_OF_NAME = 100
"""Wrong passwords of one name from all addresses together."""

FAILURE_SECONDS = 300
"""How long a wrong password counts: after :data:`MOST_FAILURES` of them, an address has to wait for that long."""

LONGEST_NAME = 64
"""No account has a longer name, so none is counted."""

_OPERATOR = "settings"


class TooManyFailuresError(BadInputError):
    """A name was tried too often with wrong passwords."""


class SignIn:
    """Knows who may sign in.

    Parameters
    ----------
    settings
        Have the operator's name and password, and say where the file of accounts is.

    Raises
    ------
    BadInputError
        If the operator has no password.
    """

    def __init__(self, settings: Settings) -> None:
        self._operator = Account(settings.search_user, Role.OPERATOR)
        self._operator_password = settings.password("search_password").encode()
        self._file = AccountFile(settings)
        self._key = secrets.token_bytes(32)
        self._known: TTLCache[bytes, str] = TTLCache(10_000, REMEMBERED_SECONDS)
        self._failures: TTLCache[tuple[str, str], int] = TTLCache(100_000, FAILURE_SECONDS)
        self._failures_of_name: TTLCache[str, int] = TTLCache(100_000, FAILURE_SECONDS)
        self._lock = threading.Lock()

    def remembered(self, name: str, password: str) -> Account | None:
        """Return the account of a login that is known to be right; it takes no time to say.

        Raises
        ------
        BadInputError
            If the file of accounts cannot be used.
        """
        account, secret = self._find(name)
        with self._lock:
            is_known = self._known.get(self._digest(name, password)) == secret
        return account if is_known else None

    def verify(self, name: str, password: str, peer: str) -> Account | None:
        """Return the account with a name and password, None if there is none; takes as long in both cases.

        Raises
        ------
        TooManyFailuresError
            If the name was tried too often with wrong passwords, from this address or from all together.
        BadInputError
            If the file of accounts cannot be used.
        """
        if known := self.remembered(name, password):  # by another request of the same page, while this one waited
            return known
        if len(name) > LONGEST_NAME and name != self._operator.name:
            return None
        with self._lock:
            if self._failures.get((name, peer), 0) >= MOST_FAILURES:
                raise TooManyFailuresError(
                    f"too many wrong passwords from this address: wait {FAILURE_SECONDS // 60} minutes"
                )
            if self._failures_of_name.get(name, 0) >= MOST_FAILURES_OF_NAME:
                raise TooManyFailuresError(
                    f"too many wrong passwords of this account: wait {FAILURE_SECONDS // 60} minutes"
                )
        account, secret = self._find(name)
        if name == self._operator.name and hmac.compare_digest(password.encode(), self._operator_password):
            is_right = True
        elif account is None or name == self._operator.name:
            is_right = False
            HASHER.hash(password)  # in vain: the time taken must not tell whether there is such a name
        else:
            is_right = has_password(secret, password)
        with self._lock:
            if is_right:
                self._known[self._digest(name, password)] = secret
                self._failures.pop((name, peer), None)
            else:
                # Writing it again lets all of them count for as long as the latest.
                self._failures[name, peer] = self._failures.get((name, peer), 0) + 1
                self._failures_of_name[name] = self._failures_of_name.get(name, 0) + 1
        return account if is_right else None

    def _find(self, name: str) -> tuple[Account | None, str]:
        """Return an account, and what changes with its password."""
        if name == self._operator.name:
            return self._operator, _OPERATOR
        stored = self._file.read().get(name)
        return (stored.account, stored.password_hash) if stored else (None, "")

    def _digest(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\n{password}".encode(), "sha256")
