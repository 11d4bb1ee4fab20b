"""Messages about failures, successes and approvals: what they say, how they are sent, and to whom."""

import json
import re
import socketserver
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.parts import PROJECT_ROOT


@pytest.fixture(autouse=True)
def dags_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))


def failed_task(**changes: Any) -> dict[str, Any]:
    """Return the part of Airflow's context that a message needs."""
    task = SimpleNamespace(
        dag_id="tinytags",
        task_id="blocks",
        run_id="manual__1",
        try_number=5,
        rendered_map_index="shard 0, blocks 3, 17-20",
        log_url="http://airflow/log",
    )
    return {"ti": task, "exception": EngineDownError("Solr does not answer")} | changes


def test_a_failures_message_tells_the_blocks_the_reason_and_where_to_look() -> None:
    from tinytags_notify import failure_message

    subject, text = failure_message(failed_task())
    assert subject == "TinyTags: tinytags, blocks (shard 0, blocks 3, 17-20) failed"
    assert text == f"{subject} at attempt 5 of run manual__1:\nSolr does not answer\nhttp://airflow/log"
    assert "its process ended" in failure_message(failed_task(exception=None))[1]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A connection to a webhook, what is posted to it, and what it answers."""
    import httpx
    from airflow.sdk import BaseHook

    hook = SimpleNamespace(
        conn_type="http", schema="https", host="chat.example", port=None, login=None, extra_dejson={"path": "/secret"}
    )
    there = SimpleNamespace(posted=[], answer=httpx.Response(200), hook=hook)

    def post(url: str, **arguments: Any) -> httpx.Response:
        there.posted.append((url, arguments["json"]))
        if isinstance(there.answer, Exception):
            raise there.answer
        return there.answer

    monkeypatch.setattr(httpx, "post", post)
    monkeypatch.setattr(BaseHook, "get_connection", lambda name: hook)
    return there


def test_a_failure_is_posted_to_the_connections_webhook(webhook: SimpleNamespace) -> None:
    from tinytags_notify import FailureNotifier

    FailureNotifier().notify(failed_task())
    ((url, body),) = webhook.posted
    assert url == "https://chat.example/secret"
    assert "blocks 3, 17-20" in body["text"]


@pytest.mark.parametrize("problem", ["403", "ConnectError"])
def test_a_webhook_that_fails_is_a_warning_that_keeps_its_address_secret(
    webhook: SimpleNamespace, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    import httpx
    from tinytags_notify import FailureNotifier

    webhook.answer = httpx.Response(403) if problem == "403" else httpx.ConnectError("https://chat.example/secret")
    FailureNotifier().notify(failed_task())
    assert caplog.messages == [
        f"no message about the failure was sent with connection tinytags_notify (chat.example: {problem})"
    ]


def succeeded_task(**changes: Any) -> dict[str, Any]:
    """Return the part of Airflow's context that a message about a success needs."""
    begun = datetime.now(UTC) - timedelta(hours=2, minutes=5)
    return {**failed_task(), "dag_run": SimpleNamespace(start_date=begun)} | changes


def test_a_success_is_posted_with_what_the_task_has_to_say_and_how_long_it_took(webhook: SimpleNamespace) -> None:
    from tinytags_notify import SuccessNotifier, tell_success

    context = succeeded_task()
    SuccessNotifier().notify(context)
    assert webhook.posted == []  # it has nothing to say
    tell_success(context, lambda: ["pets: run pets-1 is live", "9 images"])
    SuccessNotifier().notify(context)
    ((_, body),) = webhook.posted
    first, counts, took, link = body["text"].splitlines()
    assert (first, counts, link) == ("TinyTags: pets: run pets-1 is live", "9 images", "http://airflow/log")
    assert re.fullmatch(r"took 2:05:0\d from \d{4}-\d\d-\d\d \d\d:\d\d UTC on \(run manual__1 of tinytags\)", took)


def test_who_wants_to_hear_of_failures_only_says_so_in_the_connection(webhook: SimpleNamespace) -> None:
    from tinytags_notify import FailureNotifier, SuccessNotifier, tell_success

    webhook.hook.extra_dejson["success"] = False
    context = succeeded_task()
    tell_success(context, lambda: pytest.fail("composing a message takes time, and nobody gets it"))
    SuccessNotifier().notify(context)
    assert webhook.posted == []
    FailureNotifier().notify(failed_task())
    assert len(webhook.posted) == 1


def test_a_message_that_cannot_be_composed_does_not_fail_what_succeeded(
    webhook: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    from tinytags_notify import SuccessNotifier, tell_success

    def compose() -> list[str]:
        raise EngineDownError("HDFS does not answer")

    context = succeeded_task()
    tell_success(context, compose)
    SuccessNotifier().notify(context)
    assert webhook.posted == []
    assert "HDFS does not answer" in caplog.text


def test_an_approval_is_asked_for_with_what_would_change_and_the_address_to_answer_at(webhook: SimpleNamespace) -> None:
    from tinytags_notify import ApprovalNotifier

    webhook.hook.extra_dejson["success"] = False  # nothing has succeeded yet
    asking = SimpleNamespace(
        subject="Publish run pets-1?", body="Run **pets-1** has 9 documents.\n", response_timeout=timedelta(hours=72)
    )
    context = failed_task(task=asking)
    context["ti"].log_url = "http://airflow/dags/tinytags/runs/manual__1/tasks/ask?try_number=1"
    ApprovalNotifier().notify(context)
    ((_, body),) = webhook.posted
    title, _, change, _, ending, address = body["text"].splitlines()
    assert (title, change) == ("TinyTags: Publish run pets-1?", "Run **pets-1** has 9 documents.")
    until = (datetime.now(UTC) + timedelta(hours=72)).date()
    assert ending.startswith(f"answer until {until}") and "or it is not published" in ending
    assert address == "http://airflow/dags/tinytags/runs/manual__1/tasks/ask/required_actions"


class MailServer(socketserver.StreamRequestHandler):
    """The part of SMTP (RFC 5321) that receiving one mail needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                mail = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(message_from_bytes(mail, policy=policy.default))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 well\r\n")


def test_a_failure_is_mailed_to_whom_the_connection_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinytags_notify import FailureNotifier

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailServer) as server:
        server.mails = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        extra = {"to": "me@example.org", "from_email": "tinytags@example.org", "disable_ssl": True, "disable_tls": True}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.server_address[1], "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_TINYTAGS_NOTIFY", json.dumps(connection))
        FailureNotifier().notify(failed_task(exception=EngineDownError("<b>Solr</b> does not answer")))
        server.shutdown()
    (mail,) = server.mails  # type: ignore[attr-defined]
    assert (mail["To"], mail["From"]) == ("me@example.org", "tinytags@example.org")
    assert mail["Subject"] == "TinyTags: tinytags, blocks (shard 0, blocks 3, 17-20) failed"
    assert "&lt;b&gt;Solr&lt;/b&gt; does not answer\nhttp://airflow/log" in mail.get_body(("html",)).get_content()


def test_a_failure_is_told_to_nobody_without_a_connection(
    webhook: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException
    from tinytags_notify import FailureNotifier

    def unknown(name: str) -> None:
        raise AirflowNotFoundException(name)

    monkeypatch.setattr(BaseHook, "get_connection", unknown)
    FailureNotifier().notify(failed_task())
    assert webhook.posted == []
