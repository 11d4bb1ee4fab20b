"""Which OpenID provider people sign in with, and which of its roles are which of ours: the settings ``oidc_*``."""

import hashlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.settings import Settings

ANYBODY = "*"
"""In a list of roles: whoever the provider lets in."""


@dataclass(frozen=True)
class Provider:
    """What the settings say of the provider.

    Attributes
    ----------
    client_secret
        Empty for a public client, which proves itself by PKCE alone.
    role_claim
        The claim that holds a person's roles; its dots lead into objects, as in ``realm_access.roles``.
    roles
        Our role by the provider's; :data:`ANYBODY` may be among them.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: str
    role_claim: str
    roles: Mapping[str, Role]
    session_seconds: int

    @cached_property
    def name(self) -> str:
        """What people know it by: its host."""
        return urlsplit(self.issuer).netloc

    @property
    def digest(self) -> bytes:
        """Differs whenever another session would come of the same answer of the provider."""
        roles = sorted((name, int(role)) for name, role in self.roles.items())
        parts = (self.issuer, self.client_id, self.role_claim, roles, self.session_seconds)
        return hashlib.sha256(repr(parts).encode()).digest()


def read_provider(settings: Settings) -> Provider | None:
    """Return the provider of the settings; None if they name none.

    Raises
    ------
    BadInputError
        If a setting is missing or cannot be used, or others than the user can read the client's secret.
    """
    if not settings.oidc_issuer:
        return None
    issuer = settings.oidc_issuer.strip()
    if not is_safe(issuer) or urlsplit(issuer).query or urlsplit(issuer).fragment:
        raise BadInputError(
            f"TINYTAGS_OIDC_ISSUER: {issuer[:100]!r} is no issuer: write the address that the provider calls its "
            "issuer, such as https://login.example/realms/pictures; it begins with https://, except on this machine"
        )
    if not settings.oidc_client_id:
        raise BadInputError("TINYTAGS_OIDC_CLIENT_ID is not set: write the id by which the provider knows this page")
    scopes = settings.oidc_scopes.split()
    if "openid" not in scopes:
        raise BadInputError("TINYTAGS_OIDC_SCOPES: openid has to be among the scopes, such as `openid profile email`")
    return Provider(
        issuer=issuer,
        client_id=settings.oidc_client_id,
        client_secret=_read_secret(settings),
        scopes=" ".join(scopes),
        role_claim=settings.oidc_role_claim,
        roles=_read_roles(settings),
        session_seconds=settings.oidc_session_minutes * 60,
    )


def is_safe(address: str) -> bool:
    """Return whether nobody can listen in on an address: it has https, or does not leave this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port  # raises if it is no number
    except ValueError:
        return False
    if not host or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_roles(settings: Settings) -> Mapping[str, Role]:
    lists = {
        Role.READER: settings.oidc_readers,
        Role.REVIEWER: settings.oidc_reviewers,
        Role.OPERATOR: settings.oidc_operators,
    }
    # From the least to the most: a value that two lists have gives the higher role.
    roles = {part.strip(): role for role, text in lists.items() for part in (text or "").split(",") if part.strip()}
    if not roles:
        raise BadInputError(
            "an OpenID provider is set, but nobody may sign in with it: write who may into TINYTAGS_OIDC_READERS, "
            f"_REVIEWERS or _OPERATORS: values of the claim {settings.oidc_role_claim} with commas between, or * for "
            "everybody"
        )
    return roles


def _read_secret(settings: Settings) -> str:
    path: Path = settings.oidc_client_secret_file or settings.secrets_folder / "oidc_client_secret"
    try:
        if path.stat().st_mode & 0o077:
            raise BadInputError(f"others than you can read {path}: run `chmod 600` on it")
        secret = path.read_text().strip()
    except FileNotFoundError:
        if settings.oidc_client_secret_file is None:
            return ""
        raise BadInputError(f"TINYTAGS_OIDC_CLIENT_SECRET_FILE: there is no {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read ({error}): the secret of the OpenID client is in there") from error
    if not secret:
        raise BadInputError(f"{path} is empty: write the secret of the OpenID client into it, or remove it")
    return secret
