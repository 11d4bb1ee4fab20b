"""The file of accounts, ``home/secrets/accounts``: a line for each, ``name:role:hash``, by name.

The hashes are Argon2id's, with the parameters that RFC 9106 recommends where memory is scarce. A change counts at the
next request of the search page; no restart is needed.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.search.accounts import Account, Role
from tinytags_tasks.settings import Settings

HASHER = PasswordHasher()
LEAST_PASSWORD = 10
"""Characters of a password at least; generated ones have 32."""

_LONGEST_PASSWORD = 1_000
_NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"


@dataclass(frozen=True)
class StoredAccount:
    """A line of the file."""

    account: Account
    password_hash: str


class AccountFile:
    """Reads and changes the file; each change is one rename, and two at once wait for each other.

    Parameters
    ----------
    settings
        Say where it is, and which account needs no line there: ``search_user``.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = settings.secrets_folder / "accounts"
        self._settings_user = settings.search_user
        self._read: dict[str, StoredAccount] = {}
        self._state: tuple[int, int, int] | None = None

    def read(self) -> Mapping[str, StoredAccount]:
        """Return the accounts by name; the file is read again only if it changed.

        Raises
        ------
        BadInputError
            If it cannot be read, is damaged, or others than the user could have changed it.
        """
        try:
            stat = self.path.stat()
            state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if state != self._state:
                if stat.st_mode & 0o022:
                    raise BadInputError(f"others may change {self.path}: check it, then run `chmod 600` on it")
                self._read = _parse(self.path.read_text(), self.path)
                self._state = state
        except FileNotFoundError:
            self._read, self._state = {}, None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{self.path} cannot be read ({error}): the accounts are in there") from error
        return self._read

    def add(self, name: str, role: Role, password: str) -> None:
        """Add an account.

        Raises
        ------
        BadInputError
            If the name is taken or no name, or the password too short.
        """
        if not re.fullmatch(_NAME, name):
            raise BadInputError(
                f"{name[:100]!r} is not a name: use 1 to 64 letters, digits and . _ @ -, and begin with one of the "
                "first two"
            )
        if name == self._settings_user:
            raise BadInputError(f"{name} is the account of the settings (TINYTAGS_SEARCH_USER): it is an operator")
        hashed = hash_password(password)
        with self._changing() as accounts:
            if name in accounts:
                raise BadInputError(
                    f"there is an account {name} already: change it with `tinytags accounts role` or "
                    "`tinytags accounts password`"
                )
            accounts[name] = StoredAccount(Account(name, role), hashed)

    def set_role(self, name: str, role: Role) -> None:
        """Change what an account may do.

        Raises
        ------
        BadInputError
            If there is no such account.
        """
        with self._changing() as accounts:
            accounts[name] = replace(self._known(name, accounts), account=Account(name, role))

    def set_password(self, name: str, password: str) -> None:
        """Change an account's password; the old one stops working at once.

        Raises
        ------
        BadInputError
            If there is no such account, or the password is too short.
        """
        hashed = hash_password(password)
        with self._changing() as accounts:
            accounts[name] = replace(self._known(name, accounts), password_hash=hashed)

    def remove(self, name: str) -> None:
        """Remove an account; it can no longer sign in. What its owner said stays in the review logs.

        Raises
        ------
        BadInputError
            If there is no such account.
        """
        with self._changing() as accounts:
            del accounts[self._known(name, accounts).account.name]

    def _known(self, name: str, accounts: Mapping[str, StoredAccount]) -> StoredAccount:
        if name in accounts:
            return accounts[name]
        if name == self._settings_user:
            raise BadInputError(
                f"{name} is the account of the settings: change TINYTAGS_SEARCH_USER or TINYTAGS_SEARCH_PASSWORD"
            )
        raise BadInputError(f"there is no account {name[:100]!r}: see `tinytags accounts list`")

    @contextmanager
    def _changing(self) -> Iterator[dict[str, StoredAccount]]:
        make_folder(self.path.parent)
        lock_path = self.path.parent / ".accounts.lock"
        with os.fdopen(os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            accounts = dict(self.read())
            yield accounts
            lines = (
                f"{name}:{stored.account.role.label}:{stored.password_hash}\n"
                for name, stored in sorted(accounts.items())
            )
            write_atomically(self.path, "".join(lines))


def generate_password() -> str:
    """Return a new password that nobody guesses."""
    return secrets.token_urlsafe(24)


def hash_password(password: str) -> str:
    """Return a password's hash with a salt of its own.

    Raises
    ------
    BadInputError
        If the password is too short or too long.
    """
    if not LEAST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise BadInputError(f"a password has {LEAST_PASSWORD} to {_LONGEST_PASSWORD:,} characters")
    return HASHER.hash(password)


def has_password(password_hash: str, password: str) -> bool:
    """Return whether a hash is that of a password; takes as long as hashing one, some 50 ms."""
    try:
        return HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def _parse(text: str, path: Path) -> dict[str, StoredAccount]:
    accounts = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, _, rest = line.partition(":")
        role, _, hashed = rest.partition(":")
        if not (re.fullmatch(_NAME, name) and role.upper() in Role.__members__ and hashed.startswith("$argon2")):
            raise BadInputError(
                f"{path}, line {number}: damaged (a line is name:role:hash); remove the line, and add the account again"
            )
        accounts[name] = StoredAccount(Account(name, Role[role.upper()]), hashed)
    return accounts
