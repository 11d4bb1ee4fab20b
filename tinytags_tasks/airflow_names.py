"""Names that Airflow and TinyTags share: Dags, connections, pools and assets.

``dags/`` and ``plugins/`` use them inside Airflow; :mod:`tinytags_tasks` uses them when it configures Airflow or calls
its REST API. Dag files import this module each time they are parsed, so it imports nothing.
"""

TAG_DAG, BACKFILL_DAG, RETAG_DAG = "tinytags", "tinytags_backfill", "tinytags_retag"
"""The Dags that score and index blocks."""

SPARK, HDFS, SOLR = "tinytags_spark", "tinytags_hdfs", "tinytags_solr"
"""Connection ids. The pools that limit how many tasks use an engine at once have the same names."""

CORPUS_ASSET, MODEL_ASSET, INDEX_ASSET = "tinytags_corpus", "tinytags_model", "tinytags_index"
GROWN_ASSET = "tinytags_grown_corpus"
