"""Ingestion: what is damaged is written again, and a run after a fault equals a run without one."""

import contextlib

import ingest_steps
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from ingest_steps import CHANGES, IMAGES, change_one_byte, ingest, without_times
from PIL import Image
from small_run import quiet

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
from tinytags_tasks.corpus.sources import files as source_files
from tinytags_tasks.errors import BadInputError, CorruptError, TransientError
from tinytags_tasks.ingest import verify
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import temporary_name

images, source, own_source = ingest_steps.images, ingest_steps.source, ingest_steps.own_source
clean = ingest_steps.clean


def test_a_complete_corpus_never_needs_its_source(storage, own_source):
    ingest(storage, own_source)
    before = files_under(storage.root)
    own_source.unlink()
    said = []
    assert ingest(storage, own_source, report=said.append).images == IMAGES
    assert any("corpus tiny is complete, so its source is not needed" in line for line in said)
    assert files_under(storage.root) == before
    with pytest.raises(BadInputError, match="was started with blocks_per_shard"):
        ingest(storage, own_source, blocks_per_shard=5)
    with pytest.raises(BadInputError, match=r"own\.bin: no such file"):
        ingest(storage, own_source, redo=(1,))
    storage.delete(layout.shard_file("tiny", 1))
    with pytest.raises(BadInputError, match=r"own\.bin: no such file"):
        ingest(storage, own_source)


def test_damaged_totals_are_added_up_again_even_without_the_source(storage, own_source):
    ingest(storage, own_source)
    path = layout.corpus_file("tiny")
    before = Corpus.load(storage, path)
    storage.write(path, storage.read(path).replace(b'"images": 23', b'"images": 22', 1))
    own_source.unlink()
    ingest(storage, own_source)
    assert Corpus.load(storage, path).replaced(created=before.created) == before


def test_a_damaged_plan_of_a_complete_corpus_is_written_again(storage, own_source):
    ingest(storage, own_source)
    path = layout.ingest_plan_file("tiny")
    before = files_under(storage.root)
    for stored in (b"{", storage.read(path).replace(b'"images": 23', b'"images": 22', 1)):
        storage.write(path, stored)
        with pytest.raises(CorruptError, match=r"plan\.json: .*`tinytags ingest tiny`"):
            verify.verify_corpus("tiny", storage=storage, files=None, report=quiet)
        with pytest.raises(BadInputError, match="was made with blocks_per_shard = 4, not 5"):
            ingest(storage, own_source, blocks_per_shard=5)
        ingest(storage, own_source)
        assert files_under(storage.root) == before


def test_an_incomplete_corpus_whose_plan_is_damaged_is_begun_again(storage, own_source, clean):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 9, fault=Killed), own_source)
    storage.write(layout.ingest_plan_file("tiny"), b"{")
    ingest(storage, own_source)
    shards = [layout.shard_file("tiny", shard) for shard in range(3)]
    assert {path: files_under(storage.root)[path] for path in shards} == {path: clean[path] for path in shards}


def test_a_damaged_manifest_is_written_again_by_the_command_that_is_named(storage, source):
    ingest(storage, source)
    before = files_under(storage.root)
    path = layout.shard_manifest_file("tiny", 1)
    storage.write(path, storage.read(path).replace(b'"images": 10', b'"images": 11', 1))
    with pytest.raises(CorruptError, match=r"00001\.json: damaged .*`tinytags ingest tiny --redo 1`"):
        ingest(storage, source)
    ingest(storage, source, redo=(1,))
    assert files_under(storage.root) == before


def written_shards(storage, source):
    """Ingest, and return how many shards were written."""
    counting = CountsShards(storage)
    ingest(counting, source)
    return counting.shards


class CountsShards(FaultyStorage):
    def __init__(self, inner):
        super().__init__(inner, 0)
        self.shards = 0

    def write(self, path, content, *, overwrite=True):
        self.shards += path.endswith(".bin")
        return super().write(path, content, overwrite=overwrite)


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone"])
def test_a_damaged_shard_of_an_unfinished_corpus_is_written_again(storage, source, clean, damage):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    path = layout.shard_file("tiny", 1)
    content = storage.read(path)
    storage.delete(path)
    if damage != "gone":
        storage.write(path, content[:-1] if damage == "shorter" else content + b"x")
    assert written_shards(storage, source) == 1
    assert without_times(files_under(storage.root)) == clean


def test_a_shard_without_a_manifest_is_written_again(storage, source, clean):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    storage.delete(layout.shard_manifest_file("tiny", 0))
    assert written_shards(storage, source) == 1
    assert without_times(files_under(storage.root)) == clean


def test_a_damaged_manifest_is_named_with_the_remedy(storage, source):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    storage.write(layout.shard_manifest_file("tiny", 2), b'{"corpus": "ti')
    with pytest.raises(CorruptError, match=r"00002\.json: no usable ShardManifest .*`tinytags ingest tiny --redo 2`"):
        ingest(storage, source)


@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_a_damaged_shard_of_a_corpus_that_stands_is_written_again(storage, source, damage):
    ingest(storage, source)
    before = files_under(storage.root)
    path = layout.shard_file("tiny", 1)
    content = storage.read(path)
    storage.delete(path)
    if damage == "shorter":
        storage.write(path, content[:-1])
    assert written_shards(storage, source) == 1
    assert files_under(storage.root) == before


def test_a_shard_is_written_again_on_demand(storage, source):
    ingest(storage, source)
    before = files_under(storage.root)
    content = storage.read(layout.shard_file("tiny", 2))
    storage.write(layout.shard_file("tiny", 2), bytes(len(content)))  # the same size: only its bytes are wrong
    counting = CountsShards(storage)
    ingest(counting, source, redo=(2,))
    assert counting.shards == 1
    assert files_under(storage.root) == before


def test_a_shard_is_not_written_again_from_a_source_that_has_changed(storage, own_source, monkeypatch):
    monkeypatch.setattr(source_files, "END_BYTES", IMAGE_BYTES)
    ingest(storage, own_source)
    before = files_under(storage.root)
    change_one_byte(own_source, 12 * IMAGE_BYTES + 5)
    with pytest.raises(BadInputError, match="have changed since shard 1 was made"):
        ingest(storage, own_source, redo=(1,))
    assert files_under(storage.root) == before


def test_a_higher_limit_of_unreadable_images_lets_a_refused_corpus_in(storage, images, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(images[:4]):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(BadInputError, match="at least 1 of 4 images are unreadable"):
        ingest(storage, folder, format="folder", most_unreadable_percent=10)
    result = ingest(storage, folder, format="folder", most_unreadable_percent=25)
    assert (result.images, result.unreadable) == (4, 1)


def test_what_killed_writers_left_of_the_totals_and_leases_is_cleared_away(storage, source, clean):
    for path in (layout.corpus_file("tiny"), layout.ingest_plan_file("tiny"), layout.lease_file("tiny", 2)):
        storage.write(temporary_name(path), b"half a fi")
    ingest(storage, source)
    assert without_times(files_under(storage.root)) == clean


def test_an_unfinished_corpus_of_another_cut_is_refused_and_leaves_no_orphans(storage, source, clean):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 5, fault=Killed), source)
    with pytest.raises(BadInputError, match="corpus tiny was started with blocks_per_shard = 4, not 5"):
        ingest(storage, source, blocks_per_shard=5)
    ingest(storage, source)
    assert without_times(files_under(storage.root)) == clean


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [TransientError, Killed])
@pytest.mark.parametrize("fail_at", range(1, CHANGES + 1))
def test_a_run_after_a_fault_equals_a_run_without_one(storage, source, clean, fail_at, fault, mode):
    is_lease_returned = fail_at in (6, 10, 14) and fault is TransientError
    with contextlib.nullcontext() if is_lease_returned else pytest.raises(fault):  # it would expire by itself
        ingest(FaultyStorage(storage, fail_at, mode, fault), source)
    is_whole = is_lease_returned or (mode == "after" and fail_at == CHANGES)
    assert storage.exists(layout.corpus_file("tiny")) is is_whole
    again = CountsShards(storage)
    ingest(again, source)
    assert without_times(files_under(storage.root)) == clean
    # Listing and plan are the first two changes; a shard is complete with its manifest, the third of its four changes.
    whole_before = 3 if is_whole else max(0, fail_at - 2 + (mode == "after")) // 4
    assert again.shards == 3 - min(3, whole_before)


def test_a_clean_run_makes_as_many_changes_as_the_faults_cover(storage, source):
    counting = FaultyStorage(storage, 0)
    ingest(counting, source)
    assert counting.calls == CHANGES
