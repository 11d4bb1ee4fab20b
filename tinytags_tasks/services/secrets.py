"""Generated passwords and keys, each in its own file in ``home/secrets``."""

import os
import secrets
import tempfile
from pathlib import Path

from pydantic import SecretStr

from tinytags_tasks.private_files import make_folder
from tinytags_tasks.settings import Settings


def secret(settings: Settings, name: str, size_bytes: int = 32) -> str:
    """Return a password or key, which is generated on first use and then kept.

    Parameters
    ----------
    settings
        The settings; a password that is set there takes precedence over a generated one.
    name
        Name of the setting, such as ``search_password``, or any other file name.
    size_bytes
        How much is random; four characters hold three bytes.
    """
    password = getattr(settings, name, None)
    if isinstance(password, SecretStr):
        return password.get_secret_value()
    path = make_folder(settings.secrets_folder) / name
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(size_bytes) + "\n")
        try:
            # A link, not a rename: if two processes generate the same secret, the first one's is kept.
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            Path(temporary).unlink()
    return path.read_text().strip()
