"""What all unit tests share."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Let nothing wait for the disk: no unit test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
