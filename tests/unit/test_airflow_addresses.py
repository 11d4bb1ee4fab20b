"""What stands at Airflow's address: a proxy, its login page, another web server, or Airflow behind https."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from certificates import make_certificate
from serving import serving
from typer.testing import CliRunner

from tinytags_tasks import cli
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.errors import BadInputError, FinalError, MissingError, TransientError

JSON = {"Content-Type": "application/json"}
PAGE = {"Content-Type": "text/html"}

HEALTH = {part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")}

AIRFLOW: dict[str, tuple[int, dict[str, str], bytes]] = {
    path: (200, JSON, json.dumps(content).encode())
    for path, content in {
        "/auth/token": {"access_token": "t"},
        "/api/v2/version": {"version": "3.3.2"},
        "/api/v2/monitor/health": HEALTH,
        "/api/v2/importErrors": {"import_errors": []},
        "/api/v2/dags/tinytags": {"is_paused": False},
        "/api/v2/pools": {"pools": []},
    }.items()
}
"""An Airflow that is well."""


@contextmanager
def answering(answers: dict[str, tuple[int, dict[str, str], bytes]], certificate: Path | None = None) -> Iterator[str]:
    """Serve an answer for each path, and 404 for others; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, content = answers.get(self.path.partition("?")[0], (404, JSON, b'{"detail": "none"}'))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler, certificate) as server:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"


def examined(url: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Return what `tinytags doctor airflow --json` finds that is not well."""
    monkeypatch.setenv("TINYTAGS_AIRFLOW_URL", url)
    monkeypatch.setenv("TINYTAGS_AIRFLOW_PASSWORD", "secret")
    ended = CliRunner().invoke(cli.app, ["doctor", "airflow", "--json"])
    found = [each for each in json.loads(ended.stdout) if each["verdict"] != "ok"]
    assert ended.exit_code == any(each["verdict"] == "fails" for each in found)
    return found


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((302, {"Location": "/sign-in?state=hushed"}, b""), "redirects to /sign-in?..., as a proxy does"),
        ((301, {"Location": "https://me:hushed@tags.example/"}, b"<html>"), "redirects to https://...@tags.example/, "),
        ((200, PAGE, b"<html>Sign in"), "answers 200 with text/html, not JSON, as a proxy does"),
        ((200, JSON, b""), "answers 200 with application/json, not JSON"),
        ((200, JSON, b"[]"), "not JSON"),
        ((200, JSON, b'{"status": "up"}'), "answers 200 without a token"),
        ((403, PAGE, b"<html>No"), "Airflow rejects user"),
    ],
)
def test_a_proxy_in_front_of_airflow_is_one_failing_finding(
    answer: tuple[int, dict[str, str], bytes], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering({"/auth/token": answer}) as url:
        found = examined(url.replace("//", "//me:hushed@"), monkeypatch)
    assert [(each["area"], each["verdict"]) for each in found] == [("airflow", "fails")]
    assert told in found[0]["text"]
    assert found[0]["text"].startswith(url)
    assert "hushed" not in found[0]["text"]
    assert "TINYTAGS_AIRFLOW_U" in found[0]["text"]


def test_a_proxy_that_asks_to_sign_in_later_is_final_too() -> None:
    answers = AIRFLOW | {"/api/v2/version": (302, {"Location": "https://login.example/"}, b"")}
    with answering(answers) as url, pytest.raises(FinalError, match=r"/version: redirects to https://login\.ex"):
        AirflowClient(url, "me", "secret").version()


def test_an_answer_that_need_not_hold_anything_is_no_other_server() -> None:
    with answering(AIRFLOW | {"/api/v2/version": (204, {}, b"")}) as url:
        assert AirflowClient(url, "me", "secret")._ask("GET", "/api/v2/version") == {}


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return make_certificate(tmp_path)


def test_an_authority_of_ones_own_is_named_by_a_variable_for_airflow_too(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(AIRFLOW, certificate) as url:
        [found] = examined(url, monkeypatch)
        assert found["verdict"] == "fails"
        assert "the certificate of Airflow is not valid" in found["text"]
        assert "name the file of its authority in SSL_CERT_FILE" in found["text"]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert AirflowClient(url, "me", "secret").version() == "3.3.2"
        assert [each["subject"] for each in examined(url, monkeypatch)] == ["pools"]


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_variable_that_names_no_authority_is_told(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(BadInputError, match=r"SSL_CERT_FILE=.*authority\.pem: cannot be read as certificates"):
        AirflowClient("https://127.0.0.1:9", "me", "secret")
    AirflowClient("http://127.0.0.1:9", "me", "secret")


# Dag files of others


def broken(*files: str) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """Return an Airflow that cannot import some files."""
    errors = [{"filename": file, "stack_trace": "Traceback:\nImportError: no such module\n"} for file in files]
    return AIRFLOW | {"/api/v2/importErrors": (200, JSON, json.dumps({"import_errors": errors}).encode())}


@pytest.mark.parametrize(
    ("file", "verdict"),
    [
        ("other.py", "warning"),
        ("teams/tinytags_of_mine.py", "warning"),
        ("load_tinytags_forms.py", "warning"),
        ("tinytags.py", "fails"),
        ("dags/tinytags_backfill.py", "fails"),
        ("load_tinytags_grow.py", "fails"),
    ],
)
def test_only_a_broken_file_of_tinytags_would_make_a_run_fail(
    file: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(broken(file)) as url:
        [found] = [each for each in examined(url, monkeypatch) if each["subject"] == "dags"]
    assert (found["verdict"], found["text"]) == (verdict, f"{file} cannot be imported: ImportError: no such module")
    assert found["remedy"]


def test_a_dag_that_is_not_read_yet_is_waited_for_whatever_else_is_broken() -> None:
    answers = broken("other.py", "tinytags_grow.py")
    known = answers.pop("/api/v2/dags/tinytags")
    with answering(answers) as url:
        client = AirflowClient(url, "me", "secret")
        with pytest.raises(TransientError, match=r"know the Dag tinytags after 0 s \(it cannot import other\.py, tiny"):
            client.wait_for_dag("tinytags", timeout_seconds=0)
        threading.Timer(0.2, answers.update, [{"/api/v2/dags/tinytags": known}]).start()
        client.wait_for_dag("tinytags")


@pytest.mark.parametrize("file", ["tinytags.py", "load_tinytags.py"])
def test_a_dag_whose_file_is_broken_is_not_waited_for(file: str) -> None:
    answers = broken("other.py", file)
    del answers["/api/v2/dags/tinytags"]
    with answering(answers) as url, pytest.raises(FinalError, match=f"cannot import {file}: ImportError") as raised:
        AirflowClient(url, "me", "secret").wait_for_dag("tinytags")
    assert not isinstance(raised.value, MissingError)
