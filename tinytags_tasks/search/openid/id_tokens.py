"""Checks ID tokens: who signed it, for whom, when, and in answer to which question (OpenID Connect Core, 3.1.3.7)."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError

from tinytags_tasks.search.openid.discovery import Discovery, Key
from tinytags_tasks.search.openid.exchange import RefusedError
from tinytags_tasks.search.openid.provider import Provider

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Only those with a key that the provider alone has; what a token's own header asks for counts for nothing else."""

LEEWAY_SECONDS = 60
"""By how much the provider's clock may differ from ours."""

_MOST_BYTES = 64 * 1024


async def check_id_token(
    token: object, *, access_token: object, nonce: str, provider: Provider, discovery: Discovery
) -> dict[str, Any]:
    """Return the claims of an ID token.

    Raises
    ------
    RefusedError
        If anything is wrong with it.
    ProviderAwayError
        If the provider's keys cannot be asked for.
    """
    if not isinstance(token, str) or len(token) > _MOST_BYTES:
        raise RefusedError(_untrusted(provider, "it has no ID token"))
    signed = await _check_signature(token, provider, discovery)
    claims = CodeIDToken(
        signed.claims,
        signed.header,
        options={
            "iss": {"essential": True, "value": provider.issuer},
            "aud": {"essential": True, "value": provider.client_id},
        },
        params={
            "client_id": provider.client_id,
            "nonce": nonce,
            "access_token": access_token if isinstance(access_token, str) else None,
        },
    )
    try:
        claims.validate(now=int(time.time()), leeway=LEEWAY_SECONDS)
    except ExpiredTokenError as error:
        raise RefusedError(_untrusted(provider, "its ID token has expired")) from error
    except JoseError as error:
        claim = getattr(error, "claim", None)
        part = claim if claim in CodeIDToken.REGISTERED_CLAIMS else "some claim"
        raise RefusedError(_untrusted(provider, f"{part} of its ID token is missing or wrong")) from error
    except (TypeError, ValueError, AttributeError) as error:  # claims of a wrong type
        raise RefusedError(_untrusted(provider, "its ID token cannot be read")) from error
    return dict(claims)


async def _check_signature(token: str, provider: Provider, discovery: Discovery) -> jwt.Token:
    try:
        header: Mapping[str, Any] = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError) as error:
        raise RefusedError(_untrusted(provider, "its ID token cannot be read")) from error
    if header.get("alg") not in ALGORITHMS:
        raise RefusedError(_untrusted(provider, "its ID token is not signed in a way that is accepted here"))
    keys, are_fresh = await discovery.keys()
    signed = _decode(token, header, keys)
    if signed is None and not are_fresh:  # the provider may have a new key since
        signed = _decode(token, header, (await discovery.keys(fresh=True))[0])
    if signed is None:
        raise RefusedError(_untrusted(provider, "its ID token was not signed with a key of the provider"))
    return signed


def _decode(token: str, header: Mapping[str, Any], keys: Sequence[Key]) -> jwt.Token | None:
    """Return the token if one of the keys has signed it."""
    for key in keys:
        if "kid" in header and key.kid != header["kid"]:
            continue
        try:
            return jwt.decode(token, key, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError, TypeError):
            continue
    return None


def _untrusted(provider: Provider, reason: str) -> str:
    return f"The answer of {provider.name} cannot be trusted: {reason}."
