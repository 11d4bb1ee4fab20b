"""A client of Airflow's public REST API: triggers a Dag and follows it. It works with any Airflow 3 and imports none.

Reference: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from tinytags_tasks.errors import (
    BadInputError,
    EngineDownError,
    FinalError,
    MissingError,
    TransientError,
    refused_certificate,
)
from tinytags_tasks.parts import dag_of_file
from tinytags_tasks.secrecy import without_password, without_secrets

_PAGE = 100
_LONGEST_PAUSE_SECONDS = 30.0
_NOT_AIRFLOW = "as a proxy does; set TINYTAGS_AIRFLOW_URL to the address at which Airflow itself answers"
_ENDED = {"success", "failed", "upstream_failed", "skipped", "removed"}


@dataclass(frozen=True)
class TaskState:
    """One task instance of a run.

    Attributes
    ----------
    task
        The task's id, including that of its group.
    map_index
        Its map index; -1 if the task is not mapped.
    label
        The name that the task gave itself, or its map index.
    state
        Airflow's name for its state; None before it is scheduled.
    attempt
        The number of the attempt.
    started, ended
        Seconds since the epoch; None if it has not started or ended yet.
    """

    task: str
    map_index: int
    label: str
    state: str | None
    attempt: int
    started: float | None
    ended: float | None

    @property
    def has_ended(self) -> bool:
        """Whether it will not run any further."""
        return self.state in _ENDED


class AirflowClient:
    """A client of one Airflow, as one user.

    Parameters
    ----------
    url
        The API server's address. A user in it is left out: Airflow wants a token.
    user, password
        The user's name and password.

    Raises
    ------
    BadInputError
        If the address is https, and ``SSL_CERT_FILE`` names no file with certificates.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = without_password(url).rstrip("/")
        self._credentials = {"username": user, "password": password}
        verify = _authorities() if self.url.startswith("https:") else True
        # trust_env would also use a proxy from the environment
        self._http = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=verify)

    def _log_in(self) -> None:
        answer = self._send("POST", "/auth/token", self._credentials)
        if answer.status_code in (401, 403):
            raise BadInputError(
                f"{self.url}: Airflow rejects user {self._credentials['username']}: "
                "check TINYTAGS_AIRFLOW_USER and TINYTAGS_AIRFLOW_PASSWORD"
            )
        token = self._checked(answer, "/auth/token").get("access_token")
        if not token:
            raise FinalError(f"{self.url}/auth/token: answers {answer.status_code} without a token, {_NOT_AIRFLOW}")
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, **query: str | int) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body, params=query)
        except httpx.HTTPError as error:
            if refused := refused_certificate(error, self.url, "Airflow"):
                raise refused from error
            raise EngineDownError(
                f"{self.url}: Airflow does not answer; see `tinytags status`, start it with `tinytags up` "
                f"or check TINYTAGS_AIRFLOW_URL ({error or type(error).__name__})",
                "Airflow",
            ) from error

    def _checked(self, answer: httpx.Response, path: str) -> dict[str, Any]:
        if answer.is_redirect:
            place = without_secrets(answer.headers.get("location", "nowhere"))
            raise FinalError(f"{self.url}{path}: redirects to {place}, {_NOT_AIRFLOW}")
        found = _object_in(answer)
        if answer.status_code >= 400:
            detail = (found or {}).get("detail", answer.text)
            message = f"{self.url}{path}: Airflow answers {answer.status_code} ({str(detail)[:500]})"
            if answer.status_code == 404:
                raise MissingError(message)
            if answer.status_code >= 500 or answer.status_code == 429:
                raise TransientError(message)
            raise FinalError(message)
        if found is None:
            kind = answer.headers.get("content-type", "an unknown type")
            raise FinalError(f"{self.url}{path}: answers {answer.status_code} with {kind}, not JSON, {_NOT_AIRFLOW}")
        return found

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | int) -> dict[str, Any]:
        if "Authorization" not in self._http.headers:
            self._log_in()
        answer = self._send(method, path, body, **query)
        if answer.status_code == 401:  # tokens expire, and runs last for days
            self._log_in()
            answer = self._send(method, path, body, **query)
        return self._checked(answer, path)

    def wait_for_dag(self, dag: str, timeout_seconds: float = 120) -> None:
        """Wait until Airflow has read a Dag's file.

        Raises
        ------
        FinalError
            If the file cannot be imported.
        TransientError
            If Airflow still does not know it after the timeout; what other files it cannot import is said then.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self._ask("GET", f"/api/v2/dags/{dag}")
                return
            except MissingError as error:
                broken = self.import_errors()
                for file, reason in broken.items():
                    if dag_of_file(file) == dag:
                        raise FinalError(f"Airflow cannot import {file}: {reason}") from error
                if time.monotonic() > deadline:
                    others = f" (it cannot import {', '.join(sorted(broken)[:5])})" if broken else ""
                    raise TransientError(
                        f"{self.url}: Airflow still does not know the Dag {dag} after {timeout_seconds:g} s{others}; "
                        "see the log of airflow-dag-processor"
                    ) from error
            time.sleep(1)

    def import_errors(self) -> dict[str, str]:
        """Return why each Dag file that cannot be imported cannot: the last line of its error, by its name."""
        broken = self._ask("GET", "/api/v2/importErrors", limit=_PAGE)["import_errors"]
        return {str(each["filename"]): str(each["stack_trace"]).strip().splitlines()[-1] for each in broken}

    def version(self) -> str:
        """Return Airflow's version."""
        return str(self._ask("GET", "/api/v2/version")["version"])

    def health(self) -> dict[str, dict[str, str | None]]:
        """Return what Airflow says of its own parts: ``status``, and the latest heartbeat."""
        return self._ask("GET", "/api/v2/monitor/health")

    def pools(self) -> dict[str, int]:
        """Return the slots of each pool, by its name."""
        found = self._ask("GET", "/api/v2/pools", limit=_PAGE)["pools"]
        return {str(pool["name"]): int(pool["slots"]) for pool in found}

    def option(self, section: str, name: str) -> str | None:
        """Return the value of an option of Airflow's configuration; None if Airflow does not show it."""
        try:
            found = self._ask("GET", f"/api/v2/config/section/{section}/option/{name}")
        except (FinalError, MissingError):  # it is refused unless `expose_config` is set
            return None
        return str(found["sections"][0]["options"][0]["value"])

    def unpause(self, dag: str) -> None:
        """Let Airflow start the tasks of a Dag's runs."""
        self._ask("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def is_paused(self, dag: str) -> bool:
        """Return whether somebody paused a Dag, so that its runs wait."""
        return bool(self._ask("GET", f"/api/v2/dags/{dag}")["is_paused"])

    def trigger(self, dag: str, parameters: Mapping[str, object]) -> str:
        """Start a run of a Dag, which waits while the Dag is paused; return its id."""
        run = self._ask("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": dict(parameters)})
        return str(run["dag_run_id"])

    def unfinished_runs(self, dag: str) -> dict[str, dict[str, Any]]:
        """Return the parameters of each run of a Dag that is queued or running, by the run's id; the latest first."""
        found: dict[str, dict[str, Any]] = {}
        for state in ("queued", "running"):  # in this order, a run that starts meanwhile is not missed
            page = self._ask("GET", f"/api/v2/dags/{dag}/dagRuns", state=state, order_by="-id", limit=_PAGE)
            found = {str(run["dag_run_id"]): dict(run["conf"] or {}) for run in page["dag_runs"]} | found
        return found

    def report_asset_change(self, name: str, figures: Mapping[str, object]) -> None:
        """Tell Airflow that an asset has changed; Dags that are scheduled on it start.

        Raises
        ------
        MissingError
            If no Dag that Airflow has read uses the asset.
        """
        found = self._ask("GET", "/api/v2/assets", name_pattern=name)["assets"]
        ids = [asset["id"] for asset in found if asset["name"] == name]
        if not ids:
            raise MissingError(f"{self.url}: no Dag that Airflow has read uses the asset {name}")
        self._ask("POST", "/api/v2/assets/events", {"asset_id": ids[0], "extra": dict(figures)})

    def run_state(self, dag: str, run: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self._ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"])

    def task_states(self, dag: str, run: str) -> list[TaskState]:
        """Return all task instances of a run."""
        instances: list[dict[str, Any]] = []
        while True:
            page = self._ask(
                "GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances", limit=_PAGE, offset=len(instances)
            )
            instances.extend(page["task_instances"])
            if not page["task_instances"] or len(instances) >= page["total_entries"]:
                break
        return [
            TaskState(
                task=instance["task_id"],
                map_index=instance["map_index"],
                label=instance.get("rendered_map_index") or str(instance["map_index"]),
                state=instance["state"],
                attempt=instance["try_number"],
                started=_seconds(instance["start_date"]),
                ended=_seconds(instance["end_date"]),
            )
            for instance in instances
        ]

    def result(self, dag: str, run: str, task: str, map_index: int = -1) -> Any:  # noqa: ANN401 - whatever it returned
        """Return what a task, or one instance of a mapped task, returned."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        return self._ask("GET", path, map_index=map_index, deserialize="true")["value"]

    def failure(self, dag: str, run: str, state: TaskState) -> str:
        """Return why a task instance failed, according to its log: the last exception, or else an error line."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{state.task}/logs/{state.attempt}"
        try:
            log = self._ask("GET", path, map_index=state.map_index, full_content="true")["content"]
        except (MissingError, FinalError, TransientError) as error:
            return f"its log cannot be read ({error})"
        lines = log if isinstance(log, list) else [json.loads(line) for line in str(log).splitlines() if line]
        reason = ""
        for line in lines:
            if not isinstance(line, dict):
                continue
            if line.get("error_detail"):
                reason = str(line["error_detail"][0].get("exc_value") or line.get("event"))
            elif line.get("level") in ("error", "critical") and not reason:
                reason = str(line.get("event"))
        return reason or "its log does not say; its process may have been killed"

    def follow(
        self, dag: str, run: str, watch: Callable[[str, list[TaskState]], None], pause_seconds: float = 1.0
    ) -> list[TaskState]:
        """Call ``watch`` with a run's state and its tasks until it ends; return the tasks.

        An API server may be down for up to two minutes. The pause between two requests is at least ten times as long as
        a request takes, because listing the thousands of tasks of a large run is work for the server too; but at most
        half a minute, because one answer that took long says little of the next.

        Raises
        ------
        FinalError
            If the run failed: which tasks, and why.
        """
        last_answer = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                state, tasks = self.run_state(dag, run), self.task_states(dag, run)
                last_answer = time.monotonic()
            except TransientError:
                if time.monotonic() - last_answer > 120:
                    raise
                time.sleep(pause_seconds)
                continue
            watch(state, tasks)
            if state == "success":
                return tasks
            if state == "failed":
                failed = [task for task in tasks if task.state == "failed"]
                reasons = [
                    f"{task.task}{'' if task.map_index < 0 else f' [{task.label}]'}: {self.failure(dag, run, task)}"
                    for task in failed[:3]
                ]
                raise FinalError(
                    f"run {run} failed in {len(failed)} task{'s' if len(failed) != 1 else ''}: " + "; ".join(reasons)
                )
            time.sleep(max(pause_seconds, min(10 * (last_answer - asked), _LONGEST_PAUSE_SECONDS)))


def _authorities() -> ssl.SSLContext:
    """Return what certificates are checked with, as for OpenID: the file that SSL_CERT_FILE names, or certifi's."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise BadInputError(
            f"SSL_CERT_FILE={os.environ.get('SSL_CERT_FILE', '')}: cannot be read as certificates ({error}); name the "
            "PEM file of the authority"
        ) from error


def _object_in(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the JSON object that an answer holds, or an empty one if it need not hold any; None if it lacks it."""
    if answer.status_code == httpx.codes.NO_CONTENT:
        return {}
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _seconds(stamp: str | None) -> float | None:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else None
