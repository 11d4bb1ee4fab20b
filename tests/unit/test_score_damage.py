"""Scoring: what is damaged, missing or replaced is named, and nothing wrong is committed."""

import json
import re

import numpy as np
import onnx
import pytest
from score_steps import ALL, block_tasks, expected_rows, rows, score
from small_run import CORPUS, MODEL, TAGS, TREES, SparkHere, address_of, card, make_corpus, make_run, publish_model

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
from tinytags_tasks.errors import CorruptError, FinalError, MissingError
from tinytags_tasks.score import worker
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.record import CHECKSUM_KEY
from tinytags_tasks.store.run_records import BlockState, Run


def test_a_damaged_byte_of_a_shard_is_named_by_block_and_offset(storage):
    run = make_run(storage)
    path = storage.root / layout.shard_file(CORPUS, 1)
    content = bytearray(path.read_bytes())
    content[2 * IMAGE_BYTES] ^= 1  # an image of block 4, the second of the second shard
    path.write_bytes(content)
    tasks = block_tasks(storage, run)
    with pytest.raises(CorruptError, match=rf"00001\.bin: block 4 \(offset {IMAGE_BYTES:,}, {2 * IMAGE_BYTES:,} bytes"):
        score_block(tasks[4], address_of(storage))
    assert storage.names(layout.scored_folder(run.name)) == []
    score_block(tasks[3], address_of(storage))
    score_block(tasks[5], address_of(storage))


def test_a_shard_that_is_not_there_is_missed_with_the_remedy(storage):
    run = make_run(storage)
    storage.delete(layout.shard_file(CORPUS, 0))
    with pytest.raises(MissingError, match=r"00000\.bin: .* ingest the corpus again"):
        score_block(block_tasks(storage, run, [0])[0], address_of(storage))


def test_one_damaged_block_is_named_in_the_ledger_and_the_others_are_committed(storage):
    run = make_run(storage)
    path = storage.root / layout.shard_file(CORPUS, 0)
    content = bytearray(path.read_bytes())
    content[2 * IMAGE_BYTES] ^= 1  # an image of block 1
    path.write_bytes(content)
    with pytest.raises(FinalError, match=r"failed for blocks 1: .*00000\.bin: block 1 .* is not what was ingested"):
        score(storage, run)
    assert storage.names(layout.scored_folder(run.name)) == [f"{block:06d}.parquet" for block in (0, 2, 3, 4, 5)]
    records = read_ledger(storage, run)
    assert [record.state for record in records] == [BlockState.SCORED, BlockState.FAILED] + [BlockState.SCORED] * 4
    assert "is not what was ingested" in records[1].reason


def test_a_shard_that_was_cut_short_fails_the_blocks_it_lacks(storage):
    run = make_run(storage)
    path = storage.root / layout.shard_file(CORPUS, 1)
    path.write_bytes(path.read_bytes()[: -2 * IMAGE_BYTES - 1])
    with pytest.raises(
        FinalError,
        match=r"for blocks 4-5: .*00001\.bin: block 4 cannot be read \(.*ends at 9,215.*ingest pets --redo 1",
    ):
        score(storage, run)
    assert len(storage.names(layout.scored_folder(run.name))) == 4


def test_a_manifest_without_its_shard_fails_that_shards_blocks_alone(storage):
    run = make_run(storage)
    storage.delete(layout.shard_file(CORPUS, 1))
    with pytest.raises(FinalError, match=r"blocks 3-5: .*00001\.bin: is missing although its manifest exists; ingest"):
        score(storage, run)
    assert len(storage.names(layout.scored_folder(run.name))) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda storage, path: storage.delete(path), "00000.json: no such file"),
        (lambda storage, path: storage.write(path, b"{}"), "00000.json: no usable ShardManifest"),
        (lambda storage, path: storage.write(path, other_blocks(storage.read(path))), "does not describe block 0"),
    ],
)
def test_a_shard_without_a_manifest_that_fits_fails_before_spark_is_asked(storage, damage, message):
    run = make_run(storage)
    damage(storage, layout.shard_manifest_file(CORPUS, 0))
    spark = SparkHere()
    with pytest.raises(FinalError, match=re.escape(message)):
        score(storage, run, ALL, spark)
    assert spark.sessions == 0
    assert storage.names(layout.scored_folder(run.name)) == []


def other_blocks(manifest: bytes) -> bytes:
    changed = json.loads(manifest)
    del changed[CHECKSUM_KEY]
    changed["blocks"][0]["images"] += 1
    return json.dumps(changed).encode()


def test_a_model_whose_votes_are_not_its_trees_is_corrupt(storage):
    make_corpus(storage)
    publish_model(storage, card(trees=TREES + 1))
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run))
    with pytest.raises(FinalError, match=f"{MODEL}: its votes do not add up to 11 trees; train or publish it again"):
        score(storage, run, [0])


def onnx_model(
    *, features: int | str = IMAGE_BYTES, tags: int | str = len(TAGS), pixels="pixels", votes="votes", constant=()
) -> bytes:
    """Return a model that gives every image the same votes: ``constant``, or all trees for the first tag."""
    chosen = np.array(constant or (TREES, *[0] * (len(TAGS) - 1)), dtype=np.float32)
    weights = np.zeros((features if isinstance(features, int) else IMAGE_BYTES, len(chosen)), dtype=np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", [pixels], ["values"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("MatMul", ["values", "weights"], ["nothing"]),
            onnx.helper.make_node("Add", ["nothing", "chosen"], [votes]),
        ],
        "constant",
        [onnx.helper.make_tensor_value_info(pixels, onnx.TensorProto.UINT8, ["images", features])],
        [onnx.helper.make_tensor_value_info(votes, onnx.TensorProto.FLOAT, ["images", tags])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(chosen, "chosen")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString()


def make_run_of(storage, model: bytes) -> Run:
    """Create a run of a model from elsewhere."""
    version = model_version("other", model)
    make_corpus(storage)
    storage.write(layout.model_file(version), model)
    card(version=version).save(storage, layout.card_file(version))
    return Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, version), storage=storage).run))


def with_an_unknown_operator() -> bytes:
    model = onnx.load_from_string(onnx_model())
    model.graph.node[2].op_type = "AddUp"
    model.graph.node[2].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    return model.SerializeToString()


@pytest.mark.parametrize("open_dimensions", [False, True])
def test_any_onnx_model_that_takes_the_images_and_gives_votes_is_scored_with(storage, open_dimensions):
    named = {"features": "values", "tags": "tags"} if open_dimensions else {}
    run = make_run_of(storage, onnx_model(**named))
    score(storage, run)
    assert set(rows(storage, run).values()) == {("cat", TREES, 100)}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"no model", "ONNX Runtime cannot use it .*; train or import another one"),
        (b"", "ONNX Runtime cannot use it .*; train or import another one"),
        (with_an_unknown_operator(), "AddUp"),
        (onnx_model(features=12), "its input is {'pixels': ['images', 12]}; .* need pixels of (images, 3,072)"),
        (onnx_model(pixels="image"), "its input is {'image': .* need pixels of (images, 3,072)"),
        (onnx_model(tags=2, constant=(10, 0)), "its output is {'votes': ['images', 2]}; .* need votes of (images, 3)"),
        (onnx_model(votes="scores"), "its output is {'scores': .* need votes of (images, 3)"),
    ],
)
def test_a_model_that_cannot_be_used_is_named_before_spark_is_asked(storage, model, message):
    run = make_run_of(storage, model)
    spark = SparkHere()
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(CorruptError, match=f"models/{run.model}/model.onnx: .*{pattern}"):
        score(storage, run, ALL, spark)
    assert spark.sessions == 0
    assert storage.names(layout.scored_folder(run.name)) == []


@pytest.mark.parametrize(
    "constant", [(float("nan"), 5, 5), (float("nan"),) * 3, (float("inf"), 0, 0), (4, 4, 1), (4, 4, 4), (0, 0, 0)]
)
def test_scores_that_are_no_votes_commit_nothing(storage, constant):
    run = make_run_of(storage, onnx_model(constant=constant))
    with pytest.raises(FinalError, match=f"for blocks 0-5: model {run.model}: its votes do not add up to"):
        score(storage, run)
    assert storage.names(layout.scored_folder(run.name)) == []
    assert {record.state for record in read_ledger(storage, run)} == {BlockState.FAILED}


def test_a_corpus_other_than_the_planned_one_is_refused(storage):
    run = make_run(storage)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(digest="other bytes").save(storage, layout.corpus_file(CORPUS))
    with pytest.raises(
        CorruptError, match=f"{CORPUS} is not the one that run {run.name} was planned on; .*`tinytags run {CORPUS}`"
    ):
        score(storage, run)


def test_a_scored_file_that_is_another_blocks_is_corrupt(storage):
    run = make_run(storage)
    score(storage, run)
    storage.write(layout.scored_file(run.name, 2), storage.read(layout.scored_file(run.name, 0)))
    with pytest.raises(CorruptError, match=r"000002\.parquet: holds another block's images; score block 2 again"):
        read_scored(storage, run.name, 2)


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-9], lambda content: b"x" * 200])
def test_a_damaged_scored_file_is_corrupt(storage, damage):
    run = make_run(storage)
    score(storage, run)
    path = layout.scored_file(run.name, 0)
    storage.write(path, damage(storage.read(path)))
    with pytest.raises(CorruptError, match=r"000000\.parquet: damaged .* score block 0 again with `tinytags score"):
        read_scored(storage, run.name, 0)


def test_a_scored_file_with_lost_rows_is_corrupt(storage):
    run = make_run(storage)
    score(storage, run)
    table, record = read_scored(storage, run.name, 0)
    write_scored(storage, table.slice(1), record)
    with pytest.raises(CorruptError, match=r"000000\.parquet"):
        read_scored(storage, run.name, 0)


@pytest.mark.parametrize("was_used", [False, True])
def test_a_model_whose_file_was_replaced_is_named_and_never_used_and_the_right_one_is_when_it_is_back(
    storage, was_used
):
    run = make_run(storage)
    if was_used:  # and is open in this process
        score(storage, run, [0, 1])
    right, path = storage.read(layout.model_file(MODEL)), layout.model_file(MODEL)
    other = onnx_model()
    storage.write(path, other)
    spark = SparkHere()
    message = (
        f"{path}: is not the model that was published: its sha256 should begin with {MODEL[-12:]}, but begins with "
        f"{model_version('x', other)[-12:]}; train or import the same model again"
    )
    with pytest.raises(CorruptError, match=re.escape(message)):
        score(storage, run, ALL, spark)
    assert spark.sessions == 0
    storage.write(path, right)
    score(storage, run)
    assert rows(storage, run) == expected_rows(40)


def test_a_worker_that_meets_a_replaced_model_first_commits_nothing(storage):
    run = make_run(storage)
    tasks = block_tasks(storage, run)
    storage.write(layout.model_file(MODEL), onnx_model())
    (outcome, *_) = worker.score_tasks(tasks, address_of(storage), is_retried=False)
    assert "is not the model that was published" in outcome.reason
    assert storage.names(layout.scored_folder(run.name)) == []


def test_a_model_that_is_not_there_is_missed_with_the_remedy(storage):
    run = make_run(storage)
    storage.delete(layout.model_file(MODEL))
    with pytest.raises(MissingError, match=f"models/{MODEL}/model.onnx: does not exist; train or import the same"):
        score(storage, run)
