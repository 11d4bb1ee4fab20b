"""Sends messages: about a task that failed for good, a run that succeeded, and a publication that awaits approval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseNotifier

CONNECTION = "tinytags_notify"
"""Its type decides how a message is sent. ``smtp`` mails it to the extra ``to``. ``http`` posts ``{"text": ...}``, the
format of chat servers' incoming webhooks, to its host and the extra ``path``. Without it, nothing is sent. The extra
``success`` = false leaves out what succeeded."""

_TOLD = "tinytags_told"
"""Key in Airflow's context: what a task has to say if it succeeds."""

_TIMEOUT_SECONDS = 10

_log = logging.getLogger("tinytags")


class FailureNotifier(BaseNotifier):  # type: ignore[misc]  # Airflow comes without types here
    """Sends the message about a failure through the connection :data:`CONNECTION`, if it exists."""

    def notify(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Send one message.

        Parameters
        ----------
        context
            Airflow's context of the task that failed.
        """
        if (connection := connection_or_none(CONNECTION)) is not None:
            _send(*failure_message(context), connection, "failure")


class SuccessNotifier(BaseNotifier):  # type: ignore[misc]  # as above
    """Sends what :func:`tell_success` was given, through the same connection."""

    def notify(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Send one message, if the task has something to say.

        Parameters
        ----------
        context
            Airflow's context of the task that succeeded, or was skipped.
        """
        if _TOLD in context and (connection := connection_or_none(CONNECTION)) is not None:
            _send(*success_message(context, context[_TOLD]), connection, "success")


class ApprovalNotifier(BaseNotifier):  # type: ignore[misc]  # as above
    """Asks for an approval through the same connection, also if it wants no messages about successes."""

    def notify(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Send one message.

        Parameters
        ----------
        context
            Airflow's context of the task that awaits an approval.
        """
        if (connection := connection_or_none(CONNECTION)) is not None:
            _send(*approval_message(context), connection, "approval")


def tell_success(context: Any, compose: Callable[[], Sequence[str]]) -> None:  # noqa: ANN401 - Airflow's context
    """Have a message sent once the task has succeeded; one that cannot be composed is a warning.

    Parameters
    ----------
    context
        Airflow's context of the task.
    compose
        Returns the message's lines, a title first; not called if nobody would get them.
    """
    from tinytags_tasks.errors import TinyTagsError

    if not _wants_success(connection_or_none(CONNECTION)):
        return
    try:
        context[_TOLD] = list(compose())
    except TinyTagsError as error:  # the task has succeeded all the same
        _log.warning("no message about the success is sent: %s", error)


def _wants_success(connection: Any | None) -> bool:  # noqa: ANN401 - Airflow's connection
    return connection is not None and bool(connection.extra_dejson.get("success", True))


def failure_message(context: Any) -> tuple[str, str]:  # noqa: ANN401 - as above
    """Return the subject and the text of a message.

    Parameters
    ----------
    context
        Airflow's context of the task that failed.
    """
    task = context["ti"]
    name = getattr(task, "rendered_map_index", None)
    subject = f"TinyTags: {task.dag_id}, {task.task_id}{f' ({name})' if name else ''} failed"
    reason = context.get("exception") or context.get("reason") or "its process ended; see the log"
    return subject, f"{subject} at attempt {task.try_number} of run {task.run_id}:\n{reason}\n{task.log_url}"


def success_message(context: Any, lines: Sequence[str]) -> tuple[str, str]:  # noqa: ANN401 - as above
    """Return the subject and the text of a message.

    Parameters
    ----------
    context
        Airflow's context of the task that succeeded.
    lines
        What it has to say; a title first.
    """
    task, begun = context["ti"], context["dag_run"].start_date
    took = timedelta(seconds=round((datetime.now(UTC) - begun).total_seconds()))
    subject = f"TinyTags: {lines[0]}"
    ending = f"took {took} from {begun:%Y-%m-%d %H:%M} UTC on (run {task.run_id} of {task.dag_id})"
    return subject, "\n".join([subject, *lines[1:], ending, task.log_url])


def approval_message(context: Any) -> tuple[str, str]:  # noqa: ANN401 - as above
    """Return the subject and the text of a message.

    Parameters
    ----------
    context
        Airflow's context of the task that awaits an approval: a ``HITLOperator``, whose subject and body are rendered.
    """
    task, run = context["task"], context["ti"]
    until = datetime.now(UTC) + task.response_timeout
    subject = f"TinyTags: {task.subject}"
    page = f"{run.log_url.partition('?')[0]}/required_actions"
    ending = f"answer until {until:%Y-%m-%d %H:%M} UTC, or it is not published (run {run.run_id} of {run.dag_id}):"
    return subject, f"{subject}\n\n{task.body.strip()}\n\n{ending}\n{page}"


def connection_or_none(name: str) -> Any | None:  # noqa: ANN401 - Airflow's connection
    """Return a connection of Airflow; None if there is none of that name."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None


def _send(subject: str, text: str, connection: Any, about: str) -> None:  # noqa: ANN401 - as above
    """Send a message, or log a warning: an exception would hide why the task failed.

    The warning leaves out the address, because the path of an incoming webhook is a secret.
    """
    is_mail = connection.conn_type == "smtp"
    problem = _mail(subject, text, connection) if is_mail else _post(text, connection)
    if problem:
        _log.warning(
            "no message about the %s was sent with connection %s (%s: %s)", about, CONNECTION, connection.host, problem
        )


def _mail(subject: str, text: str, connection: Any) -> str:  # noqa: ANN401 - as above
    """Return why the mail was not sent; empty if it was."""
    from html import escape

    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    html = f"<pre>{escape(text)}</pre>"
    to = connection.extra_dejson.get("to") or connection.login
    try:
        SmtpNotifier(to=to, subject=subject, html_content=html, smtp_conn_id=CONNECTION).notify({})
    except OSError as error:  # smtplib's errors are OSErrors
        return type(error).__name__
    return ""


def _post(text: str, connection: Any) -> str:  # noqa: ANN401 - as above
    """Return why the message was not posted; empty if it was."""
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs full addresses, and this one is secret
    port = f":{connection.port}" if connection.port else ""
    url = f"{connection.schema or 'https'}://{connection.host}{port}{connection.extra_dejson.get('path', '')}"
    login = (connection.login, connection.password or "") if connection.login else None
    try:
        answer = httpx.post(url, json={"text": text}, auth=login, timeout=_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        return type(error).__name__
    return str(answer.status_code) if answer.is_error else ""
