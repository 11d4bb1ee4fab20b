"""Ingestion: every image once, in TinyTags' order, whatever was killed on the way."""

import hashlib
import json
import os
import re

import numpy as np
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from small_run import quiet

from tinytags_tasks import layout
from tinytags_tasks.corpus.tiny_images import IMAGE_BYTES, to_column_major
from tinytags_tasks.errors import BadInputError, CorruptError, TransientError
from tinytags_tasks.ingest.step import IngestRequest, run
from tinytags_tasks.records import Corpus, ShardManifest
from tinytags_tasks.storage import LocalStorage

IMAGES, SHARD_IMAGES, BLOCKS_PER_SHARD = 23, 10, 4
CHANGES = 2 * 3 + 1
"""What a clean run writes: three shards with their manifests, then the totals."""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "tiny.bin"
    path.write_bytes(to_column_major(images))
    return path


@pytest.fixture
def own_source(images, tmp_path):
    """A source that the test may change."""
    path = tmp_path / "own.bin"
    path.write_bytes(to_column_major(images))
    return path


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


def ingest(storage, source, *, shard_images=SHARD_IMAGES, blocks_per_shard=BLOCKS_PER_SHARD):
    request = IngestRequest("tiny", str(source), shard_images, blocks_per_shard, "small pictures")
    return run(request, storage=storage, report=quiet)


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: re.sub(rb'"created": "[^"]*"', b"", content) for path, content in files.items()}


@pytest.fixture(scope="module")
def clean(source, tmp_path_factory):
    """The files of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("clean")
    ingest(LocalStorage(folder), source)
    return without_times(files_under(folder))


def test_shards_hold_the_source_in_row_major_order_and_each_image_once(storage, source, images):
    result = ingest(storage, source)
    assert (result.images, result.shards, result.blocks, result.unreadable, result.written) == (IMAGES, 3, 12, 0, 3)
    stored = b"".join(storage.read(layout.shard_file("tiny", shard)) for shard in range(3))
    assert stored == images.tobytes()


def test_manifests_hash_every_block(storage, source, images):
    ingest(storage, source)
    entries = [
        entry
        for shard in range(3)
        for entry in ShardManifest.load(storage, layout.shard_manifest_file("tiny", shard)).blocks
    ]
    assert [entry.number for entry in entries] == list(range(12))
    assert sum(entry.images for entry in entries) == IMAGES
    for entry in entries:
        block = images[entry.first : entry.first + entry.images]
        assert entry.sha256 == hashlib.sha256(block.tobytes()).hexdigest()


def test_a_block_longer_than_one_read_is_hashed_whole(storage, own_source):
    images = np.random.default_rng(1).integers(0, 256, (5_003, 1, 1, 3), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
    own_source.write_bytes(to_column_major(images))
    ingest(storage, own_source, shard_images=10_000, blocks_per_shard=1)
    stored = storage.read(layout.shard_file("tiny", 0))
    assert stored == images.tobytes()
    (entry,) = ShardManifest.load(storage, layout.shard_manifest_file("tiny", 0)).blocks
    assert entry.sha256 == hashlib.sha256(stored).hexdigest()


def test_totals_say_where_the_corpus_came_from(storage, source):
    ingest(storage, source)
    corpus = Corpus.load(storage, layout.corpus_file("tiny"))
    assert (corpus.images, corpus.description) == (IMAGES, "small pictures")
    assert (corpus.height, corpus.width, corpus.channels) == (32, 32, 3)
    assert (corpus.source.path, corpus.source.size_bytes) == (str(source), IMAGES * IMAGE_BYTES)
    assert "column-major" in corpus.preparation


def test_a_shard_with_fewer_images_than_blocks_still_has_all_its_blocks(storage, source):
    assert ingest(storage, source, blocks_per_shard=7).blocks == 21
    assert len(ShardManifest.load(storage, layout.shard_manifest_file("tiny", 2)).blocks) == 7


def test_a_second_run_writes_nothing(storage, source):
    ingest(storage, source)
    before = files_under(storage.root)
    counting = FaultyStorage(storage, fail_at=0)
    result = ingest(counting, source)
    assert (result.images, result.written, counting.calls) == (IMAGES, 0, 0)
    assert files_under(storage.root) == before


@pytest.mark.parametrize("cut", [{"shard_images": 11}, {"blocks_per_shard": 5}])
def test_another_cut_of_the_same_corpus_is_refused(storage, source, cut):
    ingest(storage, source)
    before = files_under(storage.root)
    with pytest.raises(BadInputError, match="shards of 10 images with 4 blocks; use these numbers, or another name"):
        ingest(storage, source, **cut)
    assert files_under(storage.root) == before


def test_a_source_that_has_grown_is_refused(storage, own_source):
    ingest(storage, own_source)
    with own_source.open("ab") as file:
        file.write(bytes(IMAGE_BYTES))
    with pytest.raises(BadInputError, match="is not that file or has changed since; give it another name"):
        ingest(storage, own_source)


def test_a_source_that_changed_between_a_killed_run_and_the_next_is_refused(storage, own_source, images):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 3, fault=Killed), own_source)
    own_source.write_bytes(to_column_major(images[:-1]))
    with pytest.raises(BadInputError, match="has changed since"):
        ingest(storage, own_source)
    assert not storage.exists(layout.corpus_file("tiny"))


def test_a_source_that_changes_while_it_is_read_makes_no_manifest(storage, own_source):
    class ChangesSource(FaultyStorage):
        def write(self, path, content, *, overwrite=True):
            outcome = super().write(path, content, overwrite=overwrite)
            if path == layout.shard_file("tiny", 1):
                own_source.write_bytes(bytes(IMAGES * IMAGE_BYTES))
                os.utime(own_source, (1, 1))
            return outcome

    with pytest.raises(BadInputError, match="has changed since"):
        ingest(ChangesSource(storage, 0), own_source)
    assert storage.exists(layout.shard_manifest_file("tiny", 0))
    assert not storage.exists(layout.shard_manifest_file("tiny", 1))
    assert not storage.exists(layout.corpus_file("tiny"))


def test_a_source_that_vanishes_while_it_is_read_is_bad_input(storage, own_source):
    class DeletesSource(FaultyStorage):
        def write(self, path, content, *, overwrite=True):
            outcome = super().write(path, content, overwrite=overwrite)
            own_source.unlink(missing_ok=True)
            return outcome

    with pytest.raises(BadInputError, match=r"own\.bin"):
        ingest(DeletesSource(storage, 0), own_source)


@pytest.mark.parametrize("damage", ["shorter", "longer", "gone"])
def test_a_damaged_shard_of_an_unfinished_corpus_is_written_again(storage, source, clean, damage):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    path = layout.shard_file("tiny", 1)
    content = storage.read(path)
    storage.delete(path)
    if damage != "gone":
        storage.write(path, content[:-1] if damage == "shorter" else content + b"x")
    assert ingest(storage, source).written == 1
    assert without_times(files_under(storage.root)) == clean


def test_a_shard_without_a_manifest_is_written_again(storage, source, clean):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    storage.delete(layout.shard_manifest_file("tiny", 0))
    assert ingest(storage, source).written == 1
    assert without_times(files_under(storage.root)) == clean


def test_a_damaged_manifest_is_named_with_the_remedy(storage, source):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    storage.write(layout.shard_manifest_file("tiny", 2), b'{"corpus": "ti')
    with pytest.raises(CorruptError, match=r"00002\.json: no usable ShardManifest .* delete it and run the stage"):
        ingest(storage, source)


def test_an_unfinished_corpus_of_another_cut_is_cut_anew(storage, source, clean):
    with pytest.raises(Killed):
        run(
            IngestRequest("tiny", str(source), SHARD_IMAGES, 5),
            storage=FaultyStorage(storage, 4, fault=Killed),
            report=quiet,
        )
    assert ingest(storage, source).written == 3
    assert without_times(files_under(storage.root)) == clean


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", [TransientError, Killed])
@pytest.mark.parametrize("fail_at", range(1, CHANGES + 1))
def test_a_run_after_a_fault_equals_a_run_without_one(storage, source, clean, fail_at, fault, mode):
    with pytest.raises(fault):
        ingest(FaultyStorage(storage, fail_at, mode, fault), source)
    assert storage.exists(layout.corpus_file("tiny")) is (mode == "after" and fail_at == CHANGES)
    again = FaultyStorage(storage, 0)
    ingest(again, source)
    assert without_times(files_under(storage.root)) == clean
    whole_before = fail_at - 1 + (mode == "after")
    assert again.calls == CHANGES - whole_before + (whole_before % 2 if whole_before < CHANGES else 0)


def test_a_clean_run_makes_as_many_changes_as_the_faults_cover(storage, source):
    counting = FaultyStorage(storage, 0)
    ingest(counting, source)
    assert counting.calls == CHANGES


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "-x", "a b", "x" * 101])
def test_a_name_that_is_not_safe_in_paths_is_refused(name):
    with pytest.raises(BadInputError, match="cannot be the name of a corpus: use up to 100"):
        IngestRequest(name, "tiny.bin")


def test_what_is_reported_counts_to_the_last_image(storage, source):
    lines: list[str] = []
    run(IngestRequest("tiny", str(source), SHARD_IMAGES, 4), storage=storage, report=lines.append)
    assert [line.split(" images")[0] for line in lines] == [
        "shard 1 of 3: 10 of 23",
        "shard 2 of 3: 20 of 23",
        "shard 3 of 3: 23 of 23",
    ]


def test_records_are_json_that_people_can_read(storage, source):
    ingest(storage, source)
    assert json.loads(storage.read(layout.corpus_file("tiny")))["images"] == IMAGES
