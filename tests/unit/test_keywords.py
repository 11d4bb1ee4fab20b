"""Stop lists: which keywords are left out, and how the others are kept."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.corpus.keywords import LONGEST, StopList, read_stop_list
from tinytags_tasks.derived_fields import split_words
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.grammar import parse, write
from tinytags_tasks.search.request import SearchRequest


@pytest.mark.parametrize(
    ("entry", "keyword"),
    [
        ("pig", "pig"),
        ("pig", "Pig"),
        ("PIG", "pig"),
        ("pig", "guinea pig"),
        ("pig", "guinea_pig"),
        ("pig", "pig-iron"),
        ("pig", "(pig)"),
        ("pig", "\tpig\n"),
        ("guinea pig", "guinea_pig"),
        ("guinea-pig", "the guinea pig's cage"),
        ("Guinea  Pig ", "GUINEA.PIG"),
        ("pig's", "pig s"),
        ("straße", "STRASSE"),
        ("größe", "gro\u0308ße"),  # two ways to write one letter
        ("gro\u0308ße", "GRÖSSE"),
        ("pig", "\uff30\uff29\uff27"),  # full-width letters
        ("猫", "猫"),
        ("4x4", "a 4X4"),
    ],
)
def test_a_keyword_that_has_an_entry_is_left_out(entry, keyword):
    assert not StopList([entry]).allows(keyword)
    assert StopList([entry]).filtered([keyword, "tabby"]) == [None, "tabby"]


@pytest.mark.parametrize(
    ("entry", "keyword"),
    [
        ("pig", "pigment"),
        ("pig", "pigs"),
        ("pig", "guineapig"),
        ("guinea pig", "pig guinea"),
        ("guinea pig", "guinea fat pig"),
        ("guinea pig", "pig"),
        ("a b c", "a b"),
        ("", "pig"),
        ("--", "--"),
        ("pig", ""),
        ("pig", "---"),
        ("größe", "grosse"),
    ],
)
def test_a_keyword_without_an_entry_stays(entry, keyword):
    assert StopList([entry]).allows(keyword)


def test_all_entries_count_whatever_their_length():
    stop_list = StopList(["a b", "c", "d e f"])
    assert [stop_list.allows(word) for word in ("x a b", "a x b", "x c", "d e f x", "d e x f")] == [
        False,
        True,
        False,
        False,
        True,
    ]


def test_an_empty_list_leaves_nothing_out():
    assert StopList().filtered(["pig", "a_b", "猫"]) == ["pig", "a_b", "猫"]


def test_no_keyword_and_an_empty_one_are_none():
    assert StopList().filtered([None, "", " ", "\n\0"]) == [None, None, None, None]


def test_what_cannot_be_searched_becomes_a_space():
    assert StopList().filtered([" a\tb\0c\r\n", "a\u2028b", "a\xa0b", "a\udcffb", "a  b"]) == ["a b c", *["a b"] * 4]


def test_a_long_keyword_is_cut_after_it_was_looked_up():
    assert StopList().filtered(["x" * 500]) == ["x" * LONGEST]
    assert StopList().filtered(["x" * (LONGEST - 1) + " yy"]) == ["x" * (LONGEST - 1)]
    assert StopList(["pig"]).filtered(["x" * 500 + " pig"]) == [None]


@given(st.lists(st.none() | st.text(max_size=300), max_size=5))
def test_what_is_kept_can_be_searched_and_stays_as_it_is(keywords):
    kept = StopList().filtered(keywords)
    assert len(kept) == len(keywords)
    assert all(word is None or (0 < len(word) <= LONGEST and word.isprintable()) for word in kept)
    assert StopList().filtered(kept) == kept


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("hot\xa0dog", "hot dog"),
        ("\u3000猫\u3000犬", "猫 犬"),
        ("\u0645\u06cc\u200c\u0634", "\u0645\u06cc \u0634"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469 \U0001f52c"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("a\u2009b\ufeff", "a b"),
    ],
)
def test_a_keyword_is_found_however_it_is_written(written, kept):
    assert StopList().filtered([written]) == [kept]
    for asked in (written, kept, unicodedata.normalize("NFD", written)):
        assert SearchRequest(keyword=asked).keyword == kept
        assert parse(f'keyword:"{asked}"').keyword == kept
        if split_words(kept):
            assert SearchRequest(words=(asked,)).words == parse(f'word:"{asked}"').words == (kept,)


texts = st.text(max_size=50) | st.text(
    st.sampled_from('e\u0301\xa0\u200c\u200d\u3000 "\\:*-猫\U0001f52c\u212b'), max_size=12
)


@given(texts)
def test_whatever_is_kept_can_be_searched(written):
    (kept,) = StopList().filtered([written])
    if kept is None:
        return
    assert unicodedata.is_normalized("NFC", kept)
    writable = [] if any(unicodedata.category(letter) == "Cc" for letter in written) else [written]
    for form in (*writable, kept, *(unicodedata.normalize(name, kept) for name in ("NFC", "NFD"))):
        search = SearchRequest(keyword=form)
        assert search.keyword == kept
        assert parse(write(search)).keyword == kept
    whole = kept.removesuffix("*")
    if "*" not in whole and split_words(whole):
        search = SearchRequest(words=(kept,))
        assert parse(write(search)) == search


@pytest.mark.parametrize("keyword", ["\n", "\u200d", "\xa0"])
def test_a_keyword_of_nothing_that_can_be_printed_does_not_mean_all(keyword):
    with pytest.raises(BadInputError, match="is not a keyword"):
        SearchRequest(keyword=keyword)


def test_a_list_is_read_from_a_file_with_an_entry_a_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffPig\r\n\r\n  guinea hen \ngröße".encode())
    stop_list = read_stop_list(str(path))
    assert stop_list.filtered(["pig", "guinea_hen", "hen", "GRÖSSE", "guinea"]) == [None, None, "hen", None, "guinea"]


def test_a_list_may_lie_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "words.txt").write_text("pig")
    assert not read_stop_list("~/words.txt").allows("pig")


def test_no_path_is_an_empty_list():
    assert read_stop_list("").allows("pig")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
def test_a_list_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"words\.txt: the list of words cannot be read \(.*; correct keyword"):
        read_stop_list(str(path))
