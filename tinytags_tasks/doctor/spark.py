"""Spark: its version, the Python of its executors, and whether these reach the store."""

import time
from collections.abc import Iterator

from tinytags_tasks.clients.spark import open_session, spark_errors
from tinytags_tasks.clients.spark_workers import (
    CLIENT,
    Worker,
    ask_workers,
    code_hash,
    compare_versions,
    ready_workers,
)
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.runtime import Runtime

_area = Area("spark")


def examine_spark(runtime: Runtime) -> Iterator[Finding]:
    """Yield what would make jobs fail."""
    yield from _area.each("session", lambda: _session(runtime))


def _session(runtime: Runtime) -> Iterator[Finding]:
    settings = runtime.settings
    session = open_session(settings.address("spark_url"), settings.spark_connect_token())
    try:
        server = session.version
        if difference := compare_versions(server):
            yield _area.warning("version", difference, f"use Spark {CLIENT}")
        else:
            yield _area.ok("version", f"Spark {server}, pyspark here {CLIENT}")
        with spark_errors("asking Spark's executors for their versions"):
            if settings.spark_send_code or settings.spark_archive:
                ready_workers(session, settings.spark_archive)
            began = time.time()
            workers = ask_workers(session)
        yield from _executors(workers)
        yield _area.clock(max((worker.clock for worker in workers), key=lambda clock: abs(clock - began)), began)
    finally:
        session.stop()


def _executors(workers: list[Worker]) -> Iterator[Finding]:
    pythons = ", ".join(sorted({f"{worker.host} (Python {worker.python})" for worker in workers}))
    remedy = "install it there, or set TINYTAGS_SPARK_SEND_CODE=1; for dependencies, TINYTAGS_SPARK_ARCHIVE"
    if lacking := sorted({worker.host for worker in workers if not worker.code}):
        yield _area.fails("executors", f"their Python lacks TinyTags: {', '.join(lacking)}", remedy)
    elif other := sorted({worker.host for worker in workers if worker.code != code_hash()}):
        yield _area.fails("executors", f"their Python has another version of TinyTags: {', '.join(other)}", remedy)
    elif problem := next((f"{worker.host}: {worker.problem}" for worker in workers if worker.problem), ""):
        yield _area.fails("executors", problem, remedy)
    else:
        yield _area.ok("executors", f"{pythons} have all that jobs import")
