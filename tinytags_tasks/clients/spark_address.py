"""The address of a Spark Connect server, ``sc://host:15002/;name=value;name=value``.

Reference: https://github.com/apache/spark/blob/master/sql/connect/docs/client-connection-string.md
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urlsplit

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.secrecy import without_password

_PORT = 15002


@dataclass(frozen=True)
class SparkAddress:
    """Where a server is, and how it is asked; names that Spark's client does not know become headers.

    Attributes
    ----------
    host
        Its name or number, without brackets.
    port
        Its port.
    parameters
        What follows, such as ``use_ssl``, ``user_id`` and ``token``, decoded.
    """

    host: str
    port: int = _PORT
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str) -> "SparkAddress":
        """Return the address in a text.

        Raises
        ------
        BadInputError
            If it is none. The message does not have its parameters, which may be secret.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme != "sc" or parts.path.partition(";")[0] not in ("", "/") or port == 0:
            raise BadInputError(
                f"{without_password(url.partition(';')[0].rstrip('/'))!r} is not a Spark Connect address: "
                "write sc://host:15002"
            )
        given = (part.split("=", 1) for part in url.partition(";")[2].split(";") if "=" in part)
        return cls(host, port or _PORT, {name: unquote(value) for name, value in given})

    def __str__(self) -> str:
        """Return the address as a text."""
        given = ";".join(f"{name}={quote(value)}" for name, value in self.parameters.items())
        return f"{self.server}/;{given}" if given else self.server

    @property
    def server(self) -> str:
        """The address without parameters, for messages."""
        return f"sc://{self.target}"

    @property
    def target(self) -> str:
        """Host and port, as gRPC takes them."""
        return f"{self.url_host}:{self.port}"

    @property
    def url_host(self) -> str:
        """The host, in brackets if it is an IPv6 address."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def use_ssl(self) -> bool | None:
        """Whether TLS is asked for; None if nothing is said."""
        said = self.parameters.get("use_ssl")
        return None if said is None else said.lower() == "true"

    def with_default(self, name: str, value: str) -> "SparkAddress":
        """Return the address with a parameter, unless it has that parameter or the value is empty."""
        return replace(self, parameters={name: value, **self.parameters}) if value else self

    def without(self, name: str) -> "SparkAddress":
        """Return the address without a parameter."""
        return replace(self, parameters={key: value for key, value in self.parameters.items() if key != name})

    def with_plain_token(self) -> "SparkAddress":
        """Return an address that says ``use_ssl=false`` with its token as a header, for a network that is one's own.

        Spark's client sends a token over TLS only, except to localhost.
        """
        if self.use_ssl is not False or "token" not in self.parameters:
            return self
        return self.without("token").with_default("authorization", f"Bearer {self.parameters['token']}")
