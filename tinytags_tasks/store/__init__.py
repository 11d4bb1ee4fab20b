"""The store: one protocol, two homes (a local folder, HDFS), and all that is kept in it.

Paths are relative to the store's root, with ``/`` between parts; :mod:`tinytags_tasks.store.layout` has them all.
"""
