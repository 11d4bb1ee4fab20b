"""The results of a search as a page, over searches that a test prepares."""

import html
import re
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import made_searches
import pytest
from fastapi.testclient import TestClient
from made_searches import IMAGE, PAGE, Answer, with_values

from tinytags_tasks.errors import BadInputError, EngineDownError, MissingError
from tinytags_tasks.search import similar
from tinytags_tasks.search.request import SearchRequest, Sort

answer = made_searches.answer
reader = made_searches.reader
settings = made_searches.settings
store = made_searches.store


def hidden_fields(text: str) -> list[tuple[str, str]]:
    """Return the hidden fields of the form beside the results."""
    form = text[text.index('id="filter"') :]
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")])
    return [(name, html.unescape(value)) for name, value in found]


def sent(reader: TestClient, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Send a form of the page, and return the parameters of the address to which it leads."""
    answered = reader.get("/search", params=fields, follow_redirects=False)
    assert answered.status_code == 303
    return parse_qsl(urlsplit(answered.headers["Location"]).query)


def test_the_page_shows_each_image_with_its_words(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/search").text
    for part in ("250 images", "70 %", "7 votes", "block 3", "1,234", "12 ms"):
        assert part in text
    assert 'alt="cat, image 1234 of demo"' in text
    assert 'href="/pictures/demo/1234"' in text
    assert re.search(r'<img[^>]*loading="lazy"[^>]*src="/pictures/demo/1234\.png"', text)
    assert "data:image" not in text
    assert "generated pictures" not in text


def test_votes_that_only_repeat_the_confidence_are_not_shown(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(with_values(votes=70),)))
    text = reader.get("/search").text
    assert "70 %" in text
    assert "70 votes" not in text


def test_what_a_reader_writes_is_escaped(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, images=(with_values(tag='"><img src=x onerror=alert(1)>', keyword="<b>x</b>"),)))
    tags = {"tag": "<script>alert(1)</script>", "keyword": '"><img src=x onerror=alert(1)>'}
    text = reader.get("/search", params=tags).text
    assert asked[0].tags == ("<script>alert(1)</script>",)
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "<b>x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


@pytest.mark.parametrize("query", ["block=<script>", 'q=<script>:"', "q=block:<script>"])
def test_an_error_is_escaped_too(reader: TestClient, answer: Answer, query: str) -> None:
    answer(PAGE)
    response = reader.get(f"/search?{query}")
    assert response.status_code == 400
    assert re.findall(r"<script[^>]*>(?!</script>)|<script(?! src=\"/scripts/)", response.text) == []


def test_the_address_says_what_is_searched(reader: TestClient, answer: Answer) -> None:
    asked = answer(PAGE)
    reader.get(
        "/search?tag=cat&tag=dog&tag=cat&without=emu&confidence=60&max_confidence=90&block=5&rows=20&sort=random&seed=7"
    )
    assert asked == [
        SearchRequest(
            tags=("cat", "dog"),
            without_tags=("emu",),
            min_confidence=60,
            max_confidence=90,
            block=5,
            rows=20,
            sort=Sort.RANDOM,
            seed=7,
        )
    ]


def test_the_search_is_in_the_box_and_each_part_of_it_is_a_chip_that_takes_it_away(
    reader: TestClient, answer: Answer
) -> None:
    answer(PAGE)
    text = reader.get("/search?tag=cat&without=dog&confidence=60&max_confidence=80&rows=60").text
    assert re.search(r'<input id="q"[^>]* value="cat -dog confidence:60-80"', text)
    chips = re.findall(r'href="([^"]+)"\s+aria-label="([^"]+): remove this"', text)
    assert {label: html.unescape(href) for href, label in chips} == {
        "cat": "/search?without=dog&confidence=60&max_confidence=80&rows=60",
        "-dog": "/search?tag=cat&confidence=60&max_confidence=80&rows=60",
        "confidence:60-80": "/search?tag=cat&without=dog&rows=60",
    }
    assert 'href="/search">Clear all</a>' in text


def test_the_box_leads_to_the_usual_address(reader: TestClient, answer: Answer) -> None:
    asked = answer(PAGE)
    assert sent(reader, [("q", 'cat -"hot dog" confidence:70-90 word:tab*'), ("rows", "60")]) == [
        ("tag", "cat"),
        ("without", "hot dog"),
        ("word", "tab*"),
        ("confidence", "70"),
        ("max_confidence", "90"),
        ("rows", "60"),
    ]
    assert not asked


def test_an_error_points_at_the_word(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    response = reader.get("/search", params={"q": "cat colour:red dog"})
    assert response.status_code == 400
    assert "<code>cat <mark>colour:red</mark> dog</code>" in response.text
    assert 'value="cat colour:red dog"' in response.text
    assert 'aria-invalid="true" aria-describedby="problem"' in response.text


def test_the_filters_keep_what_they_do_not_say_themselves(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/search?tag=cat&without=dog&keyword=Tabby&sort=position&confidence=50&cursor=here").text
    assert hidden_fields(text) == [
        ("tag", "cat"),
        ("without", "dog"),
        ("keyword", "Tabby"),
        ("sort", "position"),
        ("least", "40"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "asked"),
    [
        ("40", "100", {}),
        ("55", "100", {"confidence": "55"}),
        ("40", "70", {"max_confidence": "70"}),
        ("90", "60", {"confidence": "60", "max_confidence": "90"}),  # moved past each other, without scripts
        ("100", "100", {"confidence": "100"}),
    ],
)
def test_both_ends_of_the_confidence_can_be_moved(
    reader: TestClient, answer: Answer, low: str, high: str, asked: dict[str, str]
) -> None:
    answer(PAGE)
    fields = [("tag", "cat"), ("least", "40"), ("confidence_from", low), ("confidence_to", high), ("words", "")]
    assert dict(sent(reader, fields)) == {"tag": "cat", **asked}


def test_the_range_reaches_as_low_as_what_is_kept_and_counts_what_is_inside(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, confidence_counts={25: 5, 70: 200, 90: 45}))
    text = reader.get("/search?confidence=60&max_confidence=80").text
    assert re.search(r'id="confidence_from"[^>]* min="25" max="100" value="60"', text)
    assert re.search(r'id="confidence_to"[^>]* min="25" max="100" value="80"', text)
    bars = re.findall(r'<rect class="(\w+)"[^>]*height="([\d.]+)" data-percent="(\d+)" data-count="(\d+)"', text)
    assert {(percent, count, where) for where, height, percent, count in bars if float(height)} == {
        ("25", "5", "out"),
        ("70", "200", "in"),
        ("90", "45", "out"),
    }


def test_words_of_the_keyword_are_asked_for_with_those_to_exclude(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    assert sent(reader, [("words", " tabby tab*  -stuffed - "), ("word", "gone")]) == [
        ("word", "tabby"),
        ("word", "tab*"),
        ("without_word", "stuffed"),
    ]
    text = reader.get("/search?word=tabby&without_word=stuffed").text
    assert re.search(r'name="words"[^>]* value="tabby -stuffed"', text)


def test_fields_left_empty_count_as_left_out(reader: TestClient, answer: Answer) -> None:
    asked = answer(PAGE)
    assert reader.get("/search?tag=&confidence=&block=&keyword=&rows=30").status_code == 200
    assert asked == [SearchRequest()]


def test_a_tag_can_be_joined_left_and_excluded(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = html.unescape(reader.get("/search?tag=Cat&confidence=40&cursor=here").text)
    assert 'href="/search?confidence=40" aria-current="true"' in text  # leaves cat, however it was written
    assert 'href="/search?tag=Cat&tag=dog&confidence=40"' in text
    assert 'href="/search?tag=Cat&without=dog&confidence=40" aria-label="Exclude dog"' in text
    text = html.unescape(reader.get("/search?without=dog").text)
    assert 'href="/search" aria-current="true" aria-label="Do not exclude dog"' in text


def test_pages_are_linked_by_cursors_both_ways(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, next_cursor="later", previous_cursor="earlier"))
    text = reader.get("/search?tag=cat&cursor=here").text
    assert 'rel="next" href="/search?tag=cat&amp;cursor=later"' in text
    assert 'rel="prev" href="/search?tag=cat&amp;cursor=earlier"' in text
    assert 'href="/search?tag=cat">First page</a>' in text
    answer(PAGE)
    first = reader.get("/search").text
    assert 'rel="next"' not in first
    assert "First page" not in first


def test_a_page_that_goes_on_in_a_newer_publication_says_so(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, moved=True))
    assert "this page continues in what is live now" in reader.get("/search?cursor=here").text


def test_another_order_or_another_number_of_images_begins_at_the_first_page(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = html.unescape(reader.get("/search?tag=cat&sort=random&seed=7&cursor=here").text)
    assert re.search(r'<a href="/search\?tag=cat"[^>]*>Confidence</a>', text)
    assert re.search(r'<a href="/search\?tag=cat&sort=position"[^>]*>Position</a>', text)
    assert re.search(r'<a href="/search\?tag=cat&seed=\d+&sort=random" aria-current="true"[^>]*>Random</a>', text)
    assert re.search(r'<a href="/search\?tag=cat&seed=7&rows=60&sort=random"[^>]*>60</a>', text)
    assert "Most similar" not in text


def test_pictures_that_are_alike_are_shown_with_the_one_that_they_are_like(
    reader: TestClient, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(replace(PAGE, images=()))
    alike = replace(PAGE, total=1, tag_counts={}, confidence_counts={}, next_cursor=None)
    monkeypatch.setattr(similar, "similar_to", lambda context, search: alike)
    response = reader.get("/similar?to=demo:5&tag=cat")
    assert response.url.path == "/search"
    text = response.text
    assert 'The most similar to <a href="/pictures/demo/5">image 5 of demo</a>' in text
    assert re.search(r'aria-current="true"[^>]*>Most similar</a>', text)
    assert 'alt="cat, image 1234 of demo"' in text
    assert "Exclude dog" in text  # counts are of all that the filters leave


def test_the_size_of_images_is_remembered_and_is_no_part_of_the_address(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    assert 'class="grid medium"' in reader.get("/search").text
    chosen = reader.get("/search?tag=cat&cursor=here&size=small", follow_redirects=False)
    assert (chosen.status_code, chosen.headers["Location"]) == (303, "/search?tag=cat&cursor=here")
    assert 'class="grid small"' in reader.get("/search?tag=cat").text
    assert reader.get("/search?size=huge").status_code == 400


def test_nothing_found_suggests_what_may_find_something(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, total=0, images=(), tag_counts={"cat": 3}, confidence_counts={50: 3}))
    response = reader.get("/search?tag=catt&confidence=90")
    assert response.status_code == 200
    assert "No published image matches" in response.text
    repairs = html.unescape(response.text)
    assert '<a href="/search?tag=cat&confidence=90">with cat instead of catt</a>' in repairs
    assert '<a href="/search?tag=catt">at any confidence: 3 images</a>' in repairs
    assert '<a href="/search?confidence=90">without catt</a>' in repairs


def test_a_search_with_as_many_tags_as_it_can_name_has_a_page(reader: TestClient, answer: Answer) -> None:
    tags = [f"tag{number}" for number in range(50)]
    answer(PAGE)
    assert reader.get("/search", params={"tag": tags}).status_code == 200
    answered = reader.get("/search", params={"tag": tags, "without": "cat"})
    assert answered.status_code == 400
    assert "51 tags are too many: name up to 50" in answered.text


def test_the_page_says_what_confidence_means_and_what_it_does_not(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/search").text
    (note,) = re.findall(r"<summary>What confidence means</summary>\s*<p>([^<]+)</p>", text)
    assert "not the chance that the tag is right" in note
    assert re.search(r'<span title="Share of the model&#39;s votes[^"]*">70 %</span>', text)
    assert "Precision: not measured on this corpus" in text


def test_each_image_shows_its_keyword_where_it_has_one(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(IMAGE, with_values(keyword=None))))
    text = reader.get("/search").text
    assert text.count('class="detail keyword"') == 1
    assert ">Säbelzahntiger</span>" in text


def test_found_images_can_be_taken_along(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/search?tag=cat&rows=60&cursor=here").text
    assert 'href="/export?tag=cat">Export all 250</a>' in text
    assert 'form="selection" name="picture" value="demo:1234:70:cat"' in text


def test_corpora_can_be_chosen_where_there_are_several(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    assert 'type="checkbox" name="corpus"' not in reader.get("/search").text
    answer(replace(PAGE, corpora=("demo", "pets")))
    text = reader.get("/search?corpus=pets").text
    assert re.findall(r'name="corpus" value="(\w+)"( checked)?', text) == [("demo", ""), ("pets", " checked")]
    assert sent(reader, [("corpus", "demo"), ("corpus", "pets"), ("words", "")]) == [
        ("corpus", "demo"),
        ("corpus", "pets"),
    ]


def test_generated_pictures_are_named_as_such(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, corpora=("drawn",)))
    for path in ("/", "/search"):
        assert "generated pictures (drawn shapes), not photographs" in reader.get(path).text


@pytest.mark.parametrize(
    "query",
    [
        "confidence=101",
        "confidence=-1",
        "confidence=x",
        "confidence=1e3",
        "confidence=90&max_confidence=60",
        "accuracy=101",
        "accuracy=40&confidence=50",
        "confidence_from=x&confidence_to=5",
        "rows=0",
        "rows=1000",
        "page=0",
        "page=99999999999999999999",
        "page=101&rows=100",
        "block=٣",
        "block=1&block=2",
        "tag=" + "x" * 101,
        "tag=%00",
        "keyword=%00",
        "keyword=" + "x" * 201,
        "keyword=a&keyword=b",
        "q=a&q=b",
        "words=a&words=b",
        "words=*",
        "q=confidence:200-",
        "sort=upwards",
        "min_accuracy=50",
    ],
)
def test_what_cannot_be_searched_is_said_readably(reader: TestClient, answer: Answer, query: str) -> None:
    asked = answer(PAGE)
    response = reader.get("/search?" + query)
    assert response.status_code == 400
    assert "This search is not valid" in response.text
    assert 'role="alert"' in response.text
    assert not asked


def test_an_unknown_cursor_or_run_is_said_and_is_no_missing_publication(reader: TestClient, answer: Answer) -> None:
    answer(BadInputError("this cursor is damaged: begin again without it"))
    response = reader.get("/search?cursor=x")
    assert (response.status_code, "begin again without it" in response.text) == (400, True)
    answer(MissingError("there is no run demo-12: choose one of `tinytags ledger`"))
    response = reader.get("/search?run=demo-12")
    assert response.status_code == 404
    assert "there is no run demo-12" in response.text
    assert "Nothing is published" not in response.text


def test_while_solr_is_away_the_page_says_what_to_do(reader: TestClient, answer: Answer) -> None:
    answer(EngineDownError("Solr does not answer at http://there"))
    response = reader.get("/search?tag=cat&confidence=60")
    assert response.status_code == 503
    assert "Search is unavailable right now" in response.text
    assert "tinytags status" in response.text
    assert 'href="/search?tag=cat&amp;confidence=60">Try again</a>' in response.text
