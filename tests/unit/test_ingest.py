"""Ingestion: every image exactly once, in TinyTags' order, whatever was killed meanwhile."""

import hashlib
import io
import json
import os
import re

import ingest_steps
import numpy as np
import pyarrow.parquet as pq
import pytest
from faulty_storage import FaultyStorage, Killed, files_under
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_steps import IMAGES, change_one_byte, define, ingest, without_times
from small_run import quiet

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, METADATA_BYTES, to_column_major
from tinytags_tasks.corpus.sources import files as source_files
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, FinalError, MissingError
from tinytags_tasks.ingest import plan, shards, verify
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.local import LocalStorage

images, source, own_source = ingest_steps.images, ingest_steps.source, ingest_steps.own_source
clean = ingest_steps.clean


def test_shards_hold_the_source_in_row_major_order_and_each_image_once(storage, source, images):
    result = ingest(storage, source)
    assert (result.images, result.shards, result.blocks, result.unreadable) == (IMAGES, 3, 12, 0)
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
    assert (result.images, counting.calls) == (IMAGES, 0)
    assert files_under(storage.root) == before


@pytest.mark.parametrize("cut", [{"shard_images": 11}, {"blocks_per_shard": 5}])
def test_another_cut_of_the_same_corpus_is_refused(storage, source, cut):
    ingest(storage, source)
    before = files_under(storage.root)
    with pytest.raises(
        BadInputError,
        match=r"was started with (shard_images = 10, not 11|blocks_per_shard = 4, not 5); restore it, choose another",
    ):
        ingest(storage, source, **cut)
    assert files_under(storage.root) == before


def test_a_source_that_has_grown_is_refused(storage, own_source):
    ingest(storage, own_source)
    with own_source.open("ab") as file:
        file.write(bytes(IMAGE_BYTES))
    with pytest.raises(
        BadInputError,
        match=r"a different source or has changed since then \(size_bytes: was 70,656, is 73,728\); restore",
    ):
        ingest(storage, own_source)


def test_a_source_that_changed_between_a_killed_run_and_the_next_is_refused(storage, own_source, images):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 3, fault=Killed), own_source)
    own_source.write_bytes(to_column_major(images[:-1]))
    with pytest.raises(BadInputError, match="has changed since"):
        ingest(storage, own_source)
    assert not storage.exists(layout.corpus_file("tiny"))


class ChangesSource(FaultyStorage):
    """Changes the source once the second shard's first bytes have been written."""

    def __init__(self, inner, change):
        super().__init__(inner, 0)
        self.change = change

    def write(self, path, content, *, overwrite=True):
        if path != layout.shard_file("tiny", 1):
            return super().write(path, content, overwrite=overwrite)

        def passed():
            self.change()
            yield from content

        return super().write(path, passed(), overwrite=overwrite)


def test_a_source_that_changes_while_it_is_read_is_refused_and_its_shard_not_committed(storage, own_source):
    def change():
        own_source.write_bytes(bytes(IMAGES * IMAGE_BYTES))
        os.utime(own_source, (1, 1))

    with pytest.raises(BadInputError, match="has changed since"):
        ingest(ChangesSource(storage, change), own_source)
    assert storage.exists(layout.shard_manifest_file("tiny", 0))
    assert not storage.exists(layout.shard_file("tiny", 1))
    assert not storage.exists(layout.shard_manifest_file("tiny", 1))
    assert not storage.exists(layout.corpus_file("tiny"))


def test_a_source_that_vanishes_while_it_is_read_is_bad_input(storage, own_source):
    with pytest.raises(BadInputError, match=r"own\.bin"):
        ingest(ChangesSource(storage, lambda: own_source.unlink(missing_ok=True)), own_source)
    assert not storage.exists(layout.corpus_file("tiny"))


def test_a_resumed_run_finds_a_change_that_neither_size_nor_time_nor_ends_tell(storage, own_source, monkeypatch):
    monkeypatch.setattr(source_files, "END_BYTES", IMAGE_BYTES)
    ingest(storage, own_source)
    storage.delete(layout.corpus_file("tiny"))
    change_one_byte(own_source, 12 * IMAGE_BYTES + 5)
    with pytest.raises(BadInputError, match=r"own\.bin: images 12 to 14 have changed since shard 1 was made"):
        ingest(storage, own_source)


def test_a_source_that_was_touched_is_the_same_source(storage, own_source, clean):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 9, fault=Killed), own_source)
    assert storage.exists(layout.shard_manifest_file("tiny", 0))
    os.utime(own_source, (1, 1))
    said = []
    ingest(storage, own_source, report=said.append)
    assert any("is the same source, although the times of its files have changed" in line for line in said)
    manifests = [layout.shard_file("tiny", shard) for shard in range(3)]
    assert {path: files_under(storage.root)[path] for path in manifests} == {path: clean[path] for path in manifests}


def test_a_touched_source_whose_bytes_changed_is_refused_by_the_shard_that_was_made_of_them(
    storage, own_source, monkeypatch
):
    monkeypatch.setattr(source_files, "END_BYTES", IMAGE_BYTES)
    ingest(storage, own_source)
    storage.delete(layout.corpus_file("tiny"))
    change_one_byte(own_source, 12 * IMAGE_BYTES + 5)
    os.utime(own_source, (1, 1))
    with pytest.raises(BadInputError, match=r"own\.bin: images 12 to 14 have changed since shard 1 was made"):
        ingest(storage, own_source)


def test_a_touched_source_of_a_complete_corpus_is_verified_and_its_shards_can_be_written_again(storage, own_source):
    ingest(storage, own_source)
    shards = [storage.read(layout.shard_file("tiny", shard)) for shard in range(3)]
    digest = Corpus.load(storage, layout.corpus_file("tiny")).digest
    os.utime(own_source, (1, 1))
    files = SourceFiles(str(own_source))
    assert verify.verify_corpus("tiny", storage=storage, files=files, report=quiet).source == ""
    deep = verify.verify_corpus("tiny", storage=storage, files=files, deep=True, report=quiet)
    assert "if only its time has changed, `tinytags ingest NAME` goes on with it" in deep.source
    ingest(storage, own_source)
    assert verify.verify_corpus("tiny", storage=storage, files=files, deep=True, report=quiet).source == ""
    os.utime(own_source, (2, 2))
    ingest(storage, own_source, redo=(1,))
    assert [storage.read(layout.shard_file("tiny", shard)) for shard in range(3)] == shards
    assert Corpus.load(storage, layout.corpus_file("tiny")).digest == digest


def test_keywords_that_changed_since_a_shard_was_made_are_refused(storage, source, tmp_path):
    words = tmp_path / "metadata.bin"
    words.write_bytes(b"bird".ljust(METADATA_BYTES) * IMAGES)
    ingest(storage, source, keywords=str(words))
    storage.delete(layout.corpus_file("tiny"))
    words.write_bytes(b"fish".ljust(METADATA_BYTES) * IMAGES)
    with pytest.raises(BadInputError, match="the keywords of shard 0 have changed since it was made"):
        ingest(storage, source, keywords=str(words))
    words.write_bytes(b"bird".ljust(METADATA_BYTES) * IMAGES)
    os.utime(words, (1, 1))
    ingest(storage, source, keywords=str(words))


def test_what_is_reported_counts_to_the_last_image(storage, source):
    lines: list[str] = []
    ingest(storage, source, report=lines.append)
    assert "0.00 GB will be written, and " in lines[1]
    assert re.fullmatch(r"corpus tiny: 23 of 23 images, [\d,]+ MB/s, 0 s left", lines[-2])
    assert lines[-1] == "corpus tiny: 23 images in 3 shards of 4 blocks, 0 unreadable"


def test_what_the_store_has_no_room_for_is_not_begun(storage, source):
    class Full(FaultyStorage):
        def free_bytes(self):
            return IMAGES * IMAGE_BYTES

    with pytest.raises(FinalError, match=r"needs 70,656 more bytes, but the store has only 70,656 free .* free some"):
        ingest(Full(storage, 0), source)
    assert not storage.names(layout.shards_folder("tiny"))


def test_an_empty_source_is_refused(storage, tmp_path):
    (tmp_path / "empty.bin").touch()
    with pytest.raises(BadInputError, match=r"empty\.bin: contains no images of the format tiny-images"):
        ingest(storage, tmp_path / "empty.bin")
    assert files_under(tmp_path) == {"empty.bin": b""}


def test_keywords_are_kept_by_position_without_those_of_the_stop_list(storage, source, tmp_path):
    words = [f"word {position}" for position in range(IMAGES)]
    words[4], words[17], words[22] = "guinea_pig", "", "größe"
    metadata = tmp_path / "tiny_metadata.bin"
    metadata.write_bytes(b"".join(word.encode().ljust(METADATA_BYTES) for word in words))
    (tmp_path / "stop.txt").write_text("Pig\nword 7\n")
    ingest(storage, source, keywords=str(metadata), keyword_stop_list=str(tmp_path / "stop.txt"))
    found = []
    for shard in range(3):
        content = storage.read(layout.keywords_file("tiny", shard))
        manifest = ShardManifest.load(storage, layout.shard_manifest_file("tiny", shard))
        assert manifest.keywords_sha256 == hashlib.sha256(content).hexdigest()
        found += pq.read_table(io.BytesIO(content)).column("keyword").to_pylist()
    expected = [word if position not in (4, 7, 17) else None for position, word in enumerate(words)]
    assert found == expected


def test_tasks_take_whole_shards_and_at_most_four_hundred(storage, source):
    files = SourceFiles(str(source))
    request = plan.PlanRequest(define(source, shard_images=1, blocks_per_shard=1))
    assert plan.plan_ingestion(request, storage=storage, files=files, report=quiet).groups == (tuple(range(IMAGES)),)
    request = plan.PlanRequest(define(source, shard_images=1, blocks_per_shard=1), shards_per_task=10)
    groups = plan.plan_ingestion(request, storage=storage, files=files, report=quiet).groups
    assert [len(group) for group in groups] == [10, 10, 3]


def test_shards_may_be_written_in_any_order_by_different_tasks(storage, source, clean):
    files = SourceFiles(str(source))
    plan.plan_ingestion(plan.PlanRequest(define(source)), storage=storage, files=files, report=quiet)
    for group in ((2,), (0, 1)):
        result = shards.ingest_shards(shards.ShardsRequest("tiny", group), storage=storage, files=files, report=quiet)
        assert (result.shards, result.written) == (group, len(group))
    ingest(storage, source)
    assert without_times(files_under(storage.root)) == clean


def test_a_corpus_is_not_committed_before_every_shard_stands(storage, source):
    files = SourceFiles(str(source))
    plan.plan_ingestion(plan.PlanRequest(define(source)), storage=storage, files=files, report=quiet)
    shards.ingest_shards(shards.ShardsRequest("tiny", (0, 2)), storage=storage, files=files, report=quiet)
    from tinytags_tasks.ingest import commit

    with pytest.raises(
        MissingError, match=r"00001\.bin: is missing or does not match its manifest; .*`tinytags ingest tiny --redo 1`"
    ):
        commit.commit_corpus("tiny", storage=storage, report=quiet)
    assert not storage.exists(layout.corpus_file("tiny"))


@settings(deadline=None, max_examples=25)
@given(images=st.integers(1, 60), shard_images=st.integers(1, 30), blocks=st.integers(1, 9), seed=st.integers(0, 9))
def test_whatever_the_cut_the_blocks_together_are_the_source(tmp_path_factory, images, shard_images, blocks, seed):
    folder = tmp_path_factory.mktemp("cut")
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    (folder / "tiny.bin").write_bytes(to_column_major(pixels))
    storage = LocalStorage(folder / "store")
    cut = {"shard_images": shard_images, "blocks_per_shard": min(blocks, shard_images)}
    result = ingest(storage, folder / "tiny.bin", **cut)
    stored = b"".join(storage.read(layout.shard_file("tiny", shard)) for shard in range(result.shards))
    assert stored == pixels.tobytes()
    manifests = [
        ShardManifest.load(storage, layout.shard_manifest_file("tiny", shard)) for shard in range(result.shards)
    ]
    entries = [entry for manifest in manifests for entry in manifest.blocks]
    assert [entry.number for entry in entries] == list(range(result.blocks))
    assert sum(entry.images for entry in entries) == images
    for entry in entries:
        block = pixels[entry.first : entry.first + entry.images]
        assert entry.sha256 == hashlib.sha256(block.tobytes()).hexdigest()


def test_verifying_finds_nothing_in_a_good_corpus(storage, source):
    ingest(storage, source)
    for deep in (False, True):
        found = verify.verify_corpus("tiny", storage=storage, files=SourceFiles(str(source)), deep=deep, report=quiet)
        assert (found.damaged, found.source) == ({}, "")
        assert found.read_bytes == (IMAGES * IMAGE_BYTES if deep else 0)


def test_verifying_deep_names_the_blocks_whose_bytes_are_wrong(storage, source):
    ingest(storage, source)
    path = layout.shard_file("tiny", 1)
    content = bytearray(storage.read(path))
    content[3 * IMAGE_BYTES] ^= 255
    storage.write(path, bytes(content))
    found = verify.verify_corpus("tiny", storage=storage, files=None, deep=True, report=quiet)
    assert found.damaged == {1: "the bytes of blocks 5 are not what was ingested"}


def test_verifying_deep_finds_a_change_of_the_source_that_nothing_else_tells(storage, own_source, monkeypatch):
    monkeypatch.setattr(source_files, "END_BYTES", IMAGE_BYTES)
    ingest(storage, own_source)
    change_one_byte(own_source, 12 * IMAGE_BYTES + 5)
    shallow, deep = (
        verify.verify_corpus("tiny", storage=storage, files=SourceFiles(str(own_source)), deep=deep, report=quiet)
        for deep in (False, True)
    )
    assert (shallow.damaged, shallow.source, deep.damaged) == ({}, "", {})
    assert "own.bin: images 12 to 14 have changed since shard 1 was made" in deep.source


def test_a_corpus_that_was_never_finished_cannot_be_verified(storage, source):
    ingest(storage, source)
    storage.delete(layout.corpus_file("tiny"))
    with pytest.raises(MissingError, match="corpus tiny: its ingestion did not finish; run `tinytags ingest tiny`"):
        verify.verify_corpus("tiny", storage=storage, files=None, report=quiet)


def test_records_are_json_that_people_can_read(storage, source):
    ingest(storage, source)
    assert json.loads(storage.read(layout.corpus_file("tiny")))["images"] == IMAGES
