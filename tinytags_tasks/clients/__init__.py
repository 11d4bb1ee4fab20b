"""Clients of Solr, Spark and Airflow; that of HDFS is in :mod:`tinytags_tasks.store.webhdfs`."""
