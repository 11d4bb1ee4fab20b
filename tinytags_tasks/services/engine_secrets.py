"""Which secrets an engine's process is given: those that it declares, and no others.

Secrets come from two places: passwords and tokens of the settings, and variables of the user's environment. Those that
``tinytags up`` generates are files, which an engine reads itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from tinytags_tasks.secrecy import is_secret, secret_part
from tinytags_tasks.settings import Settings

SOURCES = ("AWS_", "FSSPEC_", "AZURE_", "GOOGLE_", "HF_")
"""How the variables begin with which a corpus' source is opened."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Secrets:
    """The secrets that a process needs.

    Attributes
    ----------
    settings
        The names of settings, such as ``solr_writer_password``.
    variables
        How the names of variables of the user's environment begin, in capitals.
    """

    settings: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    def of(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return an environment without the secrets that are not declared."""
        return {
            name: value
            for name, value in variables.items()
            if name.upper().startswith(self.variables) or not is_secret(name, value)
        }

    def of_settings(self, settings: Settings) -> dict[str, str]:
        """Return the settings as ``TINYTAGS_*`` variables, without the secrets that are not declared."""
        found = {}
        for name in Settings.model_fields:
            value = getattr(settings, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            if value is None or (name not in self.settings and _is_secret_setting(name, value)):
                continue
            found[f"TINYTAGS_{name.upper()}"] = text
        return found


METRICS = "AIRFLOW__METRICS__"
"""How Airflow's variables begin that an embedded Airflow takes over."""

NO_SECRETS = Secrets()

KEEPER_SECRETS = Secrets(variables=("TINYTAGS_", "AIRFLOW_CONN_", "AIRFLOW_VAR_", METRICS, "OTEL_", *SOURCES, *PROXIES))
"""What the keeper needs: all that an engine may, because it starts them."""


def _is_secret_setting(name: str, value: object) -> bool:
    """Return whether a setting is secret; of addresses only those that no process needs besides a connection."""
    if isinstance(value, SecretStr):
        return True
    return name in ("spark_url", "maven_repository") and secret_part(str(value)) is not None
