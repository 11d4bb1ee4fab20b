"""Content verification side by side with Solr's own ``/export`` of the same fields, and audits beside indexing.

``python benchmarks/verify.py [IMAGES ...]`` starts an HDFS and a Solr of its own, and prints Markdown.
"""

import os
import resource
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import urllib3
from index import IMAGE_BYTES, IMAGES, MANY, ROUNDS, make_run, publish_model
from ingest import build_file, definition, timed
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.clients.solr_http import basic_authorization
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.content import ContentComparison
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import compared_fields
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run


def export_all(runtime: Runtime, run: Run) -> None:
    """Read the compared fields of all documents by one ``/export``, and throw them away."""
    solr = runtime.solr
    login = runtime.settings.solr_login("writer")
    fields = ",".join(compared_fields(solr.field_names(run.collection)))
    answer = urllib3.PoolManager().request(
        "GET",
        f"{solr.url}/{run.collection}/export",
        fields={"q": "*:*", "fl": fields, "sort": "position asc"},
        headers=basic_authorization(login) if login else {},
        preload_content=False,
        timeout=600,
    )
    assert answer.status == 200
    for _ in answer.stream(1 << 20):
        pass
    answer.release_conn()


def measure(runtime: Runtime, corpus_name: str) -> list[list[str]]:
    """Index a corpus, and return a row for each way to look at what was indexed."""
    storage, solr = runtime.storage, runtime.solr
    run = make_run(runtime, corpus_name)
    corpus = Corpus.load(storage, layout.corpus_file(corpus_name))
    prepare_collection(run.name, storage=storage, solr=solr)
    indexing = 0.0
    for at in range(0, run.blocks, 5):
        request = IndexRequest(run.name, tuple(range(at, at + 5)))
        indexing += timed(partial(index_blocks, request, storage=storage, solr=solr, report=quiet))
    records = read_ledger(storage, run)

    def compare() -> None:
        assert ContentComparison(run, corpus, storage, solr).differing_blocks(records, quiet) == {}

    def audit(is_deep: bool) -> None:
        request = AuditRequest(run.name, is_deep=is_deep)
        assert audit_run(request, storage=storage, solr=solr, report=quiet).problems == {}

    ways = {
        "Solr's `/export`, read and thrown away": lambda: export_all(runtime, run),
        "TinyTags: content verification": compare,
        "`publish`, all of it": lambda: publish_run(
            PublishRequest(run.name, "bench"), storage=storage, solr=solr, report=quiet
        ),
        "`audit`, a thirtieth of the pictures": lambda: audit(False),
        "`audit --deep`": lambda: audit(True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        for way, work in ways.items():
            if number == 0 or not (way == "`audit --deep`" and run.images >= MANY):  # which takes minutes
                seconds[way].append(timed(work))
    median = {way: statistics.median(found) for way, found in seconds.items()}
    export = median["Solr's `/export`, read and thrown away"]
    rows = [["`index`, for comparison", f"{indexing:.2f}", f"{run.images / indexing:,.0f}", "", "100 %"]]
    rows += [
        [
            way,
            ", ".join(f"{value:.2f}" for value in seconds[way]),
            f"{run.images / median[way]:,.0f}",
            f"{export / median[way]:.2f}",
            f"{100 * median[way] / indexing:.1f} %",
        ]
        for way in ways
    ]
    return rows


def main() -> None:
    sizes = tuple(int(each.replace(",", "")) for each in sys.argv[1:]) or (IMAGES, MANY)
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), engines=["hdfs", "solr"], standard_ports=False, die_with_parent=True)
        try:
            runtime = Runtime(settings)
            print(f"## Verification\n\n{describe_machine()}.\n")
            demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
            publish_model(runtime)
            for images in sizes:
                corpus, per_shard = f"of-{images}", 5 if images < MANY else 50
                source = folder / f"{corpus}.bin"
                build_file(source, demo.corpus_path, images * IMAGE_BYTES)
                made = definition(corpus, source, blocks_per_shard=per_shard)
                ingest_corpus(made, storage=runtime.storage, report=quiet)
                source.unlink()
                print(f"{images:,} documents:\n")
                print_table(
                    ["way", "seconds of each round", "documents/s (median)", "of `/export`", "of indexing's time"],
                    measure(runtime, corpus),
                )
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"\nPeak memory of the process until here: {peak:,.0f} MB.\n", flush=True)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
