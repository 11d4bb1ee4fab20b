"""The embedded engines: HDFS, Solr, Spark, Airflow and the search page, on this machine's loopback address only."""

from tinytags_tasks.services.control import down, up
from tinytags_tasks.services.engine_status import EngineStatus, status

__all__ = ["EngineStatus", "down", "status", "up"]
