"""Who may do what on the search page: readers search, reviewers review and correct, operators also take down."""

from dataclasses import dataclass
from enum import IntEnum

from starlette.exceptions import HTTPException
from starlette.requests import Request


class Role(IntEnum):
    """What an account may do; each role may do what those before it may."""

    READER = 1
    REVIEWER = 2
    OPERATOR = 3

    @property
    def label(self) -> str:
        """Its name on pages and in the file of accounts."""
        return self.name.lower()


@dataclass(frozen=True)
class Account:
    """Who is signed in; the name is recorded with each word that they say.

    Attributes
    ----------
    session
        The id of the session of somebody who signed in with an OpenID provider; empty for a name and password.
    """

    name: str
    role: Role
    session: str = ""

    @property
    def readable(self) -> str:
        """The name without the subject behind it that an OpenID provider knows somebody by."""
        return self.name.partition(" (")[0] if self.session else self.name

    @property
    def may_review(self) -> bool:
        """Whether it may review and correct."""
        return self.role >= Role.REVIEWER

    @property
    def may_operate(self) -> bool:
        """Whether it may take pictures down."""
        return self.role >= Role.OPERATOR


def require(request: Request, role: Role) -> Account:
    """Return the account of a request.

    Raises
    ------
    HTTPException
        403 if its role is below ``role``.
    """
    account: Account = request.state.account
    if account.role < role:
        remedy = (
            "it follows from your roles at the provider that you signed in with"
            if account.session
            else f"whoever runs TinyTags can give it with `tinytags accounts role {account.name} {role.label}`"
        )
        raise HTTPException(
            403, f"this needs the role {role.label}; {account.readable} is a {account.role.label}: {remedy}"
        )
    return account
