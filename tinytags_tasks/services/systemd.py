"""A unit for systemd's user manager, which runs the keeper in the foreground and starts it again."""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services import keeper_process
from tinytags_tasks.services.engine_secrets import KEEPER_SECRETS
from tinytags_tasks.settings import Settings

_VARIABLES = (*KEEPER_SECRETS.variables, "KRB5", "SSL_CERT_", "CUDA_")
_NAMES = (
    *("PATH", "PYTHONPATH", "JAVA_HOME", "NO_PROXY"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),  # authorities of one's own, as SSL_CERT_FILE
    "LD_LIBRARY_PATH",  # CUDA's libraries, and Kerberos'
)

UNIT = """[Unit]
Description=TinyTags: the engines of {home}
StartLimitIntervalSec=0

[Service]
ExecStart={python} -m tinytags_tasks.cli keep
WorkingDirectory={root}
EnvironmentFile={environment}
Restart=always
RestartSec=5
UMask=0077
# The engines outlive the keeper, and one that ran out of memory does not end it.
KillMode=process
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def unit_name(settings: Settings) -> str:
    """Return the name of the unit for a home: each home has its own."""
    return f"tinytags-{hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]}.service"


def unit_text(settings: Settings) -> str:
    """Return the text of the unit."""
    return UNIT.format(
        home=_specifiers(str(settings.home)),
        python=_quoted(sys.executable),
        root=_specifiers(str(PROJECT_ROOT)),
        environment=_specifiers(str(_environment_file(settings))),
    )


def environment_text(variables: Mapping[str, str]) -> str:
    """Return the content of the unit's environment file: what configures TinyTags, and what its sources need."""
    kept = {
        name: value
        for name, value in variables.items()
        if name.upper().startswith(_VARIABLES) or name.upper() in _NAMES
    }
    return "".join(f'{name}="{_escaped(value)}"\n' for name, value in sorted(kept.items()))


def write_unit(settings: Settings) -> Path:
    """Write the unit and its environment file, which only the user may read; return the unit's path."""
    make_folder(keeper_process.folder(settings))
    write_atomically(_environment_file(settings), environment_text(keeper_process.environment(settings)))
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    path = make_folder(config / "systemd" / "user") / unit_name(settings)
    write_atomically(path, unit_text(settings))
    return path


def _environment_file(settings: Settings) -> Path:
    return keeper_process.folder(settings) / "environment"


def _escaped(text: str) -> str:
    for character in '\\"$`':
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    return f'"{_escaped(_specifiers(text)).replace(chr(92) + "$", "$$")}"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")
