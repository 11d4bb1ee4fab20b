"""What Spark's executors say of themselves, what they are sent, and what their failures mean."""

import importlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from workers_here import Session

from tinytags_tasks.clients import spark_workers
from tinytags_tasks.clients.spark_workers import (
    ask_workers,
    code_hash,
    compare_versions,
    explain_worker,
    packed_code,
    ready_workers,
)
from tinytags_tasks.errors import FinalError
from tinytags_tasks.nets.shipped import shipped_card, shipped_net


@pytest.fixture
def packed_alone(monkeypatch, tmp_path):
    """Let jobs need a package of another name, so that this process has not imported it; return a maker of zips."""
    monkeypatch.setattr(spark_workers, "PACKAGE", "packed_alone")
    monkeypatch.setattr(spark_workers, "NEEDED", ("packed_alone",))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def send(name):
        with zipfile.ZipFile(tmp_path / name, "w") as alone:
            alone.writestr("packed_alone/__init__.py", "")
        sys.path.insert(0, str(tmp_path / name))

    yield send
    sys.modules.pop("packed_alone", None)


def test_workers_with_this_code_are_asked_once_and_sent_nothing():
    session = Session()
    ready_workers(session)
    ready_workers(session)
    assert (session.jobs, session.sent) == (1, [])
    assert {worker.code for worker in ask_workers(session)} == {code_hash()}


def test_workers_without_this_code_are_sent_it(packed_alone, tmp_path):
    session = Session(tmp_path)
    ready_workers(session)
    ready_workers(session)
    ((path, kind),) = session.sent
    assert path.endswith(f"-{code_hash()}.zip")
    assert kind == {"pyfile": True}
    assert {worker.code for worker in ask_workers(session)} == {code_hash()}


def test_code_that_was_sent_has_the_package_and_is_the_same_each_time():
    names = zipfile.ZipFile(io.BytesIO(packed_code())).namelist()
    assert {"tinytags_tasks/__init__.py", "tinytags_tasks/score/worker.py"} <= set(names)
    assert packed_code() == packed_code()


@pytest.mark.parametrize("older", [f"tinytags-{'0' * 64}.zip", f"tinytags-{code_hash()[:16]}.zip", "another.zip"])
def test_workers_with_an_older_version_that_was_sent_are_sent_this_one(packed_alone, tmp_path, older):
    packed_alone(older)
    session = Session(tmp_path)
    assert code_hash() not in {worker.code for worker in ask_workers(session)}
    ready_workers(session)
    assert [Path(path).name for path, _ in session.sent] == [f"tinytags-{code_hash()}.zip"]
    assert {worker.code for worker in ask_workers(session)} == {code_hash()}


def test_a_zip_of_any_name_is_the_version_that_it_holds(packed_alone, tmp_path):
    packed_alone("another.zip")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert {worker.code for worker in ask_workers(Session(tmp_path))} == {code_hash(package)}


def test_workers_with_another_version_are_refused_where_code_is_not_sent(packed_alone, tmp_path):
    packed_alone("another.zip")
    session = Session(tmp_path)
    with pytest.raises(FinalError, match=r"another version of it than this machine: .*TINYTAGS_SPARK_SEND_CODE=1"):
        ready_workers(session, send_code=False)
    assert session.sent == []


def test_a_wheel_and_a_checkout_of_the_same_code_are_the_same_version(tmp_path):
    for folder in ("checkout", "wheel"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("A = 1")
    dags = tmp_path / "wheel" / "beside" / "dags"
    dags.mkdir(parents=True)
    (dags / "tinytags.py").write_text("B = 2")
    assert code_hash(tmp_path / "wheel") == code_hash(tmp_path / "checkout")
    assert code_hash(tmp_path / "wheel") != code_hash(dags)


def test_a_worker_that_keeps_the_older_version_is_refused_each_time(packed_alone, tmp_path):
    packed_alone(f"tinytags-{'0' * 64}.zip")
    importlib.import_module("packed_alone")
    session = Session(tmp_path)
    for _ in range(2):
        with pytest.raises(FinalError, match=r"still run another version of TinyTags.*wait for the next hour"):
            ready_workers(session)


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
