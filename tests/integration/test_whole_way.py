"""From a file to the search page, with the real Airflow and engines, checked against the trees and the bytes."""

import base64
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DEPTH, IMAGES, KEYWORDS, all_documents, ask_solr, keyword_of, walk
from derived_values import derived_values
from fastapi.testclient import TestClient
from PIL import Image
from pyspark.ml.classification import RandomForestClassifier

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.demo.drawn import SHAPES
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.search.page import create_app
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import Training

SHARD, BLOCKS = 400, 3

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def first_run(
    airflow: Settings, tinytags: Command, tinytags_here: Command, pictures: dict[str, Path]
) -> subprocess.CompletedProcess[str]:
    added = tinytags_here(
        *("corpus", "add", "small", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--keywords", str(pictures["metadata"])),
        *("--shard-images", str(SHARD), "--blocks-per-shard", str(BLOCKS)),
    )
    assert added.returncode == 0, added.stderr
    return trigger(tinytags, pictures)


@pytest.fixture(scope="module")
def ledger(first_run: subprocess.CompletedProcess[str], tinytags_here: Command) -> dict:
    assert first_run.returncode == 0, first_run.stderr
    return json.loads(tinytags_here("ledger", "--json").stdout)


def trigger(tinytags: Command, pictures: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    return tinytags(
        *("run", "small", "--labelled", str(pictures["labelled"]), "--test", str(pictures["labelled"])),
        *("--features", "pixels", "--head", "forest", "--depth", str(DEPTH), "--blocks-per-task", "4"),
    )


def trees_as_spark_prints_them(runtime: Runtime, model: str) -> list[dict[str, np.ndarray]]:
    """Fit the same forest again and read the text that Spark prints of it: no code is shared with the exporter."""
    trainings = [name.removesuffix(".json") for name in runtime.storage.names("trainings")]
    (training,) = [
        name for name in trainings if Training.load(runtime.storage, layout.training_file(name)).model == model
    ]
    spark = runtime.connect_spark()
    try:
        spark.conf.set("spark.sql.files.maxPartitionBytes", 16 * 2**20)
        spark.conf.set("spark.sql.files.minPartitionNum", 1)
        (labelled,) = [name for name in runtime.storage.names("labelled") if name.startswith(training)]
        frame = spark.read.parquet(runtime.storage.url(f"labelled/{labelled}"))
        forest = RandomForestClassifier(numTrees=10, maxDepth=DEPTH, maxBins=50, seed=42).fit(frame)
        return [parse_tree(tree.toDebugString) for tree in forest.trees]
    finally:
        spark.stop()


def parse_tree(text: str) -> dict[str, np.ndarray]:
    lines = iter(text.splitlines()[1:])
    nodes: list[tuple[int, float, int, int, int]] = []

    def parse() -> int:
        line = next(lines).strip()
        number = len(nodes)
        nodes.append((0, 0.0, -1, -1, -1))
        if match := re.fullmatch(r"Predict: (\d+)\.0", line):
            nodes[number] = (0, 0.0, -1, -1, int(match[1]))
            return number
        split = re.fullmatch(r"If \(feature (\d+) <= ([-\d.E]+)\)", line)
        assert split, line
        left = parse()
        assert next(lines).strip().startswith(f"Else (feature {split[1]} > ")
        right = parse()
        nodes[number] = (int(split[1]), float(split[2]), left, right, -1)
        return number

    parse()
    names = ("feature", "threshold", "left", "right", "prediction")
    return {name: np.array(column) for name, column in zip(names, zip(*nodes, strict=True), strict=True)}


def source_images(path: Path) -> np.ndarray:
    """Read the file by its definition: byte channel * 1024 + column * 32 + row."""
    stored = np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(-1, 3072)
    images = np.empty((len(stored), 32, 32, 3), dtype=np.uint8)
    for channel in range(3):
        for column in range(32):
            images[:, :, column, channel] = stored[:, channel * 1024 + column * 32 :][:, :32]
    return images


def test_every_document_is_what_the_trees_and_the_source_say(
    runtime: Runtime, ledger: dict, pictures: dict[str, Path]
) -> None:
    images = source_images(pictures["corpus"])
    pixels = images.reshape(IMAGES, -1)
    votes = np.zeros((IMAGES, len(SHAPES)), dtype=int)
    for tree in trees_as_spark_prints_them(runtime, ledger["run"]["model"]):
        votes[np.arange(IMAGES), walk(tree, pixels)] += 1
    expected = {}
    for position in range(IMAGES):
        most = votes[position].max()
        if most < 4:
            continue
        shard, offset = divmod(position, SHARD)
        held = min(SHARD, IMAGES - shard * SHARD)
        in_shard = next(number for number in range(BLOCKS) if offset < (number + 1) * held // BLOCKS)
        expected[f"small:{position}"] = {
            "tag": SHAPES[int(np.flatnonzero(votes[position] == most)[0])],
            "accuracy": most * 10,
            "votes": most,
            "block": shard * BLOCKS + in_shard,
            "shard": shard,
            "position": position,
            "corpus": "small",
            "model": ledger["run"]["model"],
            "width": 32,
            "data": base64.b64encode(images[position]).decode(),
            **derived_values("small", position, images[position], keyword_of(position)),
        }
    found = all_documents(runtime.settings.address("solr_url"), "tinytags")
    for document in found.values():
        document.pop("_version_", None)
    assert 0 < len(expected) < IMAGES
    assert found == expected


def test_solr_counts_what_the_ledger_says_in_total_and_in_each_block(runtime: Runtime, ledger: dict) -> None:
    url = runtime.settings.address("solr_url")
    counts = [
        ask_solr(url, "tinytags", q=f"block:{block['block']}", rows=0)["response"]["numFound"]
        for block in ledger["blocks"]
    ]
    assert counts == [block["documents"] for block in ledger["blocks"]] == [block["kept"] for block in ledger["blocks"]]
    assert ask_solr(url, "tinytags", q="*:*", rows=0)["response"]["numFound"] == ledger["totals"]["kept"] == sum(counts)
    assert ledger["totals"]["read"] == IMAGES == sum(ledger["totals"][what] for what in ("kept", "below", "unreadable"))
    assert ledger["totals"]["by_state"] == {"verified": 9}


def test_documents_are_found_by_their_exact_keyword(runtime: Runtime, ledger: dict) -> None:
    url = runtime.settings.address("solr_url")
    documents = all_documents(url, "tinytags").values()
    for keyword in filter(None, KEYWORDS):
        expected = {document["position"] for document in documents if keyword_of(document["position"]) == keyword}
        answer = ask_solr(url, "tinytags", q=f'keyword:"{keyword}"', rows=IMAGES, fl="position")["response"]
        assert expected
        assert {document["position"] for document in answer["docs"]} == expected


def test_the_run_ends_with_a_table_and_the_addresses(
    first_run: subprocess.CompletedProcess[str], ledger: dict, airflow: Settings
) -> None:
    assert re.search(rf"images read\s*│\s*{IMAGES:,}", first_run.stdout)
    assert re.search(rf"documents in Solr\s*│\s*{ledger['totals']['kept']}\b", first_run.stdout)
    assert re.search(r"seconds of publish\s*│\s*\d", first_run.stdout)
    for address in (airflow.airflow_url, airflow.search_url, airflow.webhdfs_url, airflow.solr_url):
        assert str(address) in first_run.stdout
    assert f"{airflow.search_url}/review" in first_run.stdout
    *_, next_step = first_run.stdout.splitlines()
    assert next_step.endswith(f"`tinytags precision {ledger['run']['name']}`")


def test_a_second_run_rebuilds_nothing(
    runtime: Runtime, ledger: dict, tinytags: Command, tinytags_here: Command, pictures: dict[str, Path]
) -> None:
    url = runtime.settings.address("solr_url")
    versions = ask_solr(url, "tinytags", q="*:*", rows=100_000, fl="id,_version_", sort="id asc")["response"]["docs"]
    again = trigger(tinytags, pictures)
    assert again.returncode == 0, again.stderr
    assert json.loads(tinytags_here("ledger", "--json").stdout) == ledger
    after = ask_solr(url, "tinytags", q="*:*", rows=100_000, fl="id,_version_", sort="id asc")["response"]["docs"]
    assert after == versions


def test_a_failing_run_says_which_task_and_why_and_is_not_published(
    runtime: Runtime, ledger: dict, tinytags_here: Command, pictures: dict[str, Path], tmp_path: Path
) -> None:
    truncated = tmp_path / "truncated.bin"
    truncated.write_bytes(pictures["corpus"].read_bytes()[:-1])
    assert tinytags_here("corpus", "add", "truncated", str(truncated), "--format", "tiny-images").returncode == 0
    outcome = tinytags_here("run", "truncated")
    assert outcome.returncode == 2
    assert "ingest.plan: " in outcome.stderr
    assert "truncated.bin" in outcome.stderr
    assert "3,072" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert runtime.solr.aliases()["tinytags"] == ledger["run"]["collection"]


def test_search_finds_by_tag_and_confidence(ledger: dict, tinytags_here: Command) -> None:
    tag, kept = max(ledger["totals"]["kept_by_tag"].items(), key=lambda item: item[1])
    found = json.loads(tinytags_here("search", tag, "--json", "--rows", "1000").stdout)
    assert found["total"] == kept == len(found["images"])
    assert {image["tag"] for image in found["images"]} == {tag}
    expected = {image["id"] for image in found["images"] if image["confidence"] >= 80}
    for option in ("--min-confidence", "--min-accuracy"):
        surer = json.loads(tinytags_here("search", tag, option, "80", "--json", "--rows", "1000").stdout)
        assert {image["id"] for image in surer["images"]} == expected
    assert all(image["accuracy"] == image["confidence"] for image in found["images"])


def test_a_marked_corner_comes_out_of_the_page_unturned_and_unmirrored(
    runtime: Runtime, model: str, tmp_path: Path
) -> None:
    marked = np.full((32, 32, 3), 90, dtype=np.uint8)
    marked[0, 0] = (255, 0, 0)  # top left is red, top right green, bottom left blue
    marked[0, 31] = (0, 255, 0)
    marked[31, 0] = (0, 0, 255)
    stored = bytearray(3072)
    for row, column, channel in np.ndindex(32, 32, 3):
        stored[channel * 1024 + column * 32 + row] = marked[row, column, channel]
    source = tmp_path / "marked.bin"
    source.write_bytes(bytes(stored))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": 10, "blocks_per_shard": 1}
    ingest_corpus(make_definition("marked", fields), storage=runtime.storage)
    assert runtime.storage.read(layout.shard_file("marked", 0)) == marked.tobytes()

    planned = plan_run(PlanRequest("marked", model, threshold=0), storage=runtime.storage)
    prepare_collection(planned.run, storage=runtime.storage, solr=runtime.solr)
    score_blocks(
        ScoreRequest(planned.run, (0,)),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=runtime.connect_spark,
    )
    index_blocks(IndexRequest(planned.run, (0,)), storage=runtime.storage, solr=runtime.solr)
    publish_run(PublishRequest(planned.run, alias="marked"), storage=runtime.storage, solr=runtime.solr)
    (document,) = all_documents(runtime.solr.url, "marked").values()
    assert base64.b64decode(document["data"]) == marked.tobytes()

    settings = runtime.settings.model_copy(update={"alias": "marked"})
    login = (settings.search_user, secret(settings, "search_password"))
    client = TestClient(create_app(settings))
    page = client.get("/search", auth=login)
    assert page.status_code == 200
    (source,) = re.findall(r'src="(/pictures/[^"]+\.png[^"]*)"', page.text)
    png = client.get(source, auth=login).content
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), marked)
