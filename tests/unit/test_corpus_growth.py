"""A corpus grows: new files of its source are appended in new shards, and all that was there stays as it was."""

import os
import shutil
import tarfile

import numpy as np
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from growing_corpus import NEW, OLD, add_new, corpus_of, define, draw, ingest, pictures_of
from ingest_steps import change_one_byte, without_times
from PIL import Image
from small_run import quiet

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, MissingError, NewerFormatError, TransientError
from tinytags_tasks.ingest import commit
from tinytags_tasks.ingest.plan import PlanRequest, plan_ingestion
from tinytags_tasks.ingest.standing import standing_corpora
from tinytags_tasks.ingest.verify import iterate_unreadable, verify_corpus
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_identity import run_name


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "source"
    for number, name in enumerate(OLD):
        draw(source / name, number)
    return source


def test_new_files_are_appended_in_new_shards_wherever_they_stand_in_the_source(storage, folder):
    ingest(storage, folder)
    before, old = files_under(storage.root), pictures_of(storage)
    add_new(folder)
    grown = ingest(storage, folder, grow=True)
    after = files_under(storage.root)
    assert (grown.images, grown.new_images, grown.shards, grown.blocks) == (8, 3, 3, 6)
    assert {path for path in before if after[path] != before[path]} == {"corpora/pets/corpus.json"}
    assert pictures_of(storage) == [*old, 5, 6, 7]


def test_blocks_keep_their_numbers_and_hashes_although_the_last_shard_was_not_full(storage, folder):
    ingest(storage, folder)
    before = corpus_of(storage)
    old = block_sources(storage, before, range(before.partition.blocks))
    add_new(folder)
    ingest(storage, folder, grow=True)
    corpus = corpus_of(storage)
    sources = block_sources(storage, corpus, range(corpus.partition.blocks))
    assert sources[: len(old)] == old
    assert [len(read_pixels(storage, source)) for source in sources] == [source.images for source in sources]
    assert (corpus.digest, corpus.growth != "") == (before.digest, True)
    assert corpus.as_of("").replaced(created="") == before.replaced(created="")


def test_tars_are_appended_as_a_whole(storage, folder, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()

    def pack(name, pictures):
        with tarfile.open(tars / name, "w") as tar:
            for picture in pictures:
                tar.add(folder / picture, picture)

    pack("b.tar", OLD)
    ingest(storage, tars, format="webdataset")
    old = pictures_of(storage)
    add_new(folder)
    pack("a.tar", NEW)
    assert ingest(storage, tars, format="webdataset", grow=True).new_images == 3
    assert pictures_of(storage) == [*old, 5, 6, 7]
    pack("b.tar", (*OLD, NEW[0]))
    with pytest.raises(BadInputError, match=r"the head of b.tar or the tail of b.tar"):
        ingest(storage, tars, format="webdataset", grow=True)


def test_only_defined_and_complete_corpora_are_looked_at(storage, folder, tmp_path):
    definitions = tmp_path / "corpora"
    for name in ("pets", "birds"):
        save_definition(definitions, define(folder).model_copy(update={"name": name}))
    ingest(storage, folder)
    assert standing_corpora("", definitions, storage) == ["pets"]
    assert standing_corpora("birds", definitions, storage) == []
    with pytest.raises(BadInputError, match="no such corpus is defined"):
        standing_corpora("cats", definitions, storage)


def test_without_a_word_new_files_are_left_out_and_told_about(storage, folder):
    ingest(storage, folder)
    before = files_under(storage.root)
    add_new(folder)
    lines = []
    assert ingest(storage, folder, report=lines.append).images == 5
    assert files_under(storage.root) == before
    assert any("3 images in 3 files that corpus pets does not have; append them with" in line for line in lines)


def test_what_is_reported_counts_old_and_new(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    lines = []
    ingest(storage, folder, grow=True, report=lines.append)
    assert "8 images in 3 shards of 2 blocks, 0 unreadable; 3 of the images are new, 5 were there before" in lines[-1]


def test_to_grow_without_new_files_changes_nothing(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    before = files_under(storage.root)
    counting = FaultyStorage(storage, fail_at=0)
    again = ingest(counting, folder, grow=True)
    assert (again.images, again.new_images, counting.calls) == (8, 0, 0)
    assert files_under(storage.root) == before


def test_a_corpus_grows_again_and_again(storage, folder):
    ingest(storage, folder)
    for number, name in enumerate(NEW, start=len(OLD)):
        draw(folder / name, number)
        ingest(storage, folder, grow=True)
    assert [growth.images for growth in corpus_of(storage).growths] == [1, 1, 1]
    assert pictures_of(storage)[5:] == [5, 6, 7]
    assert verify_corpus("pets", storage=storage, files=SourceFiles(str(folder), {}), deep=True, report=quiet).is_intact


def test_what_is_to_grow_is_first_completed(storage, folder):
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 6, fault=Killed), folder)
    add_new(folder)
    grown = ingest(storage, folder, grow=True)
    assert (grown.images, [growth.images for growth in corpus_of(storage).growths]) == (8, [3])


@pytest.mark.parametrize("mode", MODES)
def test_a_growth_that_was_killed_anywhere_ends_like_one_that_was_not(tmp_path, folder, mode):
    begun = LocalStorage(tmp_path / "begun")
    ingest(begun, folder)
    add_new(folder)
    clean = LocalStorage(tmp_path / "clean")
    shutil.copytree(begun.root, clean.root)
    counting = FaultyStorage(clean, fail_at=0)
    ingest(counting, folder, grow=True)
    expected = without_times(files_under(clean.root))
    for call in range(1, counting.calls + 1):
        storage = LocalStorage(tmp_path / f"killed-{mode}-{call}")
        shutil.copytree(begun.root, storage.root)
        with pytest.raises(Killed):
            ingest(FaultyStorage(storage, call, mode, Killed), folder, grow=True)
        assert corpus_of(storage).images in (5, 8), call
        ingest(storage, folder, grow=True)
        assert without_times(files_under(storage.root)) == expected, call


def test_a_growth_that_was_begun_goes_on_without_being_asked_for_again(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    plan_ingestion(
        PlanRequest(define(folder), grow=True), storage=storage, files=SourceFiles(str(folder), {}), report=quiet
    )
    assert corpus_of(storage).images == 5
    assert ingest(storage, folder).images == 8


def test_of_two_who_find_different_new_files_the_first_counts(storage, folder):
    ingest(storage, folder)
    add_new(folder, NEW[:1])
    files = SourceFiles(str(folder), {})
    first = plan_ingestion(PlanRequest(define(folder), grow=True), storage=storage, files=files, report=quiet)
    add_new(folder)
    second = plan_ingestion(PlanRequest(define(folder), grow=True), storage=storage, files=files, report=quiet)
    assert (first.new_images, second.new_images, second.untaken) == (1, 1, 2)
    ingest(storage, folder, grow=True)
    assert [growth.images for growth in corpus_of(storage).growths] == [1, 2]


def test_a_slow_process_does_not_undo_a_later_growth(storage, folder):
    ingest(storage, folder)
    add_new(folder, NEW[:1])
    ingest(storage, folder, grow=True)
    slow = corpus_of(storage)
    add_new(folder)
    ingest(storage, folder, grow=True)
    commit._replace(slow, storage, quiet)
    assert corpus_of(storage).images == 8


def remove(folder):
    (folder / OLD[2]).unlink()


def resize(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / OLD[2])


def change_the_first(folder):
    change_one_byte(folder / sorted(OLD)[0], 50)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (remove, r"files of .*source that are missing or have changed .*\(d/three.png is missing\)"),
        (resize, r"the size or keyword of d/three.png"),
        (change_the_first, r"the head of b/one.png or the tail of f/five.png"),
    ],
)
def test_a_source_whose_old_files_changed_is_refused_and_nothing_is_written(storage, folder, change, what):
    ingest(storage, folder)
    add_new(folder, NEW[:1])
    ingest(storage, folder, grow=True)
    add_new(folder)
    change(folder)
    before = files_under(storage.root)
    with pytest.raises(BadInputError, match=what):
        ingest(storage, folder, grow=True)
    assert files_under(storage.root) == before


def test_files_of_another_time_are_the_same_and_can_be_ingested_again(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))
    before = pictures_of(storage)
    assert ingest(storage, folder, redo=(0, 2)).new_images == 0
    assert pictures_of(storage) == before


def test_unreadable_pictures_are_counted_in_their_own_growth(storage, folder):
    ingest(storage, folder, most_unreadable_percent=40)
    add_new(folder)
    (folder / "z/eight.png").write_bytes(b"no picture")
    grown = ingest(storage, folder, grow=True, most_unreadable_percent=40)
    assert (grown.unreadable, corpus_of(storage).as_of("").unreadable) == (1, 0)
    assert [image.position for image in iterate_unreadable("pets", storage=storage)] == [7]


def test_a_growth_of_too_many_unreadable_pictures_leaves_the_corpus_as_it_is(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    (folder / "z/eight.png").write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=r"at least 1 of 3 images are unreadable"):
        ingest(storage, folder, grow=True)
    assert corpus_of(storage).images == 5


# A source that is away


def test_a_corpus_that_stands_needs_no_source(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    folder.rename(folder.with_name("away"))
    lines = []
    assert ingest(storage, folder, report=lines.append).images == 8
    assert any("is complete, so its source is not needed" in line for line in lines)


def test_a_corpus_stands_while_the_source_of_its_growth_is_away(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 4, fault=Killed), folder, grow=True)
    folder.rename(folder.with_name("away"))
    lines = []
    result = ingest(storage, folder, report=lines.append)
    assert (result.images, result.awaited_images) == (5, 3)
    assert any("is to grow by 3 images: that goes on once its source is back" in line for line in lines)
    with pytest.raises(MissingError, match=r"is to grow by 3 images that are not in the store yet; once .*source"):
        ingest(storage, folder, grow=True)
    folder.with_name("away").rename(folder)
    assert ingest(storage, folder, grow=True).images == 8


@pytest.mark.parametrize("error", [TransientError, BadInputError])
def test_a_remote_source_that_does_not_answer_stops_no_complete_corpus(storage, folder, monkeypatch, error):
    ingest(storage, folder)

    def fail(*_):
        raise error("s3://bucket: does not answer")

    monkeypatch.setattr("tinytags_tasks.ingest.plan.list_items", fail)
    assert ingest(storage, folder).images == 5


def test_too_few_new_images_are_left_out(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    assert ingest(storage, folder, grow=True, least_new=4).images == 5
    assert ingest(storage, folder, grow=True, least_new=3).images == 8


# Records


@pytest.mark.parametrize("number", [1, 2])
def test_a_damaged_record_of_a_growth_is_written_again_from_the_totals(storage, folder, number):
    ingest(storage, folder)
    for names in (NEW[:1], NEW):
        add_new(folder, names)
        ingest(storage, folder, grow=True)
    before = files_under(storage.root)
    storage.write(layout.growth_file("pets", number), b"{}")
    assert ingest(storage, folder).images == 8
    assert files_under(storage.root) == before


def test_damaged_totals_are_written_again_with_all_growths(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    before = corpus_of(storage)
    storage.write(layout.corpus_file("pets"), b"{}")
    ingest(storage, folder)
    assert corpus_of(storage).growth == before.growth


def test_an_older_tinytags_refuses_a_corpus_that_has_grown_but_no_other(storage, folder, monkeypatch):
    ingest(storage, folder)
    monkeypatch.setattr(Corpus, "FORMAT", 1)
    corpus_of(storage)
    monkeypatch.undo()
    add_new(folder)
    ingest(storage, folder, grow=True)
    monkeypatch.setattr(Corpus, "FORMAT", 1)
    with pytest.raises(NewerFormatError, match="upgrade this TinyTags"):
        corpus_of(storage)


def test_the_hash_of_a_growth_and_the_name_of_a_run_on_it_never_change(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    corpus = corpus_of(storage)
    assert corpus.growth == "a6088807055ddcbaba5235476c36c6028c8c18132ef6e315e3960bd04316a80f"
    names = [run_name(corpus.as_of(growth), "m-0", 40, "solr", "") for growth in corpus.growth_hashes]
    assert names == ["pets-1b23e025e5cc", "pets-cb86cc03ad63"]


def test_manifests_say_which_files_a_shard_came_from(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    ingest(storage, folder, grow=True)
    files = [ShardManifest.load(storage, layout.shard_manifest_file("pets", shard)).source.files for shard in range(3)]
    assert files == [5, 5, 3]


# Arithmetic


def test_every_position_is_in_one_block_of_one_shard_however_a_corpus_grew():
    partition = Partition(images=31, shard_images=6, blocks_per_shard=4, appended=(1, 13, 7))
    blocks = [partition.block(number) for number in range(partition.blocks)]
    assert [at for block in blocks for at in range(block.first, block.first + block.images)] == list(range(31))
    assert all(partition.block_at(at) == block.number for block in blocks for at in positions(block))
    assert all(
        partition.place(at) == (block.shard, block.offset + at - block.first)
        for block in blocks
        for at in positions(block)
    )
    assert [partition.part_of_shard(shard) for shard in range(partition.shards)] == [0, 0, 1, 2, 2, 2, 3, 3]


def positions(block):
    return range(block.first, block.first + block.images)
