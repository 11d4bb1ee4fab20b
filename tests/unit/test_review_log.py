"""The log of people's words: numbered, append-only, never losing a word, and small again after many requests."""

import hashlib
import io
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from small_run import CORPUS, address_of
from small_words import bare_corpus

from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.store import layout, review_log
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.review_log import ReviewLog, append_words, counting_words, read_words, rows_sha256
from tinytags_tasks.store.review_records import SCHEMA, Verdict, Word

MERGED_AT = 8


@pytest.fixture
def corpus(storage):
    made = bare_corpus()
    made.save(storage, layout.corpus_file(CORPUS))
    return made


@pytest.fixture
def merged_soon(monkeypatch):
    monkeypatch.setattr(review_log, "MERGED_AT", MERGED_AT)


def say(corpus, storage, position, tag="cat", **changes):
    return append_words(corpus, [Word(position, Verdict.TAG, tag, **changes)], by="ann", storage=storage)


def files(storage):
    return storage.names(layout.review_log_folder(CORPUS))


def words_of(storage):
    table = ReviewLog(CORPUS, storage).read()
    return list(zip(table.column("number").to_pylist(), table.column("tag").to_pylist(), strict=True))


def test_each_request_gets_the_next_number_and_its_words_are_read_in_order(storage, corpus):
    assert [say(corpus, storage, 0), say(corpus, storage, 3, "dog"), say(corpus, storage, 0, "emu")] == [1, 2, 3]
    assert words_of(storage) == [(1, "cat"), (2, "dog"), (3, "emu")]
    assert counting_words(read_words(corpus, storage)).column("tag").to_pylist() == ["emu", "dog"]


def test_a_reader_that_reads_again_gets_what_is_new(storage, corpus):
    log = ReviewLog(CORPUS, storage)
    assert (len(log.read()), log.last) == (0, 0)
    say(corpus, storage, 0)
    assert (len(log.read()), log.last) == (1, 1)
    say(corpus, storage, 1)
    assert (log.read().column("number").to_pylist(), log.last) == ([1, 2], 2)


@pytest.mark.parametrize("position", [-1, 11])
def test_a_word_on_a_position_outside_the_corpus_is_refused_and_nothing_is_written(storage, corpus, position):
    with pytest.raises(BadInputError, match=rf"position {position} is not in corpus pets, which has 11 images"):
        append_words(corpus, [Word(0, Verdict.NONE), Word(position, Verdict.NONE)], by="ann", storage=storage)
    assert files(storage) == []


def test_words_that_take_back_a_later_word_than_themselves_change_nothing(storage, corpus):
    append_words(corpus, [Word(0, Verdict.UNDO, undoes=2)], by="ann", storage=storage)
    say(corpus, storage, 0)
    assert counting_words(read_words(corpus, storage)).column("number").to_pylist() == [2]


def test_many_small_files_are_merged_and_say_the_same(storage, corpus, merged_soon):
    for number in range(1, 2 * MERGED_AT + 4):
        assert say(corpus, storage, number % 11, f"tag {number}") == number
    assert files(storage) == [
        *("000001-000008.parquet", "000009-000016.parquet"),
        *("000017.parquet", "000018.parquet", "000019.parquet"),
    ]
    assert words_of(storage) == [(number, f"tag {number}") for number in range(1, 20)]


def test_a_reader_goes_on_when_files_are_merged_between_two_reads(storage, corpus, merged_soon):
    log = ReviewLog(CORPUS, storage)
    for number in range(1, 3 * MERGED_AT):
        say(corpus, storage, 0)
        if number % 5 == 0:
            assert log.read().column("number").to_pylist() == list(range(1, number + 1))


def test_files_that_are_merged_between_the_listing_and_the_reading_are_found(storage, corpus, merged_soon, monkeypatch):
    for _ in range(MERGED_AT - 1):
        say(corpus, storage, 0)
    listed = review_log._listed(CORPUS, storage)
    say(corpus, storage, 0)  # merges them all
    answers = iter([listed])
    real = review_log._listed
    monkeypatch.setattr(review_log, "_listed", lambda *asked: next(answers, None) or real(*asked))
    assert len(ReviewLog(CORPUS, storage).read()) == MERGED_AT


def test_a_listing_that_lacks_a_file_which_was_written_meanwhile_loses_no_word(storage, corpus, monkeypatch):
    for _ in range(3):
        say(corpus, storage, 0)
    answers = iter([{(1, 1), (3, 3)}])
    real = review_log._listed
    monkeypatch.setattr(review_log, "_listed", lambda *asked: next(answers, None) or real(*asked))
    assert ReviewLog(CORPUS, storage).read().column("number").to_pylist() == [1, 2, 3]


def test_large_files_are_left_alone(storage, corpus, merged_soon, monkeypatch):
    for _ in range(MERGED_AT - 2):
        say(corpus, storage, 0)
    append_words(corpus, [Word(at % 11, Verdict.NONE) for at in range(5_000)], by="ann", storage=storage)
    large = storage.size_bytes(layout.review_log_file(CORPUS, MERGED_AT - 1))
    monkeypatch.setattr(review_log, "_SMALL_BYTES", large - 1)
    for _ in range(3):
        say(corpus, storage, 0)
    assert files(storage) == [
        *("000001-000006.parquet", "000007.parquet", "000008.parquet"),
        *("000009.parquet", "000010.parquet"),
    ]
    assert len(ReviewLog(CORPUS, storage).read()) == 9 + 5_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", range(1, 14))
def test_a_kill_while_files_are_merged_loses_no_word_and_shows_none_twice(storage, corpus, merged_soon, call, mode):
    for number in range(1, MERGED_AT):
        say(corpus, storage, 0, f"tag {number}")
    faulty = FaultyStorage(storage, call, mode, Killed)
    with suppress(Killed):
        say(corpus, faulty, 0, f"tag {MERGED_AT}")
    committed = MERGED_AT if call > 1 or mode == "after" else MERGED_AT - 1
    expected = [(number, f"tag {number}") for number in range(1, committed + 1)]
    assert words_of(storage) == expected
    for number in range(committed + 1, 2 * MERGED_AT + 2):  # the next writers finish what was begun
        assert say(corpus, storage, 0, f"tag {number}") == number
        expected.append((number, f"tag {number}"))
    assert words_of(storage) == expected
    assert "000001.parquet" not in files(storage)


def test_a_writer_that_was_slow_does_not_hide_its_word_behind_a_merged_file(storage, corpus, merged_soon, monkeypatch):
    for _ in range(MERGED_AT - 1):
        say(corpus, storage, 0)
    real = review_log._write_part
    late = iter([True])

    def write_late(name, table, store):
        if next(late, False):  # another writer takes this number, and merges and deletes the file
            assert say(corpus, storage, 1, "dog") == MERGED_AT
            assert files(storage) == ["000001-000008.parquet"]
        return real(name, table, store)

    monkeypatch.setattr(review_log, "_write_part", write_late)
    assert say(corpus, storage, 2, "emu") == MERGED_AT + 1
    assert words_of(storage)[-2:] == [(MERGED_AT, "dog"), (MERGED_AT + 1, "emu")]
    assert files(storage) == ["000001-000008.parquet", "000009.parquet"]


def test_two_who_merge_at_the_same_time_hide_no_word(storage, corpus, merged_soon, monkeypatch):
    """The lease of the first is taken over while it reads; it writes when the second has merged more than it saw."""
    for _ in range(MERGED_AT - 1):
        say(corpus, storage, 0)
    real = review_log._read_parts
    late = iter([True])

    def read_late(name, parts, store):
        read = real(name, parts, store)
        if next(late, False):
            storage.delete(layout.review_log_lease_file(CORPUS))
            for _ in range(MERGED_AT + 3):
                say(corpus, storage, 1)
        return read

    monkeypatch.setattr(review_log, "_read_parts", read_late)
    say(corpus, storage, 0)
    assert [number for number, _ in words_of(storage)] == list(range(1, 2 * MERGED_AT + 4))
    for _ in range(MERGED_AT):
        say(corpus, storage, 2)
    assert [number for number, _ in words_of(storage)] == list(range(1, 3 * MERGED_AT + 4))


def test_the_number_of_a_file_that_was_put_aside_is_not_given_again(storage, corpus):
    for position in range(3):
        say(corpus, storage, position)
    path = layout.review_log_file(CORPUS, 3)
    storage.rename(path, f"{path}.damaged")
    assert [number for number, _ in words_of(storage)] == [1, 2]
    assert say(corpus, storage, 4) == 4
    assert [number for number, _ in words_of(storage)] == [1, 2, 4]


def test_a_file_that_was_put_aside_and_restored_is_not_merged_away(storage, corpus, merged_soon):
    for _ in range(MERGED_AT - 1):
        say(corpus, storage, 0)
    path = layout.review_log_file(CORPUS, 3)
    storage.rename(path, f"{path}.damaged")
    for _ in range(MERGED_AT + 1):
        say(corpus, storage, 1)
    assert "000002.parquet" in files(storage) and "000009-000016.parquet" in files(storage)
    storage.rename(f"{path}.damaged", path)
    say(corpus, storage, 2)
    assert [number for number, _ in words_of(storage)] == list(range(1, 2 * MERGED_AT + 2))
    assert "000001-000008.parquet" in files(storage)


def test_a_request_that_is_merged_before_its_writer_looks_is_recorded_once(storage, corpus, merged_soon, monkeypatch):
    for _ in range(MERGED_AT - 2):
        say(corpus, storage, 0)
    real = review_log._write_part
    late = iter([True])

    def look_late(name, table, store):
        is_written = real(name, table, store)
        if next(late, False):
            assert say(corpus, storage, 1, "dog") == MERGED_AT
            assert files(storage) == ["000001-000008.parquet"]
        return is_written

    monkeypatch.setattr(review_log, "_write_part", look_late)
    assert say(corpus, storage, 2, "emu") == MERGED_AT - 1
    assert words_of(storage)[-2:] == [(MERGED_AT - 1, "emu"), (MERGED_AT, "dog")]


def test_threads_that_append_at_once_lose_no_word(storage, corpus, merged_soon):
    start = threading.Barrier(4)

    def write(writer):
        start.wait()
        return [say(corpus, storage, writer, f"{writer} {at}") for at in range(12)]

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for found in pool.map(write, range(4)) for number in found]
    assert sorted(numbers) == list(range(1, 49))
    assert sorted(tag for _, tag in words_of(storage)) == sorted(f"{by} {at}" for by in range(4) for at in range(12))


def _append_elsewhere(address, writer):
    storage = open_store(address)
    review_log.MERGED_AT = MERGED_AT
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    return [say(corpus, storage, writer, f"{writer} {at}") for at in range(12)]


def test_processes_that_append_at_once_lose_no_word(storage, corpus):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        numbers = [
            number for found in pool.map(_append_elsewhere, [address_of(storage)] * 2, range(2)) for number in found
        ]
    assert sorted(numbers) == list(range(1, 25))
    assert sorted(tag for _, tag in words_of(storage)) == sorted(f"{by} {at}" for by in range(2) for at in range(12))


def test_the_hash_of_rows_is_of_their_values_alone(storage, corpus):
    append_words(
        corpus,
        [Word(at, Verdict.TAG, f"tag {at}", picture=bytes([at] * 16)) for at in range(9)],
        by="ä",
        storage=storage,
    )
    rows = ReviewLog(CORPUS, storage).read()
    cut = pa.concat_tables([rows.slice(0, 2), rows.slice(2, 5), rows.slice(7)])
    encoded = rows.set_column(rows.schema.get_field_index("by"), "by", rows.column("by").dictionary_encode())
    assert rows_sha256(rows) == rows_sha256(cut) == rows_sha256(encoded)
    others = [rows.slice(1), rows.take(list(range(8, -1, -1)))]
    for name, value in (("tag", "x"), ("by", "b"), ("picture", b"x"), ("position", 77), ("is_public", True)):
        values = [value, *rows.column(name).to_pylist()[1:]]
        others.append(
            rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, SCHEMA.field(name).type))
        )
    assert len({rows_sha256(other) for other in [rows, *others]}) == 1 + len(others)


def test_the_hash_of_rows_is_as_it_was_when_the_first_log_was_written():
    row = {"position": 3, "verdict": "tag", "tag": "cat", "picture": b"\1" * 16, "is_public": True, "why": "import"}
    row |= {"shown_tag": "", "shown_confidence": -1, "reason": "", "undoes": 0, "number": 7, "corpus_digest": "d"}
    row |= {"by": "ann", "time": "2026-11-27T00:00:00+00:00", "run": ""}
    numbers = {"position", "is_public", "shown_confidence", "undoes", "number"}
    expected = hashlib.sha256((1).to_bytes(8, "little"))
    for name in SCHEMA.names:
        expected.update(name.encode())
        if name in numbers:
            expected.update(int(row[name]).to_bytes(8, "little", signed=True))
        else:
            value = row[name] if isinstance(row[name], bytes) else row[name].encode()
            expected.update(len(value).to_bytes(8, "little") + value)
    assert rows_sha256(pa.Table.from_pylist([row], schema=SCHEMA)) == expected.hexdigest()


def test_a_damaged_file_is_named_with_what_to_do(storage, corpus):
    say(corpus, storage, 0)
    path = layout.review_log_file(CORPUS, 1)
    stored = pq.read_table(io.BytesIO(storage.read(path)))
    changed = stored.set_column(0, "position", pc.add(stored.column("position"), 1))
    sink = io.BytesIO()
    pq.write_table(changed, sink)
    for content in (sink.getvalue(), b"PAR1"):
        storage.write(path, content)
        with pytest.raises(CorruptError, match=r"log/000001.parquet: damaged .*; restore 000001.parquet from a copy"):
            read_words(corpus, storage)
    assert say(corpus, storage, 0) == 2
