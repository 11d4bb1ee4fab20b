"""A small corpus in the real HDFS, and its runs in the real Solr, behind a proxy that can inject faults."""

import base64
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import all_documents
from derived_values import derived_values
from fault_proxy import FaultProxy, proxy_before
from small_run import MODEL, TAGS, VOTES, SparkHere, picture, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.upkeep.audit import AuditRequest, AuditResult, audit_run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

STORE = "/index-faults"
CORPUS = "crowd"
COPIES = 30
THRESHOLD = 50
SHARD_IMAGES, BLOCKS = 180, 6
BLOCK_ENDS = (60, 120, 180, 230, 280, 330)

_numbers = itertools.count()


def crowd() -> np.ndarray:
    """Return many pictures like those of the small corpus, no two alike."""
    images = np.stack([picture(votes) for votes in VOTES] * COPIES)
    images.reshape(len(images), -1)[:, -2:] = np.arange(len(images), dtype=">u2").view(np.uint8).reshape(-1, 2)
    return images


def clean_documents() -> dict[str, dict[str, object]]:
    """Return a clean run's result, computed only from the votes and the bytes."""
    documents = {}
    for position, (image, votes) in enumerate(zip(crowd(), VOTES * COPIES, strict=True)):
        if max(votes) * 10 < THRESHOLD:
            continue
        documents[f"{CORPUS}:{position}"] = {
            "position": position,
            "tag": TAGS[votes.index(max(votes))],
            "votes": max(votes),
            "accuracy": max(votes) * 10,
            "block": next(block for block, end in enumerate(BLOCK_ENDS) if position < end),
            "shard": position // SHARD_IMAGES,
            "corpus": CORPUS,
            "model": MODEL,
            "width": 32,
            "data": base64.b64encode(image).decode(),
            **derived_values(CORPUS, position, image),
        }
    return documents


CLEAN = clean_documents()


@pytest.fixture(scope="session")
def site(hdfs: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Solr and HDFS, and a store with a corpus and a model."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    site = Runtime(settings.model_copy(update={"store": STORE}))
    source = tmp_path_factory.mktemp("crowd") / "crowd.bin"
    source.write_bytes(to_column_major(crowd()))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=site.storage, report=quiet)
    publish_model(site.storage)  # type: ignore[arg-type]
    return site


@pytest.fixture
def proxy(site: Runtime) -> Iterator[FaultProxy]:
    with proxy_before(site.solr.url) as proxy:
        yield proxy


@pytest.fixture
def new_run(site: Runtime) -> Iterator[Callable[[], Run]]:
    """Create scored runs with empty collections, as many as a test needs."""
    made = []

    def make() -> Run:
        # The confidences are tens of percent, so that these thresholds keep the same images.
        request = PlanRequest(CORPUS, MODEL, THRESHOLD - len(made))
        run = Run.load(site.storage, layout.run_file(plan_run(request, storage=site.storage).run))
        made.append(run)
        score_run(site, run)
        prepare_collection(run.name, storage=site.storage, solr=site.solr)
        return run

    yield make
    for alias, collection in site.solr.aliases().items():
        if collection in [run.collection for run in made]:
            site.solr.request("admin/collections", {"action": "DELETEALIAS", "name": alias})
    for collection in {run.collection for run in made}.intersection(site.solr.collections()):
        site.solr.delete_collection(collection)
    for run in made:
        site.storage.delete(layout.run_folder(run.name))


@pytest.fixture
def run(new_run: Callable[[], Run]) -> Run:
    return new_run()


@pytest.fixture
def alias() -> str:
    """An alias for a single test."""
    return f"faults-alias-{next(_numbers)}"


@pytest.fixture
def published(site: Runtime, run: Run, alias: str) -> Run:
    """A complete run that is live."""
    index_run(site, run)
    publish(site, run, alias)
    return run


def client(site: Runtime, proxy: FaultProxy, timeout_seconds: float = 30, tries: int = 4) -> SolrClient:
    """Return an impatient client of the proxy."""
    admin, writer = (site.settings.solr_login(role) for role in ("admin", "writer"))
    pauses = (0.05,) * (tries - 1)
    return SolrClient(proxy.url, admin=admin, writer=writer, pauses_seconds=pauses, timeout_seconds=timeout_seconds)


def score_run(site: Runtime, run: Run, blocks: tuple[int, ...] = tuple(range(BLOCKS))) -> None:
    request, address = ScoreRequest(run.name, blocks), site.store_address
    score_blocks(request, storage=site.storage, address=address, connect_spark=SparkHere(), report=quiet)


def index_run(site: Runtime, run: Run, solr: SolrClient | None = None) -> None:
    request = IndexRequest(run.name, tuple(range(run.blocks)))
    index_blocks(request, storage=site.storage, solr=solr or site.solr, report=quiet)


def publish(site: Runtime, run: Run, alias: str, solr: SolrClient | None = None) -> None:
    publish_run(PublishRequest(run.name, alias), storage=site.storage, solr=solr or site.solr, report=quiet)


def audit(site: Runtime, run: Run, solr: SolrClient | None = None) -> AuditResult:
    return audit_run(AuditRequest(run.name, is_deep=True), storage=site.storage, solr=solr or site.solr, report=quiet)


def repair(site: Runtime, run: Run, select: str = "audit") -> None:
    """Do what ``tinytags backfill --select`` does."""
    request = BackfillRequest(run.name, select=select)
    chosen = plan_backfill(request, storage=site.storage, solr=site.solr, alias="none", report=quiet)
    for group in chosen.groups:
        score_run(site, run, group)
        index_blocks(IndexRequest(run.name, group, redo=True), storage=site.storage, solr=site.solr, report=quiet)
    reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)


def visible(site: Runtime, collection: str) -> dict[str, dict]:
    """Return everything that readers of a collection or an alias see."""
    found = all_documents(site.solr.url, collection)
    for document in found.values():
        document.pop("_version_", None)
    return found


def states(site: Runtime, run: Run) -> list[BlockState]:
    return [record.state for record in read_ledger(site.storage, run)]


def leases(site: Runtime, run: Run) -> list[str]:
    return site.storage.names(layout.leases_folder(run.name))


def assert_clean(site: Runtime, run: Run) -> None:
    """Assert that a run does not differ from one without faults."""
    assert visible(site, run.collection) == CLEAN
    assert states(site, run) == [BlockState.VERIFIED] * BLOCKS
    assert leases(site, run) == []
    reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)


def assert_history_is_whole(site: Runtime, alias: str) -> None:
    """Assert that each change starts where the previous one ended, and that the last one is live."""
    history = read_history(alias, site.storage)
    assert [record.previous for record in history[1:]] == [record.collection for record in history[:-1]]
    assert site.solr.aliases()[alias] == history[-1].collection


def lose_a_document(site: Runtime, run: Run) -> None:
    site.solr.delete_ids(run.collection, ["crowd:121"])
    site.solr.commit(run.collection)
