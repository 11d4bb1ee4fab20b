"""The search box's language: what is written reads as the same search, and errors point at the word."""

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.grammar import GrammarError, chips, parse, write
from tinytags_tasks.search.request import SearchRequest, Sort

texts = (
    st.text(min_size=1, max_size=20)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: text.isprintable() and 1 <= len(text) <= 100)
)
lists = st.lists(texts, max_size=3, unique=True).map(tuple)
words = st.lists(st.sampled_from(["tabby", "tab*", "Säbel", "guinea pig"]), max_size=3, unique=True).map(tuple)
percents = st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted)


@st.composite
def searches(draw: st.DrawFn) -> SearchRequest:
    low, high = draw(percents)
    least, most = draw(percents)
    return SearchRequest(
        tags=draw(lists),
        without_tags=draw(lists),
        min_confidence=low,
        max_confidence=high,
        min_precision=least,
        max_precision=most,
        block=draw(st.none() | st.integers(0, 2**31 - 1)),
        keyword=draw(st.just("") | texts),
        words=draw(words),
        without_words=draw(words),
        corpora=draw(lists),
        run=draw(st.just("") | texts),
        sort=draw(st.sampled_from(Sort)),
        seed=draw(st.integers(0, 2**31 - 1)),
        similar_to=draw(st.just("") | texts),
        is_one_of_alike=draw(st.booleans()),
    )


@given(searches())
def test_what_is_written_reads_as_the_same_search(search: SearchRequest) -> None:
    assert parse(write(search)) == search


@given(searches())
def test_each_chip_can_be_left_out(search: SearchRequest) -> None:
    for chip in chips(replace(search, cursor="here")):
        assert chip.without.cursor is None
        assert len(chips(chip.without)) < len(chips(search))
        assert chip.text in write(search)


@given(st.text(max_size=60))
def test_any_text_is_a_search_or_an_error_that_points_into_it(text: str) -> None:
    try:
        found = parse(text)
    except GrammarError as error:
        assert 0 <= error.start < error.end <= len(text)
    else:
        assert parse(write(found)) == found


def test_a_search_with_everything() -> None:
    text = (
        'cat "hot dog" confidence:70-90 precision:80- block:17 keyword:"tabby, tabby cat" word:tab* -truck -word:x '
        "corpus:demo corpus:other run:demo-forest-1234 sort:random seed:7 -takendown alike:one"
    )
    assert parse(text) == SearchRequest(
        tags=("cat", "hot dog"),
        without_tags=("truck",),
        min_confidence=70,
        max_confidence=90,
        min_precision=80,
        block=17,
        keyword="tabby, tabby cat",
        words=("tab*",),
        without_words=("x",),
        corpora=("demo", "other"),
        run="demo-forest-1234",
        sort=Sort.RANDOM,
        seed=7,
        is_one_of_alike=True,
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", {}),
        ("  cat\tcat\n", {"tags": ("cat",)}),
        ("TAG:cat", {"tags": ("cat",)}),
        ("confidence:70", {"min_confidence": 70}),
        ("confidence:-70", {"max_confidence": 70}),
        ("precision:80-", {"min_precision": 80}),
        ("similar:demo:17", {"similar_to": "demo:17"}),
        ("Sort:Position", {"sort": Sort.POSITION}),
        ('"sort:position"', {"tags": ("sort:position",)}),
        ('-"takendown"', {"without_tags": ("takendown",)}),
        ("cafe\u0301", {"tags": ("caf\u00e9",)}),
        (r'"a \"b\" \\"', {"tags": (r'a "b" \\'[:-1],)}),
        ("a-b", {"tags": ("a-b",)}),
    ],
)
def test_what_a_text_asks_for(text: str, asked: dict[str, Any]) -> None:
    assert parse(text) == SearchRequest(**asked)


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        ("cat konfidence:70", "konfidence:70", "did you mean confidence:"),
        ("cat x:y dog", "x:y", 'for a tag, "x:y"'),
        ("confidence:90-70 cat", "confidence:90-70", "lower one first"),
        ("confidence:70-101", "confidence:70-101", "0 to 100"),
        ("confidence:-", "confidence:-", "70-90"),
        ("confidence:\u0667", "confidence:\u0667", "70-90"),
        ("cat block:x", "block:x", "whole number"),
        ("block:99999999999", "block:99999999999", "whole number"),
        ("block:4294967296", "block:4294967296", "out of range"),
        ("block:1 block:2", "block:2", "write it once"),
        ("cat -block:2", "-block:2", "only tags and words"),
        ("sort:size", "sort:size", "confidence, position, random, similar"),
        ("cat word:!!! dog", "word:!!!", "not a word"),
        ("word:t*b", "word:t*b", "not a word"),
        ('cat "hot dog', '"hot dog', "does not end"),
        ('cat"s', 'cat"s', "does not end"),
        ('"cat"s', '"cat"s', "quotes around the whole value"),
        ("cat block: dog", "block:", "missing"),
        ("cat - dog", "-", "missing"),
        ('cat ""', '""', "1 to 100"),
    ],
)
def test_an_error_points_at_the_word(text: str, word: str, message: str) -> None:
    with pytest.raises(GrammarError) as refused:
        parse(text)
    assert text[refused.value.start : refused.value.end] == word
    assert message in str(refused.value)
    assert isinstance(refused.value, BadInputError)


def test_a_text_adds_to_a_search() -> None:
    base = SearchRequest(tags=("cat",), min_confidence=50, rows=60, corpora=("demo",))
    assert parse("dog cat confidence:70-", base) == replace(base, tags=("cat", "dog"), min_confidence=70)
