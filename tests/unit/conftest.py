"""Fixtures for all unit tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings
from published_runs import World, make_world
from small_run import SolrHere

from tinytags_tasks.store.local import LocalStorage


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Do not wait for the disk: no unit test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs of a small corpus, of which one is live; tests change copies of it."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[0])
    return world


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """An empty store."""
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def put() -> Iterator[Callable[[str, bytes], None]]:
    """Put files at ``memory://``, which is as far away as the store for all that the code knows."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory.pipe_file
    memory.store.clear()


@pytest.fixture
def solr() -> SolrHere:
    """A Solr without collections."""
    return SolrHere()


# A busy machine must not fail a test, so no test asserts a time.
settings.register_profile("tinytags", deadline=None)
settings.load_profile("tinytags")
