"""Two runs of the small corpus, scored and indexed, to be published in tests."""

import pytest
from small_run import (
    UNREADABLE,
    index_all,
    make_another_run,
    make_run,
    quiet,
    score_all,
)

from tinytags_tasks.publish.step import PublishRequest, publish_run


@pytest.fixture
def indexed(storage, solr):
    """A run that is scored and indexed."""
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    return planned


@pytest.fixture
def stricter(storage, solr, indexed):
    """Another run, with threshold 60: it has 2 documents, and the first has 9."""
    planned = make_another_run(storage, 60)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    return planned


def publish(storage, planned, solr, report=quiet, **gate):
    return publish_run(PublishRequest(planned.name, "live", **gate), storage=storage, solr=solr, report=report)
