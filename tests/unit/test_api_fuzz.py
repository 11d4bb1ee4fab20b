"""The API under requests that schemathesis makes up from its description, valid and invalid ones: nothing fails."""

import base64
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode, checks
from solr_of_pages import SolrOfPages

from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.page import create_app
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

LOGIN = {"Authorization": "Basic " + base64.b64encode(b"tinytags:pass").decode()}
EXAMPLES = 15
"""For each address."""

SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKED = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[schemathesis.APIOperation]]:
    """What the description says can be asked, of an application whose Solr finds one image."""
    home = tmp_path_factory.mktemp("home")
    solr = SolrOfPages()
    clients = SimpleNamespace(storage=LocalStorage(home / "store"), solr=SimpleNamespace(aliases=dict))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(page_module, "Runtime", lambda *_, **__: clients)
        app = create_app(Settings(home=home, search_password="pass", solr_url=solr.url, search_rate_limit=0))
        described = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=LOGIN)
        yield [found.ok() for found in described.get_all_operations()]
    solr.shutdown()
    solr.server_close()


@pytest.mark.parametrize("mode", GenerationMode)
def test_what_the_description_allows_and_what_it_does_not_never_fails(
    operations: list[schemathesis.APIOperation], mode: GenerationMode
) -> None:
    assert len(operations) >= 9
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.query and not operation.path_parameters:
            continue

        @seed(20)
        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=LOGIN, checks=CHECKED)

        ask()
