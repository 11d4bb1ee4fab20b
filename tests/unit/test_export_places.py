"""Places of an export's pictures: as a page looks them up, with each part of a listing read once."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_source_places import image, png
from test_source_places import storage as storage  # the fixture

from tinytags_tasks.corpus import listing as listing_module
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.errors import TransientError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.search import export_places
from tinytags_tasks.search.export_places import GatheredPlaces, are_long
from tinytags_tasks.search.source_places import SourcePlaces
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.local import LocalStorage

FILES = 23


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A store with a corpus of files, whose listing has groups of four rows."""
    root = tmp_path_factory.mktemp("files")
    (root / "photos").mkdir()
    for number in range(FILES):
        (root / "photos" / f"{number:02d}.png").write_bytes(png())
    storage = LocalStorage(root / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_module, "_ROWS_PER_GROUP", 4)
        definition = make_definition("photos", {"source": str(root / "photos"), "format": "folder"})
        ingest_corpus(definition, storage=storage, report=lambda _: None)
    return storage


def gathered(places, pages):
    list(places.gather(pages))
    return places


@given(st.permutations(range(FILES)), st.integers(1, FILES))
def test_places_are_those_that_a_page_looks_up(files, positions, page):
    corpora = {"photos": load_corpus("photos", files)}
    images = [image("photos", position) for position in positions]
    pages = [tuple(images[start : start + page]) for start in range(0, FILES, page)]
    looked_up = SourcePlaces(SimpleNamespace(storage=files)).of_images(images, corpora)
    with GatheredPlaces(corpora, files) as places:
        gathered(places, pages)
        assert {name: place for some in pages for name, place in places.of(some).items()} == looked_up
    assert len(looked_up) == FILES


def test_each_group_is_read_once(files, monkeypatch):
    corpora = {"photos": load_corpus("photos", files)}
    reads = Counter()
    read_group = listing_module.StoredListing._read_group

    def count(self, group):
        reads[group] += 1
        return read_group(self, group)

    monkeypatch.setattr(listing_module.StoredListing, "_read_group", count)
    pages = [(image("photos", position),) for position in (*range(0, FILES, 2), *range(1, FILES, 2))]
    with GatheredPlaces(corpora, files) as places:
        gathered(places, pages)
        for page in pages:
            assert places.of(page)
    assert set(reads.values()) == {1}
    assert len(reads) == 6


def test_a_store_that_stumbles_is_asked_again_and_nothing_is_lost(files, monkeypatch):
    corpora = {"photos": load_corpus("photos", files)}
    monkeypatch.setattr(export_places, "PAUSES_SECONDS", (0.0, 0.0))
    failing = iter([False, True, False, True, False, False, False, False, False])
    read_group = listing_module.StoredListing._read_group

    def stumble(self, group):
        if next(failing):
            raise TransientError("HDFS is away")
        return read_group(self, group)

    monkeypatch.setattr(listing_module.StoredListing, "_read_group", stumble)
    images = tuple(image("photos", position) for position in range(FILES))
    with GatheredPlaces(corpora, files) as places:
        assert len(gathered(places, [images]).of(images)) == FILES


def test_a_store_that_stays_away_breaks_it_off(files, monkeypatch):
    monkeypatch.setattr(export_places, "PAUSES_SECONDS", (0.0, 0.0))

    def away(self, group):
        raise TransientError("HDFS is away")

    monkeypatch.setattr(listing_module.StoredListing, "_read_group", away)
    with (
        GatheredPlaces({"photos": load_corpus("photos", files)}, files) as places,
        pytest.raises(TransientError, match="HDFS is away"),
    ):
        gathered(places, [(image("photos", 3),)])


def test_what_is_in_no_listing_has_no_place(storage, tmp_path):
    corpora = {name: load_corpus(name, storage) for name in ("photos", "tars")}
    for path in (tmp_path / "store").rglob("photos/source-*.parquet"):
        path.unlink()
    images = (image("tars", 1), image("photos", 1), image("gone", 0))
    with GatheredPlaces(corpora, storage) as places:
        found = gathered(places, [images]).of((*images, image("tars", 0)))
    assert {name: place.name for name, place in found.items()} == {"tars:1": "dogs/y.png"}


def test_a_listing_is_long_if_it_does_not_stay_in_memory(files, monkeypatch):
    corpora = [load_corpus("photos", files)]
    assert not are_long(corpora, files)
    monkeypatch.setattr(export_places, "GROUPS_IN_MEMORY", 5)
    assert are_long(corpora, files)
