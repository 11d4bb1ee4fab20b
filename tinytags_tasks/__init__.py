"""TinyTags tags millions of small images and makes them searchable.

Data passes through these packages in order: :mod:`corpus`, :mod:`ingest`, :mod:`train`, :mod:`score`, :mod:`index`,
:mod:`publish`, :mod:`search`. Stages never import each other. What two of them share, such as a record, a path or a
number, is in :mod:`store` or in a module of this folder. :mod:`upkeep` looks after runs once they exist, and
:mod:`nets` has the net that models on embeddings will use. Nothing here imports Airflow.
"""
