"""The embedded Solr requires authentication from the start; images that are not in it come from the store."""

import html
import io
import json
import re
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
from configset_upgrades import upload
from conftest import IMAGES, all_documents, kill_engine, restart
from fastapi.testclient import TestClient
from PIL import Image
from small_run import MODEL, SparkHere, publish_model

from tinytags_tasks import services
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.demo.drawn import draw_pictures
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.configsets import current_configset

COLLECTION = "access"


@pytest.fixture(scope="module")
def solr(hdfs: Runtime) -> Settings:
    """Only Solr, with a collection of one document."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    client = Runtime(settings).solr
    client.ensure_collection(COLLECTION, upload(client, current_configset()))
    post(client, COLLECTION, [document(0)])
    client.commit(COLLECTION)
    return settings


def post(client: SolrClient, collection: str, documents: list[dict[str, object]]) -> None:
    with client.posting(collection, "application/json") as send:
        answer = send(json.dumps(documents).encode())
    answer.result()


def document(position: int) -> dict[str, object]:
    fields = {"tag": "cat", "corpus": "c", "model": "m", "accuracy": 50, "block": 0, "votes": 5, "shard": 0}
    return {"id": f"c:{position}", "position": position} | fields


def status_of(url: str, login: tuple[str, str] | None, body: object = None) -> int:
    """Return the status of Solr's response, without TinyTags' own code."""
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + b64encode(":".join(login).encode()).decode()
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


WRITES: dict[str, tuple[str, object]] = {
    "update": ("{collection}/update?commit=true", [document(1)]),
    "update by GET": ("{collection}/update?optimize=true", None),
    "update, JSON": ("{collection}/update/json/docs", document(1)),
    "delete": ("{collection}/update", {"delete": {"query": "*:*"}}),
    "update, v2": ("____v2/collections/{collection}/update", [document(1)]),
    "stream": ("{collection}/stream?expr=update({collection},tuple(id%3Dx))", None),
    "schema": ("{collection}/schema", {"add-field": {"name": "more", "type": "string"}}),
    "config": ("{collection}/config", {"set-property": {"updateHandler.autoCommit.maxTime": 1}}),
    "collections": ("admin/collections?action=DELETE&name={collection}", None),
    "alias": ("admin/collections?action=CREATEALIAS&name=mine&collections={collection}", None),
    "configset": ("admin/configs?action=DELETE&name=_default", None),
    "cores": ("admin/cores?action=UNLOAD&core={collection}_shard1_replica_n1", None),
    "users": ("admin/authentication", {"set-user": {"me": "mine"}}),
    "rules": ("admin/authorization", {"set-user-role": {"reader": "admin"}}),
}

READS = {
    "see schema": "{collection}/schema",
    "see config": "{collection}/config",
    "files": "{collection}/admin/file?file=solrconfig.xml",
    "aliases": "admin/collections?action=LISTALIASES",
    "ZooKeeper": "admin/zookeeper?path=/security.json&detail=true",
    "system": "admin/info/system",
    "metrics": "admin/metrics",
}


@pytest.mark.parametrize("what", ["select", *WRITES, *READS])
def test_without_a_password_nothing_is_answered(solr: Settings, what: str) -> None:
    path, body = WRITES.get(what) or (READS.get(what, "{collection}/select?q=*:*"), None)
    url = f"{solr.address('solr_url')}/{path.format(collection=COLLECTION)}"
    assert status_of(url, None, body) == 401
    assert status_of(url, ("reader", "wrong"), body) == 401
    assert status_of(url, ("nobody", "wrong"), body) == 401


def test_the_reader_may_search(solr: Settings) -> None:
    url = f"{solr.address('solr_url')}/{COLLECTION}/select?q=*:*"
    assert status_of(url, solr.solr_login("reader")) == 200


@pytest.mark.parametrize("what", WRITES)
def test_the_reader_may_write_nothing(solr: Settings, what: str) -> None:
    path, body = WRITES[what]
    url = f"{solr.address('solr_url')}/{path.format(collection=COLLECTION)}"
    assert status_of(url, solr.solr_login("reader"), body) == 403
    assert set(all_documents(solr.address("solr_url"), COLLECTION)) == {"c:0"}


@pytest.mark.parametrize("what", READS)
def test_the_reader_may_look_at_nothing_but_documents(solr: Settings, what: str) -> None:
    url = f"{solr.address('solr_url')}/{READS[what].format(collection=COLLECTION)}"
    assert status_of(url, solr.solr_login("reader")) == 403


@pytest.mark.parametrize("what", ["schema", "config", "collections", "alias", "configset", "cores", "users", "rules"])
def test_the_writer_may_write_documents_only(solr: Settings, what: str) -> None:
    path, body = WRITES[what]
    url = f"{solr.address('solr_url')}/{path.format(collection=COLLECTION)}"
    assert status_of(url, solr.solr_login("writer"), body) == 403


def test_nodes_talk_to_each_other_in_the_name_of_who_asks(solr: Settings) -> None:
    client = Runtime(solr).solr
    client.ensure_collection("shards", upload(client, current_configset()), shards=2, replicas=2)
    post(client, "shards", [document(position) for position in range(100)])
    client.commit("shards")
    assert client.count_by_block("shards") == {0: 100}
    cluster = client.request("admin/collections", {"action": "CLUSTERSTATUS", "collection": "shards"})["cluster"]
    held = {
        shard: [
            client.request(f"{replica['core']}/select", {"q": "*:*", "rows": 0, "distrib": "false"})["response"]
            for replica in status["replicas"].values()
        ]
        for shard, status in cluster["collections"]["shards"]["shards"].items()
    }
    counts = {shard: [response["numFound"] for response in responses] for shard, responses in held.items()}
    assert all(one == other > 0 for one, other in counts.values())
    assert sum(one for one, _ in counts.values()) == 100
    found = search_images(solr.model_copy(update={"alias": "shards"}), SearchRequest(rows=100, with_pixels=False))
    assert sorted(image.position for image in found.images) == list(range(100))
    url = f"{solr.address('solr_url')}/shards/update?commit=true"
    assert status_of(url, solr.solr_login("reader"), {"delete": {"query": "*:*"}}) == 403
    client.delete_block("shards", 0)
    client.commit("shards")
    assert client.count("shards") == 0
    client.delete_collection("shards")


def test_a_wrong_password_and_a_missing_collection_are_told_apart(solr: Settings) -> None:
    url = solr.address("solr_url")
    wrong = SolrClient(url, admin=("admin", "wrong"), writer=("writer", "wrong"), pauses_seconds=())
    with pytest.raises(BadInputError, match="correct TINYTAGS_SOLR_WRITER_USER"):
        wrong.count(COLLECTION)
    with pytest.raises(BadInputError, match="correct TINYTAGS_SOLR_ADMIN_USER"):
        wrong.collections()
    with pytest.raises(MissingError, match="the collection nowhere does not exist"):
        Runtime(solr).solr.count("nowhere")
    with pytest.raises(MissingError, match="nothing is published yet"):
        search_images(solr.model_copy(update={"alias": "nowhere"}), SearchRequest())


def test_a_solr_that_starts_never_answers_without_a_password(solr: Settings) -> None:
    """Send requests without a pause while it starts on a home of an earlier version, where ZooKeeper has no users."""
    url = solr.address("solr_url")
    client = Runtime(solr).solr
    # ZooKeeper as an earlier version left it.
    removed = {"set-property": {"blockUnknown": False}}
    assert status_of(f"{url}/admin/authentication", solr.solr_login("admin"), removed) == 200
    kill_engine(solr, "solr")
    answers: set[int] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.add(status_of(f"{url}/{COLLECTION}/select?q=*:*", None))
            except OSError:
                over.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        restart("solr")
    finally:
        over.set()
        thread.join()
    assert 401 in answers
    assert answers <= {401, 404, 503}
    assert client.count(COLLECTION) == 1


def publish_drawn(runtime: Runtime, thumbnails: str) -> str:
    """Point the alias with this name at the corpus ``drawn``; return the collection."""
    name = plan_run(PlanRequest("drawn", MODEL, threshold=0, thumbnails=thumbnails), storage=runtime.storage).run
    prepare_collection(name, storage=runtime.storage, solr=runtime.solr)
    blocks = tuple(range(9))
    score_blocks(
        ScoreRequest(name, blocks), storage=runtime.storage, address=runtime.store_address, connect_spark=SparkHere()
    )
    index_blocks(IndexRequest(name, blocks), storage=runtime.storage, solr=runtime.solr)
    return publish_run(
        PublishRequest(name, alias=f"drawn-{thumbnails}"), storage=runtime.storage, solr=runtime.solr
    ).collection


def shown_pictures(client: TestClient, address: str) -> dict[int, np.ndarray]:
    """Return the pictures of a page by position, as a browser would ask for them; without those that are refused."""
    text = client.get(address).text
    found = {}
    for source, position in re.findall(r'src="(/pictures/drawn/(\d+)\.png[^"]*)"', text):
        answer = client.get(html.unescape(source))
        if answer.status_code == 200:
            found[int(position)] = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
        else:
            assert answer.status_code == 503
    return found


def test_a_page_shows_the_same_pictures_from_solr_and_from_the_store_and_outlives_the_store(
    solr: Settings, pictures: dict[str, Path]
) -> None:
    runtime = Runtime(solr)
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 400, "blocks_per_shard": 3}
    ingest_corpus(make_definition("drawn", fields), storage=runtime.storage)
    publish_model(runtime.storage)
    collections = {thumbnails: publish_drawn(runtime, thumbnails) for thumbnails in ("solr", "store")}
    url = solr.address("solr_url")
    with_images, without = (all_documents(url, collections[thumbnails]) for thumbnails in ("solr", "store"))
    assert len(with_images) == len(without) == IMAGES
    assert all("data" in document for document in with_images.values())
    assert not any("data" in document for document in without.values())

    ((images, _),) = draw_pictures(IMAGES, seed=1, batch=IMAGES, scribbles=0.25)
    login = (solr.search_user, secret(solr, "search_password"))
    pages = {
        thumbnails: TestClient(
            create_app(solr.model_copy(update={"alias": f"drawn-{thumbnails}"})),
            headers={"Authorization": "Basic " + b64encode(":".join(login).encode()).decode()},
        )
        for thumbnails in ("solr", "store")
    }
    for page in pages.values():
        shown = shown_pictures(page, "/search?rows=100&page=2")
        assert len(shown) == 100
        assert all(np.array_equal(picture, images[position]) for position, picture in shown.items())

    kill_engine(solr, "namenode")
    try:
        assert pages["store"].get("/search?rows=100&page=3").status_code == 200
        assert shown_pictures(pages["store"], "/search?rows=100&page=3") == {}
        assert len(shown_pictures(pages["solr"], "/search?rows=100&page=3")) == 100
    finally:
        restart("hdfs")
    # The first reads after a restart may be slower than a page waits.
    deadline = time.monotonic() + 60
    while len(shown := shown_pictures(pages["store"], "/search?rows=100&page=3")) != 100:
        assert time.monotonic() < deadline, f"{len(shown)} pictures are back"
        time.sleep(1)
