"""The recipes in docs/extending.md: if a step that is easy to forget is missing, a test here fails."""

import ast
import importlib
import pkgutil
import re
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import pytest
import typer
import yaml
from identity_corpora import SOURCES
from serving import serving

import tinytags_tasks.corpus.formats
import tinytags_tasks.services
from tinytags_tasks import cli, errors
from tinytags_tasks.cli.engines import up as up_command
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.clients.solr_http import SolrHttp
from tinytags_tasks.clients.spark import connect_spark
from tinytags_tasks.corpus.formats.base import Format
from tinytags_tasks.corpus.formats.registry import find_format, format_names
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import EngineDownError, FinalError, TransientError
from tinytags_tasks.search.openid.exchange import Exchange
from tinytags_tasks.services import container, control
from tinytags_tasks.services.engine import get_json
from tinytags_tasks.services.jars import LOCK
from tinytags_tasks.settings import ADDRESSES, PROJECT_ROOT, Settings
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.train.families import FAMILIES

RECIPES = (PROJECT_ROOT / "docs" / "extending.md").read_text()
README = (PROJECT_ROOT / "README.md").read_text()
CORPORA_PAGE = (PROJECT_ROOT / "docs" / "corpora.md").read_text()
DAGS_PAGE = (PROJECT_ROOT / "docs" / "dags.md").read_text()
FAMILY_FOLDER = PROJECT_ROOT / "tinytags_tasks" / "train"
FAULTS = PROJECT_ROOT / "tests" / "integration" / "faults"


def modules_of(package) -> list:
    """Import every module of a package."""
    return [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]


def table_rows(text: str) -> set[str]:
    """Return the names in backticks in the first cells of a page's tables."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


# The page itself


def test_every_file_and_test_that_a_recipe_names_exists() -> None:
    named = {name for name in re.findall(r"`([\w./-]+/[\w./:-]+)`", RECIPES) if not name.startswith("/")}
    assert len(named) > 40
    for name in sorted(named):
        path, _, test = name.partition("::")
        assert (PROJECT_ROOT / path).exists(), name
        if test:
            assert re.search(rf"def {test}\(", (PROJECT_ROOT / path).read_text()), name


def test_the_readme_lists_every_folder_of_the_package() -> None:
    folders = {path.parent.name for path in (PROJECT_ROOT / "tinytags_tasks").glob("*/__init__.py")}
    assert {name for name in folders if not re.search(rf"^{name}/ ", README, re.MULTILINE)} == set()


# An engine


def test_every_engine_is_one_that_up_status_and_down_know() -> None:
    declared = [module.GROUP for module in modules_of(tinytags_tasks.services) if hasattr(module, "GROUP")]
    assert sorted(group.name for group in declared) == sorted(group.name for group in control.GROUPS)
    for group in control.GROUPS:
        assert f"``{group.name}``" in control.up.__doc__
        assert re.search(rf"\b{group.name}\b", str(up_command.__annotations__["engines"].__metadata__[0].help))


def test_every_address_of_an_engine_is_a_setting_that_up_records_and_the_readme_names() -> None:
    assert {name for group in control.GROUPS for name in group.settings} == set(ADDRESSES)
    assert {engine.address for group in control.GROUPS for engine in group.engines} <= {None, *ADDRESSES}
    for name in ADDRESSES:
        assert Settings.model_fields[name].description
        assert f"TINYTAGS_{name.upper()}" in README


def test_every_engine_has_a_container() -> None:
    containers = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"]
    engines = {engine.name for group in control.GROUPS for engine in group.engines}
    assert engines <= {service["command"][0] for service in containers.values() if "command" in service}
    assert engines <= container.ROLES.keys()


def test_every_engine_whose_jars_are_fetched_is_in_the_lock() -> None:
    sources = "".join(Path(str(module.__file__)).read_text() for module in modules_of(tinytags_tasks.services))
    fetched = set(re.findall(r'fetch_jars\([\w.]+, "(\w+)"', sources))
    assert fetched == {line.split()[0] for line in LOCK.read_text().splitlines()}


# A Dag


def dag_files() -> list[str]:
    files = sorted((PROJECT_ROOT / "dags").glob("*.py"))
    return [path.stem for path in files if re.search(r"^@tinytags_dag\(", path.read_text(), re.MULTILINE)]


def test_every_dag_is_in_both_tables_of_dags() -> None:
    assert len(dag_files()) >= 6
    assert set(dag_files()) <= table_rows(DAGS_PAGE)
    assert set(dag_files()) <= table_rows(README)


def test_every_dag_is_checked_by_the_tests_of_dags_and_by_mypy() -> None:
    from test_dag import DAGS

    assert set(DAGS) == set(dag_files())
    tests = (PROJECT_ROOT / "tests" / "unit" / "test_dag.py").read_text().partition("\n\n")[2].partition("def test_")[2]
    assert {name for name in DAGS if f'"{name}"' not in tests} == set(), "add a test of its edges"
    overrides = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    untyped = {name for part in overrides if "disallow_untyped_decorators" in part for name in part["module"]}
    assert set(dag_files()) <= untyped


# A fault test


def test_every_file_of_fault_tests_is_in_the_table_of_what_breaks() -> None:
    assert {path.name for path in FAULTS.glob("test_*.py")} <= {Path(name).name for name in table_rows(RECIPES)}


@pytest.mark.parametrize("path", sorted(FAULTS.parent.rglob("test_*.py")), ids=lambda path: path.stem)
def test_a_test_that_kills_an_engine_starts_it_again(path: Path) -> None:
    """Otherwise the tests after it meet a dead engine."""
    for test in ast.walk(ast.parse(path.read_text())):
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
            called = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
            assert "kill_engine" not in called or called & {"restart", "up"}, test.name


# A corpus format


def test_every_format_is_registered_and_in_the_documents() -> None:
    written = {
        value.name
        for module in modules_of(tinytags_tasks.corpus.formats)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Format) and hasattr(value, "name")
    }
    assert written <= set(format_names())
    assert written <= table_rows(CORPORA_PAGE)
    assert all(find_format(name).name == name for name in written)
    assert written - set(SOURCES) == {"cifar-pickle"}, "pin its identities: write a source in identity_corpora.py"


# A model family


def test_every_family_is_registered_and_the_command_line_has_all_its_parameters() -> None:
    names = [path.stem for path in FAMILY_FOLDER.glob("*.py") if "def describe(" in path.read_text()]
    modules = [importlib.import_module(f"tinytags_tasks.train.{name}") for name in names]
    written = {
        value.name
        for module in modules
        for value in vars(module).values()
        if not isinstance(value, type) and all(hasattr(value, part) for part in ("describe", "fit", "parameters"))
    }
    assert written == set(FAMILIES)
    options = {parameter.name for parameter in typer.main.get_command(cli.app).commands["train"].params}
    for family in FAMILIES.values():
        assert {parameter.name for parameter in family.parameters} <= options


# A retry


def tree_of(branch: type, depth: int = 0) -> Iterator[tuple[str, int]]:
    for error in branch.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error.__name__, depth
            yield from tree_of(error, depth + 1)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^    ([│ ]*)[├└]── (\w+) ", errors.__doc__, re.MULTILINE)
    assert [(name, len(indent) // 4) for indent, name in drawn] == list(tree_of(errors.TinyTagsError))


@contextmanager
def server_that_answers(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def dead_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"http://127.0.0.1:{held.getsockname()[1]}"


ASKS: dict[str, Callable[[str], object]] = {
    "clients.airflow": lambda url: AirflowClient(url, "me", "secret").run_state("tinytags", "a run"),
    "clients.solr_http": lambda url: SolrHttp(url, "writer", pauses_seconds=()).request("admin/collections"),
    "clients.spark": lambda url: connect_spark(url.replace("http", "sc")),
    "corpus.sources.remote": lambda url: list(SourceFiles(f"{url}/corpus.bin").files()),
    "search.openid.exchange": lambda url: anyio.run(Exchange("a provider").get, url),
    "services.engine": get_json,
    "store.hdfs": lambda url: HdfsStorage(StoreAddress("/store", webhdfs_url=url, user="me")).read("x"),
}
"""For each module that translates what a network library raises: a request to a server."""

NO_CLIENTS = {
    "clients.spark": "gRPC has no HTTP status",
    "corpus.demo.make": "downloads the demo, by hand",
    "corpus.sources.hdfs": "its errors are translated in remote",
    "search.client": "for others' programs; has errors of its own",
    "search.solr_reader": "asks through solr_http",
    "services.jars": "fetches jars before any run",
    "services.spark": "asks whether Spark is ready",
    "store.hdfs_errors": "translates the errors of webhdfs",
    "store.kerberos": "logs webhdfs in; its errors are translated in hdfs_errors",
    "store.webhdfs": "its errors are translated in hdfs_errors",
}
"""Modules that import a network library and need no case, and why."""

NETWORK = r"^\s*(?:import|from) (?:urllib3|requests|httpx|grpc|hdfs|fsspec|urllib\.request|pysolr|aiohttp)\b"


def test_every_module_that_talks_to_a_server_is_known_here() -> None:
    package = PROJECT_ROOT / "tinytags_tasks"
    found = {path for path in package.rglob("*.py") if re.search(NETWORK, path.read_text(), re.MULTILINE)}
    names = {".".join(path.relative_to(package).with_suffix("").parts) for path in found}
    assert names == set(ASKS) | set(NO_CLIENTS)


@pytest.mark.parametrize("client", ASKS)
def test_a_server_that_does_not_answer_is_worth_a_retry_whoever_asks(client: str, dead_url: str) -> None:
    with pytest.raises(EngineDownError):
        ASKS[client](dead_url)


@pytest.mark.parametrize("client", sorted(set(ASKS) - set(NO_CLIENTS)))
def test_a_busy_server_is_worth_a_retry_whoever_asks(client: str) -> None:
    with server_that_answers(503) as url, pytest.raises(TransientError):
        ASKS[client](url)


@pytest.mark.parametrize("client", ["clients.airflow", "clients.solr_http", "corpus.sources.remote"])
def test_a_server_that_refuses_is_not_worth_a_retry(client: str) -> None:
    with server_that_answers(403) as url, pytest.raises(FinalError):
        ASKS[client](url)


# A setting


def test_every_setting_has_a_meaning_and_a_reader() -> None:
    code = [
        path.read_text()
        for folder in ("tinytags_tasks", "dags", "plugins")
        for path in (PROJECT_ROOT / folder).rglob("*.py")
    ]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        spelled = [name, re.sub(r"solr_(admin|writer|reader)_", "solr_{role}_", name)]
        assert any(re.search(rf"\.{name}\b|TINYTAGS_{name.upper()}\b", text) for text in code) or any(
            f'"{each}"' in text for each in spelled for text in code
        ), name


PAGES = [
    "README.md",
    "docker-compose.yml",
    *(f"docs/{path.name}" for path in sorted((PROJECT_ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_only_settings_that_exist(page: str) -> None:
    known = {f"TINYTAGS_{name.upper()}" for name in Settings.model_fields} | {"TINYTAGS_POOLS"}
    assert set(re.findall(r"\bTINYTAGS_[A-Z_]+[A-Z]\b", (PROJECT_ROOT / page).read_text())) <= known
