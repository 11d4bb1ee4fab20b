"""The store: one protocol with two implementations (a local folder and HDFS), and everything that is kept in it.

Paths are relative to the store's root, with ``/`` as the separator; :mod:`tinytags_tasks.store.layout` defines them.
"""
