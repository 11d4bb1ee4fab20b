"""TinyTags: tags and makes searchable a corpus of millions of small images.

Read from the top, the packages are the data's way: :mod:`corpus`, :mod:`ingest`, :mod:`train`, :mod:`score`,
:mod:`index`, :mod:`publish`, :mod:`search`. Stages never import each other; what two of them share is a record, a path
or a number of the modules beside this file. Nothing here imports Airflow.
"""
