"""Spark: its version, the Python of its executors, and whether these and Spark itself reach the store."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, TypeVar

import pyarrow as pa

from tinytags_tasks.clients.spark import SPARK, in_thread, open_session, spark_errors
from tinytags_tasks.clients.spark_workers import (
    CLIENT,
    PARTITIONS,
    Worker,
    ask_workers,
    code_hash,
    compare_versions,
    ready_workers,
)
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.doctor.probe import Probed, probe_from
from tinytags_tasks.errors import EngineDownError, TinyTagsError, one_line
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store.opening import address_for_workers
from tinytags_tasks.store.protocol import Storage, StoreAddress, temporary_name

ANSWER_SECONDS = 20.0
"""How long a worker waits for an answer of HDFS: a doctor is not as patient as the pipeline."""

JOB_SECONDS = 130.0
"""How long a job may take, and what is sent for it: a worker needs half a minute to give up a DataNode that a firewall
hides, and one executor may run all four. Hadoop's own client would ask such a NameNode for a quarter of an hour."""

R = TypeVar("R")

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
        if settings.spark_send_code or settings.spark_archive:
            _in_time(session, "sending code to executors", lambda: ready_workers(session, settings.spark_archive))
        doing = "waiting for executors and asking for their versions"  # YARN may have no free container
        began, workers = _in_time(session, doing, lambda: (time.time(), ask_workers(session)))
        executors = _executors(workers)
        yield executors
        yield _area.clock(max((worker.clock for worker in workers), key=lambda clock: abs(clock - began)), began)
        if executors.verdict == "ok":  # otherwise they cannot even try
            yield from _area.each("store", lambda: _store_of_workers(session, runtime.store_address))
        yield from _area.each("tables", lambda: _store_of_spark(session, runtime.storage))
    finally:
        session.stop()


def _executors(workers: list[Worker]) -> Finding:
    pythons = ", ".join(sorted({f"{worker.host} (Python {worker.python})" for worker in workers}))
    remedy = "install it there, or set TINYTAGS_SPARK_SEND_CODE=1; for dependencies, TINYTAGS_SPARK_ARCHIVE"
    if lacking := sorted({worker.host for worker in workers if not worker.code}):
        return _area.fails("executors", f"their Python lacks TinyTags: {', '.join(lacking)}", remedy)
    if other := sorted({worker.host for worker in workers if worker.code != code_hash()}):
        return _area.fails("executors", f"their Python has another version of TinyTags: {', '.join(other)}", remedy)
    if problem := next((f"{worker.host}: {worker.problem}" for worker in workers if worker.problem), ""):
        return _area.fails("executors", problem, remedy)
    return _area.ok("executors", f"{pythons} have all that jobs import")


def _store_of_workers(session: Any, address: StoreAddress) -> Iterator[Finding]:  # noqa: ANN401 - no type of Spark's
    """Let workers write, read and delete a file over WebHDFS, as those that embed and score do."""
    address = replace(address_for_workers(address), answer_seconds=ANSWER_SECONDS)

    def probe(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            probed = asdict(probe_from(socket.gethostname(), address))
            yield pa.RecordBatch.from_pylist([probed] * batch.num_rows)

    began = time.time()
    tasks = session.range(0, PARTITIONS, 1, numPartitions=PARTITIONS).mapInArrow(probe, "host string, problem string")
    doing = "letting executors write to the store"
    found = {Probed(row["host"], row["problem"]) for row in _in_time(session, doing, tasks.collect)}
    failed = {probed.host: probed.problem for probed in found if probed.problem}
    for host, problem in sorted(failed.items()):
        yield _area.fails(
            "store",
            f"an executor on {host} cannot use the store: {one_line(problem)}",
            "let executors resolve and reach the HTTP ports of the NameNode and of every DataNode",
        )
    if well := sorted({probed.host for probed in found} - failed.keys()):
        text = f"executors on {', '.join(well)} wrote, read and deleted files of the store"
        yield _area.ok("store", f"{text} in {time.time() - began:.1f} s")


def _store_of_spark(session: Any, storage: Storage) -> Iterator[Finding]:  # noqa: ANN401
    """Let Spark itself write and read a table over HDFS' own protocol, as training does."""
    folder = temporary_name(f"doctor-{socket.gethostname()}")
    url, where = storage.url(folder), storage.url("")

    def write_and_read() -> None:
        session.range(0, 1, 1, numPartitions=1).write.parquet(url)
        session.read.parquet(url).collect()

    began = time.time()
    try:
        _in_time(session, "writing and reading a table", write_and_read)
        yield _area.ok("tables", f"Spark itself wrote and read one in {where} in {time.time() - began:.1f} s")
    except TinyTagsError as error:
        yield _area.fails(
            "tables",
            f"Spark itself cannot use {where}: {one_line(error)}",
            "correct TINYTAGS_HDFS_URL, let Spark's server and executors reach the RPC port of the NameNode and the "
            "data ports of the DataNodes, and run them as the store's owner",
        )
    finally:
        storage.delete(folder)  # from here: what fails is another matter


def _in_time(session: Any, doing: str, work: Callable[[], R]) -> R:  # noqa: ANN401
    """Return what a job returns; what is still running later is cancelled as soon as the session is left.

    Raises
    ------
    EngineDownError
        If it takes too long.
    """
    pool = ThreadPoolExecutor(1)
    running = pool.submit(in_thread(session, work))
    pool.shutdown(wait=False)
    try:
        with spark_errors(doing):
            return running.result(JOB_SECONDS)
    except TimeoutError:
        raise EngineDownError(f"no end within {JOB_SECONDS:.0f} s of {doing}", SPARK) from None
