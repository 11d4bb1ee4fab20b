"""Indexing: the collection has exactly the scored images, however often and after whatever failure it is run."""

import hashlib
import shutil
import threading
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, without_field
from faulty_storage import MODES, FaultyStorage, Killed
from read_javabin import read_documents
from small_run import (
    BLOCKS,
    CORPUS,
    KEYWORDS,
    MODEL,
    UNREADABLE,
    VOTES,
    SolrHere,
    address_of,
    make_corpus,
    make_run,
    pictures,
    quiet,
    score_all,
    write_keywords,
)

from tinytags_tasks.clients.solr_http import UndefinedFieldError
from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.document_fields import LATER_FIELDS, LOOK_FIELDS
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.index.documents import MOST_DOCUMENTS, document_bodies, documents_per_body
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks, prepare_collection
from tinytags_tasks.look import looks
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.step import _block_tasks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import KeywordsReader, block_sources, read_pixels, read_scored, write_scored
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.configsets import CONFIGSET_FOLDER
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockState

ALL = tuple(range(BLOCKS))
KEPT = [position for position, votes in enumerate(VOTES) if max(votes) >= 4 and position not in UNREADABLE]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    storage = LocalStorage(tmp_path_factory.mktemp("prepared") / "store")
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    return storage, planned


@pytest.fixture
def scored(prepared, storage):
    """A run whose blocks are all scored."""
    made, planned = prepared
    shutil.copytree(made.root, storage.root)
    return planned


def index(storage, planned, solr, blocks=ALL):
    return index_blocks(IndexRequest(planned.name, tuple(blocks)), storage=storage, solr=solr, report=quiet)


def positions(solr, planned):
    return sorted(document["position"] for document in solr.documents(planned.collection).values())


def rescore(storage, planned, threshold, block):
    """Score a block again under the same run's name with another threshold, as after deleting its file."""
    storage.delete(layout.scored_file(planned.name, block))
    (task,) = _block_tasks(planned, [block], storage)
    score_block(replace(task, threshold=threshold), address_of(storage))


def test_the_collection_holds_exactly_what_was_kept(storage, scored, solr):
    result = index(storage, scored, solr)
    assert (result.documents, result.indexed, result.blocks) == (len(KEPT), BLOCKS, ALL)
    assert positions(solr, scored) == KEPT
    records = read_ledger(storage, scored)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert [record.documents for record in records] == [record.kept for record in records]


def test_a_document_says_what_was_scored_and_carries_the_picture(storage, scored, solr):
    index(storage, scored, solr)
    document = dict(solr.documents(scored.collection)[f"{CORPUS}:6"])
    picture = np.frombuffer(document.pop("data"), dtype=np.uint8).reshape(32, 32, 3)
    np.testing.assert_array_equal(picture, pictures()[6])
    assert document == {
        "id": "pets:6",
        "tag": "dog",
        "accuracy": 40,
        "votes": 4,
        "block": 3,
        "shard": 1,
        "position": 6,
        "corpus": CORPUS,
        "model": MODEL,
        "width": 32,
        "shuffle": shuffle_numbers(CORPUS, np.array([6]))[0],
        **dict(zip(LOOK_FIELDS, looks(pictures()[6].reshape(1, -1), 32)[0].tolist(), strict=True)),
    }


def test_every_document_carries_its_own_picture(storage, scored, solr):
    index(storage, scored, solr)
    for document in solr.documents(scored.collection).values():
        assert document["data"] == pictures()[document["position"]].tobytes()


def test_bodies_are_cut_without_losing_a_document(storage, scored):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    (source,) = block_sources(storage, corpus, [1])
    table, _ = read_scored(storage, scored.name, 1)
    many = table.take([index % table.num_rows for index in range(2 * MOST_DOCUMENTS + 1)])
    bodies = document_bodies(many, source, read_pixels(storage, source), MODEL)
    sizes = [len(read_documents(body)) for body in bodies]
    assert sizes == [MOST_DOCUMENTS, MOST_DOCUMENTS, 1]


@pytest.mark.parametrize(("image_bytes", "documents"), [(3, 2_000), (3_072, 2_000), (12_288, 500), (3_145_728, 1)])
def test_bodies_of_large_images_have_fewer_documents(image_bytes, documents):
    assert documents_per_body(image_bytes) == documents


def test_documents_say_their_keyword_where_they_have_one(storage, solr):
    planned = make_run(storage, keywords=KEYWORDS)
    score_all(storage, planned)
    index(storage, planned, solr)
    documents = solr.documents(planned.collection).values()
    assert {document["position"]: document.get("keyword") for document in documents} == dict(enumerate(KEYWORDS))
    assert all(document["keyword"] for document in documents if "keyword" in document)
    assert {document["position"]: tuple(document.get("word", ())) for document in documents} == {
        position: keyword_words(keyword or "") for position, keyword in enumerate(KEYWORDS)
    }


def test_an_empty_keyword_is_none(storage, solr):
    planned = make_run(storage, keywords=["", *KEYWORDS[1:]])
    score_all(storage, planned)
    index(storage, planned, solr, [0])
    assert "keyword" not in solr.documents(planned.collection)["pets:0"]


def keyword_sources(storage):
    corpus = make_corpus(storage, keywords=KEYWORDS)
    return block_sources(storage, corpus, range(BLOCKS))


def test_keywords_are_read_block_by_block_and_each_file_once(storage):
    class CountsReads(LocalStorage):
        reads = ()

        def read(self, path, *arguments):
            self.reads = (*self.reads, path)
            return super().read(path, *arguments)

    sources = keyword_sources(storage)
    counting = CountsReads(storage.root)
    reader = KeywordsReader(counting)
    found = [reader.read(source) for source in sources]
    assert [len(keywords) for keywords in found] == [2, 2, 2, 1, 2, 2]
    assert [keyword for keywords in found for keyword in keywords] == list(KEYWORDS)
    assert counting.reads == (layout.keywords_file(CORPUS, 0), layout.keywords_file(CORPUS, 1))


def test_a_corpus_without_keywords_gives_none(storage):
    (source,) = block_sources(storage, make_corpus(storage), [0])
    assert KeywordsReader(storage).read(source) is None


def test_keywords_that_went_away_are_missed_with_the_remedy(storage):
    sources = keyword_sources(storage)
    storage.delete(layout.keywords_file(CORPUS, 1))
    reader = KeywordsReader(storage)
    assert reader.read(sources[0]) == list(KEYWORDS[:2])
    with pytest.raises(MissingError, match=r"00001\.keywords\.parquet: .* ingest the corpus again"):
        reader.read(sources[3])


def test_keywords_that_are_not_what_was_ingested_are_corrupt(storage):
    sources = keyword_sources(storage)
    write_keywords(storage, 0, KEYWORDS[1:7])
    with pytest.raises(CorruptError, match=r"00000\.keywords\.parquet: .*`tinytags ingest pets --redo 0`"):
        KeywordsReader(storage).read(sources[0])


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_file_that_holds_no_keywords_is_corrupt(storage, content):
    sources = keyword_sources(storage)
    storage.write(layout.keywords_file(CORPUS, 0), content)
    source = replace(sources[0], keywords_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptError, match=r"00000\.keywords\.parquet: no keywords file"):
        KeywordsReader(storage).read(source)


def test_keywords_that_end_before_a_block_does_are_corrupt(storage):
    sources = keyword_sources(storage)
    source = replace(sources[2], keywords_sha256=write_keywords(storage, 0, KEYWORDS[:5]))
    with pytest.raises(CorruptError, match="has 5 keywords, too few for block 2"):
        KeywordsReader(storage).read(source)


def test_verified_blocks_are_not_posted_again(storage, scored, solr):
    index(storage, scored, solr, [0, 1])
    posted = solr.posted
    result = index(storage, scored, solr, [0, 1])
    assert (result.indexed, solr.posted, result.documents) == (0, posted, 3)
    assert index(storage, scored, solr).indexed == BLOCKS - 2
    assert positions(solr, scored) == KEPT


def test_a_block_indexed_twice_leaves_no_orphans_and_no_doubles(storage, scored, solr):
    index(storage, scored, solr)
    for record in read_ledger(storage, scored):
        record.replaced(state=BlockState.SCORED).save(storage, layout.ledger_file(scored.name, record.block))
    before = dict(solr.documents(scored.collection))
    assert index(storage, scored, solr).indexed == BLOCKS
    assert solr.documents(scored.collection) == before
    assert solr.deleted == []


def test_foreign_documents_of_a_block_are_deleted_by_id_and_others_are_not(storage, scored, solr):
    solr.documents(scored.collection).update(
        {
            "pets:777": {"id": "pets:777", "block": 2, "position": 777},
            "pets:778": {"id": "pets:778", "block": 99, "position": 778},
        }
    )
    index(storage, scored, solr)
    assert solr.deleted == ["pets:777"]
    assert positions(solr, scored) == [*KEPT, 778]


def test_a_verified_block_with_a_stranger_is_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    solr.documents(scored.collection)["pets:777"] = {"id": "pets:777", "block": 2, "position": 777}
    assert index(storage, scored, solr).indexed == 1
    assert positions(solr, scored) == KEPT


def test_a_verified_block_that_lost_a_document_is_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    del solr.documents(scored.collection)["pets:0"]
    assert index(storage, scored, solr).indexed == 1
    assert positions(solr, scored) == KEPT


def test_a_higher_threshold_leaves_no_orphans(storage, scored, solr):
    index(storage, scored, solr)
    rescore(storage, scored, 60, 1)  # positions 2 and 3 had 40 %
    assert index(storage, scored, solr).indexed == 1
    assert solr.deleted == ["pets:2", "pets:3"]
    assert positions(solr, scored) == [at for at in KEPT if at not in (2, 3)]


def test_a_lower_threshold_adds_what_was_missing(storage, scored, solr):
    rescore(storage, scored, 60, 1)
    index(storage, scored, solr)
    assert positions(solr, scored) == [at for at in KEPT if at not in (2, 3)]
    rescore(storage, scored, 40, 1)
    index(storage, scored, solr)
    assert positions(solr, scored) == KEPT


def test_a_count_that_is_too_low_is_worth_a_retry_and_verifies_nothing(storage, scored):
    class LosesOne(SolrHere):
        def commit(self, collection):
            super().commit(collection)
            self.documents(collection).pop("pets:0", None)

    with pytest.raises(TransientError, match="block 0 has 0 of 1 documents after indexing blocks 0; index them"):
        index(storage, scored, LosesOne())
    states = [record.state for record in read_ledger(storage, scored)]
    assert states == [BlockState.INDEXED, *[BlockState.VERIFIED] * (BLOCKS - 1)]
    good = SolrHere()
    assert index(storage, scored, good).indexed == BLOCKS
    assert positions(good, scored) == KEPT


@pytest.mark.parametrize("field", ["tag", "votes", "accuracy", "model", "id", "shard", "corpus", "width"])
def test_a_document_that_says_something_else_than_was_scored_verifies_nothing(storage, scored, field):
    class Changes(SolrHere):
        def commit(self, collection):
            super().commit(collection)
            document = self.documents(collection)["pets:0"]
            document[field] = "else" if isinstance(document[field], str) else document[field] + 1

    with pytest.raises(TransientError, match="block 0 has documents with ids or fields that differ from what"):
        index(storage, scored, Changes())
    assert read_ledger(storage, scored, [0])[0].state is BlockState.INDEXED


def test_blocks_are_indexed_again_when_asked_to(storage, scored, solr):
    index(storage, scored, solr)
    posted = solr.posted
    assert index(storage, scored, solr).indexed == 0
    request = IndexRequest(scored.name, (3, 4), redo=True)
    assert index_blocks(request, storage=storage, solr=solr, report=quiet).indexed == 2
    assert solr.posted == posted + sum(record.kept for record in read_ledger(storage, scored, [3, 4]))
    assert positions(solr, scored) == KEPT


def test_a_block_is_left_to_the_writer_that_has_it_and_looked_at_afterwards(storage, scored, solr):
    ended = threading.Event()
    told = []

    def report(line):
        told.append(line)
        if "waiting for it" in line:
            ended.set()

    def hold_block_3():
        for others in hold_blocks(scored.name, [3], storage=storage, report=quiet):
            assert others.blocks == [3]
            held.set()
            ended.wait(10)

    held = threading.Event()
    other = threading.Thread(target=hold_block_3)
    other.start()
    held.wait(10)
    result = index_blocks(IndexRequest(scored.name, (2, 3)), storage=storage, solr=solr, report=report)
    other.join()
    assert result.indexed == 2
    assert any("block 3 is being written by" in line for line in told)
    assert storage.names(layout.leases_folder(scored.name)) == []


def test_deleted_blocks_have_no_documents_and_can_be_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    result = delete_blocks(DeleteRequest(scored.name, (3, 4)), storage=storage, solr=solr, report=quiet)
    gone = read_ledger(storage, scored, [3, 4])
    assert result.documents == sum(record.kept for record in gone)
    assert {record.state for record in gone} == {BlockState.SCORED}
    assert solr.count_by_block(scored.collection, [3, 4]) == {}
    assert index(storage, scored, solr).indexed == 2
    assert positions(solr, scored) == KEPT


def test_documents_that_stay_after_they_were_deleted_are_worth_a_retry(storage, scored, solr):
    index(storage, scored, solr)
    solr.delete_block = lambda collection, block: None
    with pytest.raises(TransientError, match=r"blocks 3 still have 1 documents .* delete them again"):
        delete_blocks(DeleteRequest(scored.name, (3,)), storage=storage, solr=solr, report=quiet)


def test_blocks_that_the_run_does_not_have_are_not_deleted(storage, scored, solr):
    with pytest.raises(BadInputError, match="block 6 is out of range"):
        delete_blocks(DeleteRequest(scored.name, (6,)), storage=storage, solr=solr, report=quiet)


def test_one_block_that_cannot_be_indexed_does_not_undo_the_others(storage, scored, solr):
    path = layout.scored_file(scored.name, 2)
    storage.write(path, storage.read(path)[:-9])
    with pytest.raises(CorruptError, match=r"000002\.parquet: damaged .* score block 2 again"):
        index(storage, scored, solr)
    states = {record.block: record.state for record in read_ledger(storage, scored)}
    assert states == {block: BlockState.FAILED if block == 2 else BlockState.VERIFIED for block in ALL}
    assert "damaged" in read_ledger(storage, scored, [2])[0].reason


def test_all_blocks_that_cannot_be_indexed_are_named(storage, scored, solr):
    for block in (1, 2, 4):
        storage.write(layout.scored_file(scored.name, block), b"PAR1")
    with pytest.raises(CorruptError, match="indexing failed for blocks 1-2, 4: "):
        index(storage, scored, solr)


@pytest.mark.parametrize("refused", [1, 3])
def test_documents_that_solr_refuses_fail_their_blocks_whatever_the_error_takes(storage, scored, refused):
    class Refuses(SolrHere):
        def take(self, collection, documents):
            if {document["block"] for document in documents} & set(range(refused)):
                raise UndefinedFieldError("undefined field votes", "votes")
            super().take(collection, documents)

    with pytest.raises(FinalError, match="Solr refused a document of block 0: undefined field votes"):
        index(storage, scored, Refuses())
    states = {record.block: record.state for record in read_ledger(storage, scored)}
    assert states == {block: BlockState.FAILED if block < refused else BlockState.VERIFIED for block in ALL}


def test_a_block_scored_by_another_model_is_not_indexed(storage, scored, solr):
    table, record = read_scored(storage, scored.name, 0)
    write_scored(storage, table, record.replaced(model="forest-of-others"))
    with pytest.raises(CorruptError, match=r"scored by forest-of-others, but the run.s model is .* --blocks 0 --redo"):
        index(storage, scored, solr)


def test_nothing_is_visible_before_all_blocks_are_posted(storage, scored):
    class Dies(SolrHere):
        def take(self, collection, documents):
            super().take(collection, documents)
            if self.posted > 2:
                raise TransientError("Solr is away")

    solr = Dies()
    with pytest.raises(TransientError, match="Solr is away"):
        index(storage, scored, solr)
    assert (solr.posted > 0, solr.count(scored.collection)) == (True, 0)


def test_a_block_that_is_not_scored_is_missed_with_the_remedy(storage, solr):
    planned = make_run(storage)
    with pytest.raises(MissingError, match=f"block 4 is not scored; run `tinytags score {planned.name} --blocks 4`"):
        index(storage, planned, solr, [4])


def test_a_block_whose_scoring_failed_is_not_indexed(storage, scored, solr):
    (record,) = read_ledger(storage, scored, [1])
    failed = record.replaced(state=BlockState.FAILED, reason="a bad byte")
    failed.save(storage, layout.ledger_file(scored.name, 1))
    storage.delete(layout.scored_file(scored.name, 1))
    with pytest.raises(MissingError, match="block 1 is not scored"):
        index(storage, scored, solr)
    assert positions(solr, scored) == [at for at in KEPT if at not in (2, 3)]
    assert read_ledger(storage, scored, [1])[0].state is BlockState.FAILED


@pytest.mark.parametrize("damage", [b"{", None])
def test_a_lost_ledger_record_comes_back_from_the_scored_file(storage, scored, solr, damage):
    storage.delete(layout.ledger_file(scored.name, 1))
    if damage:
        storage.write(layout.ledger_file(scored.name, 1), damage)
    index(storage, scored, solr)
    (record,) = read_ledger(storage, scored, [1])
    assert (record.state, record.documents) == (BlockState.VERIFIED, 2)


def test_a_block_scored_on_other_bytes_is_corrupt(storage, scored, solr):
    table, record = read_scored(storage, scored.name, 0)
    write_scored(storage, table, record.replaced(sha256="of other bytes"))
    with pytest.raises(CorruptError, match=r"block 0 was scored on bytes other than .* `tinytags score .* --redo`"):
        index(storage, scored, solr)


def test_a_block_that_the_run_does_not_have_is_refused(storage, scored, solr):
    with pytest.raises(BadInputError, match="block 6 is out of range"):
        index(storage, scored, solr, [6])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_at", range(1, 13))  # the leases are taken, two records written twice, leases returned
def test_indexing_killed_at_any_ledger_write_and_run_again_is_as_if_never_killed(storage, scored, solr, fail_at, mode):
    with pytest.raises(Killed):
        index(FaultyStorage(storage, fail_at, mode, Killed), scored, solr, [0, 3])
    solr.pending.clear()  # what was not committed may be lost
    index(storage, scored, solr, [0, 3])
    assert positions(solr, scored) == [at for at in KEPT if at in (0, 6)]
    assert {record.state for record in read_ledger(storage, scored, [0, 3])} == {BlockState.VERIFIED}
    assert not list(storage.root.rglob("*.tmp"))


def test_a_run_gets_its_own_collection(storage, scored):
    class Records(SolrHere):
        def ensure_collection(self, *arguments, **options):
            self.asked = (arguments, options)
            return super().ensure_collection(*arguments, **options)

    solr = Records()
    assert prepare_collection(scored.name, storage=storage, solr=solr, shards=2, replicas=3) == scored.collection
    assert solr.asked == ((scored.collection, scored.configset), {"shards": 2, "replicas": 3})


@pytest.mark.parametrize(
    ("images", "shards"), [(1, 1), (20_000_000, 1), (20_000_001, 2), (79_302_017, 4), (1_000_000_000, 50)]
)
def test_a_collection_has_as_many_shards_as_its_images_ask_for_unless_told_and_keeps_them(
    storage, scored, images, shards
):
    asked = []

    class Records(SolrHere):
        def ensure_collection(self, *arguments, **options):
            asked.append(options["shards"])
            return super().ensure_collection(*arguments, **options)

    solr = Records()
    scored.replaced(images=images).save(storage, layout.run_file(scored.name))
    prepare_collection(scored.name, storage=storage, solr=solr)
    prepare_collection(scored.name, storage=storage, solr=solr, shards=7)
    assert asked == [shards]


REQUIRED = {"id", "tag", "accuracy", "votes", "block", "shard", "position", "corpus", "model"}


@pytest.mark.parametrize("lacking", ["width", "keyword"])
def test_a_collection_from_before_a_field_is_indexed_without_it(storage, lacking, monkeypatch, tmp_path):
    check_out(monkeypatch, without_field(tmp_path / "conf", lacking))
    planned = make_run(storage, keywords=["bird"] * len(VOTES))
    score_all(storage, planned)
    solr = SolrHere()
    prepare_collection(planned.name, storage=storage, solr=solr)
    check_out(monkeypatch, FOUNDING_FOLDER)
    index(storage, planned, solr)
    assert {record.state for record in read_ledger(storage, planned)} == {BlockState.VERIFIED}
    fields = {frozenset(document) for document in solr.documents(planned.collection).values()}
    assert fields == {frozenset(REQUIRED | {"width", "keyword", "data"} - {lacking})}


def test_documents_can_do_without_every_field_that_the_schema_got_later():
    """Otherwise runs from before a field was added could no longer be indexed."""
    fields = {field.get("name") for field in ElementTree.parse(CONFIGSET_FOLDER / "schema.xml").iter("field")}
    assert fields - LATER_FIELDS == REQUIRED | {"data", "_version_"}
