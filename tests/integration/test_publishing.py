"""Publishing on the real Solr and HDFS: what readers see while runs are published, rolled back, pruned and killed."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, without_field
from conftest import assert_one_error_line
from PIL import Image
from published_runs import age_ledger
from small_run import MODEL, SparkHere, pictures, publish_model
from test_publishing_measured import look_at_all

from tinytags_tasks import services
from tinytags_tasks.cli.searching import make_searches
from tinytags_tasks.clients.solr_http import SolrHttp, UndefinedFieldError
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, to_column_major
from tinytags_tasks.document_fields import LATER_FIELDS
from tinytags_tasks.errors import FinalError
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.publish.corrections import correct_live
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.review.words import say
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.search.hidden import NOTHING, Hidden
from tinytags_tasks.search.query import SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.word_logs import hidden_from_readers
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Change, Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.prune import PruneRequest, prune_collections
from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags

Command = Callable[..., subprocess.CompletedProcess[str]]

STORE = "/publishing"
SWITCHES = 20


@pytest.fixture(scope="module")
def shared(hdfs: Runtime) -> Runtime:
    """Solr and HDFS, and a store; nothing here needs Spark."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    return Runtime(settings.model_copy(update={"store": STORE}))


@pytest.fixture(scope="module")
def runs(shared: Runtime, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two runs, of 11 and of 4 documents."""
    return make_runs(shared, "pets", tmp_path_factory.mktemp("pets"))


@pytest.fixture
def site(shared: Runtime, request: pytest.FixtureRequest) -> Runtime:
    """An alias for a single test."""
    alias = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    return Runtime(shared.settings.model_copy(update={"alias": alias}))


def make_runs(site: Runtime, corpus: str, folder: Path, **more: str) -> tuple[Run, Run]:
    (folder / "pets.bin").write_bytes(to_column_major(pictures()))
    fields = {
        "source": str(folder / "pets.bin"),
        "format": "tiny-images",
        "shard_images": 6,
        "blocks_per_shard": 3,
        **more,
    }
    ingest_corpus(make_definition(corpus, fields), storage=site.storage)
    publish_model(site.storage)  # type: ignore[arg-type]
    return make_indexed(site, corpus, 40, "2024-01-01"), make_indexed(site, corpus, 60, "2024-02-01")


def make_indexed(site: Runtime, corpus: str, threshold: int, created: str) -> Run:
    """Create a run with two Solr shards, planned and indexed long ago."""
    name = plan_run(PlanRequest(corpus, MODEL, threshold), storage=site.storage).run
    run = Run.load(site.storage, layout.run_file(name)).replaced(created=created)
    run.save(site.storage, layout.run_file(name))
    score_blocks(
        ScoreRequest(name, tuple(range(run.blocks))),
        storage=site.storage,
        address=site.store_address,
        connect_spark=SparkHere(),
    )
    index_run(site, run)
    age_ledger(site.storage, run)  # type: ignore[arg-type]
    return run


def index_run(site: Runtime, run: Run) -> None:
    prepare_collection(run.name, storage=site.storage, solr=site.solr, shards=2)
    index_blocks(IndexRequest(run.name, tuple(range(run.blocks))), storage=site.storage, solr=site.solr)


def publish(site: Runtime, run: Run) -> None:
    publish_run(PublishRequest(run.name, site.settings.alias), storage=site.storage, solr=site.solr)


def test_readers_see_only_what_reaches_the_measured_precision(site: Runtime, runs: tuple[Run, Run]) -> None:
    first, second = runs
    publish(site, second)
    look_at_all(site, first)
    request = PublishRequest(first.name, site.settings.alias, least_measured_precision=80)

    published = publish_run(request, storage=site.storage, solr=site.solr)

    assert published.thresholds == {"cat": 45, "dog": 45, "emu": 45}
    assert solr_shows(site) == {0, 1, 7, 8, 9}
    assert site.solr.count(first.collection) == 11
    roll_back(RollbackRequest(site.settings.alias), storage=site.storage, solr=site.solr)
    assert solr_shows(site) == {0, 1, 7, 9}


def solr_shows(site: Runtime) -> set[int]:
    """Return the positions that readers find."""
    page = search_images(site.settings, SearchRequest(with_pixels=False), hidden_from_readers(site))
    assert page.total == len(page.images) == sum(page.tag_counts.values())
    return {image.position for image in page.images}


def take_back(site: Runtime, run: str = "") -> None:
    roll_back(RollbackRequest(site.settings.alias, run), storage=site.storage, solr=site.solr)


def live(site: Runtime) -> str:
    return site.solr.aliases().get(site.settings.alias, "")


def changes(site: Runtime) -> list[tuple[str, str]]:
    """Return the history: how, and which run."""
    return [(record.change, record.run) for record in read_history(site.settings.alias, site.storage)]


def positions_seen(site: Runtime) -> tuple[int, ...]:
    """Return what a reader sees: the positions on the one page that holds everything."""
    return _positions(search_images(site.settings, SearchRequest(rows=100, with_pixels=False)))


def _positions(page: SearchPage) -> tuple[int, ...]:
    assert page.total == len(page.images) == sum(page.tag_counts.values())
    return tuple(sorted(image.position for image in page.images))


LOOSE = tuple(range(11))
STRICT = (0, 1, 7, 9)


def test_readers_see_what_was_published_and_after_a_rollback_what_was_before(
    site: Runtime, runs: tuple[Run, Run]
) -> None:
    first, second = runs
    publish(site, first)
    assert positions_seen(site) == LOOSE
    publish(site, second)
    assert positions_seen(site) == STRICT
    take_back(site, second.name)
    take_back(site, second.name)
    assert positions_seen(site) == LOOSE
    assert changes(site) == [
        (Change.PUBLISHED, first.name),
        (Change.PUBLISHED, second.name),
        (Change.ROLLED_BACK, first.name),
    ]


def test_a_gate_counts_what_is_really_live(site: Runtime, runs: tuple[Run, Run]) -> None:
    first, second = runs
    publish(site, first)
    strict = PublishRequest(second.name, site.settings.alias, least_documents_percent=90)
    with pytest.raises(FinalError, match=r"4 documents, 36\.4 % of the 11 that are live"):
        publish_run(strict, storage=site.storage, solr=site.solr)
    assert positions_seen(site) == LOOSE


def test_a_reader_sees_one_run_or_the_other_during_many_switches(site: Runtime, runs: tuple[Run, Run]) -> None:
    publish(site, runs[0])
    is_over = threading.Event()

    def read() -> set[tuple[int, ...]]:
        seen = set()
        while not is_over.wait(0.01):  # without a pause, readers would take the publisher's processor time
            # A new reader each time, who looks at what is live now.
            seen.add(_positions(make_searches(site).page(SearchRequest(rows=100, with_pixels=False))))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for switch in range(SWITCHES):
                publish(site, runs[(switch + 1) % 2])
        finally:
            is_over.set()
        for reader in readers:
            assert reader.result() == {LOOSE, STRICT}
    assert len(changes(site)) == SWITCHES + 1


def test_two_publishers_at_once_take_turns(site: Runtime, runs: tuple[Run, Run]) -> None:
    publish(site, runs[0])
    environment = {**os.environ, "TINYTAGS_STORE": STORE, "TINYTAGS_ALIAS": site.settings.alias}
    publishers = [
        subprocess.Popen(
            [sys.executable, "-m", "tinytags_tasks.cli", "publish", run.name],
            env=environment,
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for run in runs * 2
    ]
    for publisher in publishers:
        _, told = publisher.communicate(timeout=300)
        assert publisher.returncode == 0, told
    history = read_history(site.settings.alias, site.storage)
    assert live(site) == history[-1].collection
    assert [record.previous for record in history] == ["", *(record.collection for record in history[:-1])]
    assert {record.change for record in history} == {Change.PUBLISHED}
    assert [name for name in site.storage.names(layout.PUBLICATIONS) if name.endswith(".lease")] == []


KILLED_BEFORE_THE_RECORD = """
import os, signal, sys
from tinytags_tasks.publish import replacement
from tinytags_tasks.cli import main
replacement.record_change = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["tinytags", *{arguments!r}]
main()
"""


def kill_between_switch_and_record(site: Runtime, *arguments: str) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_BEFORE_THE_RECORD.format(arguments=arguments)],
        env={**os.environ, "TINYTAGS_STORE": STORE, "TINYTAGS_ALIAS": site.settings.alias},
        cwd=PROJECT_ROOT,
        timeout=300,
    )
    assert killed.returncode == -9


def test_a_publisher_that_was_killed_after_the_switch_is_made_up_for(site: Runtime, runs: tuple[Run, Run]) -> None:
    first, second = runs
    publish(site, first)
    kill_between_switch_and_record(site, "publish", second.name)
    assert live(site) == second.collection
    assert changes(site) == [(Change.PUBLISHED, first.name)]
    publish(site, second)
    assert changes(site) == [(Change.PUBLISHED, first.name), (Change.PUBLISHED, second.name)]
    take_back(site)
    assert positions_seen(site) == LOOSE


def test_a_rollback_that_was_killed_after_the_switch_is_made_up_for(site: Runtime, runs: tuple[Run, Run]) -> None:
    first, second = runs
    publish(site, first)
    publish(site, second)
    kill_between_switch_and_record(site, "rollback")
    assert live(site) == first.collection
    take_back(site)
    assert live(site) == first.collection
    assert changes(site)[2:] == [(Change.ROLLED_BACK, first.name)]


def test_pruning_keeps_what_is_live_and_a_pruned_run_comes_back(site: Runtime, tmp_path: Path) -> None:
    first, second = make_runs(site, "pruned-pets", tmp_path)
    publish(site, first)
    publish(site, second)
    site.solr.ensure_collection("customers", site.solr.configsets()[first.collection])
    request = PruneRequest(site.settings.alias, keep=0, runs=(first.name, second.name))
    assert prune_collections(PruneRequest(site.settings.alias), storage=site.storage, solr=site.solr).drop == ()
    (dropped,) = prune_collections(request, storage=site.storage, solr=site.solr).drop
    assert (dropped.run, dropped.documents) == (first.name, 11)
    assert positions_seen(site) == STRICT
    assert first.collection not in site.solr.collections()
    assert "customers" in site.solr.collections()
    with pytest.raises(FinalError, match=f"was dropped by `tinytags prune` .*tinytags index {first.name}"):
        take_back(site)
    with pytest.raises(FinalError, match="was dropped by `tinytags prune`"):
        publish(site, first)
    index_run(site, first)
    publish(site, first)
    assert positions_seen(site) == LOOSE
    assert Run.load(site.storage, layout.run_file(first.name)).pruned == ""


@pytest.fixture
def birds(shared: Runtime, tmp_path: Path) -> tuple[Run, Run]:
    """Two runs of a corpus with keywords."""
    (tmp_path / "tiny_metadata.bin").write_bytes(b"tabby".ljust(METADATA_BYTES) * 11)
    return make_runs(shared, "birds", tmp_path, keywords=str(tmp_path / "tiny_metadata.bin"))


@pytest.fixture
def fossils(shared: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of another corpus, in a collection from before there were later fields."""
    origin = FOUNDING_FOLDER
    for field in LATER_FIELDS:
        origin = without_field(tmp_path / field, field, origin)
    (tmp_path / "fossils").mkdir()
    with monkeypatch.context() as patch:
        check_out(patch, origin)
        run, _ = make_runs(shared, "fossils", tmp_path / "fossils")
    assert not LATER_FIELDS & shared.solr.field_names(run.collection)
    return run


def test_two_corpora_are_live_side_by_side(
    site: Runtime, birds: tuple[Run, Run], fossils: Run, tinytags_here: Command
) -> None:
    storage, solr, alias = site.storage, site.solr, site.settings.alias

    def tinytags(*arguments: str) -> str:
        done = tinytags_here(*arguments, TINYTAGS_STORE=STORE, TINYTAGS_ALIAS=alias)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    publish(site, birds[0])
    assert f"beside it stays what is live of corpus birds ({birds[0].collection})" in tinytags("publish", fossils.name)
    assert seen_by_corpus(site) == {"birds": 11, "fossils": 11}
    publish(site, birds[1])
    assert seen_by_corpus(site) == {"birds": 4, "fossils": 11}
    tinytags("rollback", "--corpus", "birds")
    assert seen_by_corpus(site) == {"birds": 11, "fossils": 11}
    assert_one_error_line(
        tinytags_here("rollback", TINYTAGS_STORE=STORE, TINYTAGS_ALIAS=alias), "name one of them: birds, fossils"
    )

    assert seen_by_corpus(site, "tabby") == {"birds": 11}
    assert seen_by_corpus(site, hidden=Hidden(least={"birds": {"cat": 100}})) == {"birds": 1, "fossils": 11}
    corpus = Corpus.load(storage, layout.corpus_file("birds"))
    say(corpus, [Word(3, Verdict.TAG, "dog", is_public=True)], by="ann", storage=storage)
    correct_live("birds", alias, storage=storage, solr=solr)
    assert seen_by_corpus(site, hidden=Hidden(least={"birds": {"cat": 100}})) == {"birds": 2, "fossils": 11}

    (due,) = plan_retags(RetagRequest(alias=alias), storage=storage, solr=solr).due
    assert (due.corpus, due.live_run) == ("fossils", fossils.name)
    again = make_indexed(site, due.corpus, due.threshold, "2024-03-01")
    publish(site, again)
    assert set(live(site).split(",")) == {birds[0].collection, again.collection}
    request = PruneRequest(alias, keep=0, runs=(fossils.name, again.name, *(run.name for run in birds)))
    dropped = prune_collections(request, storage=storage, solr=solr).drop
    assert {one.run for one in dropped} == {birds[1].name, fossils.name}
    for name in ("birds", "fossils"):
        found = audit_run(AuditRequest(alias=alias, corpus=name, is_deep=True), storage=storage, solr=solr)
        assert (found.problems, found.input_problems, found.sampled) == ({}, (), 11)

    tinytags("unpublish", "birds", "--yes")
    assert seen_by_corpus(site) == {"fossils": 11}
    tinytags("rollback", "--corpus", "birds")
    assert seen_by_corpus(site) == {"birds": 11, "fossils": 11}


def test_a_corpus_grows_under_its_readers(site: Runtime, tmp_path: Path, tinytags_here: Command) -> None:
    source = tmp_path / "herd"
    source.mkdir()

    def tinytags(*arguments: str) -> str:
        done = tinytags_here(*arguments, TINYTAGS_STORE=STORE, TINYTAGS_CORPORA=str(tmp_path / "corpora"))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    (source / "b.bin").write_bytes(pictures().tobytes())
    cut = ("--format", "raw", "--shard-images", "6", "--blocks-per-shard", "3")
    tinytags("corpus", "add", "herd", str(source), *cut)
    tinytags("ingest", "herd")
    publish_model(site.storage)  # type: ignore[arg-type]
    old = make_indexed(site, "herd", 40, "2024-01-01")
    publish(site, old)
    corpus = Corpus.load(site.storage, layout.corpus_file("herd"))
    say(corpus, [Word(7, Verdict.TAKEDOWN, is_public=True, reason="asked")], by="ann", storage=site.storage)
    (source / "a.bin").write_bytes(pictures()[:3].tobytes())
    assert "append them with `tinytags corpus grow herd`" in tinytags("ingest", "herd")
    assert "11 images were there, 3 are new; 3 shards, 9 blocks" in tinytags("corpus", "grow", "herd")
    assert "3 of the images appended" in tinytags("corpus", "show", "herd")
    source.rename(tmp_path / "away")
    assert "is complete, so its source is not needed" in tinytags("ingest", "herd")

    correct_live("herd", site.settings.alias, storage=site.storage, solr=site.solr)
    assert positions_seen(site) == (*range(7), 8, 9, 10)
    new = make_indexed(site, "herd", 40, "2024-02-01")
    assert (new.earlier, new.blocks) == (old.name, 9)
    scored = [read_scored(site.storage, run.name, 0)[0].to_pylist() for run in (old, new)]
    assert scored[0] == scored[1]
    publish(site, new)
    assert positions_seen(site) == (*range(7), *range(8, 14))
    take_back(site, new.name)
    assert positions_seen(site) == (*range(7), 8, 9, 10)
    for run in (old, new):
        found = audit_run(AuditRequest(run.name, is_deep=True), storage=site.storage, solr=site.solr)
        assert (found.problems, found.input_problems) == ({}, ())


def seen_by_corpus(site: Runtime, keyword: str = "", hidden: Hidden = NOTHING) -> dict[str, int]:
    """Return how many pictures of each corpus a reader finds."""
    page = search_images(site.settings, SearchRequest(keyword=keyword, rows=100), hidden)
    assert page.total == len(page.images) == sum(page.confidence_counts.values())
    return dict(Counter(image.corpus for image in page.images))


def test_fields_that_one_collection_lacks_fail_no_search(site: Runtime, birds: tuple[Run, Run], fossils: Run) -> None:
    """What Solr answers to each kind of parameter; filters, facets and sorts are made so that none of it is a 400."""
    publish(site, birds[0])
    publish(site, fossils)
    reader = SolrHttp(
        site.settings.address("solr_url"), "reader", site.settings.solr_login("reader"), pauses_seconds=()
    )

    def count(collection: str, **parameters: object) -> int:
        found = reader.select(collection, {"q": "*:*", **parameters})
        return int(found["response"]["numFound"])

    alias, both = site.settings.alias, f"{birds[0].collection},{fossils.collection}"
    ranges = '<RangeQuery fieldName="keyword" lowerTerm="tab" upperTerm="tac" includeUpper="false"/>'
    assert count(alias, fl="id,keyword,corrected") == count(both) == 22
    assert count(alias, fq="{!term f=keyword v=tabby}") == 11
    assert count(alias, fq="{!xmlparser v=$range}", range=ranges) == 11
    for parameters in (
        {"fq": "{!terms f=keyword v=tabby}"},
        {"fq": "{!prefix f=keyword v=tab}"},
        {"fq": "corrected:[* TO *]"},
        {"sort": "keyword asc"},
        {"json.facet": '{"k":{"type":"terms","field":"keyword"}}'},
    ):
        with pytest.raises(UndefinedFieldError):
            count(alias, **parameters)
        assert count(birds[0].collection, **parameters) >= 0


def test_solr_itself_refuses_to_drop_what_is_live(site: Runtime, runs: tuple[Run, Run]) -> None:
    publish(site, runs[0])
    with pytest.raises(FinalError, match="is part of aliases"):
        site.solr.delete_collection(runs[0].collection)


def test_the_commands_do_all_of_it(
    site: Runtime, runs: tuple[Run, Run], tinytags_here: Command, tmp_path: Path
) -> None:
    first, second = runs

    def tinytags(*arguments: str) -> subprocess.CompletedProcess[str]:
        return tinytags_here(*arguments, TINYTAGS_STORE=STORE, TINYTAGS_ALIAS=site.settings.alias)

    assert f"11 documents are live in {first.collection}" in tinytags("publish", first.name).stdout
    refused = tinytags("publish", second.name, "--gate-documents", "90")
    assert_one_error_line(refused, f"run {second.name} is verified, but not published")
    assert tinytags("publish", second.name, "--gate-documents", "30").returncode == 0
    listed = {one["run"]: one for one in json.loads(tinytags("runs", "--json").stdout)}
    assert site.settings.alias in listed[second.name]["live_under"]
    assert (listed[first.name]["documents"], listed[first.name]["by_state"]) == (11, {"verified": 6})
    sheet = tmp_path / "diff.png"
    compared = json.loads(tinytags("diff", first.name, second.name, "--json", "--sheet", str(sheet)).stdout)
    assert (compared["same"], compared["lost"]) == (4, 7)
    assert Image.open(sheet).format == "PNG"
    assert tinytags("rollback", second.name).returncode == 0
    assert_one_error_line(tinytags("rollback"), "nothing of corpus pets is recorded as live before")
    assert positions_seen(site) == LOOSE
    assert f"keeps {first.collection}: is live under" in tinytags("prune", "--yes").stdout
    assert_one_error_line(tinytags("diff", first.name, "none"), "none: no such run")
