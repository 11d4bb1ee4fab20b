"""What Spark's executors say of themselves, what they are sent, and what their failures mean."""

import io
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pyarrow as pa
import pytest

from tinytags_tasks.clients import spark_workers
from tinytags_tasks.clients.spark_workers import (
    SENT,
    ask_workers,
    code_hash,
    compare_versions,
    explain_worker,
    packed_code,
    ready_workers,
)
from tinytags_tasks.errors import FinalError
from tinytags_tasks.nets.shipped import shipped_card, shipped_net


class Session:
    """Runs what executors would run in this process, and records what it is sent."""

    def __init__(self) -> None:
        self.options, self.sent, self.jobs = {}, [], 0
        self.conf = SimpleNamespace(get=self.options.get, set=self.options.__setitem__)

    def range(self, start, end, step, numPartitions):
        return SimpleNamespace(mapInArrow=lambda work, schema: SimpleNamespace(collect=lambda: self._run(work, end)))

    def _run(self, work, rows):
        self.jobs += 1
        batch = pa.RecordBatch.from_pydict({"id": list(range(rows))})
        return [row for found in work(iter([batch])) for row in found.to_pylist()]

    def addArtifacts(self, path, **kind):
        self.sent.append((path, kind))


def test_workers_with_this_code_are_asked_once_and_sent_nothing():
    session = Session()
    ready_workers(session)
    ready_workers(session)
    assert (session.jobs, session.sent) == (1, [])
    assert {worker.code for worker in ask_workers(session)} == {code_hash()}


def test_workers_without_this_code_are_sent_it(monkeypatch):
    monkeypatch.setattr(spark_workers, "code_hash", lambda: "of a newer version")
    session = Session()
    ready_workers(session)
    ((path, kind),) = session.sent
    assert path.endswith(".zip")
    assert kind == {"pyfile": True}


def test_code_that_was_sent_is_imported_from_the_zip_file_and_known_as_such(monkeypatch, tmp_path):
    package = tmp_path / "sent.zip"
    package.write_bytes(packed_code())
    names = zipfile.ZipFile(io.BytesIO(packed_code())).namelist()
    assert {"tinytags_tasks/__init__.py", "tinytags_tasks/score/worker.py"} <= set(names)
    assert packed_code() == packed_code()
    monkeypatch.setattr(spark_workers, "PACKAGE", "packed_alone")
    with zipfile.ZipFile(tmp_path / "alone.zip", "w") as alone:
        alone.writestr("packed_alone/__init__.py", "")
    monkeypatch.setattr(spark_workers, "NEEDED", ("packed_alone",))
    monkeypatch.syspath_prepend(str(tmp_path / "alone.zip"))
    session = Session()
    assert {worker.code for worker in ask_workers(session)} == {SENT}
    sys.modules.pop("packed_alone", None)


def test_what_was_sent_has_the_files_that_jobs_read_besides_code(tmp_path):
    package = tmp_path / "sent.zip"
    package.write_bytes(packed_code())
    code = (
        "from tinytags_tasks.nets.shipped import shipped_background, shipped_card, shipped_net\n"
        "from tinytags_tasks.store.quoting import quoted\n"
        "import tinytags_tasks\n"
        "print(tinytags_tasks.__file__, shipped_card().version, len(shipped_net()), quoted('\\x7f'))"
    )
    command = (sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(package)!r})\n{code}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.split() == [
        f"{package}/tinytags_tasks/__init__.py",
        shipped_card().version,
        str(len(shipped_net())),
        "'\\x7f'",
    ], done.stderr


def test_a_dependency_that_executors_lack_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setattr(spark_workers, "NEEDED", ("no_such_dependency",))
    with pytest.raises(FinalError, match=r"lack what jobs need: .*No module named 'no_such_dependency'; install"):
        ready_workers(Session())


def test_an_archive_is_unpacked_and_its_python_used(tmp_path):
    archive = tmp_path / "python.tar.gz"
    archive.write_bytes(b"")
    session = Session()
    ready_workers(session, archive)
    assert session.sent == [(f"{archive}#environment", {"archive": True})]
    assert session.options["spark.sql.execution.pyspark.python"] == "environment/bin/python"
    with pytest.raises(FinalError, match="correct TINYTAGS_SPARK_ARCHIVE"):
        ready_workers(Session(), tmp_path / "missing")


def test_executors_that_lack_only_our_package_may_be_sent_it():
    remedy = "set TINYTAGS_SPARK_SEND_CODE=1, which sends them this package, or install"
    assert remedy in explain_worker("ModuleNotFoundError: No module named 'tinytags_tasks'")
    assert remedy not in explain_worker("ModuleNotFoundError: No module named 'onnxruntime'")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Traceback\nPySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker 3.9", "have another Python"),
        ("Job aborted\nModuleNotFoundError: No module named 'tinytags_tasks'\n", "No module named 'tinytags_tasks'"),
        (
            "Error from python worker:\n  python3: Error (ModuleNotFoundError: No module named 'pyspark')",
            "jobs need: python3: Error (ModuleNotFoundError: No module named 'pyspark')",
        ),
        ('java.io.IOException: Cannot run program "/opt/python": error=2, No such file', 'program "/opt/python"'),
        ("ExecutorLostFailure", ""),
    ],
)
def test_what_an_executor_cannot_import_is_explained(message, said):
    assert said in explain_worker(message)
    assert bool(explain_worker(message)) == bool(said)


def test_an_older_server_is_refused_and_a_newer_one_is_said():
    assert compare_versions("4.3.7", "4.3.0") == ""
    assert "Spark is 4.4.0" in compare_versions("4.4.0", "4.3.0")
    with pytest.raises(FinalError, match=r"Spark is 3\.5\.1, and pyspark here is 4\.3\.0"):
        compare_versions("3.5.1", "4.3.0")
