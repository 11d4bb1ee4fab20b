"""Exporting from the page: what is counted first, what is sent, who may, and what happens when it breaks off."""

import csv
import html
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from pages_of_world import Pages, make_settings
from PIL import Image
from published_runs import World
from small_run import CORPUS, pictures

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.search import export_pages, wanted
from tinytags_tasks.search.export_progress import Exports, Progress


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    settings = make_settings(tmp_path, monkeypatch).model_copy(update={"search_export_images": 100})
    found = Pages(made.copy(tmp_path / "copy"), settings, monkeypatch)
    monkeypatch.setattr(wanted, "find_documents", found.find_documents)
    monkeypatch.setattr(wanted, "PAUSES_SECONDS", (0.0, 0.0))
    yield found
    found.app.state.context.applier.stop()


def fields(pages: Pages, path: str = "/export", role: str = "reader") -> dict[str, str]:
    """Return the hidden fields of the page's form."""
    page = pages.client(role).get(path)
    assert page.status_code == 200, page.text
    return {
        name: html.unescape(value)
        for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    }


def test_readers_see_how_many_there_are_before_anything_is_sent(pages: Pages) -> None:
    text = pages.client("reader").get("/export?confidence=40&cursor=x&rows=60").text
    assert f"Export {len(pages.seen())} images" in text
    assert 'href="/search?confidence=40"' in text
    assert fields(pages, "/export?confidence=40")["found"] == "confidence=40"


def test_all_that_is_found_is_sent_right_way_up(pages: Pages) -> None:
    answer = pages.post("reader", "/export", fields(pages) | {"kind": "zip"})
    seen = pages.seen()
    assert answer.headers["content-disposition"] == f'attachment; filename="tinytags-{len(seen)}-images.zip"'
    assert answer.headers["x-images"] == str(len(seen))
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    rows = list(csv.DictReader(io.StringIO(archive.read("images.csv").decode(), newline="")))
    assert {int(row["position"]): row["tag"] for row in rows} == seen
    for row in rows:
        found = np.asarray(Image.open(io.BytesIO(archive.read(row["file"]))))
        np.testing.assert_array_equal(found, pictures()[int(row["position"])])


def test_chosen_pictures_are_counted_and_sent(pages: Pages) -> None:
    chosen = [("token", fields(pages)["token"]), ("back", "/search?tag=cat"), ("run", "run-a,run-b")]
    chosen += [("picture", f"{CORPUS}:{position}:70:cat") for position in (3, 0, 3, 999)]
    page = pages.post("reader", "/export", chosen)
    assert "Export 2 images" in page.text
    assert "1 of those that were chosen cannot be found any more." in page.text
    assert 'href="/search?tag=cat"' in page.text
    sent = pages.post("reader", "/export", [*chosen, ("kind", "csv")])
    rows = list(csv.DictReader(io.StringIO(sent.text, newline="")))
    assert [row["id"] for row in rows] == [f"{CORPUS}:3", f"{CORPUS}:0"]
    assert "tinytags-selection-2-images.csv" in sent.headers["content-disposition"]


def test_more_than_the_limit_is_cut_off_and_said_so(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    object.__setattr__(
        pages.app.state.context, "settings", pages.settings.model_copy(update={"search_export_images": 3})
    )
    text = pages.client("reader").get("/export").text
    assert "Export 3 images" in text
    assert f"{len(pages.seen())} were found, and at most 3 are exported at once" in text
    sent = pages.post("reader", "/export", fields(pages) | {"kind": "csv"})
    assert len(sent.text.splitlines()) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "exe"}, "is no kind of file: use csv, parquet, tar, zip"),
        ({"found": "color=red", "kind": "csv"}, "is not a parameter"),
        ({"found": "confidence=500", "kind": "csv"}, "out of range"),
        ({"found": "cursor=x", "kind": "csv"}, "is not a parameter"),
    ],
)
def test_what_makes_no_sense_is_refused(pages: Pages, changes: dict[str, str], words: str) -> None:
    answer = pages.post("reader", "/export", fields(pages) | changes)
    assert (answer.status_code, words in html.unescape(answer.text)) == (400, True)


def test_nothing_is_sent_without_a_token_or_without_a_choice(pages: Pages) -> None:
    assert pages.post("reader", "/export", {"kind": "csv", "found": ""}).status_code == 403
    answer = pages.post("reader", "/export", {"token": fields(pages)["token"]})
    assert (answer.status_code, "tick at least one" in answer.text) == (400, True)


def test_a_picture_that_is_gone_meanwhile_breaks_the_file_off_and_frees_its_place(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = fields(pages) | {"kind": "tar"}
    counted = len(pages.seen())
    complete = pages.app.state.context.stored_images.complete
    monkeypatch.setattr(pages.app.state.context.stored_images, "complete", lambda images, _: complete(images)[1:])
    for _ in range(export_pages.MOST_EXPORTS + 1):  # none keeps its place
        with pytest.raises(
            export_pages.BrokenOffError, match=f"{counted} pictures were to be exported, and there are {counted - 1}"
        ):
            pages.post("reader", "/export", form)


def test_others_wait_while_too_many_export(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_pages, "MOST_EXPORTS", 0)
    pages.restart()
    answer = pages.post("reader", "/export", fields(pages) | {"kind": "csv"})
    assert (answer.status_code, "others are exporting" in answer.text) == (503, True)


def test_an_engine_that_stumbles_does_not_break_a_file_off(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fields(pages) | {"kind": "zip"}
    complete = pages.app.state.context.stored_images.complete
    failures = iter([True, False])

    def stumble(images: Any, _: object) -> Any:
        if next(failures, False):
            raise EngineDownError("HDFS is away")
        return complete(images)

    monkeypatch.setattr(pages.app.state.context.stored_images, "complete", stumble)
    assert zipfile.ZipFile(io.BytesIO(pages.post("reader", "/export", form).content)).testzip() is None


def test_a_selection_of_a_chosen_run_is_exported_from_that_run(pages: Pages) -> None:
    chosen = pages.world.runs[1]
    one = next(iter(pages.world.solr.documents(chosen.collection)))
    form = [("token", fields(pages)["token"]), ("picture", f"{one}:70:cat"), ("kind", "csv")]
    answer = pages.post("reader", "/export", [*form, ("chosen", chosen.name)])
    assert (answer.status_code, one in answer.text) == (200, True)
    assert pages.post("reader", "/export", [*form, ("chosen", "no-such-run")]).status_code == 404


def test_an_account_has_one_place_and_gets_it_back(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fields(pages) | {"kind": "csv"}
    second = []

    def during(images: Any, _: object) -> Any:
        second.append(pages.post("reader", "/export", form))
        return complete(images)

    complete = pages.app.state.context.stored_images.complete
    monkeypatch.setattr(pages.app.state.context.stored_images, "complete", during)
    assert pages.post("reader", "/export", form | {"kind": "tar"}).status_code == 200
    words = "your last export is still under way"
    assert [(answer.status_code, words in answer.text) for answer in second] == [(503, True)]
    assert pages.post("reader", "/export", form).status_code == 200


def test_a_download_that_takes_nothing_loses_its_place(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_pages, "PATIENCE_SECONDS", 0.2)
    exports = Exports(1)

    async def send(message: Any) -> None:
        await anyio.sleep(30)

    async def receive() -> Any:
        await anyio.sleep(30)

    progress = Progress("cats.csv", 3)
    sending = export_pages._Sending(iter([b"x"]), exports, "reader", progress)
    with pytest.raises(export_pages.BrokenOffError, match="bytes a second"):
        anyio.run(sending, {"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    with exports.place("other", Progress("dogs.csv", 3)):
        pass
    assert str(exports.last("reader")).startswith("cats.csv broke off after 0 of 3 images: fewer than ")


def test_it_is_said_how_far_an_export_is_and_how_it_ended(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    form = fields(pages) | {"kind": "tar"}
    asked = []

    def during(images: Any, _: object) -> Any:
        asked.append((pages.client("reader").get("/export/progress"), progress(pages), progress(pages, "reviewer")))
        return complete(images)

    complete = pages.app.state.context.stored_images.complete
    monkeypatch.setattr(pages.app.state.context.stored_images, "complete", during)
    assert "You have exported nothing" in pages.client("reader").get("/export/progress").text
    assert 'data-last="0"' in pages.client("reader").get("/export").text
    pages.post("reader", "/export", form)
    counted = len(pages.seen())
    ((page, told, others),) = asked
    assert (page.status_code, page.headers["refresh"]) == (202, "2")
    assert f"0 of {counted} images are sent." in page.text
    assert told | {"state": "sending", "images": counted, "sent": 0} == told
    assert others == {"number": 0}
    ended = progress(pages)
    assert ended | {"state": "whole", "sent": counted, "number": told["number"]} == ended
    assert f"tinytags-{counted}-images.tar was sent whole: {counted} images in " in ended["text"]
    page = pages.client("reader").get("/export/progress")
    assert (page.status_code, "refresh" in page.headers) == (200, False)
    assert f'data-last="{ended["number"]}"' in pages.client("reader").get("/export").text


def progress(pages: Pages, role: str = "reader") -> dict[str, Any]:
    return pages.client(role).get("/export/progress", headers={"Accept": "application/json"}).json()


def test_places_of_a_long_listing_are_looked_up_before_anything_is_sent(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_pages, "are_long", lambda *_: True)
    monkeypatch.setattr(export_pages, "MOST_ROWS", 0)
    direct = pages.app.state.context.source_places
    corpora = pages.app.state.context.searches.corpora()
    sent = pages.post("reader", "/export", fields(pages) | {"kind": "csv"})
    for row in csv.DictReader(io.StringIO(sent.text, newline="")):
        place = direct.find_all(corpora[CORPUS], [int(row["position"])]).get(int(row["position"]))
        assert (row["source_file"], row["source_member"]) == ((place.path, place.name) if place else ("", ""))
