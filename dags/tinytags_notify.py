"""Sends a message about a task that failed for good: which blocks, why, and where its log is."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import BaseNotifier

CONNECTION = "tinytags_notify"
"""Its type decides how a message is sent. ``smtp`` mails it to the extra ``to``. ``http`` posts ``{"text": ...}``, the
format of chat servers' incoming webhooks, to its host and the extra ``path``. Without it, nothing is sent."""

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
        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        try:
            connection = BaseHook.get_connection(CONNECTION)
        except AirflowNotFoundException:
            return
        subject, text = failure_message(context)
        if connection.conn_type == "smtp":
            _mail(subject, text, connection)
        else:
            _post(text, connection)


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


def _mail(subject: str, text: str, connection: Any) -> None:  # noqa: ANN401 - as above
    from html import escape

    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    html = f"<pre>{escape(text)}</pre>"
    to = connection.extra_dejson.get("to") or connection.login
    try:
        SmtpNotifier(to=to, subject=subject, html_content=html, smtp_conn_id=CONNECTION).notify({})
    except OSError as error:  # smtplib's errors are OSErrors
        _warn(connection, type(error).__name__)


def _post(text: str, connection: Any) -> None:  # noqa: ANN401 - as above
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs full addresses, and this one is secret
    port = f":{connection.port}" if connection.port else ""
    url = f"{connection.schema or 'https'}://{connection.host}{port}{connection.extra_dejson.get('path', '')}"
    login = (connection.login, connection.password or "") if connection.login else None
    try:
        answer = httpx.post(url, json={"text": text}, auth=login, timeout=_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        _warn(connection, type(error).__name__)
        return
    if answer.is_error:
        _warn(connection, str(answer.status_code))


def _warn(connection: Any, problem: str) -> None:  # noqa: ANN401 - as above
    """Log a warning: an exception would hide why the task failed.

    The warning leaves out the address, because the path of an incoming webhook is a secret.
    """
    _log.warning(
        "no message about the failure was sent with connection %s (%s: %s)", CONNECTION, connection.host, problem
    )
