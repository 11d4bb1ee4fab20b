"""Tells of a task that failed for good: which blocks, why, and where to look."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import BaseNotifier

CONNECTION = "tinytags_notify"
"""Its type says how: ``smtp`` sends a mail to the extra ``to``; ``http`` posts ``{"text": ...}``, as chat servers'
incoming webhooks take it, to its host and the extra ``path``. While there is none, nothing is sent."""

_TIMEOUT_SECONDS = 10

_log = logging.getLogger("tinytags")


class FailureNotifier(BaseNotifier):  # type: ignore[misc]  # Airflow comes without types here
    """Sends a failure's message through the connection :data:`CONNECTION`, where there is one."""

    def notify(self, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        """Send one message.

        Parameters
        ----------
        context
            Of the task that failed.
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
    """Return a line, and a text for people.

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
    except OSError as error:  # smtplib's own are, too
        _tell_unsent(connection, type(error).__name__)


def _post(text: str, connection: Any) -> None:  # noqa: ANN401 - as above
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole addresses, and this one is secret
    port = f":{connection.port}" if connection.port else ""
    url = f"{connection.schema or 'https'}://{connection.host}{port}{connection.extra_dejson.get('path', '')}"
    login = (connection.login, connection.password or "") if connection.login else None
    try:
        answer = httpx.post(url, json={"text": text}, auth=login, timeout=_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        _tell_unsent(connection, type(error).__name__)
        return
    if answer.is_error:
        _tell_unsent(connection, str(answer.status_code))


def _tell_unsent(connection: Any, problem: str) -> None:  # noqa: ANN401 - as above
    """Write a warning into the task's log: an exception there would hide the reason of the failure itself.

    The address stays out of it, for the path of an incoming webhook is its secret.
    """
    _log.warning("the failure was not told by connection %s: %s answers %s", CONNECTION, connection.host, problem)
