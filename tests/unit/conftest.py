"""Fixtures for all unit tests."""

import os

import pytest
from hypothesis import settings


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Do not wait for the disk: no unit test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# A busy machine must not fail a test, so no test asserts a time.
settings.register_profile("tinytags", deadline=None)
settings.load_profile("tinytags")
