"""Who may see the grid, who may act on it, and whether a request to act comes from the grid's own page."""

from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request

from grid_page.dag_runs import PLANNERS

HEADER = "X-TinyTags-Grid"
"""A form or image of another site cannot send this header; a script of another site needs a preflight request."""

TO_SEE = [
    Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.TASK_INSTANCE, param_dag_id=dag))
    for dag in PLANNERS
]
"""Required by every route: 401 for anonymous users, 403 for users who may not see the tasks of TinyTags' Dags."""


def refuse_other_sites(request: Request) -> None:
    """Answer 403 unless a request comes from a page of this server: browsers send Airflow's cookie with any request.

    All browsers send the headers that are checked: https://www.w3.org/TR/fetch-metadata/
    """
    if request.headers.get(HEADER) != "1":
        raise HTTPException(403, f"Send the header {HEADER}: 1, as the grid's page does")
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None and site != "same-origin":
        raise HTTPException(403, "Only the grid's own page may do this")
    if site is None and origin is not None and not _is_own(request, origin):
        raise HTTPException(403, "Only a page of this server may do this")
    if site is None and origin is None and "Authorization" not in request.headers:
        raise HTTPException(403, "A request with Airflow's cookie needs the header Origin")


def _is_own(request: Request, origin: str) -> bool:
    """Return whether a page's origin is this server's, as the request names it or as Airflow's own setting does.

    Browsers send ``Sec-Fetch-Site`` only over https, and a proxy may send its own ``Host``. Behind one, Airflow's
    ``[api] base_url`` has the address that people see.
    """
    if urlsplit(origin).netloc == request.headers.get("Host"):
        return True
    outside = urlsplit(conf.get("api", "base_url", fallback=""))
    return bool(outside.netloc) and origin == f"{outside.scheme}://{outside.netloc}"


TO_ACT = [Depends(refuse_other_sites)]
"""Required by routes that change something, as well."""


def may(user: GetUserDep, dag: str, method: str, entity: DagAccessEntity) -> bool:
    """Return whether Airflow allows a user to do something with a Dag."""
    details = DagDetails(id=dag, team_name=DagModel.get_team_name(dag))
    return bool(get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user))


def may_clear(user: GetUserDep, dag: str) -> bool:
    """Return whether a user may clear the tasks of a Dag."""
    return may(user, dag, "PUT", DagAccessEntity.TASK_INSTANCE)


def may_trigger(user: GetUserDep, dag: str) -> bool:
    """Return whether a user may start runs of a Dag."""
    return may(user, dag, "POST", DagAccessEntity.RUN)
