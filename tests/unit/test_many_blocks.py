"""A run of 50,000 blocks: what is done for a group does not grow with them, and what is done for all takes seconds."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from faulty_storage import FaultyStorage
from PIL import Image
from small_nets import MEANS_NET, embed, make_net_run, publish_means_net
from small_run import CORPUS, SolrHere, SparkHere, address_of, make_run, quiet

from tinytags_tasks.blocks import Partition, group_blocks
from tinytags_tasks.corpus.definition import definition_toml, make_definition, read_definition
from tinytags_tasks.corpus.sources import sorted_names
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.inputs import ScoredFiles
from tinytags_tasks.publish.reconciliation import block_problems, total_problems
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.score.worker import unsettled_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.known_runs import KnownRuns
from tinytags_tasks.store.ledger import LedgerReader, add_up, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.store.some_files import sizes_of, versions_of

BLOCKS = 50_000
GROUP = (1, 4)


class Counting(FaultyStorage):
    """Notes which folders are listed, and how many other requests there are."""

    def __init__(self, inner: LocalStorage) -> None:
        super().__init__(inner, 0)
        self.listed: list[str] = []
        self.looked_up: list[str] = []

    def names(self, path):
        self.listed.append(path)
        return super().names(path)

    def sizes(self, path):
        self.listed.append(path)
        return super().sizes(path)

    def versions(self, path):
        self.listed.append(path)
        return super().versions(path)

    def version(self, path):
        self.looked_up.append(path)
        return super().version(path)

    def size_bytes(self, path):
        self.looked_up.append(path)
        return super().size_bytes(path)

    def read(self, path, *arguments):
        self.looked_up.append(path)
        return super().read(path, *arguments)


def test_a_group_lists_no_folder_that_has_a_file_for_each_block(storage):
    run = make_run(storage)
    publish_means_net(storage)
    counting, solr, here = Counting(storage), SolrHere(), {"address": address_of(storage), "connect_spark": SparkHere()}
    embed_blocks(EmbedRequest(CORPUS, MEANS_NET, GROUP), storage=counting, report=quiet, **here)
    score_blocks(ScoreRequest(run.name, GROUP), storage=counting, report=quiet, **here)
    index_blocks(IndexRequest(run.name, GROUP), storage=counting, solr=solr, report=quiet)
    index_blocks(IndexRequest(run.name, GROUP, redo=True), storage=counting, solr=solr, report=quiet)
    assert {record.state for record in read_ledger(counting, run, GROUP)} == {BlockState.VERIFIED}
    delete_blocks(DeleteRequest(run.name, GROUP), storage=counting, solr=solr, report=quiet)
    of_all_blocks = (
        layout.ledger_folder(run.name),
        layout.scored_folder(run.name),
        layout.embeddings_folder(CORPUS, MEANS_NET),
    )
    assert not set(counting.listed).intersection(of_all_blocks)


def test_a_block_that_is_asked_for_is_read_alone(storage):
    run = make_net_run(storage)
    embed(storage)
    counting = Counting(storage)
    assert [record.state for record in LedgerReader(counting, run).read([3])] == [BlockState.EMBEDDED]
    assert unsettled_blocks(run.name, [3], counting) == (3,)
    assert counting.listed == []


@pytest.mark.parametrize(("blocks", "is_listed"), [(400, True), (1_000_000, False)])
def test_files_are_listed_if_they_are_a_good_part_of_their_folder(storage, blocks, is_listed):
    paths = [layout.ledger_file("r", block) for block in range(200)]
    for path in paths[:150]:
        storage.write(path, b"x" * 7)
    counting = Counting(storage)
    found = sizes_of(counting, paths, lambda: blocks)
    assert found == dict.fromkeys(paths[:150], 7)
    folder = layout.ledger_folder("r")
    assert versions_of(counting, paths, lambda: blocks) == {
        f"{folder}/{name}": version for name, version in storage.versions(folder).items()
    }
    assert counting.listed == ([folder] * 2 if is_listed else [])
    assert len(counting.looked_up) == (0 if is_listed else 400)


def test_records_of_old_runs_are_read_once(storage):
    run = make_run(storage)
    for day in range(1, 6):
        older = run.replaced(name=f"old-{day}", created=f"2020-01-0{day}")
        older.save(storage, layout.run_file(older.name))
    counting = Counting(storage)
    known = KnownRuns(counting, newest=2)
    first = known.read(on_damage=pytest.fail)
    assert [one.name for one in first] == [*(f"old-{day}" for day in range(1, 6)), run.name]
    counting.looked_up.clear()
    run.replaced(pruned="2026-01-01").save(storage, layout.run_file(run.name))
    storage.delete(layout.run_folder("old-1"))
    again = known.read(on_damage=pytest.fail)
    assert [one.name for one in again] == [one.name for one in first[1:]]
    assert again[-1].pruned == "2026-01-01"
    assert sorted(counting.looked_up) == [layout.run_file("old-5"), layout.run_file(run.name)]


@pytest.mark.parametrize("most", [1, 7, 1_024, 5_000])
@pytest.mark.parametrize("blocks_per_task", [0, 1, 5, 200_000])
def test_there_are_never_more_groups_than_airflow_maps(blocks_per_task, most):
    groups = group_blocks(range(BLOCKS), blocks_per_task, most)
    assert len(groups) <= most
    assert [block for group in groups for block in group] == list(range(BLOCKS))


class MadeLedger(LocalStorage):
    """A store whose ledger, of a block a file, is made up: no test can wait for so many files."""

    def __init__(self, root: Path, run: Run) -> None:
        super().__init__(root)
        self.made = layout.ledger_folder(run.name)
        self.names_made = [layout.ledger_file_name(block) for block in range(run.blocks)]
        self.changed: dict[str, str] = {}
        record = BlockRecord(
            run=run.name,
            block=0,
            state=BlockState.VERIFIED,
            model=run.model,
            read=2,
            kept=2,
            kept_by_tag={"cat": 2},
            documents=2,
            scored="2026-01-01T00:00:00+00:00",
            indexed="2026-01-01T00:00:00+00:00",
        )
        self.content = json.loads(record.stored())
        self.content.pop("record_sha256", None)

    def versions(self, path):
        if path != self.made:
            return super().versions(path)
        return {name: self.changed.get(name, "1") for name in self.names_made}

    def read(self, path, offset=0, length=None):
        if not path.startswith(f"{self.made}/"):
            return super().read(path, offset, length)
        return json.dumps(self.content | {"block": layout.path_number(path)}).encode()


@pytest.fixture
def many(storage: LocalStorage) -> SimpleNamespace:
    """Return a run of 50,000 blocks of two images, all verified."""
    run = make_run(storage)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus = corpus.replaced(images=2 * BLOCKS, shard_images=100, blocks_per_shard=50)
    corpus.save(storage, layout.corpus_file(CORPUS))
    run = run.replaced(blocks=BLOCKS, images=2 * BLOCKS)
    run.save(storage, layout.run_file(run.name))
    return SimpleNamespace(run=run, corpus=corpus, storage=MadeLedger(storage.root, run))


def test_fifty_thousand_blocks_are_planned_listed_added_up_and_reconciled(many):
    planned = plan_run(PlanRequest(CORPUS, many.run.model, 40, 1, 5_000), storage=many.storage, report=quiet)
    assert planned.run == many.run.name
    assert (len(planned.groups), len(planned.groups[0])) == (5_000, 10)
    records = read_ledger(many.storage, many.run)
    assert [record.block for record in records] == list(range(BLOCKS))
    assert add_up(records).kept == 2 * BLOCKS
    counts, files = dict.fromkeys(range(BLOCKS), 2), ScoredFiles([], {}, 0)
    assert block_problems(many.run, many.corpus, records, counts, files) == []
    assert total_problems(many.run, many.corpus, records, 2 * BLOCKS, files) == []
    counts[17] = 1
    assert block_problems(many.run, many.corpus, records, counts, files) == ["kept is not Solr's count: blocks 17"]


def test_the_grid_shows_fifty_thousand_blocks_and_then_reads_only_what_changes(many, monkeypatch):
    from grid_page import watch

    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0)
    solr = SimpleNamespace(count_by_block=lambda collection: dict.fromkeys(range(BLOCKS), 2))
    pool = SimpleNamespace(submit=lambda ask, *asked: SimpleNamespace(done=lambda: True, result=lambda: ask(*asked)))
    watched = watch.RunWatch(many.run, SimpleNamespace(storage=many.storage, solr=solr), pool)
    shown = watched.view("", 0)
    while shown["read"] < BLOCKS or shown["counts"] != {"verified": BLOCKS}:
        watched.refresh(lambda run: [])
        shown = watched.view(shown["mark"], 0)
    assert shown["totals"]["kept"] == 2 * BLOCKS
    reads = []
    read = many.storage.read
    monkeypatch.setattr(many.storage, "read", lambda path, *where: reads.append(path) or read(path, *where))
    many.storage.changed["000321.json"] = "2"
    watched.refresh(lambda run: [])
    assert reads == [layout.run_file(many.run.name), layout.ledger_file(many.run.name, 321)]
    assert watched.view(shown["mark"], shown["revision"])["blocks"] == []


# Sources
def test_a_folder_of_very_many_files_is_listed_in_the_same_order_as_a_small_one(tmp_path, monkeypatch):
    names = [f"{number * 7_919 % 500}-ü{number}.jpg" for number in range(500)]
    for name in (*names, "a.b/x.jpg", "a/x.jpg", "a-b/x.jpg", "line\nbreak.jpg"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(name.encode())
    at_once = list(SourceFiles(str(tmp_path / "source")).files())
    monkeypatch.setattr(sorted_names, "_NAMES_IN_MEMORY", 60)
    monkeypatch.setattr(sorted_names, "_CHUNK_BYTES", 50)
    spilled = list(SourceFiles(str(tmp_path / "source")).files())
    assert spilled == at_once
    assert [file.path for file in spilled] == sorted((file.path for file in spilled), key=lambda path: path.split("/"))
    assert len(spilled) == 504


# Blocks are cut by bytes
@pytest.mark.parametrize(
    ("side", "shard_images", "blocks"), [(8, 1_000_000, 50), (32, 1_000_000, 50), (224, 20_000, 50), (1024, 970, 50)]
)
def test_a_block_has_about_sixty_megabytes_whatever_the_size_of_its_images(side, shard_images, blocks):
    definition = make_definition("d", {"source": "/s", "format": "folder", "height": side, "width": side})
    assert (definition.shard_images, definition.blocks_per_shard) == (shard_images, blocks)
    block_bytes = definition.shard_images * definition.image_bytes / definition.blocks_per_shard
    assert block_bytes <= 62e6
    assert side < 32 or block_bytes >= 54e6


def test_a_cut_that_is_given_stays_and_larger_shards_have_more_blocks():
    fields = {"source": "/s", "format": "folder", "height": 64, "width": 64}
    given = make_definition("d", {**fields, "shard_images": 1_000_000, "blocks_per_shard": 50})
    assert (given.shard_images, given.blocks_per_shard) == (1_000_000, 50)
    assert make_definition("d", {**fields, "shard_images": 1_000_000}).blocks_per_shard == 200
    with pytest.raises(BadInputError, match="blocks_per_shard"):
        make_definition("d", {**fields, "blocks_per_shard": 10_000_000})


@pytest.mark.parametrize(("images", "blocks"), [(1, 1), (100, 1), (101, 2), (2_500, 25), (4_901, 50), (2_000_000, 50)])
def test_few_images_make_few_blocks(images, blocks):
    fields = {"source": "/s", "format": "folder"}
    assert make_definition("d", fields).cut_for(images).blocks_per_shard == blocks
    assert make_definition("d", {**fields, "blocks_per_shard": 7}).cut_for(images).blocks_per_shard == 7


def test_large_images_make_blocks_of_sixty_megabytes_though_they_are_few():
    fields = {"source": "/s", "format": "folder", "height": 1024, "width": 1024}
    assert make_definition("d", fields).cut_for(200).blocks_per_shard == 11


@pytest.mark.parametrize("images", [1, 2_500, 4_901])
@pytest.mark.parametrize("cut", [{}, {"shard_images": 1_000_000}])
def test_blocks_are_not_larger_where_a_corpus_of_few_images_grows_by_many(images, cut):
    definition = make_definition("d", {"source": "/s", "format": "folder", **cut}).cut_for(images)
    grown = Partition(images + 2_000_000, definition.shard_images, definition.blocks_per_shard, (2_000_000,))
    assert Partition(images, definition.shard_images, definition.blocks_per_shard).shards == 1
    assert max(grown.block(number).images for number in range(grown.blocks)) <= 20_000


def test_more_blocks_than_a_shard_has_images_are_refused():
    fields = {"source": "/s", "format": "folder", "shard_images": 10}
    assert make_definition("d", fields).blocks_per_shard == 10
    with pytest.raises(BadInputError, match=r"corpus d: blocks_per_shard is 11, but a shard has 10 images"):
        make_definition("d", {**fields, "blocks_per_shard": 11})


def test_blocks_that_no_worker_can_hold_are_refused_before_anything_is_written(tmp_path, storage, monkeypatch):
    monkeypatch.setattr("tinytags_tasks.ingest.refusals.MOST_BLOCK_BYTES", 2 * 3_072)
    (tmp_path / "source").mkdir()
    for number in range(5):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "source" / f"{number}.png")
    fields = {"source": str(tmp_path / "source"), "format": "folder"}
    with pytest.raises(BadInputError, match=r"blocks of 3 images would have .* more blocks_per_shard or fewer"):
        ingest_corpus(make_definition("d", {**fields, "blocks_per_shard": 2}), storage=storage, report=quiet)
    assert not storage.exists(layout.ingest_plan_file("d"))
    ingest_corpus(make_definition("d", {**fields, "blocks_per_shard": 3}), storage=storage, report=quiet)


def test_a_definition_survives_its_file(tmp_path):
    fields = {"source": "/s", "format": "folder", "height": 224, "width": 224}
    definition = make_definition("d", fields)
    (tmp_path / "d.toml").write_text(definition_toml(definition))
    assert read_definition(tmp_path / "d.toml") == definition


def test_a_corpus_that_was_cut_by_an_earlier_version_stays_as_it_is(tmp_path, storage):
    for number in range(3):
        (tmp_path / "source").mkdir(exist_ok=True)
        picture = np.full((64, 64, 3), 50 * number, np.uint8)
        Image.fromarray(picture).save(tmp_path / "source" / f"{number}.png")
    fields = {"source": str(tmp_path / "source"), "format": "folder", "height": 64, "width": 64}
    before = make_definition("d", {**fields, "shard_images": 1_000_000, "blocks_per_shard": 50})
    ingest_corpus(before, storage=storage, report=quiet)
    corpus = Corpus.load(storage, layout.corpus_file("d"))
    ingest_corpus(make_definition("d", fields), storage=storage, report=quiet)
    assert Corpus.load(storage, layout.corpus_file("d")) == corpus
    with pytest.raises(BadInputError, match="shard_images"):
        ingest_corpus(make_definition("d", {**fields, "shard_images": 2}), storage=storage, report=quiet)


def test_a_corpus_of_too_many_blocks_is_refused_before_anything_is_written(tmp_path, storage, monkeypatch):
    monkeypatch.setattr("tinytags_tasks.ingest.refusals.MOST_BLOCKS", 1)
    (tmp_path / "source").mkdir()
    for number in range(2):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "source" / f"{number}.png")
    fields = {"source": str(tmp_path / "source"), "format": "folder", "shard_images": 1}
    with pytest.raises(BadInputError, match=r"would be 2 blocks, more than 1.*larger shards"):
        ingest_corpus(make_definition("d", fields), storage=storage, report=quiet)
    assert not storage.exists(layout.ingest_plan_file("d"))
