"""docker-compose.yml, as far as it can be checked without Docker, and the environment written for it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tinytags_tasks.services import compose
from tinytags_tasks.settings import PROJECT_ROOT, Settings

FILE = PROJECT_ROOT / "docker-compose.yml"
ONE_SHOT = {"solr-users"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load(FILE.read_text())["services"]


@pytest.fixture
def environment(tmp_path: Path) -> str:
    return compose.compose_environment(Settings(home=tmp_path))


def test_every_image_has_its_version(services: dict[str, dict]) -> None:
    images = {service["image"] for service in services.values() if "image" in service}
    images |= set(re.findall(r"FROM (\S+)", services["spark"]["build"]["dockerfile_inline"]))
    assert len(images) == 4
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images)


def test_ports_are_open_on_loopback_only(services: dict[str, dict]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {port.rpartition(":")[2] for port in ports} == {"9870", "9864", "15002", "8983"}
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_whoever_waits_for_a_service_waits_until_it_is_healthy(services: dict[str, dict]) -> None:
    assert all("healthcheck" in service for name, service in services.items() if name not in ONE_SHOT)
    for service in services.values():
        for name, dependency in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert dependency["condition"] == expected


def test_solr_starts_when_its_users_are_in_zookeeper(services: dict[str, dict]) -> None:
    assert "solr-users" in services["solr"]["depends_on"]


def test_what_engines_keep_is_in_named_volumes(services: dict[str, dict]) -> None:
    declared = set(yaml.safe_load(FILE.read_text())["volumes"])
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {volume for volume in mounted if not volume.startswith(".")} == declared


def test_the_environment_is_told_to_a_shell_and_to_compose_alike(environment: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.env"
    path.write_text(environment)
    show = f"set -a; . {path}; env -0"
    shown = subprocess.run(
        ["sh", "-c", show], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    variables = dict(line.split("=", 1) for line in shown.stdout.split("\0") if line)
    assert json.loads(variables["SOLR_SECURITY_JSON"])["authentication"]["blockUnknown"] is True
    assert (
        variables["TINYTAGS_SOLR_READER_PASSWORD"]
        == (tmp_path / "secrets" / "solr_reader_password").read_text().strip()
    )
    wanted = set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert wanted <= set(variables)


def test_the_addresses_are_those_that_the_containers_open(services: dict[str, dict], environment: str) -> None:
    opened = {port.rsplit(":", 1)[0] for service in services.values() for port in service.get("ports", ())}
    for name in ("TINYTAGS_WEBHDFS_URL", "TINYTAGS_SPARK_URL", "TINYTAGS_SOLR_URL"):
        assert re.search(r"//([\d.]+:\d+)", compose.ADDRESSES[name])[1] in opened
    assert compose.ADDRESSES["TINYTAGS_HDFS_URL"] == services["namenode"]["environment"]["CORE-SITE.XML_fs.defaultFS"]


def test_the_header_names_every_variable(environment: str) -> None:
    header = FILE.read_text().partition("\nname:")[0]
    names = [line.partition("=")[0] for line in environment.splitlines()]
    assert all(name in header for name in names if not name.endswith("_USER"))


def test_the_environment_is_readable_by_the_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path / "home"))
    compose.main()
    assert (tmp_path / "home" / "compose.env").stat().st_mode & 0o777 == 0o600
