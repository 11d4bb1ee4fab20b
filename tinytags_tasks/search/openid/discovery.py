"""What a provider says of itself: its addresses and its keys, kept for an hour."""

import time
from dataclasses import dataclass
from typing import Any

import anyio
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from tinytags_tasks.search.openid.exchange import Exchange, ProviderAwayError
from tinytags_tasks.search.openid.provider import Provider, is_safe

KEPT_SECONDS = 3600
AWAY_SECONDS = 5
"""After a failure, nobody asks again for so long: each would wait for as long as the first did."""

Key = RSAKey | ECKey | OKPKey

_KEY_TYPES = ("RSA", "EC", "OKP")
"""Not ``oct``: with a key that both sides know, whoever knows it could sign."""


@dataclass(frozen=True)
class Addresses:
    """Where a provider is asked for what; empty what it does not offer.

    Attributes
    ----------
    secret_in_body
        Whether it takes the client's secret only in the body.
    names_issuer
        Whether its answers say which issuer they are from (RFC 9207).
    """

    authorization: str
    token: str
    keys: str
    person: str
    sign_out: str
    secret_in_body: bool
    names_issuer: bool


class Discovery:
    """Knows a provider's addresses and keys."""

    def __init__(self, provider: Provider, exchange: Exchange) -> None:
        self._provider = provider
        self._exchange = exchange
        self._lock = anyio.Lock()
        self._addresses: Addresses | None = None
        self._addresses_until = 0.0
        self._keys: list[Key] = []
        self._keys_until = 0.0
        self._away_until = 0.0

    @property
    def known_sign_out(self) -> str:
        """Where people sign out of the provider itself; empty as long as that is not known."""
        return self._addresses.sign_out if self._addresses else ""

    async def addresses(self) -> Addresses:
        """Return the provider's addresses.

        Raises
        ------
        ProviderAwayError
            If they are not known, and cannot be asked for.
        """
        async with self._lock:
            now = time.monotonic()
            if self._addresses is None or now >= self._addresses_until:
                if now < self._away_until:
                    raise ProviderAwayError(f"{self._provider.name} did not answer a moment ago")
                try:
                    self._addresses = await self._discover()
                except ProviderAwayError:
                    self._away_until = time.monotonic() + AWAY_SECONDS
                    raise
                self._addresses_until = time.monotonic() + KEPT_SECONDS
            return self._addresses

    async def keys(self, *, fresh: bool = False) -> tuple[list[Key], bool]:
        """Return the keys that the provider signs with, and whether they were asked for just now.

        Raises
        ------
        ProviderAwayError
            If they cannot be asked for.
        """
        address = (await self.addresses()).keys
        async with self._lock:
            if not fresh and time.monotonic() < self._keys_until:
                return self._keys, False
            found = (await self._exchange.get(address)).get("keys")
            self._keys = _read_keys(found if isinstance(found, list) else [])
            if not self._keys:
                raise self._exchange.away(f"{address} has no key that can be used")
            self._keys_until = time.monotonic() + KEPT_SECONDS
            return self._keys, True

    async def _discover(self) -> Addresses:
        issuer = self._provider.issuer
        address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        said = await self._exchange.get(address)
        if said.get("issuer") != issuer:
            raise self._exchange.away(
                f"{address} is of the issuer {str(said.get('issuer'))[:200]!r}; write exactly that into "
                "TINYTAGS_OIDC_ISSUER if it is yours"
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not _safe(said, name):
                raise self._exchange.away(f"{address} has no {name} with https")
        methods = said.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return Addresses(
            authorization=_safe(said, "authorization_endpoint"),
            token=_safe(said, "token_endpoint"),
            keys=_safe(said, "jwks_uri"),
            person=_safe(said, "userinfo_endpoint"),
            sign_out=_safe(said, "end_session_endpoint"),
            secret_in_body="client_secret_basic" not in methods and "client_secret_post" in methods,
            names_issuer=said.get("authorization_response_iss_parameter_supported") is True,
        )


def _safe(said: dict[str, Any], name: str) -> str:
    """Return an address; empty if there is none that is safe to use."""
    address = said.get(name)
    return address if isinstance(address, str) and is_safe(address) else ""


def _read_keys(found: list[Any]) -> list[Key]:
    """Return the keys that can be used; a provider may have keys for other purposes, or of kinds unknown to us."""
    keys: list[Key] = []
    for key in found[:100]:
        if isinstance(key, dict) and key.get("kty") in _KEY_TYPES and key.get("use", "sig") == "sig":
            try:
                keys += KeySet.import_key_set({"keys": [key]}).keys  # type: ignore[arg-type]
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    return keys
