"""Comparing runs: every image is counted where it belongs, and the sheet shows the images it names."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_run import CORPUS, make_another_run, make_corpus, make_run, pictures, quiet, score_all

from tinytags_tasks.corpus.pictures.sheet import make_labelled_sheet
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.publish.diff import MOST_EXAMPLES, DiffRequest, Example, TagChange, compare_runs, draw_sheet
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import SCHEMA, write_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

BLOCK = 20
"""Images a block, of the runs that are made up here."""


def make_up(storage, name, kept, blocks, **changes):
    """Write a run with scored files for what is kept: tag and confidence by position."""
    plan = Run(
        name=name,
        corpus=CORPUS,
        corpus_digest="digest",
        model=f"model-{name}",
        threshold=40,
        images=BLOCK * blocks,
        blocks=blocks,
        collection=layout.collection_name(name),
        created="2024",
    ).replaced(**changes)
    plan.save(storage, layout.run_file(name))
    for block in range(blocks):
        rows = [
            {"position": position, "tag": tag, "votes": accuracy // 10, "accuracy": accuracy}
            for position, (tag, accuracy) in sorted(kept.items())
            if position // BLOCK == block
        ]
        record = BlockRecord(
            run=name, block=block, state=BlockState.SCORED, model=f"model-{name}", read=BLOCK, kept=len(rows)
        )
        write_scored(storage, pa.Table.from_pylist(rows, schema=SCHEMA), record)
    return plan


def diff(storage, old="old", new="new", blocks=None):
    return compare_runs(DiffRequest(old, new, blocks), storage=storage, report=quiet)


def test_each_image_is_the_same_or_changed_or_gained_or_lost(storage):
    make_up(storage, "old", {0: ("cat", 40), 1: ("cat", 60), 2: ("dog", 80), 25: ("dog", 100)}, blocks=3)
    make_up(storage, "new", {0: ("cat", 90), 1: ("dog", 70), 25: ("emu", 50), 41: ("emu", 50)}, blocks=3)
    found = diff(storage)
    assert (found.same, found.changed, found.gained, found.lost) == (1, 2, 1, 1)
    assert found.old_by_tag == {"cat": 2, "dog": 2}
    assert found.new_by_tag == {"cat": 1, "dog": 1, "emu": 2}
    assert (found.old_confidence, found.new_confidence) == (70.0, 65.0)
    assert found.changes == (TagChange("cat", "dog", 1), TagChange("dog", "emu", 1))
    assert found.changed_examples == (Example(1, "cat", 60, "dog", 70), Example(25, "dog", 100, "emu", 50))
    assert found.gained_examples == (Example(41, "", 0, "emu", 50),)
    assert found.lost_examples == (Example(2, "dog", 80, "", 0),)
    assert (found.old, found.new, found.corpus, found.images) == ("old", "new", CORPUS, 60)


def test_some_blocks_alone_are_compared_whatever_became_of_the_others(storage):
    make_up(storage, "old", {0: ("cat", 40), 21: ("cat", 60), 59: ("dog", 80)}, blocks=3)
    make_up(storage, "new", {0: ("dog", 40), 21: ("dog", 60)}, blocks=3)
    storage.delete(layout.scored_file("new", 0))
    found = diff(storage, blocks=(1, 2))
    assert (found.same, found.changed, found.gained, found.lost) == (0, 1, 0, 1)
    assert (found.blocks, found.images) == ("1-2", 2 * BLOCK)
    assert found.changed_examples == (Example(21, "cat", 60, "dog", 60),)
    with pytest.raises(BadInputError, match="block 3 is out of range: run old has blocks 0 to 2"):
        diff(storage, blocks=(3,))
    with pytest.raises(MissingError, match="run new: blocks 0 are not scored"):
        diff(storage, blocks=(0, 1))


SCORES = st.dictionaries(
    st.integers(0, 3 * BLOCK - 1), st.tuples(st.sampled_from(["cat", "dog", "Säbelzahntiger"]), st.integers(0, 100))
)


@given(old=SCORES, new=SCORES)
@settings(deadline=None, max_examples=30)
def test_any_two_runs_are_compared_as_their_definition_says(tmp_path_factory, old, new):
    storage = LocalStorage(tmp_path_factory.mktemp("any"))
    make_up(storage, "old", old, blocks=3)
    make_up(storage, "new", new, blocks=3)
    found = diff(storage)
    both = old.keys() & new.keys()
    changes = Counter((old[at][0], new[at][0]) for at in both if old[at][0] != new[at][0])
    assert found.old_by_tag == Counter(tag for tag, _ in old.values())
    assert found.new_by_tag == Counter(tag for tag, _ in new.values())
    assert {(change.old_tag, change.new_tag): change.images for change in found.changes} == changes
    assert (found.changed, found.same) == (changes.total(), len(both) - changes.total())
    assert (found.gained, found.lost) == (len(new.keys() - old.keys()), len(old.keys() - new.keys()))
    assert found.new_confidence == (pytest.approx(np.mean([score for _, score in new.values()])) if new else None)
    for example in (*found.changed_examples, *found.gained_examples, *found.lost_examples):
        assert (example.old_tag, example.old_confidence) == old.get(example.position, ("", 0))
        assert (example.new_tag, example.new_confidence) == new.get(example.position, ("", 0))
    assert len(found.gained_examples) == min(MOST_EXAMPLES, found.gained)


def test_the_largest_changes_come_first(storage):
    old = dict.fromkeys(range(10), ("cat", 50))
    make_up(storage, "old", old, blocks=1)
    make_up(storage, "new", {at: (("emu", "dog", "dog", "dog", "cat")[at % 5], 50) for at in old}, blocks=1)
    assert diff(storage).changes == (TagChange("cat", "dog", 6), TagChange("cat", "emu", 2))


def test_examples_are_few_of_all_blocks_and_always_the_same(storage):
    make_up(storage, "old", {}, blocks=20)
    make_up(storage, "new", dict.fromkeys(range(20 * BLOCK), ("cat", 50)), blocks=20)
    found = diff(storage)
    positions = [example.position for example in found.gained_examples]
    assert len(positions) == MOST_EXAMPLES
    assert positions == sorted(positions)
    assert len({position // BLOCK for position in positions}) > MOST_EXAMPLES // 2
    assert diff(storage) == found


def test_a_run_does_not_differ_from_itself(storage):
    make_up(storage, "old", {0: ("cat", 40), 30: ("dog", 60)}, blocks=2)
    found = diff(storage, "old", "old")
    assert (found.same, found.changed, found.gained, found.lost) == (2, 0, 0, 0)


def test_runs_that_really_were_scored_are_compared(storage):
    loose = make_run(storage)
    strict = make_another_run(storage, 60)
    for plan in (loose, strict):
        score_all(storage, plan)
    found = diff(storage, loose.name, strict.name)
    assert (found.same, found.changed, found.gained, found.lost) == (4, 0, 0, 7)
    assert [example.position for example in found.lost_examples] == [2, 3, 4, 5, 6, 8, 10]


# What cannot be compared


def test_runs_of_different_corpora_cannot_be_compared(storage):
    make_up(storage, "old", {}, blocks=1)
    make_up(storage, "new", {}, blocks=1, corpus="birds")
    with pytest.raises(BadInputError, match="runs old and new cannot be compared: they are runs of pets and birds"):
        diff(storage)


def test_runs_before_and_after_a_new_ingestion_cannot_be_compared(storage):
    make_up(storage, "old", {}, blocks=1)
    make_up(storage, "new", {}, blocks=1, corpus_digest="other bytes")
    with pytest.raises(BadInputError, match="they are runs of pets, which was ingested again between them"):
        diff(storage)


def test_blocks_that_are_not_scored_are_named(storage):
    make_up(storage, "old", {}, blocks=5)
    make_up(storage, "new", {}, blocks=5)
    for block in (1, 2, 4):
        storage.delete(layout.scored_file("new", block))
    with pytest.raises(MissingError, match=r"run new: blocks 1-2, 4 are not scored, .*tinytags score new"):
        diff(storage)


def test_a_damaged_scored_file_is_named(storage):
    make_up(storage, "old", {}, blocks=2)
    make_up(storage, "new", {}, blocks=2)
    storage.write(layout.scored_file("old", 1), b"PAR1")
    with pytest.raises(CorruptError, match=r"runs/old/scored/000001\.parquet: damaged"):
        diff(storage)


def test_a_scored_file_by_another_model_is_named(storage):
    make_up(storage, "old", {}, blocks=1)
    make_up(storage, "new", {}, blocks=1, model="forest-2")
    with pytest.raises(CorruptError, match=r"runs/new/scored/000000\.parquet: was scored by model-new, .*forest-2"):
        diff(storage)


def test_a_run_that_was_never_planned_is_missing(storage):
    make_up(storage, "old", {}, blocks=1)
    with pytest.raises(MissingError, match="none: no such run; `tinytags runs` lists the runs"):
        diff(storage, "old", "none")


# The sheet


@pytest.fixture
def compared(storage):
    """Two runs of the real small corpus; the second is made up, so that every kind is there."""
    corpus = make_corpus(storage)
    changes = {"corpus_digest": corpus.digest, "images": corpus.images}
    make_up(storage, "old", {0: ("cat", 40), 7: ("a tag that is too long for its picture", 80)}, blocks=1, **changes)
    make_up(storage, "new", {0: ("dog", 90), 10: ("cat", 50)}, blocks=1, **changes)
    return diff(storage)


def test_the_sheet_shows_the_pictures_of_the_examples_enlarged_and_unsmoothed(storage, compared, tmp_path):
    draw_sheet(compared, tmp_path / "diff.png", storage=storage)
    sheet = np.asarray(Image.open(tmp_path / "diff.png"))
    for position in (0, 10, 7):
        enlarged = pictures()[position].repeat(3, axis=0).repeat(3, axis=1)
        assert find(sheet, enlarged), position
    assert not find(sheet, pictures()[1].repeat(3, axis=0).repeat(3, axis=1))
    assert {path.name for path in tmp_path.iterdir()} == {"diff.png", "store", "pets.bin"}


def find(sheet, picture):
    """Return whether a picture is somewhere in a sheet."""
    height, width = picture.shape[:2]
    windows = sheet[height // 2 : -height // 2, width // 2 : -width // 2]
    corners = np.argwhere((windows == picture[height // 2, width // 2]).all(axis=-1))
    return any((sheet[row : row + height, column : column + width] == picture).all() for row, column in corners)


def test_the_sheet_of_runs_that_do_not_differ_is_a_sheet(storage, compared, tmp_path):
    draw_sheet(diff(storage, "old", "old"), tmp_path / "diff.png", storage=storage)
    assert Image.open(tmp_path / "diff.png").size[0] > 100


def test_pictures_that_were_ingested_anew_are_not_shown(storage, compared, tmp_path):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(digest="other").save(storage, layout.corpus_file(CORPUS))
    with pytest.raises(BadInputError, match="corpus pets was ingested again"):
        draw_sheet(compared, tmp_path / "diff.png", storage=storage)
    assert not (tmp_path / "diff.png").exists()


def test_a_sheet_that_cannot_be_written_is_told(storage, compared, tmp_path):
    with pytest.raises(BadInputError, match=r"none/diff\.png: cannot be written \(No such file"):
        draw_sheet(compared, tmp_path / "none" / "diff.png", storage=storage)


@pytest.mark.parametrize(("size", "columns"), [((32, 32), 8), ((8, 40), 8), ((600, 500), 3)])
def test_pictures_of_any_size_find_their_place(size, columns):
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[:, :, 1] = 255
    sheet = np.asarray(make_labelled_sheet([("many", [(image, "cat\n-> dog")] * (columns + 1))], "title"))
    green = (sheet == (0, 255, 0)).all(axis=-1).sum()
    factor = max(1, 96 // max(size))
    assert green == (columns + 1) * size[0] * size[1] * factor**2


def test_words_are_cut_to_their_place():
    image = np.full((32, 32, 3), 255, dtype=np.uint8)
    sheet = np.asarray(make_labelled_sheet([("", [(image, "x" * 500), (image, "")])], ""))
    assert (sheet[:, 16 + 113 :] == 255).all()
    assert (sheet != 255).any()
