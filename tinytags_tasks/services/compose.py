"""The environment of ``docker-compose.yml``: ``python -m tinytags_tasks.services.compose`` writes it."""

import shlex

from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services.solr_security import make_logins, security_json
from tinytags_tasks.settings import Settings, load_settings

ADDRESSES = {
    "TINYTAGS_WEBHDFS_URL": "http://127.0.0.1:9870",
    "TINYTAGS_HDFS_URL": "hdfs://127.0.0.1:8020",
    "TINYTAGS_SPARK_URL": "sc://127.0.0.1:15002",
    "TINYTAGS_SOLR_URL": "http://127.0.0.1:8983/solr",
}
"""The addresses of the containers, as seen from the host."""


def compose_environment(settings: Settings) -> str:
    """Return an environment file for Docker Compose and shells: addresses, passwords, and Solr's users."""
    logins = make_logins(settings)
    variables = dict(ADDRESSES)
    for role, (user, password) in logins.items():
        variables[f"TINYTAGS_SOLR_{role.upper()}_USER"] = user
        variables[f"TINYTAGS_SOLR_{role.upper()}_PASSWORD"] = password
    variables["SOLR_SECURITY_JSON"] = security_json(logins)
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def main() -> None:
    """Write ``compose.env`` to the home; only the user may read it."""
    settings = load_settings()
    path = make_folder(settings.home) / "compose.env"
    write_atomically(path, compose_environment(settings))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
