"""What changes after a run was verified is never published: publishing reads what Solr and HDFS hold now.

Each test plants one change past TinyTags' own code.
"""

import base64
import json
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import all_documents, hdfs_client
from small_run import MODEL, VOTES, SparkHere, picture, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition
from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, to_column_major
from tinytags_tasks.errors import ReconcileError
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import first_checksum
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.upkeep import rotation
from tinytags_tasks.upkeep.audit import AuditRequest, AuditResult, audit_run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

CORPUS = "checked"
COPIES = 30
IMAGES = COPIES * len(VOTES)
SHARD_IMAGES, BLOCKS = 110, 9
"""Three shards of the same size, cut into blocks of 36, 37, 37."""

ALIAS = "checked-alias"
KEYWORDS = ("guinea_pig", "größe", "", "a b:c", 'x"\\y', "猫")


@pytest.fixture(scope="module")
def definition(tmp_path_factory: pytest.TempPathFactory) -> CorpusDefinition:
    """The pictures of the small corpus many times over, no two alike, with keywords."""
    folder = tmp_path_factory.mktemp("checked")
    images = np.stack([picture(votes) for votes in VOTES] * COPIES)
    images.reshape(len(images), -1)[:, -2:] = np.arange(IMAGES, dtype=">u2").view(np.uint8).reshape(-1, 2)
    (folder / "pets.bin").write_bytes(to_column_major(images))
    words = (KEYWORDS[position % len(KEYWORDS)].encode().ljust(METADATA_BYTES) for position in range(IMAGES))
    (folder / "tiny_metadata.bin").write_bytes(b"".join(words))
    fields = {
        "source": str(folder / "pets.bin"),
        "format": "tiny-images",
        "keywords": str(folder / "tiny_metadata.bin"),
        "shard_images": SHARD_IMAGES,
        "blocks_per_shard": 3,
    }
    return make_definition(CORPUS, fields)


@pytest.fixture(scope="module")
def site(hdfs: Runtime, definition: CorpusDefinition) -> Runtime:
    """Solr beside HDFS, and a store with a corpus and a model."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    site = Runtime(settings.model_copy(update={"store": "/checked"}))
    ingest_corpus(definition, storage=site.storage, report=quiet)
    publish_model(site.storage)  # type: ignore[arg-type]
    return site


@pytest.fixture
def run(site: Runtime) -> Iterator[Run]:
    """A run that is verified."""
    run = Run.load(site.storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=site.storage).run))
    score(site, run)
    prepare_collection(run.name, storage=site.storage, solr=site.solr)
    index(site, run)
    yield run
    if ALIAS in site.solr.aliases():
        site.solr.request("admin/collections", {"action": "DELETEALIAS", "name": ALIAS})
    site.solr.delete_collection(run.collection)
    site.storage.delete(layout.run_folder(run.name))
    site.storage.delete(f"publications/{ALIAS}")


def score(site: Runtime, run: Run, blocks: tuple[int, ...] = tuple(range(BLOCKS))) -> None:
    request, address = ScoreRequest(run.name, blocks), site.store_address
    score_blocks(request, storage=site.storage, address=address, connect_spark=SparkHere(), report=quiet)


def index(site: Runtime, run: Run, blocks: tuple[int, ...] = tuple(range(BLOCKS)), *, redo: bool = False) -> None:
    index_blocks(IndexRequest(run.name, blocks, redo), storage=site.storage, solr=site.solr, report=quiet)


def publish(site: Runtime, run: Run) -> None:
    publish_run(PublishRequest(run.name, ALIAS), storage=site.storage, solr=site.solr, report=quiet)


def reconcile(site: Runtime, run: Run, blocks: tuple[int, ...] | None = None) -> None:
    reconcile_run(run.name, storage=site.storage, solr=site.solr, blocks=blocks, report=quiet)


def audit(site: Runtime, run: Run, **options: object) -> AuditResult:
    return audit_run(AuditRequest(run.name, **options), storage=site.storage, solr=site.solr, report=quiet)  # type: ignore[arg-type]


def repair(site: Runtime, run: Run) -> None:
    """Do what ``tinytags backfill --select audit`` does."""
    request = BackfillRequest(run.name, select="audit")
    planned = plan_backfill(request, storage=site.storage, solr=site.solr, alias="none", report=quiet)
    for group in planned.groups:
        score(site, run, group)
        index(site, run, group, redo=True)
    reconcile(site, run, planned.blocks)


def visible(site: Runtime, run: Run) -> dict[str, dict]:
    """Return all documents, without what Solr adds."""
    found = all_documents(site.solr.url, run.collection)
    for document in found.values():
        document.pop("_version_", None)
    return found


def update(site: Runtime, run: Run, command: object) -> None:
    """Change documents as whoever has the writer's password can."""
    path = f"{run.collection}/update?commit=true&wt=json"
    site.solr.request(path, body=json.dumps(command).encode(), mime="application/json")


def rewrite(site: Runtime, run: Run, position: int, /, **changes: object) -> None:
    """Write a document anew with some fields changed; None takes a field away."""
    document = {"id": f"{CORPUS}:{position}", **visible(site, run)[f"{CORPUS}:{position}"], **changes}
    update(site, run, [{name: value for name, value in document.items() if value is not None}])


def flip(site: Runtime, path: str, at: int) -> None:
    """Flip one bit of a file."""
    client = hdfs_client(site)
    with client.read(path) as reader:
        content = bytearray(reader.read())
    content[at] ^= 1
    client.write(path, bytes(content), overwrite=True)


def flip_picture(site: Runtime, run: Run, position: int) -> None:
    """Change one byte of one picture in Solr."""
    picture = bytearray(base64.b64decode(visible(site, run)[f"{CORPUS}:{position}"]["data"]))
    picture[1_234] ^= 1
    rewrite(site, run, position, data=base64.b64encode(picture).decode())


def refused(site: Runtime, run: Run) -> str:
    """Publish and reconcile, which must both refuse and leave the alias alone; return what reconciling says."""
    with pytest.raises(ReconcileError):
        publish(site, run)
    assert ALIAS not in site.solr.aliases()
    with pytest.raises(ReconcileError) as reconciled:
        reconcile(site, run)
    return str(reconciled.value)


AT = 117
"""A position of block 3 that is kept, and has a keyword."""

CHANGES = {
    "tag": lambda site, run: rewrite(site, run, AT, tag="gnu"),
    "votes": lambda site, run: rewrite(site, run, AT, votes=3),
    "accuracy": lambda site, run: rewrite(site, run, AT, accuracy=99),
    "keyword": lambda site, run: rewrite(site, run, AT, keyword="dog"),
    "no keyword": lambda site, run: rewrite(site, run, AT, keyword=None),
    "width": lambda site, run: rewrite(site, run, AT, width=16),
    "shard": lambda site, run: rewrite(site, run, AT, shard=0),
    "model": lambda site, run: rewrite(site, run, AT, model="forest-0123456789ab"),
    "position": lambda site, run: rewrite(site, run, AT, position=119),
    "one deleted, one foreign added": lambda site, run: (
        rewrite(site, run, AT, id=f"{CORPUS}:1000000"),
        update(site, run, {"delete": [f"{CORPUS}:{AT}"]}),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_document_is_refused_by_its_block_and_repaired(site: Runtime, run: Run, change: str) -> None:
    clean = visible(site, run)
    assert "keyword" in clean[f"{CORPUS}:{AT}"]
    assert clean[f"{CORPUS}:{AT}"]["block"] == 3
    CHANGES[change](site, run)
    message = refused(site, run)
    assert "block 3 has documents with ids or fields that differ from what was scored" in message
    assert f"tinytags backfill {run.name} --blocks 3" in message
    reconcile(site, run, (0, 1, 2, 4, 5, 6, 7, 8))
    assert audit(site, run).wrong == (3,)
    repair(site, run)
    assert visible(site, run) == clean
    found = audit(site, run)
    assert (found.problems, found.input_problems) == ({}, ())
    publish(site, run)


def test_a_document_moved_to_another_block_names_both(site: Runtime, run: Run) -> None:
    rewrite(site, run, AT, position=2)
    assert "block 0 has documents" in refused(site, run)
    assert "block 3 has documents" in refused(site, run)


def test_a_flipped_bit_of_a_scored_file_is_refused_by_its_block(site: Runtime, run: Run) -> None:
    clean = visible(site, run)
    path = layout.scored_file(run.name, 4)
    flip(site, path, site.storage.size_bytes(path) // 2)
    assert "the scored file is missing or not the one that was committed: blocks 4" in refused(site, run)
    assert audit(site, run).wrong == (4,)
    repair(site, run)
    assert visible(site, run) == clean
    assert audit(site, run).problems == {}
    publish(site, run)


def test_another_model_file_is_refused_and_no_block_is_blamed(site: Runtime, run: Run) -> None:
    path = layout.model_file(MODEL)
    before = site.storage.read(path)
    flip(site, path, 100)
    assert f"{path}: is not the model that was published" in refused(site, run)
    found = audit(site, run)
    assert found.problems == {}
    assert path in found.input_problems[0]
    site.storage.write(path, before)
    assert audit(site, run).input_problems == ()
    publish(site, run)


def test_swapped_shards_are_named_with_the_remedy_and_good_blocks_stay_good(
    site: Runtime, run: Run, definition: CorpusDefinition
) -> None:
    client = hdfs_client(site)
    one, other = (layout.shard_file(CORPUS, shard) for shard in (0, 2))
    assert site.storage.size_bytes(one) == site.storage.size_bytes(other)
    client.rename(one, "aside")
    client.rename(other, one)
    client.rename("aside", other)
    message = refused(site, run)
    for shard in (0, 2):
        assert f"shard {shard} ({layout.shard_file(CORPUS, shard)}): its bytes are not those that were" in message
        assert f"tinytags ingest {CORPUS} --redo {shard}" in message
    assert "shard 1" not in message
    found = audit(site, run, is_deep=True)
    assert found.problems == {}
    assert len(found.input_problems) == 2
    reconcile(site, run, (3, 4, 5))
    assert {record.state for record in read_ledger(site.storage, run)} == {BlockState.VERIFIED}
    ingest_corpus(definition, storage=site.storage, redo=(0, 2), report=quiet)
    assert audit(site, run, is_deep=True).input_problems == ()
    publish(site, run)


def test_a_changed_byte_of_a_picture_is_found_by_a_deep_audit(site: Runtime, run: Run) -> None:
    clean = visible(site, run)
    flip_picture(site, run, AT)
    found = audit(site, run, is_deep=True)
    assert found.problems == {3: f"document {CORPUS}:{AT} has other bytes than the shard"}
    assert found.sampled == len(clean)
    repair(site, run)
    assert visible(site, run) == clean
    found = audit(site, run, is_deep=True)
    assert (found.problems, found.pictures_percent) == ({}, 100.0)


def test_rotating_audits_have_compared_every_byte(site: Runtime, run: Run) -> None:
    clean = visible(site, run)
    flip_picture(site, run, AT)
    shares, percents = [], []
    for _ in range(rotation.AUDITS):
        found = audit(site, run)
        shares.append(found.sampled)
        percents.append(found.pictures_percent)
        if found.problems:
            assert found.problems == {3: f"document {CORPUS}:{AT} has other bytes than the shard"}
            repair(site, run)
            assert visible(site, run) == clean
            break
    else:
        pytest.fail("no audit has found it")
    assert max(shares) <= -(-len(clean) // rotation.AUDITS)
    assert percents == sorted(percents)
    for _ in range(rotation.AUDITS):
        found = audit(site, run)
        assert found.problems == {}
        if found.pictures_percent == 100.0:
            return
    pytest.fail("the rotation does not end")


def test_publishing_samples_pictures(site: Runtime, run: Run) -> None:
    documents = visible(site, run)
    empty = {"data": "AAAA"}
    update(site, run, [{"id": name, **document, **empty} for name, document in documents.items()])
    assert "has other bytes than the shard" in refused(site, run)


def test_blocks_verified_by_the_first_version_are_published_as_they_are(site: Runtime, run: Run) -> None:
    for record in read_ledger(site.storage, run):
        checksum = first_checksum(read_scored(site.storage, run.name, record.block)[0], CORPUS, MODEL)
        record.replaced(checksum=checksum).save(site.storage, layout.ledger_file(run.name, record.block))
    publish(site, run)
    assert audit(site, run).problems == {}
    rewrite(site, run, AT, keyword="dog")  # which the first version did not cover
    with pytest.raises(ReconcileError, match="block 3 has documents with ids or fields that differ"):
        publish(site, run)


def test_rolling_back_compares_what_was_live_before(site: Runtime, run: Run) -> None:
    publish(site, run)
    site.solr.ensure_collection("tinytags-checked-other", site.solr.configsets()[run.collection])
    site.solr.set_alias(ALIAS, "tinytags-checked-other")
    rewrite(site, run, AT, tag="gnu")
    request = RollbackRequest(ALIAS)
    with pytest.raises(ReconcileError, match="block 3 has documents with ids or fields that differ"):
        roll_back(request, storage=site.storage, solr=site.solr, report=quiet)
    assert site.solr.aliases()[ALIAS] == "tinytags-checked-other"
    index(site, run, (3,), redo=True)
    roll_back(request, storage=site.storage, solr=site.solr, report=quiet)
    # A collection of no run of this store is nobody's to take out.
    assert site.solr.aliases()[ALIAS].split(",") == ["tinytags-checked-other", run.collection]
    site.solr.set_alias(ALIAS, run.collection)
    site.solr.delete_collection("tinytags-checked-other")


def test_several_solr_shards_are_compared_as_one(site: Runtime, run: Run) -> None:
    site.solr.delete_collection(run.collection)
    prepare_collection(run.name, storage=site.storage, solr=site.solr, shards=2)
    index(site, run)
    publish(site, run)
    rewrite(site, run, AT, tag="gnu")
    with pytest.raises(ReconcileError, match="block 3 has documents with ids or fields that differ"):
        reconcile(site, run)


DOWN, NONE_AT = AT + 1, AT + 11
"""Positions of block 3 that are kept by the model."""


@pytest.fixture
def words(site: Runtime) -> Iterator[int]:
    """What people say of pictures of blocks 3 and 0: a tag that the model lacks, none of the tags, and take-downs."""
    said = [
        Word(AT, Verdict.TAG, "gnu", is_public=True),
        Word(NONE_AT, Verdict.NONE, is_public=True),
        *(Word(at, Verdict.TAKEDOWN, is_public=True, reason="the owner asked") for at in (DOWN, 0)),
    ]
    corpus = Corpus.load(site.storage, layout.corpus_file(CORPUS))
    yield append_words(corpus, said, by="ann", storage=site.storage)
    site.storage.delete(layout.review_log_folder(CORPUS))


def test_what_people_said_holds_in_every_run_through_repairs_and_backfills(site: Runtime, run: Run, words: int) -> None:
    as_scored = visible(site, run)
    gone = {f"{CORPUS}:{at}" for at in (0, DOWN, NONE_AT)}
    assert gone < set(as_scored)
    assert audit(site, run).pending == (0, 3)
    index(site, run, redo=True)  # as a run that is made after the words
    clean = visible(site, run)
    said = {"tag": "gnu", "votes": 10, "accuracy": 100, "corrected": words}
    expected = {**as_scored, f"{CORPUS}:{AT}": {**as_scored[f"{CORPUS}:{AT}"], **said}}
    assert clean == {name: document for name, document in expected.items() if name not in gone}
    totals = add_up(read_ledger(site.storage, run))
    assert (totals.taken_down, totals.corrected) == (2, 1)
    assert totals.read == IMAGES == totals.accounted

    def write_as_scored(position: int) -> None:
        update(site, run, [{"id": f"{CORPUS}:{position}", **as_scored[f"{CORPUS}:{position}"]}])

    for plant, problem in (
        (lambda: write_as_scored(DOWN), "kept is not Solr's count: blocks 3"),
        (lambda: write_as_scored(AT), "block 3 has documents with ids or fields that differ"),
        (lambda: update(site, run, {"delete": [f"{CORPUS}:{AT}"]}), "kept is not Solr's count: blocks 3"),
        (lambda: rewrite(site, run, AT, corrected=words + 1), "block 3 has documents with ids or fields that differ"),
    ):
        plant()
        assert problem in refused(site, run)
        assert audit(site, run).wrong == (3,)
        repair(site, run)
        assert visible(site, run) == clean

    index(site, run, redo=True)
    assert visible(site, run) == clean
    found = audit(site, run, is_deep=True)
    assert (found.problems, found.input_problems, found.pending) == ({}, (), ())
    publish(site, run)
    assert visible(site, run) == clean
