"""What people's words make of a block: its documents, and counts that always add up."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import CORPUS
from small_words import DIGEST, as_log, bare_corpus, none, restore, say, tag, takedown, undo, wrong

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import SCHEMA, BlockSource, none_bits, read_scored, with_none_bits, write_scored
from tinytags_tasks.store.corrections import CORRECTED_COLUMN, Corrections
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import BlockRecord, BlockState

FIRST, IMAGES, TOTAL = 100, 12, 30
KEPT = {100: ("cat", 20), 101: ("dog", 15), 103: ("cat", 30), 108: ("emu", 16)}
NONE = (102, 106)
UNREADABLE = (105,)
TAGS = ("cat", "dog", "emu")
CORPUS_RECORD = bare_corpus(images=1_000)

SOURCE = BlockSource(
    corpus=CORPUS,
    block=7,
    shard=0,
    first=FIRST,
    images=IMAGES,
    offset_bytes=0,
    image_bytes=3,
    width=1,
    sha256="s",
    keywords_sha256=None,
    unreadable=UNREADABLE,
)


def scored_table():
    rows = [
        {"position": position, "tag": name, "votes": votes, "accuracy": 100 * votes // TOTAL}
        for position, (name, votes) in KEPT.items()
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def scored_record(**changes):
    dropped = IMAGES - len(KEPT) - len(NONE) - len(UNREADABLE)
    tags = [name for name, _ in KEPT.values()]
    record = BlockRecord(
        run="r",
        block=7,
        state=BlockState.SCORED,
        read=IMAGES,
        kept=len(KEPT),
        below=dropped,
        none=len(NONE),
        unreadable=len(UNREADABLE),
        kept_by_tag={name: tags.count(name) for name in TAGS},
    )
    return record.replaced(**changes)


def with_bits():
    bits = np.isin(np.arange(FIRST, FIRST + IMAGES), NONE)
    return with_none_bits(scored_table(), bits)


def correct(*requests, table=None, scored=None, upto=None):
    corrections = Corrections.of_log(as_log(requests), DIGEST)
    return corrections.correct(with_bits() if table is None else table, scored or scored_record(), SOURCE, TOTAL, upto)


def rows_of(block):
    return {
        row["position"]: (row["tag"], row["votes"], row["accuracy"], row.get(CORRECTED_COLUMN))
        for row in block.table.to_pylist()
    }


def counts_of(record):
    return (record.kept, record.below, record.none, record.unreadable, record.taken_down)


MODEL_ROWS = {position: (name, votes, 100 * votes // TOTAL, None) for position, (name, votes) in KEPT.items()}
MODEL_COUNTS = (4, 5, 2, 1, 0)


def test_a_block_without_words_is_its_scored_file_itself():
    table = with_bits()
    block = correct([tag(99, "cat"), takedown(112)], table=table)
    assert block.table is table
    assert block.record == scored_record(corrections=1)


def test_a_tag_that_a_person_says_is_kept_with_all_votes_and_the_number_of_the_request():
    block = correct([none(1)], [tag(100, "dog"), tag(104, "emu"), tag(102, "yak"), tag(101, "dog")])
    said = {
        position: (name, TOTAL, 100, 2) for position, name in ((100, "dog"), (104, "emu"), (102, "yak"), (101, "dog"))
    }
    assert rows_of(block) == {**MODEL_ROWS, **said}
    assert block.table.column("position").to_pylist() == [100, 101, 102, 103, 104, 108]
    assert counts_of(block.record) == (6, 4, 1, 1, 0)
    assert (block.record.corrected, block.record.corrections) == (4, 2)
    assert block.record.kept_by_tag == {"cat": 1, "dog": 2, "emu": 2, "yak": 1}


def test_none_is_counted_as_none_and_a_wrong_tag_as_below():
    block = correct([none(100), none(104), none(102), wrong(101, "dog")])
    assert rows_of(block) == {position: MODEL_ROWS[position] for position in (103, 108)}
    assert counts_of(block.record) == (2, 5, 4, 1, 0)
    assert block.record.kept_by_tag == {"cat": 1, "dog": 0, "emu": 1}
    assert CORRECTED_COLUMN not in block.table.column_names


@pytest.mark.parametrize(
    "words",
    [
        [wrong(100, "dog")],
        [wrong(104, "cat")],
        [Word(100, Verdict.UNCLEAR, is_public=True)],
        [tag(105, "cat")],
        [none(105)],
    ],
    ids=["another tag is wrong", "a dropped one is wrong", "unclear", "a tag of an unreadable one", "none of it"],
)
def test_words_that_say_nothing_against_the_model_change_nothing(words):
    block = correct(words)
    assert (rows_of(block), counts_of(block.record), block.record.corrected) == (MODEL_ROWS, MODEL_COUNTS, 0)


def test_what_was_taken_down_is_counted_as_that_and_nothing_else():
    block = correct([tag(103, "dog"), none(104)], [takedown(position) for position in (100, 102, 103, 104, 105)])
    assert rows_of(block) == {position: MODEL_ROWS[position] for position in (101, 108)}
    assert counts_of(block.record) == (2, 4, 1, 0, 5)
    assert block.record.corrected == 0


def test_what_was_restored_is_again_what_people_and_the_model_say():
    block = correct([takedown(100), takedown(101)], [tag(100, "emu")], [restore(100), restore(101)])
    assert rows_of(block) == {**MODEL_ROWS, 100: ("emu", TOTAL, 100, 2)}
    assert counts_of(block.record) == MODEL_COUNTS


def test_the_latest_opinion_counts_and_within_a_request_the_last():
    assert rows_of(correct([tag(100, "dog")], [none(100)], [wrong(100, "cat"), tag(100, "emu")]))[100][0] == "emu"
    assert 100 not in rows_of(correct([tag(100, "dog")], [none(100)]))
    assert rows_of(correct([tag(100, "dog")], [Word(100, Verdict.UNCLEAR, is_public=True)])) == MODEL_ROWS


def test_not_that_tag_is_said_of_the_tag_that_is_shown_then():
    """It drops what an earlier person said without bringing back what that person overruled; otherwise it is void."""
    assert 100 not in rows_of(correct([tag(100, "dog")], [wrong(100, "dog")]))
    assert 100 not in rows_of(correct([wrong(100, "cat")], [wrong(100, "dog")]))
    assert rows_of(correct([tag(100, "dog")], [wrong(100, "cat")]))[100] == ("dog", TOTAL, 100, 1)
    assert counts_of(correct([tag(102, "dog")], [wrong(102, "dog")]).record) == MODEL_COUNTS  # the model says none
    assert rows_of(correct([tag(100, "dog")], [wrong(100, "dog")], [undo(100, 2)]))[100][0] == "dog"


@pytest.mark.parametrize("is_public", [True, False])
def test_a_word_that_was_taken_back_never_counts_again(is_public):
    undone = [undo(100, 2, is_public=is_public)]
    assert rows_of(correct([tag(100, "dog")], [tag(100, "emu")], undone))[100] == ("dog", TOTAL, 100, 1)
    assert counts_of(correct([none(1)], [takedown(100)], undone).record) == MODEL_COUNTS
    corrections = Corrections.of_log(as_log([[none(1)], [takedown(100)], undone]), DIGEST)
    assert corrections.last_of(FIRST, IMAGES) == 3


def test_only_public_words_on_this_version_count():
    assert rows_of(correct([Word(100, Verdict.NONE), Word(101, Verdict.TAG, "emu")])) == MODEL_ROWS
    log = as_log([[none(100)]], digest="another version")
    corrections = Corrections.of_log(log, DIGEST)
    assert (corrections.last, corrections.last_of(FIRST, IMAGES), len(corrections.words)) == (1, 0, 0)


def test_words_after_a_number_do_not_count_and_the_record_names_that_number():
    requests = ([tag(100, "dog")], [takedown(101)], [undo(100, 1)])
    assert rows_of(correct(*requests, upto=0)) == MODEL_ROWS
    one, two, three = (correct(*requests, upto=number) for number in (1, 2, 3))
    assert (rows_of(one)[100][0], counts_of(one.record)) == ("dog", MODEL_COUNTS)
    assert (rows_of(two)[100][0], counts_of(two.record)) == ("dog", (3, 5, 2, 1, 1))
    assert (rows_of(three)[100][0], counts_of(three.record)) == ("cat", (3, 5, 2, 1, 1))
    assert [block.record.corrections for block in (one, two, three)] == [1, 2, 3]


def test_the_last_word_on_a_range_of_positions_is_found():
    corrections = Corrections.of_log(as_log([[none(3)], [none(100), none(5)], [Word(4, Verdict.NONE)]]), DIGEST)
    assert corrections.last == 3
    assert [corrections.last_of(first, 10) for first in (0, 4, 6, 91, 101)] == [2, 2, 0, 2, 0]


def test_an_older_file_that_does_not_say_which_are_none_gives_from_below_first():
    table = scored_table()
    dropped = [102, 104, 106, 107, 109, 110, 111]  # five below and two none
    for number in range(1, 8):
        block = correct([takedown(position) for position in dropped[:number]], table=table)
        below = max(5 - number, 0)
        assert counts_of(block.record) == (4, below, 7 - number - below, 1, number)
    assert counts_of(correct([none(102), tag(104, "cat")], table=table).record) == (5, 3, 3, 1, 0)


@pytest.mark.parametrize(("below", "without"), [(7, 0), (0, 7)])
def test_an_older_file_of_which_all_dropped_images_are_the_same_needs_no_guess(below, without):
    scored = scored_record(below=below, none=without)
    block = correct([takedown(102), none(104)], table=scored_table(), scored=scored)
    assert counts_of(block.record) == (4, max(below - 2, 0), max(without - 1, 1), 1, 1)


@pytest.mark.parametrize("bits", [[True] * IMAGES, [False] * IMAGES, [*[False] * 12, True, True], [True] * 2])
def test_marks_of_none_that_contradict_the_record_are_damage(bits):
    table = with_none_bits(scored_table(), np.array(bits))
    with pytest.raises(CorruptError, match=r"scored/000007\.parquet: damaged"):
        none_bits(table, scored_record(), IMAGES)


def test_marks_of_none_survive_in_the_file_and_files_without_them_have_none(tmp_path):
    storage = LocalStorage(tmp_path)
    for table in (with_bits(), scored_table()):
        write_scored(storage, table, scored_record())
        found, record = read_scored(storage, "r", 7)
        bits = none_bits(found, record, IMAGES)
        assert (None if bits is None else tuple(np.flatnonzero(bits) + FIRST)) == (
            NONE if table.schema.metadata else None
        )


def test_a_file_with_images_of_another_block_is_damage():
    table = with_bits()
    moved = table.set_column(0, "position", pa.array([100, 101, 103, 112], pa.int64()))
    with pytest.raises(CorruptError, match="holds another block's images"):
        correct([none(100)], table=moved)


class ListingStorage(LocalStorage):
    """Counts what is asked of it."""

    asked = 0

    def names(self, path):
        self.asked += 1
        return super().names(path)

    def read(self, path, offset=0, length=None):
        self.asked += 1
        return super().read(path, offset, length)


def test_a_corpus_without_words_costs_one_listing(tmp_path):
    storage = ListingStorage(tmp_path)
    corrections = Corrections.read(CORPUS_RECORD, storage)
    assert (storage.asked, corrections.last, len(corrections.words)) == (1, 0, 0)


def test_words_in_the_store_are_read(tmp_path):
    storage = LocalStorage(tmp_path)
    bare_corpus().save(storage, layout.corpus_file(CORPUS))
    say(storage, takedown(3))
    assert say(storage, Word(3, Verdict.NONE)) == 2
    corrections = Corrections.read(bare_corpus(), storage)
    assert (corrections.last, corrections.words.column("position").to_pylist()) == (2, [3])


POSITIONS = st.integers(FIRST - 1, FIRST + IMAGES)
NAMES = st.sampled_from([*TAGS, "yak"])
WORDS = st.one_of(
    st.builds(tag, POSITIONS, NAMES),
    st.builds(none, POSITIONS),
    st.builds(wrong, POSITIONS, NAMES),
    st.builds(takedown, POSITIONS),
    st.builds(restore, POSITIONS),
    st.builds(undo, POSITIONS, st.integers(1, 6), is_public=st.booleans()),
    st.builds(Word, POSITIONS, st.just(Verdict.NONE)),
    st.builds(Word, POSITIONS, st.just(Verdict.UNCLEAR), is_public=st.just(True)),
)
REQUESTS = st.lists(st.lists(WORDS, min_size=1, max_size=6), max_size=6)


def plainly(position, requests, upto):
    """Return what becomes of a picture, in the simplest way: its words, one after the other."""
    said = [
        (number, word) for number, words in enumerate(requests[:upto], 1) for word in words if word.position == position
    ]
    undone = {word.undoes for number, word in said if word.verdict is Verdict.UNDO and word.undoes < number}
    said = [(number, word) for number, word in said if word.is_public and number not in undone]
    takedowns = [word.verdict for _, word in said if word.verdict in (Verdict.TAKEDOWN, Verdict.RESTORE)]
    if takedowns[-1:] == [Verdict.TAKEDOWN]:
        return "taken down", None
    if position in UNREADABLE:
        return "unreadable", None
    opinions = [
        (number, word)
        for number, word in said
        if word.verdict in (Verdict.TAG, Verdict.NONE, Verdict.WRONG, Verdict.UNCLEAR)
    ]
    own = MODEL_ROWS.get(position)
    by_model = ("kept", own) if own else ("none" if position in NONE else "below", None)
    outcome = by_model
    for number, word in opinions:
        if word.verdict is Verdict.TAG:
            outcome = "kept", (word.tag, TOTAL, 100, number)
        elif word.verdict is Verdict.NONE:
            outcome = "none", None
        elif word.verdict is Verdict.UNCLEAR:
            outcome = by_model
        elif outcome[1] and outcome[1][0] == word.tag:
            outcome = ("below", None) if own else by_model
    return outcome


@given(requests=REQUESTS, upto=st.integers(0, 6), has_bits=st.booleans())
def test_random_words_give_what_each_picture_says_alone_and_the_counts_add_up(requests, upto, has_bits):
    block = correct(*requests, table=with_bits() if has_bits else scored_table(), upto=upto)
    expected = {position: plainly(position, requests, upto) for position in range(FIRST, FIRST + IMAGES)}
    rows = {position: row for position, (_, row) in expected.items() if row}
    fates = [fate for fate, _ in expected.values()]
    record = block.record
    assert rows_of(block) == rows
    assert record.accounted == record.read == IMAGES
    assert min(counts_of(record)) >= 0
    assert (record.kept, record.unreadable, record.taken_down) == tuple(
        fates.count(fate) for fate in ("kept", "unreadable", "taken down")
    )
    if has_bits:
        assert (record.below, record.none) == (fates.count("below"), fates.count("none"))
    assert record.corrected == sum(row[3] is not None for row in rows.values())
    assert {name: count for name, count in record.kept_by_tag.items() if count} == {
        name: [row[0] for row in rows.values()].count(name) for name in {row[0] for row in rows.values()}
    }
