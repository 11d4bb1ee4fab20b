"""An ingestion that was refused: its source or definition is mended, and nothing of the first attempt is in the way."""

import shutil

import numpy as np
import pytest
from faulty_storage import FaultyStorage, Killed, files_under
from ingest_steps import define, ingest, without_times
from PIL import Image
from small_run import quiet

from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, FinalError, OtherWriterError
from tinytags_tasks.ingest.plan import PlanRequest, plan_ingestion
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage

PICTURES = 23


def make_folder(folder, broken=()):
    """A folder of pictures; those of the numbers in ``broken`` are none."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURES, 40, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = folder / f"{number:02d}.png"
        if number in broken:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def refused(tmp_path, storage):
    """A folder whose last shard has broken pictures, so that its ingestion was refused after two shards."""
    folder = make_folder(tmp_path / "photos", broken=(20, 21, 22))
    with pytest.raises(BadInputError, match="at least 3 of 23 images are unreadable"):
        ingest(storage, folder, format="folder")
    assert storage.exists(layout.shard_manifest_file("tiny", 1))
    return folder


def clean(tmp_path, folder, **fields):
    storage = LocalStorage(tmp_path / "clean")
    ingest(storage, folder, format="folder", **fields)
    return without_times(files_under(storage.root))


def test_a_source_that_was_mended_is_ingested_and_nothing_of_the_first_attempt_is_left(storage, refused, tmp_path):
    make_folder(refused)
    lines = []
    assert ingest(storage, refused, format="folder", report=lines.append).unreadable == 0
    assert any("what was refused is not what there is now" in line for line in lines)
    assert without_times(files_under(storage.root)) == clean(tmp_path, refused)


def test_a_source_from_which_the_broken_pictures_were_removed_leaves_no_shard_behind(storage, refused, tmp_path):
    for number in (20, 21, 22):
        (refused / f"{number}.png").unlink()
    assert (ingest(storage, refused, format="folder").images, ingest(storage, refused, format="folder").shards) == (
        20,
        2,
    )
    assert without_times(files_under(storage.root)) == clean(tmp_path, refused)


def test_a_definition_that_was_mended_is_followed_with_its_own_cut(storage, tmp_path):
    folder = make_folder(tmp_path / "photos")
    with pytest.raises(BadInputError, match="32x40 and not 32x32"):
        ingest(storage, folder, format="folder", resize="none")
    assert ingest(storage, folder, format="folder", resize="crop", blocks_per_shard=2).blocks == 6
    assert without_times(files_under(storage.root)) == clean(tmp_path, folder, resize="crop", blocks_per_shard=2)


def test_a_refused_source_that_is_the_same_goes_on_where_it_was(storage, refused):
    before = files_under(storage.root)
    with pytest.raises(BadInputError, match="at least 3 of 23"):
        ingest(storage, refused, format="folder")
    assert files_under(storage.root) == before
    assert ingest(storage, refused, format="folder", most_unreadable_percent=20).unreadable == 3


def test_what_was_killed_and_not_refused_still_binds(storage, tmp_path):
    folder = make_folder(tmp_path / "photos")
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 8, fault=Killed), folder, format="folder")
    (folder / "00.png").unlink()
    with pytest.raises(BadInputError, match=r"was made from .* but .* is a different source"):
        ingest(storage, folder, format="folder")


def test_a_complete_corpus_binds_even_if_a_later_attempt_was_refused(storage, tmp_path):
    folder = make_folder(tmp_path / "photos")
    ingest(storage, folder, format="folder")
    make_folder(folder, broken=range(10))
    for _ in range(2):
        with pytest.raises(BadInputError, match="is a different source or has changed"):
            ingest(storage, folder, format="folder")


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("fail_at", range(1, 9))
def test_a_mended_source_is_ingested_whenever_the_attempt_was_killed(storage, refused, tmp_path, fail_at, mode):
    make_folder(refused)
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, fail_at, mode, Killed), refused, format="folder")
    ingest(storage, refused, format="folder")
    listing = {path for path in files_under(storage.root) if "/source-" in path}
    found = {path: content for path, content in without_times(files_under(storage.root)).items() if path not in listing}
    expected = clean(tmp_path, refused)
    assert found == {path: content for path, content in expected.items() if "/source-" not in path}


def test_nothing_is_deleted_while_another_process_writes_a_shard(storage, refused):
    make_folder(refused)
    before = files_under(storage.root)
    with Leases(storage).hold(layout.lease_file("tiny", 2)) as is_ours:
        assert is_ours
        request = PlanRequest(define(refused, format="folder"))
        with pytest.raises(OtherWriterError, match="its earlier source is still being ingested"):
            plan_ingestion(request, storage=storage, files=SourceFiles(str(refused)), report=quiet)
    assert files_under(storage.root) == before


# The store has no room


class NearlyFull(LocalStorage):
    def free_bytes(self):
        return 15 * 32 * 32 * 3  # not enough for 15 images, because some space is kept


def remove_pictures(folder):
    for number in range(10, PICTURES):
        (folder / f"{number}.png").unlink()
    return {}


@pytest.mark.parametrize("mend", [remove_pictures, lambda folder: {"height": 16, "width": 16}])
def test_what_the_store_had_no_room_for_binds_nobody(tmp_path, mend):
    folder, storage = make_folder(tmp_path / "photos"), NearlyFull(tmp_path / "store")
    for _ in range(2):
        with pytest.raises(FinalError, match="more bytes, but the store has only"):
            ingest(storage, folder, format="folder")
    fields = mend(folder)
    ingest(storage, folder, format="folder", **fields)
    assert without_times(files_under(storage.root)) == clean(tmp_path, folder, **fields)


def test_what_the_store_has_room_for_now_goes_on(storage, tmp_path):
    folder = make_folder(tmp_path / "photos")
    with pytest.raises(FinalError, match="more bytes"):
        ingest(NearlyFull(storage.root), folder, format="folder")
    assert ingest(storage, folder, format="folder").images == PICTURES
    assert without_times(files_under(storage.root)) == clean(tmp_path, folder)


def test_a_growth_that_the_store_had_no_room_for_stops_no_run(storage, tmp_path):
    folder, more = make_folder(tmp_path / "photos"), make_folder(tmp_path / "more")
    ingest(storage, folder, format="folder")
    before = without_times(files_under(storage.root))
    shutil.copytree(more, folder / "more")
    nearly_full = NearlyFull(storage.root)
    with pytest.raises(FinalError, match="more bytes"):
        ingest_corpus(define(folder, format="folder"), storage=nearly_full, grow=True, report=quiet)
    assert ingest(nearly_full, folder, format="folder").images == PICTURES
    assert without_times(files_under(storage.root)) == before
