"""The engines' jars: fetched once with the Apache Ivy in pyspark, and checked against ``jars.lock``."""

import hashlib
import os
import subprocess
import tempfile
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from tinytags_tasks.errors import CorruptError, FinalError
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services.java import find_java
from tinytags_tasks.settings import Settings

LOCK = Path(__file__).with_name("jars.lock")

SETTINGS_XML = """<ivysettings>
  <settings defaultResolver="jars"/>
  <resolvers><ibiblio name="jars" m2compatible="true" usepoms="false"{root}/></resolvers>
</ivysettings>
"""

FAILURES_BEFORE_GIVING_UP = 3
"""If a host is down, Ivy would try to fetch each of a hundred jars from it."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The file name of the jar."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars(engine: str, lock: Path = LOCK) -> tuple[Jar, ...]:
    """Return the jars that the lock lists for an engine (``hdfs`` or ``solr``)."""
    jars = []
    for line in lock.read_text().splitlines():
        owner, coordinates, sha256 = line.split()
        if owner == engine:
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return tuple(jars)


def jars_folder(settings: Settings, engine: str) -> Path:
    """Return the folder of an engine's jars in the cache; its name changes with the lock."""
    listed = "\n".join(f"{jar.file_name} {jar.sha256}" for jar in locked_jars(engine))
    return settings.cache / "jars" / f"{engine}-{hashlib.sha256(listed.encode()).hexdigest()[:12]}"


def fetch_jars(settings: Settings, engine: str, report: Callable[[str], None] = print) -> Path:
    """Return the folder with an engine's jars; if it does not exist, fetch and check them.

    Raises
    ------
    CorruptError
        If a jar is not the one in the lock.
    FinalError
        If the jars cannot be fetched.
    """
    folder = jars_folder(settings, engine)
    if folder.is_dir():
        return folder
    jars = locked_jars(engine)
    with tempfile.TemporaryDirectory(dir=make_folder(folder.parent), prefix=f".{engine}-") as temporary:
        work = Path(temporary)
        _run_ivy(settings, engine, jars, work, report)
        check_jars(work / "lib", jars)
        try:
            (work / "lib").rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same checked jars
                raise
    return folder


def check_jars(folder: Path, jars: tuple[Jar, ...]) -> None:
    """Raise unless a folder has every jar with the hash in the lock; delete a jar with another hash."""
    for jar in jars:
        path = folder / jar.file_name
        if not path.exists():
            raise FinalError(f"{jar.group}:{jar.artifact}:{jar.version} could not be fetched; {_remedy()}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != jar.sha256:
            path.unlink()
            raise CorruptError(
                f"{jar.file_name} has sha256 {found}, {LOCK.name} says {jar.sha256}: deleted it. "
                "Run `tinytags up` again; if this error persists, do not trust the repository that it came from"
            )


def _run_ivy(settings: Settings, engine: str, jars: tuple[Jar, ...], work: Path, report: Callable[[str], None]) -> None:
    root = f" root={quoteattr(settings.maven_repository)}" if settings.maven_repository else ""
    (work / "settings.xml").write_text(SETTINGS_XML.format(root=root))
    (work / "ivy.xml").write_text(_ivy_xml(engine, jars))
    command = [
        *(str(find_java(settings)), "-Djava.net.preferIPv4Stack=true", *_network_options(work)),
        *("-jar", str(_ivy_jar()), "-settings", "settings.xml", "-ivy", "ivy.xml", "-cache", str(work / "cache")),
        *("-retrieve", "lib/[artifact]-[revision].[ext]", "-types", "jar"),
    ]
    fetched = failures = 0
    last = ""
    report(f"fetching {len(jars)} jars")
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        for line in ivy.stdout or ():
            if "[SUCCESSFUL ]" in line:
                fetched += 1
                if fetched % 25 == 0:
                    report(f"{fetched} of {len(jars)} jars")
            if "not found" in line or "Server access" in line or "unreachable" in line:
                failures += 1
                last = line.strip()
            if failures >= FAILURES_BEFORE_GIVING_UP:
                ivy.kill()
                break
    if ivy.returncode != 0:
        raise FinalError(
            f"the jars of {engine} could not be fetched ({last or f'Ivy exit {ivy.returncode}'}); {_remedy()}"
        )


def _remedy() -> str:
    return (
        "check the network (and SSL_CERT_FILE, if it has its own certificate authority), or set "
        "TINYTAGS_MAVEN_REPOSITORY to a repository that can be reached, then try again"
    )


def _ivy_xml(engine: str, jars: tuple[Jar, ...]) -> str:
    dependencies = "\n".join(
        f'    <dependency org="{jar.group}" name="{jar.artifact}" rev="{jar.version}" transitive="false"'
        ' conf="default->default"/>'
        for jar in jars
    )
    return (
        f'<ivy-module version="2.0">\n  <info organisation="tinytags" module="{engine}"/>\n'
        '  <configurations><conf name="default"/></configurations>\n'
        f"  <dependencies>\n{dependencies}\n  </dependencies>\n</ivy-module>\n"
    )


def pyspark_jars() -> Path:
    """Return the folder of jars in the installed pyspark."""
    import importlib.util

    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise FinalError("pyspark is not installed")
    return Path(found.origin).parent / "jars"


def _ivy_jar() -> Path:
    jars = sorted(pyspark_jars().glob("ivy-*.jar"))
    if not jars:
        raise FinalError(f"no ivy-*.jar in {pyspark_jars()}: TinyTags does not support this version of pyspark")
    return jars[-1]


def _network_options(work: Path) -> list[str]:
    """Return Java options for the proxy and certificate variables that pip, uv and curl use."""
    options = []
    if bundle := os.environ.get("SSL_CERT_FILE"):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

        with warnings.catch_warnings(action="ignore"):  # about serial numbers of old authorities
            certificates = x509.load_pem_x509_certificates(Path(bundle).read_bytes())
        trusted = [pkcs12.PKCS12Certificate(each, f"{index}".encode()) for index, each in enumerate(certificates)]
        store = pkcs12.serialize_java_truststore(trusted, BestAvailableEncryption(b"changeit"))
        (work / "trusted.p12").write_bytes(store)
        options += ["-Djavax.net.ssl.trustStore=trusted.p12", "-Djavax.net.ssl.trustStorePassword=changeit"]
    for scheme, url in urllib.request.getproxies().items():
        proxy = urllib.parse.urlsplit(url)
        if scheme in ("http", "https") and proxy.hostname:
            options += [f"-D{scheme}.proxyHost={proxy.hostname}", f"-D{scheme}.proxyPort={proxy.port or 80}"]
    return options
