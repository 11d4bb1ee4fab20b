"""Indexing what is damaged, refused or broken off: what fails says so, and the rest is verified."""

import index_steps
import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from index_steps import ALL, KEPT, index, positions
from small_run import BLOCKS, SolrHere, make_run

from tinytags_tasks.clients.solr_http import UndefinedFieldError
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState

made, scored = index_steps.made, index_steps.scored


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
