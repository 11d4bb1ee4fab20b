"""A damaged byte on a DataNode's disk: it is reported, never used, and does not affect other blocks."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import urllib3
from conftest import engine_process, hdfs_client, wait_for
from small_run import MODEL, SparkHere, pictures, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, to_column_major
from tinytags_tasks.doctor.finding import Finding
from tinytags_tasks.doctor.hdfs import _name_nodes as examine_name_nodes
from tinytags_tasks.errors import CorruptError, FinalError, TransientError
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.ingest.verify import verify_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run

CORPUS = "rusty"
COPIES = 30
SHARD_IMAGES, BLOCKS = 180, 6
"""330 images in two shards of three blocks each: 60, 60, 60, then 50, 50, 50."""


def located_block(runtime: Runtime, path: str) -> dict[str, Any]:
    """Return the NameNode's information on a file's only block."""
    url = f"{runtime.settings.address('webhdfs_url')}/webhdfs/v1{runtime.settings.store}/{path}"
    parameters = {"op": "GET_BLOCK_LOCATIONS", "user.name": runtime.settings.hdfs_user}
    (block,) = requests.get(url, parameters, timeout=10).json()["LocatedBlocks"]["locatedBlocks"]
    return dict(block)


def flip(runtime: Runtime, path: str, offset: int) -> str:
    """Change one byte of a file on the disk of its DataNode; return the name of its HDFS block."""
    data = runtime.settings.home / "services" / "datanode" / "data"
    (found,) = data.rglob(f"blk_{located_block(runtime, path)['block']['blockId']}")
    with found.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    return found.name


@pytest.fixture
def store(own_store: Runtime, tmp_path: Path) -> Runtime:
    """A store with a corpus and a model."""
    images = np.concatenate([pictures()] * COPIES)
    images.reshape(len(images), -1)[:, -2:] = np.arange(len(images), dtype=">u2").view(np.uint8).reshape(-1, 2)
    source = tmp_path / "rusty.bin"
    source.write_bytes(to_column_major(images))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=own_store.storage, report=quiet)
    publish_model(own_store.storage)
    return own_store


def new_run(store: Runtime) -> Run:
    return Run.load(store.storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=store.storage).run))


def score_all(store: Runtime, run: Run) -> None:
    score_blocks(
        ScoreRequest(run.name, tuple(range(BLOCKS))),
        storage=store.storage,
        address=store.store_address,
        connect_spark=SparkHere(),
        report=quiet,
    )


@pytest.mark.parametrize("at", [0, 300_000, SHARD_IMAGES * IMAGE_BYTES - 1])
def test_a_flipped_byte_is_named_with_its_offset_and_block_and_all_others_are_read(store: Runtime, at: int) -> None:
    path = layout.shard_file(CORPUS, 0)
    content = store.storage.read(path)
    name = flip(store, path, at)
    chunk = at // 512 * 512
    with pytest.raises(CorruptError) as raised:
        store.storage.read(path)
    message = str(raised.value)
    assert f"/{path}: is damaged at offset {chunk:,}" in message
    assert f"HDFS has no undamaged copy of {name}, which is bytes 0 to {len(content):,}" in message
    assert "write the file again" in message
    # A DataNode never sends a packet with a damaged chunk.
    if good := max(0, chunk - 65_536):
        assert store.storage.read(path, 0, good) == content[:good]
    if chunk + 512 < len(content):
        assert store.storage.read(path, chunk + 512) == content[chunk + 512 :]


def test_the_doctor_fails_for_a_lost_block_of_the_store_and_warns_of_one_of_others(store: Runtime) -> None:
    path = layout.shard_file(CORPUS, 0)
    flip(store, path, 0)
    with pytest.raises(CorruptError):
        store.storage.read(path)
    url, root = store.settings.address("webhdfs_url"), store.settings.store

    def lost(folder: str) -> list[Finding]:
        found = examine_name_nodes([url], store=folder)
        return [each for each in found if each.subject == "blocks" and "have no copy" in each.text]

    [ours] = wait_for(lambda: lost(root))  # the NameNode's figures are some seconds old
    [of_others] = lost("/elsewhere")
    assert (ours.verdict, of_others.verdict) == ("fails", "warning")
    assert f"{root}/{path}" in ours.text


@pytest.mark.parametrize("times", [1, 3], ids=["once", "each time"])
def test_an_answer_that_breaks_off_is_asked_for_again_where_the_bytes_are_good(
    store: Runtime, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path = layout.shard_file(CORPUS, 0)
    genuine = urllib3.response.HTTPResponse.read
    broken = []

    def break_off(self: urllib3.response.HTTPResponse, *arguments: object, **options: object) -> bytes:
        content = genuine(self, *arguments, **options)
        # Only for bytes that are read; the responses of the NameNode are complete.
        if len(content) == 100 and len(broken) < times:
            broken.append(content)
            raise urllib3.exceptions.ProtocolError("Connection broken", urllib3.exceptions.IncompleteRead(5, 95))
        return content

    with monkeypatch.context() as patch:
        patch.setattr(urllib3.response.HTTPResponse, "read", break_off)
        if times > 1:
            with pytest.raises(TransientError, match="the connection to HDFS broke"):
                store.storage.read(path, 0, 100)
        assert len(store.storage.read(path, 0, 100)) == 100
    assert len(broken) == times


def test_verify_names_shard_and_block_and_ingesting_the_shard_again_mends_it(store: Runtime, tmp_path: Path) -> None:
    path = layout.shard_file(CORPUS, 1)
    before = store.storage.read(path)
    flip(store, path, 85 * IMAGE_BYTES)
    deep = verify_corpus(CORPUS, storage=store.storage, files=None, deep=True, report=quiet)
    assert set(deep.damaged) == {1}
    assert f"block 4 cannot be read: {store.settings.store}/{path}: is damaged at offset" in deep.damaged[1]
    # HDFS remembers what a read found, so asking again costs nothing.
    shallow = verify_corpus(CORPUS, storage=store.storage, files=None, report=quiet)
    assert set(shallow.damaged) == {1}
    assert "HDFS has no undamaged copy of blk_" in shallow.damaged[1]
    fields = {"source": str(tmp_path / "rusty.bin"), "format": "tiny-images"}
    fields |= {"shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=store.storage, redo=(1,), report=quiet)
    assert store.storage.read(path) == before
    assert verify_corpus(CORPUS, storage=store.storage, files=None, deep=True, report=quiet).damaged == {}


def test_scoring_names_the_block_and_commits_the_others(store: Runtime) -> None:
    run = new_run(store)
    flip(store, layout.shard_file(CORPUS, 1), 85 * IMAGE_BYTES)
    with pytest.raises(FinalError, match=r"failed for blocks 4: .*00001\.bin: block 4 cannot be read .* is damaged at"):
        score_all(store, run)
    assert len(store.storage.names(layout.scored_folder(run.name))) == BLOCKS - 1


@pytest.fixture
def solr(hdfs: Runtime) -> Iterator[Runtime]:
    yield Runtime(services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True))


def test_an_audit_names_each_damaged_block_and_compares_the_others(store: Runtime, solr: Runtime) -> None:
    run = new_run(store)
    score_all(store, run)
    prepare_collection(run.name, storage=store.storage, solr=solr.solr)
    index_blocks(IndexRequest(run.name, tuple(range(BLOCKS))), storage=store.storage, solr=solr.solr, report=quiet)
    flip(store, layout.scored_file(run.name, 0), 40)
    flip(store, layout.ledger_file(run.name, 1), 40)
    flip(store, layout.shard_file(CORPUS, 1), 85 * IMAGE_BYTES)  # image 265, in the middle of block 4
    counts = solr.solr.count_by_block(run.collection)
    found = audit_run(
        AuditRequest(run.name, sample=sum(counts.values())), storage=store.storage, solr=solr.solr, report=quiet
    )
    assert set(found.problems) == {0, 1}  # block 4's documents are good
    assert f"{layout.scored_file(run.name, 0)}: is damaged at offset 0" in found.problems[0]
    assert f"{layout.ledger_file(run.name, 1)}: is damaged at offset 0" in found.problems[1]
    (shard_problem,) = found.input_problems
    assert f"{layout.shard_file(CORPUS, 1)}: is damaged at offset {85 * IMAGE_BYTES:,}" in shard_problem
    assert f"tinytags ingest {CORPUS} --redo 1" in shard_problem
    assert found.blocks == BLOCKS
    assert found.sampled == counts[2] + counts[3] + counts[5]
    solr.solr.delete_collection(run.collection)


# Two DataNodes in a separate HDFS: in that of the other tests, the NameNode would redirect to one that is gone


@pytest.fixture
def two_disks(tmp_path: Path) -> Iterator[Runtime]:
    """A store in an HDFS with two DataNodes; :func:`flip` finds the first one's disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYTAGS_HOME", str(tmp_path / "home"))
        settings = services.up(load_settings(), engines=["hdfs"], standard_ports=False, die_with_parent=True)
        try:
            with second_datanode(settings):
                yield Runtime(settings)
        finally:
            services.down(load_settings())


@contextlib.contextmanager
def second_datanode(settings: Settings) -> Iterator[None]:
    first = engine_process(settings, "datanode")
    home, other = settings.home / "services" / "datanode", settings.home / "datanode-2"
    (other / "conf").mkdir(parents=True)
    (other / "data").mkdir()
    for file in (home / "conf").iterdir():
        text = file.read_text().replace(str(home), str(other))
        for name in ("dfs.datanode.address", "dfs.datanode.http.address", "dfs.datanode.ipc.address"):
            text = with_free_port(text, name)
        (other / "conf" / file.name).write_text(text)
    command = [part.replace(str(home), str(other)) for part in first.cmdline()]
    with (other / "log").open("wb") as log:
        process = subprocess.Popen(command, env=first.environ(), cwd=other, stdout=log, stderr=log)
    try:
        wait_for(lambda: live_datanodes(settings), lambda count: count == 2)
        yield
    finally:
        process.kill()
        process.wait(30)


def with_free_port(xml: str, name: str) -> str:
    before, found, after = xml.partition(f"<name>{name}</name>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"{before}{found}<value>127.0.0.1:{port}</value>{after.partition('</value>')[2]}" if found else xml


def live_datanodes(settings: Settings) -> int:
    query = {"qry": "Hadoop:service=NameNode,name=NameNodeInfo"}
    answer = requests.get(f"{settings.address('webhdfs_url')}/jmx", query, timeout=10).json()
    return len(json.loads(answer["beans"][0]["LiveNodes"]))


def test_a_good_copy_is_used_where_there_is_one(two_disks: Runtime) -> None:
    content = np.random.default_rng(4).bytes(1_000_000)
    two_disks.storage.write("folder/file", content)
    hdfs_client(two_disks).set_replication("folder/file", 2)
    wait_for(lambda: located_block(two_disks, "folder/file")["locations"], lambda copies: len(copies) == 2)
    flip(two_disks, "folder/file", 300_000)
    for _ in range(10):  # whichever DataNode responds
        assert two_disks.storage.read("folder/file") == content
        assert two_disks.storage.read("folder/file", 300_000, 10) == content[300_000:300_010]
    assert two_disks.storage.known_damage("folder/file") == ""
