"""The way in: to the provider with a question, back with a code, and from the code to an account."""

import re
import threading
from collections.abc import Mapping
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from cachetools import TTLCache

from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.openid.cookies import ATTEMPT_SECONDS, Attempt, new_secret
from tinytags_tasks.search.openid.discovery import Addresses, Discovery
from tinytags_tasks.search.openid.exchange import Exchange, RefusedError
from tinytags_tasks.search.openid.id_tokens import check_id_token
from tinytags_tasks.search.openid.people import find_role, has_roles, recorded_name
from tinytags_tasks.search.openid.provider import Provider

MOST_FAILURES = 30
FAILURE_SECONDS = 300
"""After :data:`MOST_FAILURES` attempts that failed, an address has to wait: each of them asks the provider."""

_ERROR = re.compile(r"[a-z_]{1,64}")
_LONGEST_CODE = 4096
_PERSONAL_ERRORS = ("access_denied", "login_required", "consent_required", "interaction_required")
_FORM = "application/x-www-form-urlencoded"


class Flow:
    """Signs people in with one provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._exchange = Exchange(provider.name)
        self.discovery = Discovery(provider, self._exchange)
        self._used: TTLCache[str, bool] = TTLCache(100_000, ATTEMPT_SECONDS)
        self._failures: TTLCache[str, int] = TTLCache(100_000, FAILURE_SECONDS)
        self._lock = threading.Lock()

    async def begin(self, redirect_uri: str, to: str) -> tuple[str, Attempt]:
        """Return the provider's address to go to, and what to remember meanwhile.

        Raises
        ------
        ProviderAwayError
            If the provider's addresses are not known.
        """
        addresses = await self.discovery.addresses()
        attempt = Attempt(new_secret(), new_secret(), new_secret(), redirect_uri, to)
        address: str = prepare_grant_uri(
            addresses.authorization,
            client_id=self._provider.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self._provider.scopes,
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return address, attempt

    async def finish(self, answer: Mapping[str, str], attempt: Attempt | None, peer: str) -> Account:
        """Return the account of somebody who comes back from the provider.

        Parameters
        ----------
        answer
            What the provider sent with them: the parameters of their address.
        attempt
            What their browser kept for the answer's state; None if it has nothing.
        peer
            Their address.

        Raises
        ------
        RefusedError
            If they are not let in.
        ProviderAwayError
            If the provider cannot be asked.
        """
        self._check_failures(peer)
        try:
            return await self._finish(answer, attempt)
        except RefusedError:
            with self._lock:
                self._failures[peer] = self._failures.get(peer, 0) + 1
            raise

    async def _finish(self, answer: Mapping[str, str], attempt: Attempt | None) -> Account:
        name = self._provider.name
        if attempt is None:
            raise RefusedError("This attempt to sign in was not begun in this browser, or too long ago.")
        with self._lock:
            was_used = attempt.state in self._used
            self._used[attempt.state] = True
        if was_used:
            raise RefusedError("This attempt to sign in was finished already.")
        addresses = await self.discovery.addresses()
        if answer.get("iss", "" if addresses.names_issuer else self._provider.issuer) != self._provider.issuer:
            raise RefusedError(f"The answer cannot be trusted: it is not from {name}.")
        if "error" in answer:
            raise self._refused_there(answer["error"])
        code = answer.get("code", "")
        if not 0 < len(code) <= _LONGEST_CODE:
            raise RefusedError(f"The answer of {name} has no code.")
        tokens = await self._redeem(code, attempt, addresses)
        claims = await check_id_token(
            tokens.get("id_token"),
            access_token=tokens.get("access_token"),
            nonce=attempt.nonce,
            provider=self._provider,
            discovery=self.discovery,
        )
        claims = await self._complete(claims, tokens.get("access_token"), addresses)
        who = recorded_name(claims, self._provider)
        role = find_role(claims, self._provider)
        if role is None:
            raise RefusedError(
                f"{name} knows you as {who.partition(' (')[0]}, but none of your roles there lets you in here. Ask "
                f"whoever runs TinyTags which roles do; they are in the claim {self._provider.role_claim}.",
                403,
            )
        return Account(who, role, session=new_secret())

    def _check_failures(self, peer: str) -> None:
        with self._lock:
            if self._failures.get(peer, 0) >= MOST_FAILURES:
                minutes = FAILURE_SECONDS // 60
                raise RefusedError(f"Too many attempts from this address failed: wait {minutes} minutes.", 429)

    def _refused_there(self, error: str) -> RefusedError:
        known = error if _ERROR.fullmatch(error) else "an error"
        status = 403 if error in _PERSONAL_ERRORS else 400
        return RefusedError(f"{self._provider.name} did not let you in ({known}).", status)

    async def _redeem(self, code: str, attempt: Attempt, addresses: Addresses) -> Mapping[str, object]:
        """Return what a code is good for: the tokens."""
        body: str = prepare_token_request(
            "authorization_code",
            code=code,
            redirect_uri=attempt.redirect_uri,
            code_verifier=attempt.verifier,
        )
        client, secret = self._provider.client_id, self._provider.client_secret
        if not secret:
            auth = ClientAuth(client, "", "none")
        elif addresses.secret_in_body:
            auth = ClientAuth(client, secret, "client_secret_post")
        else:  # both are encoded like a form's fields: RFC 6749, 2.3.1
            auth = ClientAuth(quote_plus(client), quote_plus(secret), "client_secret_basic")
        _, headers, body = auth.prepare("POST", addresses.token, {"Content-Type": _FORM}, body)
        status, tokens = await self._exchange.post(addresses.token, headers, body)
        if status == 200:
            return tokens
        error = tokens.get("error")
        if error == "invalid_grant":
            raise RefusedError(
                f"{self._provider.name} does not accept this attempt: it was used before, or is too old."
            )
        known = error if isinstance(error, str) and _ERROR.fullmatch(error) else "an error unknown to us"
        raise self._exchange.away(
            f"{addresses.token} answered {status}, {known}: check TINYTAGS_OIDC_CLIENT_ID, the file with the client's "
            "secret, and that the provider knows the address that people come back to"
        )

    async def _complete(
        self, claims: dict[str, object], access_token: object, addresses: Addresses
    ) -> dict[str, object]:
        """Return the claims, with those that the provider tells only when asked for, if the roles are among these."""
        if has_roles(claims, self._provider) or not addresses.person or not isinstance(access_token, str):
            return claims
        more = await self._exchange.get(addresses.person, {"Authorization": f"Bearer {access_token}"})
        if more.get("sub") != claims["sub"]:
            raise RefusedError(f"The answer of {self._provider.name} cannot be trusted: it is about somebody else.")
        return {**more, **claims}
