"""Solr's users and their permissions: the ``security.json`` of the embedded Solr, and of ``docker-compose.yml``.

Reference: https://solr.apache.org/guide/solr/9_10/deployment-guide/basic-authentication-plugin.html and
https://solr.apache.org/guide/solr/9_10/deployment-guide/rule-based-authorization-plugin.html
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import get_args

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Login, Settings, SolrRole

ROLES: tuple[SolrRole, ...] = get_args(SolrRole)

# The first matching permission decides. Readers may use /select only: Solr's predefined permission `read` would also
# allow /stream, whose expressions can write. The writer may also look at aliases, schemas and the state of replicas,
# because the search page corrects documents with no other login.
PERMISSIONS = (
    {"name": "search", "path": "/select", "role": ["reader", "writer", "admin"]},
    {"name": "read", "role": ["writer", "admin"]},
    {"name": "update", "role": ["writer", "admin"]},
    {"name": "collection-admin-read", "role": ["writer", "admin"]},
    {"name": "schema-read", "role": ["writer", "admin"]},
    {"name": "metrics-read", "role": ["writer", "admin"]},
    {"name": "all", "role": "admin"},
)


def stored_password(password: str, salt: bytes) -> str:
    """Return a password as Solr stores it: ``base64(sha256(sha256(salt + password))) base64(salt)``.

    The format is described in *Password Encoding* on the reference guide's page about basic authentication.
    """
    hashed = hashlib.sha256(hashlib.sha256(salt + password.encode()).digest()).digest()
    return f"{base64.b64encode(hashed).decode()} {base64.b64encode(salt).decode()}"


def make_logins(settings: Settings) -> dict[SolrRole, Login]:
    """Return the embedded Solr's users, each with the password that is set or generated.

    Raises
    ------
    BadInputError
        If two of them have the same name.
    """
    logins: dict[SolrRole, Login] = {
        role: (getattr(settings, f"solr_{role}_user"), secret(settings, f"solr_{role}_password")) for role in ROLES
    }
    if len({user for user, _ in logins.values()}) < len(ROLES):
        raise BadInputError(
            "two of the embedded Solr's users have the same name: give each its own "
            "(TINYTAGS_SOLR_ADMIN_USER, TINYTAGS_SOLR_WRITER_USER, TINYTAGS_SOLR_READER_USER)"
        )
    return logins


def security_json(logins: Mapping[SolrRole, Login]) -> str:
    """Return Solr's ``security.json`` for these users."""
    return json.dumps(
        {
            "authentication": {
                "class": "solr.BasicAuthPlugin",
                "blockUnknown": True,
                "realm": "TinyTags",
                "credentials": {
                    user: stored_password(password, secrets.token_bytes(32)) for user, password in logins.values()
                },
                # Solr's nodes authenticate to each other with their own keys, on behalf of the user.
                "forwardCredentials": False,
            },
            "authorization": {
                "class": "solr.RuleBasedAuthorizationPlugin",
                "user-role": {user: role for role, (user, _) in logins.items()},
                "permissions": PERMISSIONS,
            },
        }
    )
