"""Configsets that later versions of TinyTags might have."""

import shutil
from pathlib import Path

import pytest
from small_run import SolrHere

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.store import configsets
from tinytags_tasks.store.configsets import Configset

FOUNDING_FOLDER = Path(__file__).with_name("data") / "founding_configset"
"""The configset that configsets' identities began with, as it was then, byte for byte."""


def with_comment(folder: Path, origin: Path = FOUNDING_FOLDER) -> Path:
    """Return a copy with different comments, white space and order of attributes."""
    shutil.copytree(origin, folder)
    schema = folder / "schema.xml"
    text = schema.read_text().replace("<uniqueKey>", "<!-- What makes a document one. -->\n\n    <uniqueKey>")
    schema.write_text(text.replace('name="int" class="solr.IntPointField"', 'class="solr.IntPointField" name="int"'))
    return folder


def with_field(folder: Path, name: str = "colour", origin: Path = FOUNDING_FOLDER) -> Path:
    """Return a copy with an additional field."""
    shutil.copytree(origin, folder)
    schema = folder / "schema.xml"
    field = f'<field name="{name}" type="string" indexed="true" stored="true" docValues="true"/>'
    schema.write_text(schema.read_text().replace("<uniqueKey>", f"{field}\n  <uniqueKey>"))
    return folder


def without_field(folder: Path, name: str, origin: Path = FOUNDING_FOLDER) -> Path:
    """Return a copy without a field, as an earlier version had it."""
    shutil.copytree(origin, folder)
    schema = folder / "schema.xml"
    lines = schema.read_text().splitlines(keepends=True)
    schema.write_text("".join(line for line in lines if f'<field name="{name}"' not in line))
    return folder


def check_out(patch: pytest.MonkeyPatch, folder: Path) -> str:
    """Give the checkout another configset; return its name."""
    patch.setattr(configsets, "CONFIGSET_FOLDER", folder)
    return configsets.current_configset().name


def upload(solr: SolrClient | SolrHere, configset: Configset) -> str:
    """Upload a configset and return its name."""
    solr.upload_configset(configset)
    return configset.name
