"""From a hit to the user's own file: searches on the command line, and lists of places."""

import io
import json
import tarfile
from types import SimpleNamespace

import pytest
from PIL import Image
from small_run import quiet
from typer.testing import CliRunner

from tinytags_tasks.cli import app, searching
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.places import ListedPlaces
from tinytags_tasks.document_fields import FIELDS
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.source_places import SourcePlaces
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.local import LocalStorage


def png():
    sink = io.BytesIO()
    Image.new("RGB", (32, 32)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def storage(tmp_path):
    """A store with a corpus of a folder, and one of a tar."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name in ("a.png", "cats/b.png", "cats/c d.png"):
        (folder / name).write_bytes(png())
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name in ("dogs/x.png", "dogs/y.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png())
            tar.addfile(member, io.BytesIO(png()))
    storage = LocalStorage(tmp_path / "store")
    for name, source, format_name in (("photos", folder, "folder"), ("tars", tmp_path / "set.tar", "webdataset")):
        definition = make_definition(name, {"source": str(source), "format": format_name})
        ingest_corpus(definition, storage=storage, report=quiet)
    return storage


def image(corpus, position):
    known = {field.name: None for field in FIELDS}
    return TaggedImage(known | {"id": f"{corpus}:{position}", "corpus": corpus, "position": position, "tag": "cat"})


def test_places_name_the_file_and_the_member(storage):
    def names(corpus, *positions):
        found = ListedPlaces(storage, corpus, load_corpus(corpus, storage).sources).find(positions)
        return {position: str(place) for position, place in found.items()}

    assert names("photos", 2, 0, 9) == {0: "a.png", 2: "cats/c d.png"}
    assert names("tars", 0, 1) == {0: "set.tar, member dogs/x.png", 1: "set.tar, member dogs/y.png"}


def test_places_of_found_pictures_are_looked_up_by_corpus(storage):
    places = SourcePlaces(SimpleNamespace(storage=storage))
    corpora = {"photos": load_corpus("photos", storage), "tars": load_corpus("tars", storage)}
    found = places.of_images([image("tars", 1), image("photos", 1), image("gone", 0)], corpora)
    assert {name: (place.path, place.name) for name, place in found.items()} == {
        "tars:1": ("set.tar", "dogs/y.png"),
        "photos:1": ("cats/b.png", ""),
    }


def test_a_corpus_without_a_listing_has_no_places(storage, tmp_path):
    for path in (tmp_path / "store").rglob("source-*.parquet"):
        path.unlink()
    places = SourcePlaces(SimpleNamespace(storage=storage))
    assert places.of_images([image("photos", 1)], {"photos": load_corpus("photos", storage)}) == {}


def test_search_prints_the_file_of_each_image(storage, tmp_path, monkeypatch):
    page = SimpleNamespace(total=2, tag_counts={"cat": 2}, images=[image("tars", 0), image("gone", 0)], left_out=())
    corpora = {"tars": load_corpus("tars", storage)}
    searches = SimpleNamespace(page=lambda _: page, corpora=lambda _: corpora)
    monkeypatch.setattr(searching, "make_searches", lambda _: searches)
    monkeypatch.setattr(searching, "clients", lambda: SimpleNamespace(storage=storage))
    result = CliRunner().invoke(app, ["search", "cat", "--json"])
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.output)["images"]
    source = str(tmp_path / "set.tar")
    assert first["file"] == {"source": source, "path": "set.tar", "member": "dogs/x.png", "number": 0}
    assert second["file"] is None


def test_a_long_search_says_how_many_images_are_found(monkeypatch):
    many = [image("photos", position) for position in range(150)]
    page = SimpleNamespace(total=150, tag_counts={"cat": 150}, images=many[:100], left_out=())
    searches = SimpleNamespace(page=lambda _: page, images=lambda _, limit: iter(many[:limit]))
    monkeypatch.setattr(searching, "make_searches", lambda _: searches)
    monkeypatch.setattr(searching, "clients", SimpleNamespace)
    monkeypatch.setattr(searching, "REPORT_SECONDS", 0.0)
    result = CliRunner().invoke(app, ["search", "cat", "--rows", "120"])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[-1] == "120 of 120 images are found"
