"""PostgreSQL as the embedded Airflow's database, which somebody else operates: its address, and whether it answers."""

import hashlib
from importlib.util import find_spec
from urllib.parse import urlsplit

from tinytags_tasks.errors import BadInputError, EngineDownError
from tinytags_tasks.settings import Settings

_SCHEMES = ("postgresql", "postgresql+psycopg2")

_DRIVERS = ("psycopg2", "asyncpg")
"""What Airflow needs: one for its synchronous code, one for the rest."""

_CONNECT_SECONDS = 10


def database_of(settings: Settings) -> str:
    """Return the address of the PostgreSQL database in the settings; empty if Airflow uses SQLite.

    Raises
    ------
    BadInputError
        If it is another kind of address, or Python lacks what Airflow needs for PostgreSQL.
    """
    if settings.airflow_database is None:
        return ""
    address = settings.airflow_database.get_secret_value()
    try:
        is_whole = urlsplit(address).scheme in _SCHEMES and bool(urlsplit(address).path.strip("/"))
    except ValueError:  # half an IPv6 address
        is_whole = False
    if not is_whole:
        raise BadInputError(
            "TINYTAGS_AIRFLOW_DATABASE must be postgresql+psycopg2://user:password@host:5432/database, with special "
            "characters of the password as %40 and so on; unset it to use SQLite"
        )
    if missing := missing_drivers():
        raise BadInputError(
            f"TINYTAGS_AIRFLOW_DATABASE is set, but Python has no {' and no '.join(missing)}: install them with "
            "TinyTags' extra `postgresql` (docs/dags.md)"
        )
    return address


def missing_drivers() -> list[str]:
    """Return the packages that Airflow needs for PostgreSQL and Python lacks."""
    return [driver for driver in _DRIVERS if find_spec(driver) is None]


def identity(address: str) -> str:
    """Return what tells a database from another, whatever its login and its driver; empty for SQLite."""
    server, _, parameters = address.partition("://")[2].partition("?")
    host, _, database = server.rpartition("@")[2].partition("/")
    place = [host.lower().removesuffix(":5432"), database, *sorted(filter(_names_place, parameters.split("&")))]
    return hashlib.sha256("/".join(place).encode()).hexdigest()[:16] if address else ""


def _names_place(parameter: str) -> bool:
    return parameter.partition("=")[0] in ("host", "hostaddr", "port", "dbname", "service")


def airflow_has_tables(address: str) -> bool:
    """Return whether Airflow has ever been prepared in a database.

    Raises
    ------
    EngineDownError
        If the database cannot be reached, or lets nobody in.
    """
    import psycopg2

    place = urlsplit(address)
    try:
        # A connection's context only ends its transaction.
        connection = psycopg2.connect(
            address.replace("+psycopg2", "", 1), connect_timeout=_CONNECT_SECONDS, application_name="tinytags"
        )
    except psycopg2.OperationalError as error:
        where, _, _ = f"{place.hostname or 'this machine'}:{place.port or 5432}{place.path}: {error}".partition("\n")
        raise EngineDownError(
            f"Airflow's database cannot be used ({where}): start PostgreSQL, create its user and database, or correct "
            "TINYTAGS_AIRFLOW_DATABASE"
        ) from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('alembic_version')")
            return bool(cursor.fetchone() != (None,))
    finally:
        connection.close()
