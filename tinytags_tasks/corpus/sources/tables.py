"""Folders that are tables of a lakehouse: which of their files count stands in a log, not in their names."""

from collections.abc import Iterable

from tinytags_tasks.errors import BadInputError

_LOGS = {"_delta_log": ("Delta", "delta"), ".hoodie": ("Hudi", "hudi")}


def refuse_table_log(name: str, folder: str) -> None:
    """Refuse a folder that has a folder with the name of a table's log.

    Raises
    ------
    BadInputError
        If it has: which kind of table, and what to do.
    """
    if name in _LOGS:
        raise _is_table(folder, *_LOGS[name])


def refuse_iceberg(names: Iterable[str], folder: str) -> None:
    """Refuse a folder with ``data`` and ``metadata`` in it, if these are the names in ``metadata`` of an Iceberg table.

    Raises
    ------
    BadInputError
        If they are.
    """
    if any(name.endswith(".metadata.json") for name in names):
        raise _is_table(folder, "Iceberg", "iceberg")


def _is_table(folder: str, kind: str, spark_format: str) -> BadInputError:
    return BadInputError(
        f"{folder}: a {kind} table, whose folder also has files with rows that were removed or replaced; write its "
        f"rows as plain Parquet with Spark (spark.read.format('{spark_format}').load(...).write.parquet(...)), and "
        "give that folder"
    )
