"""What counts as a secret: in the environment by a variable's name or value, in an address by where it is."""

import re
from urllib.parse import unquote

_ALWAYS = ("AWS_", "FSSPEC_", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""How the variables begin that are secret whatever follows."""

_VARIABLE = re.compile(
    r"PASSW|SECRET|WEBHOOK|OTLP.*HEADERS|PASSPHRASE|KEY$|.PWD$"
    r"|(?:^|_)(?:PASS|PAT|TOKENS?|KEYS?|CREDENTIALS?|AUTH|COOKIES?|DSN)(?:_|$)"
)
_HARMLESS = ("OLDPWD",)

_PASSWORD = re.compile(r"://[^/?#@\s]*:[^/?#\s]*@")
_HTTP_USER = re.compile(r"^https?://[^/?#@\s]*@", re.IGNORECASE)
"""Over HTTP, a user without a password is an access token."""

_PARAMETER = re.compile(
    r"(?:^|[^a-z])(?:sig|sign|jwt|pat|pwd|hmac|apikey|key|session|sid|policy)(?:[^a-z]|$)"
    r"|secret|token|passw|credential|auth|cookie|signature|accesskey",
    re.IGNORECASE,
)

_USER = re.compile(r"(://)[^/?#\s'\"]*@")
_QUERY = re.compile(r"\?[^\s'\"<>?=&]*=[^\s'\"<>)\]]*")


LOGIN = "its login"


def is_secret(variable: str, value: str) -> bool:
    """Return whether a variable of the environment is to be treated as a secret."""
    name = variable.upper()
    return (
        name.startswith(_ALWAYS)
        or (_VARIABLE.search(name) is not None and name not in _HARMLESS)
        or _PASSWORD.search(value) is not None
    )


def secret_part(address: str) -> str | None:
    """Return what is secret in an address: :data:`LOGIN`, or the name of a parameter; None if nothing is.

    Presigned addresses have such parameters: ``X-Amz-Signature``, ``Signature``, ``sig``, ``token``.
    """
    if _PASSWORD.search(address) or _HTTP_USER.search(address):
        return LOGIN
    _, separator, rest = address.partition("://")
    if not separator:
        return None
    for part in re.split(r"[?&;#]", rest)[1:]:
        name, is_given, _ = part.partition("=")
        if is_given and _PARAMETER.search(unquote(name)):
            return unquote(name)
    return None


_LOGIN = re.compile(r"(^|//)[^/]*@")


def without_password(url: str) -> str:
    """Return an address, or several, without the users and passwords in it; that of Spark without its parameters."""
    return _LOGIN.sub(r"\1", url.partition(";")[0].rstrip("/") if url.startswith("sc://") else url)


def without_secrets(text: str) -> str:
    """Return a message without what may be secret in its addresses: users with their passwords, and queries."""
    return _QUERY.sub("?...", _USER.sub(r"\1...@", text))
