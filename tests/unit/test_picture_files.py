"""Single pictures as files: who may have which, right way up, and never one that was taken down."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi import Response
from pages_of_world import Pages, make_settings
from PIL import Image
from published_runs import World
from small_run import CORPUS, pictures
from starlette.concurrency import run_in_threadpool

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.review.words import say
from tinytags_tasks.search import kept, picture_files, shown_pictures, thumbnails
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage, read_document
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import Verdict, Word


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(made.copy(tmp_path / "copy"), make_settings(tmp_path, monkeypatch), monkeypatch)
    monkeypatch.setattr(kept, "PATIENCE_SECONDS", 20.0)  # however slow the machine is
    yield found
    found.app.state.context.applier.stop()


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture
def lasting(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Pages whose states count as current throughout a test, however slow the machine is."""
    for states in (pages.app.state.context.live, pages.app.state.context.logs):
        monkeypatch.setattr(states._kept, "_kept_seconds", 600.0)
    return pages


def take_down(pages: Pages, position: int) -> None:
    corpus = Corpus.load(pages.world.storage, layout.corpus_file(CORPUS))
    say(corpus, [Word(position, Verdict.TAKEDOWN, reason="asked")], by="operator", storage=pages.world.storage)
    pages.app.state.context.logs.forget()


@pytest.mark.parametrize("role", ["reader", "reviewer"])
def test_a_picture_has_each_pixel_in_its_place(pages: Pages, role: str) -> None:
    stored = pictures()[0]
    png = pages.client(role).get(f"/pictures/{CORPUS}/0.png")
    assert (png.status_code, png.headers["content-type"]) == (200, "image/png")
    np.testing.assert_array_equal(decoded(png.content), stored)
    raw = pages.client(role).get(f"/pictures/{CORPUS}/0.bin")
    assert raw.content == stored.tobytes()
    assert raw.headers["content-disposition"] == f'attachment; filename="{CORPUS}-0.bin"'
    large = decoded(pages.client(role).get(f"/pictures/{CORPUS}/0.png?scale=3").content)
    assert large.shape == (96, 96, 3)
    for row in range(3):
        np.testing.assert_array_equal(large[row::3, row::3], stored)


def test_what_a_browser_has_is_not_sent_again(pages: Pages) -> None:
    reader = pages.client("reader")
    tags = set()
    for path in ("0.png", "0.png?scale=2", "0.bin", "3.png"):
        found = reader.get(f"/pictures/{CORPUS}/{path}")
        assert found.headers["cache-control"] == "private, no-cache"
        tags.add(found.headers["etag"])
        again = reader.get(f"/pictures/{CORPUS}/{path}", headers={"If-None-Match": f'"x", {found.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
    assert len(tags) == 4


def test_readers_have_only_what_they_can_find_and_reviewers_all(pages: Pages) -> None:
    lacking = 4
    pages.world.solr.delete_ids(pages.world.live(), [f"{CORPUS}:{lacking}"])
    pages.world.solr.commit(pages.world.live())
    assert pages.client("reader").get(f"/pictures/{CORPUS}/0.png").status_code == 200
    refused = pages.client("reader").get(f"/pictures/{CORPUS}/{lacking}.png")
    assert (refused.status_code, "cannot find" in refused.text) == (404, True)
    assert pages.client("reader").get(f"/pictures/{CORPUS}/{lacking}.bin").status_code == 404
    assert pages.client("reviewer").get(f"/pictures/{CORPUS}/{lacking}.png").status_code == 200


@pytest.mark.parametrize("role", ["reader", "reviewer"])
def test_a_picture_that_was_taken_down_is_gone_even_if_a_browser_has_it(pages: Pages, role: str) -> None:
    client = pages.client(role)
    client.get("/?rows=100")
    known = client.get(f"/pictures/{CORPUS}/0.png").headers["etag"]
    take_down(pages, 0)
    for path in ("0.png", "0.bin"):
        gone = client.get(f"/pictures/{CORPUS}/{path}", headers={"If-None-Match": known})
        assert (gone.status_code, "taken down" in gone.text) == (404, True)


def test_a_page_of_pictures_is_fetched_at_once_however_many_ask(pages: Pages) -> None:
    reader = pages.client("reader")
    positions = list(pages.seen())
    context = pages.app.state.context
    context.pictures.expect(
        list(pages.find_documents(pages.settings, list(pages.documents), Hidden(), with_pixels=False).values())
    )
    pages.fetched.clear()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda position: reader.get(f"/pictures/{CORPUS}/{position}.png"), positions))
    assert {answer.status_code for answer in answers} == {200}
    assert [sorted(ids) for ids in pages.fetched] == [sorted(pages.documents)]


@pytest.mark.parametrize("role", ["reader", "reviewer"])
def test_a_picture_in_memory_needs_no_thread_and_is_checked_all_the_same(
    lasting: Pages, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = lasting
    client = pages.client(role)
    digest = pages.world.runs[0].corpus_digest
    client.get("/search?rows=100")
    for position in (0, 3):
        client.get(f"/pictures/{CORPUS}/{position}.png")

    async def no_thread(*_: object) -> None:
        raise EngineDownError("all threads wait")

    with monkeypatch.context() as busy:
        busy.setattr(picture_files, "run_in_threadpool", no_thread)
        for size in ("", "&size=grid"):
            found = client.get(f"/pictures/{CORPUS}/0.png?version={digest[:16]}{size}")
            np.testing.assert_array_equal(decoded(found.content), pictures()[0])
            again = client.get(
                f"/pictures/{CORPUS}/0.png?version={digest[:16]}{size}",
                headers={"If-None-Match": found.headers["etag"]},
            )
            assert (again.status_code, again.content) == (304, b"")
        assert pages.client("nobody").get(f"/pictures/{CORPUS}/0.png").status_code == 401
    assert client.get(f"/pictures/{CORPUS}/0.png?version=0123").status_code == 404
    take_down(pages, 0)
    assert client.get(f"/pictures/{CORPUS}/3.png").status_code == 200  # what was said is known now
    for _ in range(2):
        assert client.get(f"/pictures/{CORPUS}/0.png").status_code == 404


def test_whoever_waits_for_a_picture_that_is_fetched_already_holds_no_thread(
    lasting: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = list(lasting.seen())
    found = lasting.find_documents(lasting.settings, list(lasting.documents), Hidden(), with_pixels=True)
    lasting.app.state.context.pictures.expect(list(found.values()))
    threads: list[object] = []
    is_fetched, may_arrive = threading.Event(), threading.Event()

    async def counted(call: Callable[..., Response], *given: object) -> Response:
        threads.append(given)
        return await run_in_threadpool(call, *given)

    def find(*_: object, **__: object) -> dict[str, TaggedImage]:
        is_fetched.set()
        may_arrive.wait(30)
        return found

    monkeypatch.setattr(picture_files, "run_in_threadpool", counted)
    monkeypatch.setattr(shown_pictures, "find_documents", find)
    reader = lasting.client("reader")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(reader.get, f"/pictures/{CORPUS}/{positions[0]}.png")]
        is_fetched.wait(30)
        answers += [pool.submit(reader.get, f"/pictures/{CORPUS}/{position}.png") for position in positions[1:6]]
        may_arrive.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert len(threads) == 1


def test_a_correction_and_a_threshold_count_for_pictures_too(pages: Pages) -> None:
    image = read_document(pages.as_json(pages.documents[f"{CORPUS}:0"]), False)
    confidence = int(image.values["confidence"] or 0)
    tag = str(image.values["tag"])
    assert Hidden(least={CORPUS: {tag: confidence}}).shows(image)
    assert not Hidden(least={CORPUS: {tag: confidence + 1}}).shows(image)
    assert not Hidden(least={CORPUS: {}}).shows(image)
    assert Hidden(least={CORPUS: {}}).shows(TaggedImage({**image.values, "corrected": 3}))


def test_a_picture_that_only_the_store_has_is_served_from_there(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(settings: Settings, ids: list[str], hidden: Hidden, **more: object) -> dict[str, TaggedImage]:
        documents = [dict(pages.documents[one]) for one in ids]
        for document in documents:
            del document["data"]
        return {document["id"]: read_document(document, True) for document in documents}

    monkeypatch.setattr(shown_pictures, "find_documents", find)
    for position in (0, 7):
        raw = pages.client("reader").get(f"/pictures/{CORPUS}/{position}.bin")
        assert raw.content == pictures()[position].tobytes()


def test_pictures_that_the_store_does_not_give_are_not_asked_for_again_and_again(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def find(settings: Settings, ids: list[str], hidden: Hidden, **more: object) -> dict[str, TaggedImage]:
        asked.append(ids)
        document = dict(pages.documents[ids[0]])
        del document["data"]
        return {ids[0]: read_document(document, True)}

    def no_store() -> None:
        raise EngineDownError("HDFS is away")

    monkeypatch.setattr(shown_pictures, "find_documents", find)
    monkeypatch.setattr(pages.app.state.context.stored_images, "_open_storage", no_store)
    for _ in range(3):
        refused = pages.client("reader").get(f"/pictures/{CORPUS}/0.png")
        assert (refused.status_code, "try again in some seconds" in refused.text) == (503, True)
        assert "HDFS" not in refused.text  # what an engine says is in the log
    assert len(asked) == 1


@pytest.mark.parametrize(
    "name",
    [
        "x.png",
        "1.jpg",
        "-1.png",
        "1e3.png",
        "9" * 13 + ".bin",
        "\N{FULLWIDTH DIGIT ONE}.png",
        "1.png?scale=0",
        "0.png?scale=65",
        "0.png?scale=x",
    ],
)
def test_what_names_no_picture_is_refused(pages: Pages, name: str) -> None:
    assert pages.client("reader").get(f"/pictures/{CORPUS}/{name}").status_code in (400, 404)
    assert pages.client("reader").get("/pictures/Nö/1.png").status_code == 400


def test_another_version_of_a_corpus_is_not_shown_in_its_place(pages: Pages) -> None:
    digest = pages.world.runs[0].corpus_digest
    for role in ("reader", "reviewer"):
        assert pages.client(role).get(f"/pictures/{CORPUS}/0.png?version={digest[:16]}").status_code == 200
        assert pages.client(role).get(f"/pictures/{CORPUS}/0.png?version=0123").status_code == 404


def test_a_large_picture_is_scaled_down_for_a_grid(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "LONGEST_SIDE", 2)
    client, address = pages.client("reader"), f"/pictures/{CORPUS}/0.png"
    whole, small = client.get(address), client.get(f"{address}?size=grid")
    assert decoded(whole.content).shape == pictures()[0].shape
    assert max(decoded(small.content).shape[:2]) == 2
    assert whole.headers["etag"] != small.headers["etag"]
    assert client.get(f"{address}?size=huge").status_code == 400
