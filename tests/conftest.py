"""How `make test` deals the tests out to two processes.

Each process starts the engines that its tests ask for, once. So the integration tests are two lots, which are begun
first; of the unit tests, each file is a lot. (``--dist loadgroup`` would say the same by marks, but groups nothing with
pytest 9.2: pytest-xdist's issue 1386.)
"""

import gc
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

WITHOUT_SPARK = frozenset(
    {
        "test_configset_upgrades.py",
        "test_corrections_killed.py",
        "test_disk_damaged.py",
        "test_documents_lost.py",
        "test_engines_come_back.py",
        "test_ingestion_killed.py",
        "test_pages_in_browser.py",
        "test_publishing.py",
        "test_records_damaged.py",
        "test_review_browser.py",
        "test_search_browser.py",
        "test_search_corrections.py",
        "test_search_paging.py",
        "test_similar_pictures.py",
        "test_solr_access.py",
        "test_solr_breaks.py",
        "test_sources.py",
        "test_storage_hdfs.py",
        "test_verified_content_changed.py",
        "test_verify.py",
        "test_writers_killed.py",
    }
)
"""Integration tests that need HDFS and Solr at most. One that is missing here passes, too; the lots are less even."""


class TwoLots(LoadScopeScheduling):
    """Keeps files together, and the integration tests that share engines."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.partition("::")[0])
        if "integration" not in file.parts:
            return str(file)
        return "HDFS and Solr" if file.name in WITHOUT_SPARK else "all engines"


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist's -n, nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TwoLots:
    return TwoLots(config, log)


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections: they took a seventh of the unit tests' time."""
    gc.collect()
    gc.freeze()
