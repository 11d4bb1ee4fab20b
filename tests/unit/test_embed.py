"""Embedding: every image of every block has its net's embedding once, whatever was killed, damaged or changed."""

from collections.abc import Callable

import embed_steps
import numpy as np
import pytest
from embed_steps import ALL, embed, path_of, stored
from faulty_storage import files_under
from small_nets import MEANS_NET, means_card, means_net, means_of, publish_means_net
from small_run import BLOCKS, CORPUS, MODEL, SparkHere, card, make_corpus, pictures, publish_model, quiet

from tinytags_tasks.embed.step import EmbedResult
from tinytags_tasks.ingest.verify import verify_corpus
from tinytags_tasks.ingest.verify_embeddings import VerifiedEmbeddings
from tinytags_tasks.nets.catalogue import net_version, publish_net
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_card
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout, ledger
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embeddings, write_embeddings
from tinytags_tasks.store.ledger import LedgerReader, add_up, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

storage, hasty = embed_steps.storage, embed_steps.hasty


def test_every_image_has_the_embedding_of_its_pixels(storage):
    spark = SparkHere()
    assert embed(storage, spark) == EmbedResult(CORPUS, MEANS_NET, ALL, BLOCKS)
    np.testing.assert_array_equal(stored(storage), means_of(pictures()))
    assert spark.sessions == spark.stopped == 1


def test_a_block_without_images_is_embedded_too(tmp_path, monkeypatch):
    monkeypatch.setattr("small_run.BLOCKS_PER_SHARD", 8)
    storage = LocalStorage(tmp_path / "store")
    corpus = make_corpus(storage)
    publish_means_net(storage)
    embed(storage)
    sources = block_sources(storage, corpus, range(corpus.partition.blocks))
    assert 0 in [source.images for source in sources]
    assert [len(read_embeddings(storage, source, MEANS_NET)[0]) for source in sources] == [
        source.images for source in sources
    ]


def test_the_default_net_is_found_by_name_and_stored(storage):
    net = shipped_card()
    assert embed(storage, net=DEFAULT_NET, blocks=(5,)).net == net.version
    (source,) = block_sources(storage, Corpus.load(storage, layout.corpus_file(CORPUS)), [5])
    embeddings, record = read_embeddings(storage, source, net.version)
    assert embeddings.shape == (2, 256)
    assert embeddings.any(axis=1).all()
    assert record.seconds > 0
    assert storage.exists(layout.net_file(net.version))


def test_pictures_of_another_size_than_the_nets_are_resized(storage):
    other = means_net(16)
    sixteen = means_card(version=net_version("means", other), height=16, width=16)
    publish_net(sixteen, other, None, storage)
    embed(storage, net=sixteen.version)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    halves = pictures().astype(float).reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    found = [read_embeddings(storage, source, sixteen.version)[0] for source in block_sources(storage, corpus, ALL)]
    assert np.abs(np.concatenate(found) - means_of(np.rint(halves).astype(np.uint8))).max() <= 1


# What is committed is not done again
def test_only_blocks_that_are_not_embedded_are(storage):
    told = []
    assert embed(storage, blocks=(1, 4)).embedded == 2
    before = files_under(storage.root / layout.embeddings_folder(CORPUS, MEANS_NET))
    spark = SparkHere()
    assert embed(storage, spark, told.append).embedded == spark.ran == BLOCKS - 2
    assert told[0] == f"2 of 6 blocks are embedded by {MEANS_NET}, 4 to embed"
    assert before.items() <= files_under(storage.root / layout.embeddings_folder(CORPUS, MEANS_NET)).items()
    assert embed(storage, spark).embedded == 0
    assert spark.sessions == 1


def test_redo_embeds_again(storage):
    embed(storage)
    before = storage.versions(layout.embeddings_folder(CORPUS, MEANS_NET))
    assert embed(storage, blocks=(0, 3), redo=True).embedded == 2
    after = storage.versions(layout.embeddings_folder(CORPUS, MEANS_NET))
    assert [name for name in before if before[name] != after[name]] == ["000000.parquet", "000003.parquet"]


@pytest.mark.parametrize(
    "damage", [lambda file: file[:-40], lambda file: b"", lambda file: b"PAR1" + file[4:-9] + b"PAR1"]
)
def test_a_file_that_was_cut_short_is_made_again(storage, damage: Callable[[bytes], bytes]):
    embed(storage)
    storage.write(path_of(3), damage(storage.read(path_of(3))))
    spark = SparkHere()
    assert embed(storage, spark).embedded == spark.ran == 1
    np.testing.assert_array_equal(stored(storage), means_of(pictures()))


def test_a_lost_file_is_made_again(storage):
    embed(storage)
    storage.delete(path_of(2))
    assert embed(storage).embedded == 1
    np.testing.assert_array_equal(stored(storage), means_of(pictures()))


def test_embeddings_of_other_bytes_than_the_shard_holds_are_made_again(storage, monkeypatch):
    """The corpus was removed by hand but for its embeddings, and ingested again from other pictures."""
    embed(storage)
    kept = storage.root / "kept"
    (storage.root / layout.all_embeddings_folder(CORPUS)).rename(kept)
    storage.delete(layout.corpus_folder(CORPUS))
    others = pictures()
    others[4] = 255 - others[4]
    monkeypatch.setattr("small_run.pictures", lambda: others)
    make_corpus(storage)
    kept.rename(storage.root / layout.all_embeddings_folder(CORPUS))
    spark = SparkHere()
    assert embed(storage, spark).embedded == spark.ran == 1
    np.testing.assert_array_equal(stored(storage), means_of(others))


def test_another_blocks_file_is_made_again(storage):
    embed(storage)
    storage.write(path_of(1), storage.read(path_of(2)))
    assert embed(storage).embedded == 1
    np.testing.assert_array_equal(stored(storage), means_of(pictures()))


# The ledger shows it
def run_of_net(storage: LocalStorage, net: str = MEANS_NET) -> Run:
    """Plan a run of a model that reads a net's embeddings."""
    publish_model(storage, card(features=net))
    return Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run))


def test_a_block_without_a_record_is_embedded_if_the_corpus_holds_its_embeddings(storage):
    run = run_of_net(storage)
    embed(storage, blocks=(1, 4))
    BlockRecord(run=run.name, block=4, state=BlockState.SCORED).save(storage, layout.ledger_file(run.name, 4))
    states = [record.state for record in read_ledger(storage, run)]
    planned = BlockState.PLANNED
    assert states == [planned, BlockState.EMBEDDED, planned, planned, BlockState.SCORED, planned]
    assert add_up(read_ledger(storage, run)).by_state == {"planned": 4, "embedded": 1, "scored": 1}


def test_embeddings_of_another_net_count_for_nothing(storage):
    embed(storage)
    for net in (shipped_card().version, PIXELS):
        run = run_of_net(storage, net)
        assert {record.state for record in read_ledger(storage, run)} == {BlockState.PLANNED}


def test_a_ledger_that_is_read_again_shows_what_was_embedded_meanwhile(storage, monkeypatch):
    monkeypatch.setattr(ledger, "_LISTING_SECONDS", 0.0)
    reader = LedgerReader(storage, run_of_net(storage))
    assert {record.state for record in reader.read()} == {BlockState.PLANNED}
    embed(storage)
    assert {record.state for record in reader.read()} == {BlockState.EMBEDDED}
    storage.delete(path_of(0))
    assert [record.state for record in reader.read([0, 1])] == [BlockState.PLANNED, BlockState.EMBEDDED]


def test_embeddings_are_not_listed_to_read_the_records_of_some_blocks(storage, monkeypatch):
    embed(storage)
    reader, asked = LedgerReader(storage, run_of_net(storage)), []
    names = storage.names
    monkeypatch.setattr(storage, "names", lambda path: asked.append(path) or names(path))
    assert {record.state for block in ALL for record in reader.read([block])} == {BlockState.EMBEDDED}
    assert asked == []


def test_a_ledger_whose_model_is_lost_can_be_read(storage):
    run = run_of_net(storage)
    embed(storage)
    storage.delete(layout.card_file(MODEL))
    assert {record.state for record in read_ledger(storage, run)} == {BlockState.PLANNED}


# `tinytags corpus verify`
def verified(storage: LocalStorage, *, deep: bool) -> VerifiedEmbeddings:
    found = verify_corpus(CORPUS, storage=storage, files=None, deep=deep, report=quiet)
    assert found.damaged == {}
    (embeddings,) = found.embeddings
    return embeddings


@pytest.mark.parametrize("deep", [False, True])
def test_verifying_finds_nothing_in_good_embeddings(storage, deep):
    assert verify_corpus(CORPUS, storage=storage, files=None, deep=deep, report=quiet).embeddings == ()
    embed(storage, blocks=(0, 1, 5))
    found = verified(storage, deep=deep)
    assert (found.net, found.blocks, found.damaged) == (MEANS_NET, 3, {})
    assert (found.read_bytes > 0) == deep


def test_verifying_names_embeddings_that_were_cut_short_or_made_of_other_bytes(storage):
    embed(storage)
    storage.write(path_of(1), storage.read(path_of(1))[:-10])
    (source,) = block_sources(storage, Corpus.load(storage, layout.corpus_file(CORPUS)), [4])
    embeddings, record = read_embeddings(storage, source, MEANS_NET)
    write_embeddings(storage, embeddings, record.replaced(source_sha256="0" * 64), overwrite=True)
    found = verified(storage, deep=False)
    assert sorted(found.damaged) == [1, 4]
    assert "damaged" in found.damaged[1]
    assert "was made of other bytes than the shard holds; make it again with `tinytags embed pets" in found.damaged[4]
    embed(storage)
    assert verified(storage, deep=True).damaged == {}


def test_verifying_deep_finds_a_number_that_is_not_what_was_embedded(storage):
    embed(storage)
    (source,) = block_sources(storage, Corpus.load(storage, layout.corpus_file(CORPUS)), [2])
    embeddings, record = read_embeddings(storage, source, MEANS_NET)
    write_embeddings(storage, embeddings + np.int8(1), record, overwrite=True)
    assert verified(storage, deep=False).damaged == {}
    assert list(verified(storage, deep=True).damaged) == [2]
