"""All areas, side by side."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tinytags_tasks.doctor.airflow import examine_airflow
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.doctor.hdfs import examine_hdfs
from tinytags_tasks.doctor.machine import examine_machine
from tinytags_tasks.doctor.solr import examine_solr
from tinytags_tasks.doctor.spark import examine_spark
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.runtime import Runtime

_AREAS: dict[str, Callable[[Runtime], Iterable[Finding]]] = {
    "machine": lambda runtime: examine_machine(runtime.settings),
    "hdfs": examine_hdfs,
    "solr": examine_solr,
    "spark": examine_spark,
    "airflow": examine_airflow,
}


def examine(runtime: Runtime, areas: Iterable[str] = ()) -> Iterator[Finding]:
    """Yield what would fail later, and what is well, area by area.

    Parameters
    ----------
    runtime
        The clients.
    areas
        Which areas to examine; none means all.

    Raises
    ------
    BadInputError
        If there is no such area.
    """
    chosen = list(areas) or list(_AREAS)
    if unknown := sorted(set(chosen) - set(_AREAS)):
        raise BadInputError(f"no such area: {', '.join(unknown)}; there are {', '.join(_AREAS)}")
    with ThreadPoolExecutor(len(_AREAS)) as pool:
        asked = [pool.submit(_examined, name, runtime) for name in _AREAS if name in chosen]
        for each in asked:
            yield from each.result()


def _examined(name: str, runtime: Runtime) -> list[Finding]:
    return list(Area(name).each("address", lambda: _AREAS[name](runtime)))
