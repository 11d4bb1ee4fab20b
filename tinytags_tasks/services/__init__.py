"""The embedded engines: HDFS, Solr, Spark, Airflow and the search page, on this machine's loopback address only."""

from tinytags_tasks.services.control import EngineStatus, down, status, up

__all__ = ["EngineStatus", "down", "status", "up"]
