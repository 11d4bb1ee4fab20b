"""What Spark's executors run: their Python, its packages and our code, which is sent where they lack it.

An executor imports what a job needs from its own Python. The first task of a session asks the executors, and refuses
those with another Python, without this package or with another version of it; where TINYTAGS_SPARK_SEND_CODE or
TINYTAGS_SPARK_ARCHIVE is set, it sends what they lack.

Reference: https://spark.apache.org/docs/latest/api/python/user_guide/python_packaging.html
"""

import hashlib
import io
import json
import logging
import platform
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyspark

from tinytags_tasks.errors import FinalError

CLIENT = pyspark.__version__

PACKAGE = "tinytags_tasks"
NEEDED = (f"{PACKAGE}.score.worker", f"{PACKAGE}.embed.worker")
"""What jobs import on executors."""

_BESIDE = "beside/"
"""Dags and plugins, which a wheel has here and a checkout elsewhere; workers do not use them."""

PARTITIONS = 4
"""How many tasks ask; on a cluster, they usually land on different executors."""

_CHECKED = "spark.tinytags.workers"
"""The option of a shared session that says that its executors were asked."""

_UNPACKED = "environment"
_FIXED_TIME = (2020, 1, 1, 0, 0, 0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """What one of Spark's Python workers says of itself.

    Attributes
    ----------
    host, python
        Its machine, and the version of its Python.
    code
        The hash of the package that it would import, or has imported; empty if it has none.
    problem
        Why it cannot import what jobs need; empty if it can, or has other code.
    clock
        Its time, in seconds since the epoch.
    """

    host: str
    python: str
    code: str
    problem: str
    clock: float


def compare_versions(server: str, client: str = CLIENT) -> str:
    """Return how a Spark server differs from this machine's pyspark; empty if it does not differ.

    Raises
    ------
    FinalError
        If it is older: it lacks calls that this pyspark makes.
    """
    if _release(server) == _release(client):
        return ""
    if _release(server) < _release(client):
        raise FinalError(
            f"Spark is {server}, and pyspark here is {client}: use a server of Spark {client.rpartition('.')[0]}, or "
            f"install TinyTags with pyspark=={server}"
        )
    return (
        f"Spark is {server}, and pyspark here is {client}: newer servers usually work; TinyTags is tested with {client}"
    )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def ready_workers(session: Any, archive: Path | None = None, *, send_code: bool = True) -> None:  # noqa: ANN401 - Spark's session has no type
    """Make sure, once for a shared session, that its executors run this code, or send it to them.

    What other code commits would count as the result of this one.

    Parameters
    ----------
    session
        A session of Spark Connect.
    archive
        A packed environment with Python and all dependencies, which executors unpack and use instead of their own; our
        code is sent with it.
    send_code
        Whether executors without our code, or with another version of it, get it.

    Raises
    ------
    FinalError
        If its executors have another Python, lack a dependency, or have other code and do not get or take this.
    """
    if session.conf.get(_CHECKED, "") == code_hash():
        return
    if archive is not None:
        _send_archive(session, archive)
    workers = ask_workers(session)
    if others := _others(workers):
        if not send_code and archive is None:
            raise FinalError(
                f"Spark's executors lack TinyTags, or have another version of it than this machine: {others}; install "
                "this one there, or set TINYTAGS_SPARK_SEND_CODE=1, which sends it to them"
            )
        _send_code(session)
        workers = ask_workers(session)
        if others := _others(workers):
            raise FinalError(
                f"Spark's workers still run another version of TinyTags than they were sent: {others}; in a session, "
                "they keep what they have imported: wait for the next hour's session, or name another one in "
                "TINYTAGS_SPARK_URL (/;session_id=, a UUID)"
            )
    for worker in workers:
        if worker.problem:
            raise FinalError(explain_worker(f"{worker.host} (Python {worker.python}): {worker.problem}"))
    session.conf.set(_CHECKED, code_hash())


def _others(workers: list[Worker]) -> str:
    """Return the hosts whose code is not this."""
    return ", ".join(sorted({worker.host for worker in workers if worker.code != code_hash()}))


def ask_workers(session: Any) -> list[Worker]:  # noqa: ANN401
    """Return what Spark's Python workers say of themselves.

    They import what jobs need only if they have this code: a worker keeps what it has imported.

    Raises
    ------
    pyspark.errors.PySparkException
        If not even this runs, such as for another Python: see :func:`explain_worker`.
    """
    package, expected, needed, beside = PACKAGE, code_hash(), NEEDED, _BESIDE

    def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:  # knows nothing of our package
        import hashlib
        import importlib
        import importlib.util
        import json
        import pathlib
        import platform
        import socket
        import time
        import zipfile

        import pyarrow

        for batch in batches:
            spec = importlib.util.find_spec(package)
            code = problem = ""
            if spec is not None and spec.submodule_search_locations:
                folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
                found: dict[pathlib.PurePath, bytes] = {}
                if folder.is_dir():
                    found = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.py")}
                elif zipfile.is_zipfile(folder.parent):  # what we or --py-files sent
                    with zipfile.ZipFile(folder.parent) as packed:
                        paths = [pathlib.PurePath(name) for name in packed.namelist() if name.endswith(".py")]
                        inside = [path for path in paths if path.parts[0] == package]
                        found = {path.relative_to(package): packed.read(str(path)) for path in inside}
                digest = hashlib.sha256()
                for path in sorted(found):
                    if not str(path).startswith(beside):
                        digest.update(f"{path}\n".encode() + found[path])
                # The name of a zip file that we sent has the hash.
                code = expected if folder.parent.name == f"tinytags-{expected}.zip" else digest.hexdigest()
            for name in needed if code == expected else ():
                try:
                    importlib.import_module(name)
                except Exception as error:  # whatever an import raises is what the job would fail with
                    problem = f"{type(error).__name__}: {error}"
                    break
            said = json.dumps([socket.gethostname(), platform.python_version(), code, problem, time.time()])
            yield pyarrow.RecordBatch.from_pylist([{"said": said}] * batch.num_rows)

    rows = session.range(0, PARTITIONS, 1, numPartitions=PARTITIONS).mapInArrow(ask, "said string").collect()
    return [Worker(*json.loads(row["said"])) for row in rows]


def explain_worker(message: str) -> str:
    """Return what an executor's failure to import or to start means, with the remedy; empty if it is something else.

    Parameters
    ----------
    message
        What Spark says of a failed job, or what a worker says of itself.
    """
    here = platform.python_version()
    remedy = (
        "install TinyTags and its dependencies in the executors' Python, or name a packed environment by "
        "TINYTAGS_SPARK_ARCHIVE"
    )
    if "PYTHON_VERSION_MISMATCH" in message:
        said = _line_with(message, "MISMATCH")
        return f"Spark's executors have another Python than this machine ({here}): {said}; {remedy}"
    if "Cannot run program" in message:
        said = _line_with(message, "Cannot run program")
        return (
            f"Spark's executors have no such Python: {said}; set PYSPARK_PYTHON where Spark Connect starts, or {remedy}"
        )
    if sign := next((sign for sign in ("ModuleNotFoundError", "ImportError") if sign in message), ""):
        lacking = _line_with(message, sign)
        if f"'{PACKAGE}'" in lacking:
            remedy = f"set TINYTAGS_SPARK_SEND_CODE=1, which sends them this package, or {remedy}"
        return f"Spark's executors lack what jobs need: {lacking}; {remedy}"
    return ""


def _line_with(message: str, sign: str) -> str:
    return next(line.strip() for line in message.splitlines() if sign in line)[:400].rstrip(".")


@cache
def code_hash(folder: Path = Path(__file__).parents[1]) -> str:
    """Return the hash of this package's code, as workers compute it of theirs."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        name = str(file.relative_to(folder))
        if not name.startswith(_BESIDE):
            digest.update(f"{name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def packed_code(folder: Path = Path(__file__).parents[1]) -> bytes:
    """Return this package as a zip file that Python imports from, with the net that ships; equal files, equal bytes."""
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(files):
            packed.writestr(
                zipfile.ZipInfo(f"{PACKAGE}/{file.relative_to(folder)}", _FIXED_TIME),
                file.read_bytes(),
                zipfile.ZIP_DEFLATED,
            )
    return content.getvalue()


def _send_code(session: Any) -> None:  # noqa: ANN401
    _log.info("Spark's executors lack this version of TinyTags: sending it to them")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tinytags-{code_hash()}.zip"
        path.write_bytes(packed_code())
        session.addArtifacts(str(path), pyfile=True)


def _send_archive(session: Any, archive: Path) -> None:  # noqa: ANN401
    if not archive.is_file():
        raise FinalError(f"{archive} is not a file: correct TINYTAGS_SPARK_ARCHIVE")
    began = time.monotonic()
    session.addArtifacts(f"{archive}#{_UNPACKED}", archive=True)
    session.conf.set("spark.sql.execution.pyspark.python", f"{_UNPACKED}/bin/python")
    _log.info("sent %s to Spark's executors in %.0f s", archive.name, time.monotonic() - began)
