"""Embedding: what cannot be embedded is named, and a killed run is ended by the next."""

import contextlib
import threading
from collections.abc import Callable, Iterable

import embed_steps
import numpy as np
import pytest
from embed_steps import ALL, embed, path_of, stored
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from small_nets import MEANS_BYTES, MEANS_NET, means_card, means_net, means_of
from small_run import BLOCKS, CORPUS, SparkHere, address_of, pictures, quiet

from tinytags_tasks.embed import block as block_module
from tinytags_tasks.embed import step, worker
from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, TinyTagsError, TransientError
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_card
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.block_lease import embedding_leases
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import Storage

storage, hasty = embed_steps.storage, embed_steps.hasty


# What cannot be embedded
def refused(storage: Storage, error: type[TinyTagsError], message: str, **request: object) -> None:
    """Assert that a request is refused in one line before Spark is asked and before anything is written."""
    spark, before = SparkHere(), files_under(storage.root)
    with pytest.raises(error, match=message) as raised:
        embed(storage, spark, **request)
    assert "\n" not in str(raised.value)
    assert spark.sessions == 0
    assert files_under(storage.root) == before


def test_an_unknown_net_is_named(storage):
    refused(storage, MissingError, "nothing: no such net; `tinytags nets list` lists the nets", net="nothing")


def test_an_unknown_corpus_is_named_with_the_remedy(storage):
    with pytest.raises(
        MissingError, match="corpus absent is not in the store: ingest it with `tinytags ingest absent`"
    ):
        embed_blocks(
            EmbedRequest("absent", MEANS_NET), storage=storage, address=address_of(storage), connect_spark=SparkHere()
        )


@pytest.mark.parametrize("block", [-1, BLOCKS])
def test_a_block_that_the_corpus_does_not_have_is_refused(storage, block):
    refused(storage, BadInputError, f"block {block} is out of range: this corpus has blocks 0 to 5", blocks=(block,))


def test_a_store_without_room_is_refused_before_anything_is_written(storage, monkeypatch):
    needed = len(pictures()) * 3 + BLOCKS * 4_096
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda storage: needed)
    refused(storage, FinalError, rf"embedding corpus pets needs {needed:,} more bytes, .* free some space")
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda storage: needed + needed // 50 + 1)
    assert embed(storage).embedded == BLOCKS


def test_a_net_whose_file_was_replaced_is_named_and_never_used(storage):
    embed(storage, blocks=(0,))  # a session is open now
    storage.write(layout.net_file(MEANS_NET), means_net(8))
    refused(
        storage,
        CorruptError,
        f"{layout.net_file(MEANS_NET)}: is not the net that was published: its sha256 should begin",
    )
    storage.write(layout.net_file(MEANS_NET), MEANS_BYTES)
    assert embed(storage).embedded == BLOCKS - 1


def test_a_net_whose_embeddings_are_of_another_size_than_its_card_says_is_named(storage):
    means_card(dimensions=4).save(storage, layout.net_card_file(MEANS_NET))
    refused(storage, CorruptError, f"{layout.net_file(MEANS_NET)}: .*import or train the same net again")


def test_a_damaged_file_of_the_net_that_ships_is_written_again(storage):
    embed(storage, net=DEFAULT_NET, blocks=(0,))
    version = shipped_card().version
    storage.write(layout.net_file(version), b"damaged")
    storage.write(layout.net_card_file(version), b"damaged")
    assert embed(storage, net=version, blocks=(1,)).embedded == 1


def test_a_damaged_byte_of_a_shard_is_named_and_the_other_blocks_are_embedded(storage):
    shard = layout.shard_file(CORPUS, 0)
    content = bytearray(storage.read(shard))
    content[5] ^= 1
    storage.write(shard, bytes(content))
    with pytest.raises(FinalError, match=r"pets by means-.*: blocks 0 failed: .*00000.bin: block 0 .* is not what was"):
        embed(storage)
    assert storage.names(layout.embeddings_folder(CORPUS, MEANS_NET)) == [
        f"{block:06d}.parquet" for block in ALL[1:]
    ] + ["leases"]


def test_a_manifest_that_changed_since_the_driver_read_it_fails_its_block_alone(storage, monkeypatch):
    """The corpus is ingested again from other bytes while it is being embedded."""
    run = step.embed_tasks

    def change_first(*arguments, **options):
        shard = layout.shard_file(CORPUS, 1)
        storage.write(shard, bytes(255 - byte for byte in storage.read(shard)))
        return run(*arguments, **options)

    monkeypatch.setattr(step, "embed_tasks", change_first)
    with pytest.raises(FinalError, match="blocks 3-5 failed"):
        embed(storage)
    assert not storage.exists(path_of(3))


def test_a_provider_that_no_worker_has_is_named(storage):
    with pytest.raises(FinalError, match=r"ONNX Runtime offers no FPGA on this machine.*TINYTAGS_ONNX_PROVIDERS"):
        embed_blocks(
            EmbedRequest(CORPUS, MEANS_NET),
            storage=storage,
            address=address_of(storage),
            connect_spark=SparkHere(),
            report=quiet,
            providers=("FPGA",),
        )


def test_one_failure_that_a_retry_may_mend_makes_the_whole_worth_a_retry(storage, monkeypatch):
    def fail(task, address, providers):
        if task.source.block in (1, 2):
            raise (TransientError if task.source.block == 1 else FinalError)("it broke")

    monkeypatch.setattr(worker, "embed_block", fail)
    with pytest.raises(TransientError, match="blocks 1-2 failed: it broke"):
        embed(storage)


def test_a_block_that_spark_returns_nothing_for_is_worth_a_retry(storage, monkeypatch):
    monkeypatch.setattr(step, "embed_tasks", lambda *arguments, **options: [worker.Outcome(0)])
    with pytest.raises(TransientError, match="blocks 1-5 failed: Spark returned no result for it"):
        embed(storage)


# Killed, and two at once
def through(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> None:
    """Let workers use this storage as well; the session stays that of the local one."""
    for module in (block_module, worker):
        monkeypatch.setattr(module, "open_store", lambda address: storage)
    monkeypatch.setattr(worker, "_AT_ONCE", 1)


@pytest.mark.parametrize(("fault", "redo"), [(Killed, False), (Killed, True), (TransientError, False)])
@pytest.mark.parametrize("mode", MODES)
def test_embedding_that_fails_at_any_change_and_is_run_again_is_as_if_it_never_had(
    storage, tmp_path, monkeypatch, mode, fault, redo
):
    if redo:
        embed(storage)
    at = met = 0
    while met == at:
        at += 1
        faulty = FaultyStorage(storage, at, mode, fault)
        with monkeypatch.context() as patch, contextlib.suppress(fault, TinyTagsError):
            through(patch, faulty)
            embed(faulty, redo=redo)
        met = min(faulty.calls, at)
        embed(storage, redo=redo)
        embed(storage, blocks=(0,), redo=True)  # the next writer clears what a killed one left after its last block
        np.testing.assert_array_equal(stored(storage), means_of(pictures()))
        if not redo:
            storage.delete(layout.embeddings_folder(CORPUS, MEANS_NET))
    assert at > 3 * BLOCKS


def test_what_a_killed_worker_committed_is_left_when_spark_tries_its_blocks_again(storage, monkeypatch):
    embed(storage, blocks=(1,))
    before = storage.versions(layout.embeddings_folder(CORPUS, MEANS_NET))
    sources = block_sources(storage, Corpus.load(storage, layout.corpus_file(CORPUS)), [0, 1, 2])
    tasks = [block_module.BlockTask(source, MEANS_NET) for source in sources]
    outcomes = worker.embed_tasks(tasks, address_of(storage), ("CPUExecutionProvider",), is_retried=True)
    assert [outcome.reason for outcome in outcomes] == ["", "", ""]
    after = storage.versions(layout.embeddings_folder(CORPUS, MEANS_NET))
    assert before.items() <= after.items()
    assert len(after) == 3


@pytest.mark.parametrize("redo", [False, True])
def test_two_at_once_both_end_well_and_no_block_is_embedded_twice(storage, redo):
    errors, sparks = [], (SparkHere(), SparkHere())

    def guarded(spark: SparkHere, blocks: tuple[int, ...]) -> None:
        try:
            embed(storage, spark, blocks=blocks, redo=redo)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=work) for work in zip(sparks, (ALL, (5, 4, 3, 2)), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sum(spark.ran for spark in sparks) == BLOCKS + (4 if redo else 0)
    np.testing.assert_array_equal(stored(storage), means_of(pictures()))


def test_a_worker_that_comes_back_after_its_blocks_were_taken_over_writes_nothing(storage):
    sources = block_sources(storage, Corpus.load(storage, layout.corpus_file(CORPUS)), ALL)
    embed(storage)
    before = files_under(storage.root)
    for source in sources:
        task = block_module.BlockTask(source, MEANS_NET, "zombie", redo=True)
        with pytest.raises(TransientError, match=f"block {source.block} was taken over by another writer"):
            block_module.embed_block(task, address_of(storage), ("CPUExecutionProvider",))
    assert files_under(storage.root) == before


def test_a_worker_whose_corpus_was_removed_meanwhile_leaves_nothing_behind(storage, monkeypatch):
    def remove_first(pixels_of: Callable[..., Iterable[object]]):
        def act(*arguments):
            pixels = list(pixels_of(*arguments))
            storage.delete(layout.corpus_folder(CORPUS))
            return pixels

        return act

    monkeypatch.setattr(block_module, "read_pixel_batches", remove_first(block_module.read_pixel_batches))
    with pytest.raises((TransientError, MissingError, FinalError)):
        embed(storage, blocks=(3,))
    assert not storage.exists(path_of(3))


def test_only_as_many_blocks_are_held_as_a_job_takes(storage, monkeypatch):
    monkeypatch.setattr(step, "_BLOCKS_PER_JOB", 4)
    spark, held = SparkHere(), []
    run = step.embed_tasks

    def note(tasks, *arguments, **options):
        folder = layout.embedding_leases_folder(CORPUS, MEANS_NET)
        held.append([name for name in storage.names(folder) if name.endswith(".block")])
        return run(tasks, *arguments, **options)

    monkeypatch.setattr(step, "embed_tasks", note)
    assert embed(storage, spark).embedded == BLOCKS
    assert [len(names) for names in held] == [4, 2]
    assert spark.sessions == 2


def test_a_second_process_gets_the_blocks_that_the_first_has_not_begun(storage):
    leases = embedding_leases(CORPUS, MEANS_NET)
    with contextlib.closing(leases.hold([0, 1, 2], storage=storage, report=quiet, most=2)) as first:
        assert next(first).blocks == [0, 1]
        for second in leases.hold([0, 1, 2, 3], storage=storage, report=quiet):
            assert second.blocks == [2, 3]
            break


def test_progress_is_told_with_the_speed_and_the_time_left(storage, monkeypatch):
    monkeypatch.setattr("tinytags_tasks.embed.progress._REPORT_SECONDS", 0.0)
    told = []
    embed(storage, report=told.append)
    assert "GB will be written, and" in told[1]
    assert told[-1].startswith("corpus pets: 11 of 11 images embedded, ")


@pytest.mark.parametrize(("images_a_task", "partitions"), [(1, BLOCKS), (5, 3), (100, 1)])
def test_a_spark_task_takes_as_many_blocks_as_are_worth_it(storage, monkeypatch, images_a_task, partitions):
    monkeypatch.setattr(step, "_IMAGES_PER_SPARK_TASK", images_a_task)
    spark = SparkHere()
    embed(storage, spark)
    assert spark.partitions == partitions


def test_a_damaged_manifest_is_named(storage):
    storage.write(layout.shard_manifest_file(CORPUS, 1), b"{")
    refused(
        storage, CorruptError, f"{layout.shard_manifest_file(CORPUS, 1)}: .*{ShardManifest.remedy('a/pets/00001.json')}"
    )
