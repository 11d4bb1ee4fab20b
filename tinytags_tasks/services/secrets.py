"""Generated passwords and keys, one file each under ``home/secrets``."""

import os
import secrets
import tempfile
from pathlib import Path

from pydantic import SecretStr

from tinytags_tasks.services.files import make_folder
from tinytags_tasks.settings import Settings


def secret(settings: Settings, name: str) -> str:
    """Return a password or key, made on first use and kept from then on.

    Parameters
    ----------
    settings
        Passwords that are set win over the generated ones.
    name
        The password's setting, such as ``search_password``, or any other file name.
    """
    told = getattr(settings, name, None)
    if isinstance(told, SecretStr):
        return told.get_secret_value()
    path = make_folder(settings.secrets_folder) / name
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        try:
            # A link, not a rename: of two processes that make the same secret, the first one's stays.
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            Path(temporary).unlink()
    return path.read_text().strip()
