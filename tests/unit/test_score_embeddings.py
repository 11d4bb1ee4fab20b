"""Scoring from stored embeddings: what is counted, what damage does, and that pixels are not read."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_nets import (
    EMBED_SECONDS,
    HALF_NET,
    NET_TAGS,
    NONE,
    embed,
    half_embedder,
    half_head,
    linear_head,
    make_net_run,
    publish_net_model,
)
from small_run import (
    BLOCKS,
    CORPUS,
    TREES,
    UNREADABLE,
    VOTES,
    SparkHere,
    address_of,
    make_corpus,
    make_run,
    pictures,
    quiet,
)

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.nets.compose import compose_model, split_head
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed as embed_pixels
from tinytags_tasks.nets.running import open_session
from tinytags_tasks.nets.shipped import shipped_card, shipped_net
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.score import step
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, read_scored
from tinytags_tasks.store.block_lease import BlockLeases, embedding_leases
from tinytags_tasks.store.embedding_files import embeddings_sha256, read_embeddings, write_embeddings
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.net_records import EmbeddedBlock, NetCard
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.votes import decide

DATA = PROJECT_ROOT.parent / "shared" / "data"
ALL = tuple(range(BLOCKS))


def score(storage, run: Run, blocks=ALL, spark=None):
    return step.score_blocks(
        step.ScoreRequest(run.name, tuple(blocks)),
        storage=storage,
        address=address_of(storage),
        connect_spark=spark or SparkHere(),
        report=quiet,
    )


def kept(storage, run: Run) -> dict[int, tuple]:
    """Return tag and votes of every kept image by position."""
    return {
        row["position"]: (row["tag"], row["votes"])
        for block in ALL
        for row in read_scored(storage, run.name, block)[0].to_pylist()
    }


def expected(threshold: int, unreadable=()) -> dict[int, tuple]:
    return {
        position: (NET_TAGS[votes.index(max(votes))], max(votes))
        for position, votes in enumerate(VOTES)
        if position not in (*unreadable, *NONE) and 10 * max(votes) >= threshold
    }


@pytest.mark.parametrize("threshold", [0, 40, 41, 50, 100])
@pytest.mark.parametrize("unreadable", [(), UNREADABLE, (2,)], ids=["all", "others unreadable", "a none unreadable"])
def test_every_image_is_kept_or_below_or_none_or_unreadable(storage, threshold, unreadable):
    run = make_net_run(storage, threshold=threshold, unreadable=unreadable)
    embed(storage)
    score(storage, run)
    assert kept(storage, run) == expected(threshold, unreadable)
    records = read_ledger(storage, run)
    assert all(record.read == record.kept + record.below + record.none + record.unreadable for record in records)
    totals = add_up(records)
    none = len(set(NONE) - set(unreadable))
    assert (totals.read, totals.none, totals.unreadable) == (len(VOTES), none, len(unreadable))
    assert totals.below == len(VOTES) - len(expected(threshold, unreadable)) - none - len(unreadable)
    assert totals.accounted == totals.read
    assert [record.none for record in records] == [0, int(2 not in unreadable), 0, 0, 1, 0]


def test_none_is_never_kept_however_many_votes_it_has(storage):
    run = make_net_run(storage, threshold=0)
    embed(storage)
    score(storage, run)
    assert VOTES[7] == (0, 0, 10)
    assert 7 not in kept(storage, run)


def test_a_tag_wins_a_tie_with_none(storage):
    run = make_net_run(storage)
    embed(storage)
    score(storage, run)
    assert (VOTES[6], VOTES[8]) == ((2, 4, 4), (5, 0, 5))
    assert (kept(storage, run)[6], kept(storage, run)[8]) == (("dog", 4), ("cat", 5))


def test_pixels_are_not_read(storage):
    run = make_net_run(storage)
    embed(storage)
    for shard in range(2):
        storage.delete(layout.shard_file(CORPUS, shard))
    score(storage, run)
    assert kept(storage, run) == expected(40)


def test_a_record_tells_how_long_its_embeddings_took(storage):
    run = make_net_run(storage)
    embed(storage)
    score(storage, run)
    assert [record.embed_seconds for record in read_ledger(storage, run)] == [EMBED_SECONDS] * BLOCKS
    assert add_up(read_ledger(storage, run)).embed_seconds == EMBED_SECONDS * BLOCKS


def real_pictures() -> np.ndarray:
    """Return pictures of other sources and of CIFAR-10 where these are at hand, and random ones."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (100, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    made = [(coarse + random.integers(-20, 21, coarse.shape)).clip(0, 255), random.integers(0, 256, (100, 32, 32, 3))]
    for name in ("other-sample.parquet", "cifar10-test.parquet"):
        if (source := DATA / name).exists():
            rows = pq.ParquetFile(source).iter_batches(200, columns=["img"])
            made.append(np.stack([decoded(row["img"]["bytes"]) for row in next(rows).to_pylist()]))
    return np.concatenate(made).astype(np.uint8).reshape(-1, IMAGE_BYTES)


def decoded(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB").resize((32, 32)))


def test_votes_from_stored_embeddings_of_the_shipped_net_are_those_of_the_whole_graph(storage):
    pixels = real_pictures()
    net = shipped_card()
    embedder = embedding_graph(shipped_net(), net, 32, 32)
    model = compose_model(embedder, linear_head(net.dimensions, 3), {})
    source = BlockSource(CORPUS, 0, 0, 0, len(pixels), 0, IMAGE_BYTES, 32, "0" * 64, None, ())
    embeddings = embed_pixels(open_session(embedder, "net"), pixels)
    record = EmbeddedBlock(
        corpus=CORPUS,
        block=0,
        net=net.version,
        source_sha256=source.sha256,
        images=len(pixels),
        dimensions=net.dimensions,
        sha256=embeddings_sha256(embeddings),
    )
    write_embeddings(storage, embeddings, record)
    stored, _ = read_embeddings(storage, source, net.version)
    (parted,) = open_session(split_head(model), "head").run(["votes"], {"embedding": stored})
    session = open_session(model, "model")
    whole = np.concatenate(
        [session.run(["votes"], {"pixels": pixels[at : at + 128]})[0] for at in range(0, len(pixels), 128)]
    )
    assert parted.shape == whole.shape == (len(pixels), 3)
    assert (parted == whole).all()  # to the last bit, though the batches differ
    assert 0 < decide(parted, 2, 40, 100).is_none.sum() < len(pixels)


def test_votes_from_embeddings_are_those_of_the_whole_graph(storage):
    model = compose_model(half_embedder(), half_head(), {})
    pixels = np.concatenate(
        [pictures().reshape(len(VOTES), -1), np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)]
    )
    (whole,) = open_session(model, "model").run(["votes"], {"pixels": pixels})
    embeddings = (pixels[:, :TREES] // 2).astype(np.int8)
    (parted,) = open_session(split_head(model), "head").run(["votes"], {"embedding": embeddings})
    assert (whole == parted).all()
    assert (whole[: len(VOTES)] == VOTES).all()


# What is missing or damaged


def test_a_block_that_is_not_embedded_is_worth_a_retry_that_embeds(storage):
    run = make_net_run(storage)
    embed(storage, [block for block in ALL if block not in (1, 4)])
    again = rf"`tinytags embed {CORPUS} --net {HALF_NET} --blocks 1` makes it, and so does the next try"
    with pytest.raises(TransientError, match=rf"failed for blocks 1, 4: .*000001\.parquet: block 1 is not .*{again}"):
        score(storage, run)
    records = read_ledger(storage, run)
    assert [record.state for record in records].count(BlockState.SCORED) == BLOCKS - 2
    assert "is not embedded" in records[4].reason
    embed(storage, [1, 4])
    score(storage, run)
    assert kept(storage, run) == expected(40)


def truncate(storage, path):
    storage.write(path, storage.read(path)[:-7])


def flip_a_byte(storage, path):
    stored = bytearray(storage.read(path))
    stored[stored.index(b"\x28\xb5\x2f\xfd") + 12] ^= 1  # in the page, which begins with zstd's magic number
    storage.write(path, bytes(stored))


def exchange(storage, path):
    storage.write(path, storage.read(layout.embeddings_file(CORPUS, HALF_NET, 4)))


@pytest.mark.parametrize("damage", [truncate, flip_a_byte, exchange])
def test_damaged_embeddings_are_deleted_and_the_next_try_makes_them(storage, damage):
    run = make_net_run(storage)
    embed(storage)
    path = layout.embeddings_file(CORPUS, HALF_NET, 3)
    damage(storage, path)
    said = (
        rf"failed for blocks 3: {path}: .* the file is deleted: `tinytags embed {CORPUS} --net {HALF_NET} --blocks 3`"
    )
    with pytest.raises(TransientError, match=said):
        score(storage, run)
    assert not storage.exists(path)
    embed(storage, [3])
    score(storage, run)
    assert kept(storage, run) == expected(40)


def test_damaged_embeddings_are_left_to_whoever_is_embedding_the_block(storage):
    run = make_net_run(storage)
    embed(storage)
    path = layout.embeddings_file(CORPUS, HALF_NET, 3)
    truncate(storage, path)
    for _ in embedding_leases(CORPUS, HALF_NET).hold([3], storage=storage, report=quiet):
        with pytest.raises(TransientError, match="another process is embedding the block: try again"):
            score(storage, run)
        assert storage.exists(path)


def test_embeddings_that_were_made_again_since_they_were_read_stay(storage, monkeypatch):
    run = make_net_run(storage)
    embed(storage)
    path = layout.embeddings_file(CORPUS, HALF_NET, 3)
    good = storage.read(path)
    truncate(storage, path)
    hold = BlockLeases.hold

    def hold_after_another_writer(*arguments, **options):
        storage.write(path, good)
        yield from hold(*arguments, **options)

    (task,) = step._block_tasks(run, [3], storage)
    monkeypatch.setattr(BlockLeases, "hold", hold_after_another_writer)
    with pytest.raises(TransientError, match=r"damaged .*so does the next try"):
        score_block(task, address_of(storage))
    assert storage.read(path) == good


def test_embeddings_of_other_bytes_than_the_shard_holds_are_made_again(storage):
    run = make_net_run(storage)
    embed(storage)
    (task,) = step._block_tasks(run, [2], storage)
    changed = replace(task, source=replace(task.source, sha256="0" * 64))
    with pytest.raises(TransientError, match="was made of other bytes than the shard holds"):
        score_block(changed, address_of(storage))
    assert not storage.exists(layout.embeddings_file(CORPUS, HALF_NET, 2))


def test_only_blocks_that_are_to_be_scored_need_embeddings(storage):
    run = make_net_run(storage)
    assert step.needed_embeddings(step.ScoreRequest(run.name, ALL), storage=storage) == (HALF_NET, ALL)
    embed(storage)
    score(storage, run, (0, 3))
    assert step.needed_embeddings(step.ScoreRequest(run.name, ALL), storage=storage) == (HALF_NET, (1, 2, 4, 5))
    again = step.ScoreRequest(run.name, (0, 1), redo=True)
    assert step.needed_embeddings(again, storage=storage) == (HALF_NET, (0, 1))


def test_a_model_of_pixels_needs_none(storage):
    run = make_run(storage)
    assert step.needed_embeddings(step.ScoreRequest(run.name, ALL), storage=storage) == ("", ())


# Models that do not fit


def test_a_model_whose_net_is_not_in_the_store_is_refused_before_anything_is_written(storage):
    make_corpus(storage)
    model = publish_net_model(storage)
    storage.delete(layout.net_folder(HALF_NET))
    with pytest.raises(
        MissingError, match=rf"{model.version} reads embeddings by a net that is not .*{HALF_NET}: no such"
    ):
        plan_run(PlanRequest(CORPUS, model.version), storage=storage)
    assert storage.names(layout.RUNS) == []


def test_votes_of_all_columns_must_add_up(storage):
    make_corpus(storage)
    model = publish_net_model(storage, total=2 * TREES)
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, model.version), storage=storage).run))
    embed(storage)
    with pytest.raises(FinalError, match="its votes do not add up to 10 trees"):
        score(storage, run)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"none": False}, "its output is .*and 2 tags need votes of .images, 2."),
        ({"tags": ("cat", "dog", "emu")}, "its output is .*and 3 tags with none need votes of .images, 4."),
    ],
    ids=["none", "tags"],
)
def test_a_model_whose_output_is_not_as_its_card_says_is_refused_before_spark_is_asked(storage, changes, what):
    make_corpus(storage)
    model = publish_net_model(storage, **changes)
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, model.version), storage=storage).run))
    embed(storage)
    spark = SparkHere()
    with pytest.raises(CorruptError, match=what):
        score(storage, run, ALL, spark)
    assert spark.sessions == 0


def test_a_head_that_reads_other_embeddings_than_its_net_gives_is_refused(storage):
    make_corpus(storage)
    model = publish_net_model(storage)
    net = layout.net_card_file(HALF_NET)
    NetCard.load(storage, net).replaced(dimensions=256).save(storage, net)
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, model.version), storage=storage).run))
    with pytest.raises(CorruptError, match=rf"its input is .* by net {HALF_NET} .* need embedding of .images, 256."):
        score(storage, run)


# How the work is divided


@pytest.mark.parametrize(
    ("images", "columns", "tasks", "spark_tasks"),
    [(20_000, 3_072, 5, 3), (20_000, 256, 5, 2), (20_000, 150_528, 5, 5), (100, 256, 5, 1), (20_000, 256, 1, 1)],
)
def test_spark_tasks_follow_the_bytes_that_are_read_and_the_images(images, columns, tasks, spark_tasks):
    made = [SimpleNamespace(source=SimpleNamespace(images=images), columns=columns)] * tasks
    assert step._spark_tasks(made) == spark_tasks
