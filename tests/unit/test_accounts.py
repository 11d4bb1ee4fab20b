"""Accounts of the search page: the file, the commands, and who may sign in with what."""

import base64
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from tinytags_tasks.cli import app as commands
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search import account_file, scripts, sign_in
from tinytags_tasks.search.account_file import AccountFile
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.forms import CheckedForm, form_token
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.sign_in import MOST_FAILURES, MOST_FAILURES_OF_NAME, SignIn, TooManyFailuresError
from tinytags_tasks.services import search
from tinytags_tasks.services.engine import Context
from tinytags_tasks.settings import Settings

PASSWORD = "correct horse"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(account_file, "HASHER", quick)
    monkeypatch.setattr(sign_in, "HASHER", quick)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    monkeypatch.setenv("TINYTAGS_SEARCH_PASSWORD", "pässword")
    return Settings()


@pytest.fixture
def accounts(settings: Settings) -> AccountFile:
    found = AccountFile(settings)
    for role in Role:
        found.add(f"a-{role.label}", role, PASSWORD)
    return found


@pytest.fixture
def client(settings: Settings, accounts: AccountFile) -> TestClient:
    """An application with the page's guard, whose routes need a role or a form."""
    from jinja2 import Environment, FileSystemLoader

    from tinytags_tasks.search.page import TEMPLATES

    app = FastAPI()
    app.state.form_key = b"key"
    add_guard(app, SignIn(settings))
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    add_error_pages(app, templates)
    scripts.add_routes(app, SimpleNamespace(templates=templates))  # the pages name their scripts and styles

    @app.get("/who")
    def who(request: Request) -> dict[str, str]:
        account = request.state.account
        return {"name": account.name, "role": account.role.label, "token": form_token(request)}

    @app.post("/down")
    def down(request: Request, form: CheckedForm) -> dict[str, str]:
        return {"by": require(request, Role.OPERATOR).name, "what": form.get("what", "")}

    return TestClient(app)


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_an_account_signs_in_with_its_role(client: TestClient) -> None:
    for role in Role:
        for _ in range(2):  # the second time, it is remembered
            found = client.get("/who", headers=basic(f"a-{role.label}")).json()
            assert (found["name"], found["role"]) == (f"a-{role.label}", role.label)
    assert client.get("/who", headers=basic("tinytags", "pässword")).json()["role"] == "operator"


def test_a_remembered_login_costs_no_hash(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/who", headers=basic("a-reader")).status_code == 200
    monkeypatch.setattr(sign_in, "has_password", lambda *_: pytest.fail("hashed again"))
    assert client.get("/who", headers=basic("a-reader")).status_code == 200


def test_requests_that_come_at_once_with_a_right_login_cost_hardly_more_hashes_than_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def slow(password_hash: str, password: str) -> bool:
        hashed.append(password)
        time.sleep(0.2)
        return account_file.has_password(password_hash, password)

    monkeypatch.setattr(sign_in, "has_password", slow)
    with ThreadPoolExecutor(12) as pool, client:  # one event loop, as a server has
        answers = pool.map(lambda _: client.get("/who", headers=basic("a-reader")).status_code, range(12))
        assert set(answers) == {200}
    assert len(hashed) <= 4


def test_a_change_counts_at_the_next_request(client: TestClient, accounts: AccountFile) -> None:
    assert client.get("/who", headers=basic("a-reader")).json()["role"] == "reader"
    accounts.set_role("a-reader", Role.REVIEWER)
    assert client.get("/who", headers=basic("a-reader")).json()["role"] == "reviewer"
    accounts.set_password("a-reader", "another password")
    assert client.get("/who", headers=basic("a-reader")).status_code == 401
    assert client.get("/who", headers=basic("a-reader", "another password")).status_code == 200
    accounts.remove("a-reader")
    assert client.get("/who", headers=basic("a-reader", "another password")).status_code == 401
    accounts.add("late", Role.READER, PASSWORD)
    assert client.get("/who", headers=basic("late")).status_code == 200


@pytest.mark.parametrize("name", ["a-reader", "nobody", "tinytags"])
def test_a_wrong_password_costs_a_hash_whether_or_not_the_name_exists(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    for module in (account_file, sign_in):
        real = module.HASHER

        class Counting:
            hash = staticmethod(lambda password, real=real: hashed.append(1) or real.hash(password))
            verify = staticmethod(lambda stored, password, real=real: hashed.append(1) or real.verify(stored, password))

        monkeypatch.setattr(module, "HASHER", Counting)
    assert client.get("/who", headers=basic(name, "a wrong password")).status_code == 401
    assert hashed == [1]


def test_guessing_is_stopped_and_does_not_lock_out_who_is_signed_in(client: TestClient) -> None:
    assert client.get("/who", headers=basic("a-reader")).status_code == 200
    for _ in range(MOST_FAILURES):
        assert client.get("/who", headers=basic("a-reader", "a wrong password")).status_code == 401
    refused = client.get("/who", headers=basic("a-reader", "a wrong password"))
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert client.get("/who", headers=basic("a-reader")).status_code == 200
    assert client.get("/who", headers=basic("a-reviewer")).status_code == 200


def test_guessing_from_many_addresses_is_stopped_too(settings: Settings, accounts: AccountFile) -> None:
    found = SignIn(settings)
    for number in range(MOST_FAILURES_OF_NAME):
        assert found.verify("a-reader", "a wrong password", f"10.0.0.{number}") is None
    with pytest.raises(TooManyFailuresError, match="of this account"):
        found.verify("a-reader", "a wrong password", "10.0.1.1")
    assert found.verify("a-reviewer", PASSWORD, "10.0.0.1") is not None


def test_names_that_no_account_can_have_are_not_counted(settings: Settings, accounts: AccountFile) -> None:
    found = SignIn(settings)
    for _ in range(MOST_FAILURES + 1):
        assert found.verify("x" * 65, "a wrong password", "10.0.0.1") is None


def test_the_address_of_a_guess_is_not_taken_from_a_header(settings: Settings) -> None:
    launch = search.GROUP.engines[0].launch(Context(settings, {"search": {"http": 8765}}))
    assert {"--no-proxy-headers", "--no-access-log"} <= set(launch.command)


@pytest.mark.parametrize(("name", "password"), [("a-reader", PASSWORD), ("tinytags", "pässword")])
def test_after_too_many_guesses_even_the_right_one_is_refused(client: TestClient, name: str, password: str) -> None:
    for _ in range(MOST_FAILURES):
        assert client.get("/who", headers=basic(name, "a wrong password")).status_code == 401
    assert client.get("/who", headers=basic(name, password)).status_code == 429


def test_the_settings_operator_gets_in_when_the_file_is_damaged(client: TestClient, accounts: AccountFile) -> None:
    accounts.path.write_text("half a li")
    refused = client.get("/who", headers=basic("a-reader"))
    assert refused.status_code == 503
    assert str(accounts.path) not in refused.text
    assert client.get("/who", headers=basic("tinytags", "pässword")).status_code == 200


def test_a_role_is_required_and_the_answer_says_which(client: TestClient) -> None:
    def post(name: str) -> tuple[int, str]:
        token = client.get("/who", headers=basic(name)).json()["token"]
        answer = client.post("/down", content=f"token={token}&what=x%26y", headers=basic(name) | FORM)
        return answer.status_code, answer.text

    status, text = post("a-operator")
    assert (status, text) == (200, '{"by":"a-operator","what":"x&y"}')
    for name in ("a-reader", "a-reviewer"):
        status, text = post(name)
        assert status == 403
        assert "needs the role operator" in text
        assert f"tinytags accounts role {name} operator" in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.example"},
    ],
)
def test_another_sites_form_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    token = client.get("/who", headers=basic("a-operator")).json()["token"]
    own = basic("a-operator") | FORM
    assert client.post("/down", content=f"token={token}", headers=own | headers).status_code == 403
    for good in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://testserver"}):
        assert client.post("/down", content=f"token={token}", headers=own | good).status_code == 200


def test_a_form_needs_the_token_of_who_sends_it(client: TestClient) -> None:
    own = basic("a-operator") | FORM
    other = client.get("/who", headers=basic("a-reviewer")).json()["token"]
    for token in ("", "x", "ä", other):
        refused = client.post("/down", content=f"token={token}".encode(), headers=own)
        assert refused.status_code == 403
        assert "reload the page" in refused.text
    assert client.post("/down", json={"token": "x"}, headers=basic("a-operator")).status_code == 400


def test_the_file_is_private_and_has_no_password(accounts: AccountFile) -> None:
    for path in accounts.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD not in accounts.path.read_text()
    assert "$argon2id$" in accounts.path.read_text()


def test_a_file_that_others_may_change_is_refused(accounts: AccountFile) -> None:
    accounts.path.chmod(0o666)
    with pytest.raises(BadInputError, match="chmod 600"):
        AccountFile(Settings()).read()


@pytest.mark.parametrize("line", ["x", "x:reader", "x:king:$argon2id$", "x y:reader:$argon2id$", "x:reader:secret"])
def test_a_damaged_line_is_named(accounts: AccountFile, line: str) -> None:
    with accounts.path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(BadInputError, match="accounts, line 4: damaged"):
        accounts.read()


def test_without_a_file_there_is_only_the_settings_account(settings: Settings) -> None:
    (settings.secrets_folder).mkdir()
    assert TestClient(create_app(settings)).get("/style.css", headers=basic("anyone")).status_code == 401


def run(*arguments: str, given: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(commands, ["accounts", *arguments], input=given)
    return result.exit_code, result.output if result.exception is None else str(result.exception)


def test_the_commands_add_list_change_and_remove(settings: Settings) -> None:
    code, text = run("add", "ada", "--role", "reviewer")
    assert code == 0
    password = text.split()[-1]
    assert SignIn(settings).verify("ada", password, "") is not None
    code, text = run("list")
    assert tuple(next(line for line in text.splitlines() if "ada" in line).split()[1:4:2]) == ("ada", "reviewer")
    assert password not in text
    assert run("role", "ada", "operator")[0] == 0
    assert run("password", "ada", "--password-stdin", given="a new password\n")[0] == 0
    found = SignIn(settings).verify("ada", "a new password", "")
    assert found is not None and found.role is Role.OPERATOR
    assert SignIn(settings).verify("ada", password, "") is None
    assert run("remove", "ada")[0] == 0
    assert SignIn(settings).verify("ada", "a new password", "") is None


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (("add", "a-reader"), "", "there is an account a-reader already"),
        (("add", "tinytags"), "", "account of the settings"),
        (("add", "a:b"), "", "is not a name"),
        (("add", "short", "--password-stdin"), "short\n", "10 to 1,000 characters"),
        (("remove", "nobody"), "", "no account 'nobody'"),
        (("remove", "tinytags"), "", "account of the settings"),
        (("password", "nobody"), "", "no account 'nobody'"),
    ],
)
def test_what_a_command_cannot_do_changes_nothing(
    accounts: AccountFile, arguments: tuple[str, ...], given: str, says: str
) -> None:
    before = accounts.path.read_text()
    code, text = run(*arguments, given=given)
    assert code != 0
    assert says in text
    assert accounts.path.read_text() == before
