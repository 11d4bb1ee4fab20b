"""Merging a run with vectors before it is published: similar pictures are looked for in each segment of the index."""

from collections.abc import Callable

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.store.run_records import Run

SEGMENTS = 8
"""How many segments a collection of up to a million documents may have: its similar pictures then meet their target.

A search looks into the segments of all shards, so each shard may have its part of them.
"""

_SMALL = 1_000_000
_DOCUMENTS = 100_000
"""A larger collection may have another segment for so many documents each, a few more than Lucene leaves by itself.

Merging it into fewer would build the graph of a large part of it again.
"""


def merge_for_similar(run: Run, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Merge a run's index into few segments if it has vectors and many segments; its documents stay as they are.

    Raises
    ------
    TransientError
        If Solr is away, or takes too long. What it has merged by then need not be merged again.
    """
    if not run.similar:
        return
    shards = len(solr.export_cores(run.collection))
    most = -(-(SEGMENTS + max(0, solr.count(run.collection) - _SMALL) // _DOCUMENTS) // shards)
    segments = solr.segments(run.collection)
    if segments and max(segments) <= most:
        return
    many = f"{max(segments)} segments" if segments else "its segments"
    report(f"{run.collection}: merging {many} into {most} at most, so that similar pictures are found quickly")
    solr.merge_segments(run.collection, most)
