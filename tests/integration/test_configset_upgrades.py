"""Upgrades of the schema while a run is live, on the real Solr and HDFS: a comment, a field, and back again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, with_comment, with_field, without_field
from fastapi.testclient import TestClient
from published_runs import age_ledger
from pydantic import SecretStr
from small_run import MODEL, SparkHere, pictures, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.clients.solr_http import SolrHttp, UndefinedFieldError
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, to_column_major
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchRequest, search_images
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import FOUNDING_CONFIGSET, Configset, current_configset
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill
from tinytags_tasks.upkeep.prune import PruneRequest, prune_collections
from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags

CORPUS = "upgrades"
EVERY_POSITION = list(range(11))


@dataclass(frozen=True)
class Site:
    """A store and an alias for a single test, with a corpus of eleven pictures."""

    runtime: Runtime

    def tag(self) -> Run:
        """Plan, score, index and publish as a Dag does."""
        run = self.plan()
        self.index(run)
        self.publish(run)
        return run

    def plan(self) -> Run:
        name = plan_run(PlanRequest(CORPUS, MODEL, 40), storage=self.runtime.storage).run
        return Run.load(self.runtime.storage, layout.run_file(name))

    def index(self, run: Run) -> None:
        blocks = tuple(range(run.blocks))
        storage, solr = self.runtime.storage, self.runtime.solr
        address = self.runtime.store_address
        score_blocks(
            ScoreRequest(run.name, blocks), storage=storage, address=address, connect_spark=SparkHere(), report=quiet
        )
        prepare_collection(run.name, storage=storage, solr=solr, shards=2)
        index_blocks(IndexRequest(run.name, blocks), storage=storage, solr=solr, report=quiet)

    def publish(self, run: Run) -> None:
        request = PublishRequest(run.name, self.runtime.settings.alias)
        publish_run(request, storage=self.runtime.storage, solr=self.runtime.solr, report=quiet)

    def index_a_block_again(self, run: Run, block: int) -> None:
        """Delete a block's documents, and restore them by a backfill."""
        storage, solr = self.runtime.storage, self.runtime.solr
        delete_blocks(DeleteRequest(run.name, (block,)), storage=storage, solr=solr, report=quiet)
        assert len(self.positions()) < len(EVERY_POSITION)
        request = BackfillRequest(run.name, select="missing")
        found = plan_backfill(request, storage=storage, solr=solr, alias=self.runtime.settings.alias, report=quiet)
        assert found.blocks == (block,)
        prepare_collection(run.name, storage=storage, solr=solr)
        index_blocks(IndexRequest(run.name, found.blocks), storage=storage, solr=solr, report=quiet)

    def assert_whole(self, run: Run) -> None:
        found = audit_run(
            AuditRequest(run.name, is_deep=True), storage=self.runtime.storage, solr=self.runtime.solr, report=quiet
        )
        assert (found.problems, found.documents, found.sampled) == ({}, len(EVERY_POSITION), len(EVERY_POSITION))
        assert self.positions() == EVERY_POSITION

    def positions(self) -> list[int]:
        """Return what readers see."""
        page = search_images(self.runtime.settings, SearchRequest(rows=100, with_pixels=False))
        return sorted(image.position for image in page.images)

    def live(self) -> str:
        return self.runtime.solr.aliases()[self.runtime.settings.alias]

    def due(self) -> list[str]:
        """Return the runs that are to be tagged again."""
        found = plan_retags(RetagRequest(), storage=self.runtime.storage, solr=self.runtime.solr, report=quiet)
        return [due.live_run for due in found.due]


@pytest.fixture
def site(hdfs: Runtime, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    own = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    runtime = Runtime(settings.model_copy(update={"store": f"/configsets/{own}", "alias": own}))
    (tmp_path / "upgrades.bin").write_bytes(to_column_major(pictures()))
    (tmp_path / "tiny_metadata.bin").write_bytes(b"tabby".ljust(METADATA_BYTES) * len(EVERY_POSITION))
    fields = {
        "source": str(tmp_path / "upgrades.bin"),
        "format": "tiny-images",
        "keywords": str(tmp_path / "tiny_metadata.bin"),
        "shard_images": 6,
        "blocks_per_shard": 3,
    }
    ingest_corpus(make_definition(CORPUS, fields), storage=runtime.storage, report=quiet)
    publish_model(runtime.storage)  # type: ignore[arg-type]
    yield Site(runtime)
    if own in runtime.solr.aliases():
        runtime.solr.request("admin/collections", {"action": "DELETEALIAS", "name": own})
    for collection in runtime.solr.collections():
        if layout.run_of_collection(collection).startswith(f"{CORPUS}-"):
            runtime.solr.delete_collection(collection)


def test_an_upgrade_of_a_comment_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = site.tag()
    check_out(monkeypatch, with_comment(tmp_path / "comment"))
    site.index_a_block_again(run, 2)
    site.assert_whole(run)
    assert site.due() == []
    assert site.tag() == run
    assert site.runtime.solr.configsets()[run.collection] == FOUNDING_CONFIGSET


def test_an_upgrade_of_a_field_leaves_the_live_run_and_makes_one_beside_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    solr, storage, alias = site.runtime.solr, site.runtime.storage, site.runtime.settings.alias
    before = check_out(monkeypatch, with_field(tmp_path / "before", "shade"))
    old = site.tag()
    after = check_out(monkeypatch, with_field(tmp_path / "after", "colour"))

    site.index_a_block_again(old, 0)
    site.assert_whole(old)
    site.publish(old)
    assert site.due() == [old.name]

    new = site.plan()
    assert new.collection != old.collection
    site.index(new)
    assert site.live() == old.collection
    site.assert_whole(new)
    site.publish(new)
    assert site.live() == new.collection
    site.assert_whole(new)
    assert site.due() == []
    assert "colour" in solr.field_names(new.collection)
    assert (solr.configsets()[old.collection], solr.configsets()[new.collection]) == (before, after)

    roll_back(RollbackRequest(alias), storage=storage, solr=solr, report=quiet)
    assert site.live() == old.collection
    site.assert_whole(old)
    site.index_a_block_again(old, 5)
    site.assert_whole(old)
    assert site.due() == []

    site.publish(new)
    for run in (old, new):
        age_ledger(storage, run)  # type: ignore[arg-type]
    pruned = prune_collections(PruneRequest(alias, keep=0), storage=storage, solr=solr, report=quiet)
    assert [one.run for one in pruned.drop] == [old.name]
    assert before in pruned.configsets
    assert before not in solr.configset_names()
    assert after in solr.configset_names()
    site.assert_whole(new)

    site.index(old)
    site.assert_whole(old)
    assert solr.configsets()[old.collection] == before


def test_a_run_from_before_configsets_were_recorded_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = site.tag().replaced(configset="")
    run.save(site.runtime.storage, layout.run_file(run.name))
    site.runtime.storage.delete(layout.configset_file(FOUNDING_CONFIGSET))
    check_out(monkeypatch, with_field(tmp_path / "after"))
    site.index_a_block_again(run, 1)
    site.assert_whole(run)
    assert site.runtime.solr.configsets()[run.collection] == FOUNDING_CONFIGSET
    assert site.due() == [run.name]


def test_a_collection_is_made_after_a_solr_that_was_killed_while_it_took_the_configset(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = check_out(monkeypatch, with_field(tmp_path / "half", "half"))
    half = Configset({path: text for path, text in current_configset().files.items() if path != "schema.xml"})
    path = f"admin/configs?action=UPLOAD&name={name}&wt=json"
    site.runtime.solr.request(path, body=half.packed(), mime="application/octet-stream")
    site.assert_whole(site.tag())


def test_readers_search_a_collection_that_lacks_a_field(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_out(monkeypatch, without_field(tmp_path / "before", "keyword"))
    run = site.tag()
    check_out(monkeypatch, FOUNDING_FOLDER)
    site.index_a_block_again(run, 0)
    site.assert_whole(run)
    settings = site.runtime.settings
    page = search_images(settings, SearchRequest(keyword="tabby", tags=("cat",)))
    assert (page.total, page.models, page.corpora) == (0, (MODEL,), (CORPUS,))
    with TestClient(create_app(settings.model_copy(update={"search_password": SecretStr("hidden")}))) as client:
        client.auth = (settings.search_user, "hidden")
        assert client.get("/search", params={"keyword": "tabby"}).status_code == 200
        assert client.get("/search").text.count("<img") == len(EVERY_POSITION)

    reader = SolrHttp(settings.address("solr_url"), "reader", settings.solr_login("reader"), pauses_seconds=())
    assert reader.select(settings.alias, {"q": "*:*", "fl": "id,keyword"})["response"]["numFound"] == 11
    found = reader.select(settings.alias, {"q": "*:*", "fq": "{!term f=keyword v=tabby}"})  # it does not ask the schema
    assert found["response"]["numFound"] == 0
    for parameters in (
        {"fq": "{!terms f=keyword v=tabby}"},
        {"fq": "keyword:tabby"},
        {"json.facet": '{"keywords": {"type": "terms", "field": "keyword"}}'},
        {"sort": "keyword asc"},
    ):
        with pytest.raises(UndefinedFieldError) as raised:
            reader.select(settings.alias, {"q": "*:*", **parameters})
        assert raised.value.field == "keyword", parameters
