"""Folders that are tables of a lakehouse: which of their files count stands in a log, not in their names."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from tinytags_tasks.errors import BadInputError

_DELTA_LOG = "_delta_log"
_LOGS = {_DELTA_LOG: ("Delta", "delta"), ".hoodie": ("Hudi", "hudi")}

_HARMLESS_FEATURES = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
"""Features of Delta's protocol that leave a table's rows to be those of its files, under the columns' own names."""


def can_read_delta(folder: str) -> bool:
    """Return whether a folder of this machine is a Delta table, and the package that reads its log is installed."""
    return Path(folder, _DELTA_LOG).is_dir() and find_spec("deltalake") is not None


def delta_files(folder: str) -> list[str]:
    """Return the files of a Delta table's current version, relative to its folder, in the order of a folder's files.

    https://github.com/delta-io/delta/blob/master/PROTOCOL.md: paths in the log are encoded as in addresses.

    Parameters
    ----------
    folder
        The table's folder, on this machine.

    Raises
    ------
    BadInputError
        If its log cannot be read, its rows are not simply those of its files, or these are elsewhere.
    """
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(folder)
        protocol = table.protocol()
        logged = pa.table(table.get_add_actions(flatten=True)).column("path").to_pylist()
    except (DeltaError, OSError, ValueError) as error:
        raise BadInputError(f"{folder}: its Delta log cannot be read ({error}); repair the table") from error
    beyond = set(protocol.reader_features or ()) - _HARMLESS_FEATURES
    if beyond or protocol.min_reader_version == 2:
        needed = ", ".join(sorted(beyond)) or "columnMapping"
        raise _is_table(folder, "Delta", "delta", f"that needs {needed}")
    paths = [unquote(path) for path in logged]
    if elsewhere := next((path for path in paths if path.startswith("/") or "://" in path), None):
        raise _is_table(folder, "Delta", "delta", f"with files elsewhere ({elsewhere})")
    return sorted(paths, key=lambda path: path.split("/"))


def refuse_table_log(name: str, folder: str, *, is_local: bool) -> None:
    """Refuse a folder that has a folder with the name of a table's log.

    Parameters
    ----------
    name
        Of the inner folder.
    folder
        The outer folder, for the message.
    is_local
        Whether it is on this machine, where Delta's log can be read.

    Raises
    ------
    BadInputError
        If it has: which kind of table, and what to do.
    """
    if name in _LOGS:
        remedy = ""
        if name == _DELTA_LOG and is_local:
            own = "give this folder itself as the source" if find_spec("deltalake") else "install tinytags[delta]"
            remedy = f"{own}, or "
        raise _is_table(folder, *_LOGS[name], remedy=remedy)


def refuse_iceberg(names: Iterable[str], folder: str) -> None:
    """Refuse a folder with ``data`` and ``metadata`` in it, if these are the names in ``metadata`` of an Iceberg table.

    Raises
    ------
    BadInputError
        If they are.
    """
    if any(name.endswith(".metadata.json") for name in names):
        raise _is_table(folder, "Iceberg", "iceberg")


def _is_table(folder: str, kind: str, spark_format: str, which: str = "", *, remedy: str = "") -> BadInputError:
    what = f"a {kind} table {which}".rstrip()
    return BadInputError(
        f"{folder}: {what}, whose folder also has files with rows that were removed or replaced; {remedy}write its "
        f"rows as plain Parquet with Spark (spark.read.format('{spark_format}').load(...).write.parquet(...)), and "
        "give that folder"
    )
