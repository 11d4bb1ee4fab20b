"""PostgreSQL for Airflow's database, from the distribution's package; only containers start it."""

import subprocess
import tempfile
from pathlib import Path

from tinytags_tasks.errors import FinalError
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services.engine import Context, environment
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.secrets import secret

USER = "tinytags"
DATABASE = "airflow"
PASSWORD = "postgres_password"  # noqa: S105 - the name of the file with it

OPTIONS = {
    "listen_addresses": "*",
    "unix_socket_directories": "/tmp",  # noqa: S108 - of the container, which has one user
    # Each of Airflow's processes keeps a pool of connections.
    "max_connections": "200",
    "shared_buffers": "64MB",
}


def database_url(context: Context) -> str:
    """Return the address of Airflow's database, with its password."""
    password = secret(context.settings, PASSWORD)
    return f"postgresql+psycopg2://{USER}:{password}@{context.network.host('postgres')}:5432/{DATABASE}"


def launch(context: Context) -> Launch:
    """Return how to start the server, whose data folder is created if there is none."""
    programs = _programs()
    data = make_folder(context.folder("postgres")) / "data"
    variables = environment(context, LC_ALL="C.UTF-8")
    if not data.exists():
        _create(context, programs, data, variables)
    options = (part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}"))
    return Launch((str(programs / "postgres"), "-D", str(data), *options), variables)


def _create(context: Context, programs: Path, data: Path, variables: dict[str, str]) -> None:
    """Create the data folder with the user and the database, and move it to its place once it is whole."""
    with tempfile.TemporaryDirectory(dir=data.parent, prefix=".data-") as temporary:
        new, password = Path(temporary) / "data", Path(temporary) / "password"
        password.write_text(secret(context.settings, PASSWORD))
        login = ("--username", USER, "--pwfile", str(password), "--auth", "scram-sha-256")
        _run((str(programs / "initdb"), "-D", str(new), "--encoding", "UTF8", *login), variables)
        _run(
            (str(programs / "postgres"), "--single", "-D", str(new), "postgres"),
            variables,
            f"CREATE DATABASE {DATABASE}\n",
        )
        with (new / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")
        new.rename(data)


def _run(command: tuple[str, ...], variables: dict[str, str], given: str = "") -> None:
    done = subprocess.run(command, env=variables, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FinalError(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise FinalError("there is no PostgreSQL in /usr/lib/postgresql: install the distribution's package")
    return found[-1]
