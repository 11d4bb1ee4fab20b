"""Every picture is found exactly once, forward and back, in every order: by a real Solr, over shards and corpora."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from configset_upgrades import upload

from tinytags_tasks import services
from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.counts import Counts
from tinytags_tasks.search.cursor import order_of
from tinytags_tasks.search.hidden import NOTHING, Hidden
from tinytags_tasks.search.query import Searched, SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.configsets import current_configset

TAGS = ("cat", "dog", 'a,b"} OR *:*', "{!func}1")
KEYWORDS = ("Tabby Cat", "guinea_pig", "STRASSE", "tabular", None)
PICTURES = {"large": 230, "small": 70}
BOTH = Searched(("paging-large", "paging-small"))


def documents(corpus: str) -> list[dict[str, object]]:
    """Return documents of which many have the same confidence, and the same position as one of the other corpus."""
    places = shuffle_numbers(corpus, np.arange(PICTURES[corpus]))
    found: list[dict[str, object]] = []
    for position, place in enumerate(places):
        keyword = KEYWORDS[position % len(KEYWORDS)]
        words = {"keyword": keyword, "word": keyword_words(keyword)} if keyword else {}
        said = {"tag": TAGS[position % 4], "accuracy": 40 + position % 7, "votes": 5, "block": position // 50}
        where = {"id": f"{corpus}:{position}", "position": position, "corpus": corpus, "shard": 0, "shuffle": place}
        found.append({**said, **where, **words, "model": "m"})
    return found


@pytest.fixture(scope="module")
def settings(hdfs: Runtime) -> Iterator[Settings]:
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    client = Runtime(settings).solr
    configset = upload(client, current_configset())
    for corpus in PICTURES:
        name = f"paging-{corpus}"
        client.ensure_collection(name, configset, shards=2 if corpus == "large" else 1)
        with client.posting(name, "application/json") as send:
            answer = send(json.dumps(documents(corpus)).encode())
        answer.result()
        client.commit(name)
    yield settings
    for corpus in PICTURES:
        client.delete_collection(f"paging-{corpus}")


class Reader:
    """Reads pages of both collections, as the search page does."""

    def __init__(self, settings: Settings, searched: Searched = BOTH, hidden: Hidden = NOTHING) -> None:
        self.settings, self.searched, self.hidden, self.counts = settings, searched, hidden, Counts()

    def page(self, request: SearchRequest) -> SearchPage:
        return search_images(self.settings, request, self.hidden, self.searched, self.counts)

    def forward(self, request: SearchRequest) -> list[SearchPage]:
        pages = [self.page(request)]
        while (cursor := pages[-1].next_cursor) is not None:
            pages.append(self.page(replace(request, cursor=cursor)))
        return pages

    def back(self, request: SearchRequest, last: SearchPage) -> list[SearchPage]:
        pages = [last]
        while (cursor := pages[-1].previous_cursor) is not None:
            pages.append(self.page(replace(request, cursor=cursor)))
        return pages[::-1]


def ids(pages: list[SearchPage]) -> list[list[str]]:
    return [[image.id for image in page.images] for page in pages]


def flat(pages: list[SearchPage]) -> list[str]:
    return [image.id for page in pages for image in page.images]


def expected(request: SearchRequest) -> list[str]:
    """Return all ids in the order of a request, without Solr."""
    every = [document for corpus in PICTURES for document in documents(corpus)]
    begin = order_of(request).begin
    keys = {
        Sort.CONFIDENCE: lambda each: (-each["accuracy"], each["position"], each["id"]),
        Sort.POSITION: lambda each: (each["position"], each["id"]),
        Sort.RANDOM: lambda each: (each["shuffle"] < begin, each["shuffle"], each["position"], each["id"]),
    }
    return [str(each["id"]) for each in sorted(every, key=keys[request.sort])]


@pytest.mark.parametrize(("sort", "seed"), [("confidence", 0), ("position", 0), ("random", 7), ("random", 8)])
@pytest.mark.parametrize("rows", [7, 100])
def test_every_picture_is_found_once_forward_and_back(settings: Settings, sort: str, seed: int, rows: int) -> None:
    reader, request = Reader(settings), SearchRequest(sort=Sort(sort), seed=seed, rows=rows)
    forward = reader.forward(request)
    assert flat(forward) == expected(request)
    assert {page.total for page in forward} == {300}
    assert ids(reader.back(request, forward[-1])) == ids(forward)


def test_filters_find_what_they_say(settings: Settings) -> None:
    reader = Reader(settings)

    def positions(**asked: object) -> set[tuple[str, int]]:
        request = replace(SearchRequest(rows=100, sort=Sort.RANDOM, seed=3), **asked)
        pages = reader.forward(request)
        found = [(image.corpus, image.position) for page in pages for image in page.images]
        assert len(set(found)) == len(found) == pages[0].total
        return set(found)

    everything = {(corpus, position) for corpus, count in PICTURES.items() for position in range(count)}
    assert positions(tags=(TAGS[2], TAGS[3])) == {each for each in everything if each[1] % 4 in (2, 3)}
    assert positions(without_tags=(TAGS[2],)) == {each for each in everything if each[1] % 4 != 2}
    assert positions(min_confidence=41, max_confidence=42) == {each for each in everything if each[1] % 7 in (1, 2)}
    assert positions(words=("tab*",)) == {each for each in everything if each[1] % 5 in (0, 3)}
    assert positions(words=("TABBY", "cat")) == {each for each in everything if each[1] % 5 == 0}
    assert positions(words=("Guinea-PIG",)) == {each for each in everything if each[1] % 5 == 1}
    assert positions(words=("stra\u00dfe",)) == {each for each in everything if each[1] % 5 == 2}
    assert positions(without_words=("tab*",)) == {each for each in everything if each[1] % 5 not in (0, 3)}
    assert positions(keyword="guinea_pig") == {each for each in everything if each[1] % 5 == 1}
    assert positions(corpora=("small",)) == {each for each in everything if each[0] == "small"}
    assert positions(block=1, tags=("cat",)) == {e for e in everything if e[1] // 50 == 1 and e[1] % 4 == 0}


def test_a_publication_between_pages_is_told_and_the_reader_goes_on(settings: Settings) -> None:
    request = SearchRequest(rows=50)
    first = Reader(settings).page(request)
    only_large = Reader(settings, Searched(("paging-large",)))
    second = only_large.page(replace(request, cursor=first.next_cursor))
    assert (first.moved, second.moved) == (False, True)
    left = [name for name in expected(request)[50:] if name.startswith("large")]
    assert [image.id for image in second.images] == left[:50]


def test_a_page_before_the_first_full_one_is_the_first_page(settings: Settings) -> None:
    reader, request = Reader(settings), SearchRequest(rows=20)
    second = reader.page(replace(request, cursor=reader.page(request).next_cursor))
    larger = reader.page(replace(request, rows=30, cursor=second.previous_cursor))
    assert [image.id for image in larger.images] == expected(request)[:30]
    assert larger.previous_cursor is None


def test_what_was_taken_down_leaves_no_gap_in_what_follows(settings: Settings) -> None:
    request = SearchRequest(rows=10)
    gone = expected(request)[9]
    corpus, position = gone.split(":")
    reader = Reader(settings, hidden=Hidden({corpus: np.array([int(position)])}))
    assert flat(reader.forward(request)) == [name for name in expected(request) if name != gone]


def test_numbered_pages_of_kept_addresses_go_on_with_cursors(settings: Settings) -> None:
    reader, request = Reader(settings), SearchRequest(rows=60)
    numbered = reader.page(replace(request, start=120))
    following = reader.page(replace(request, cursor=numbered.next_cursor))
    before = reader.page(replace(request, cursor=numbered.previous_cursor))
    assert flat([before, numbered, following]) == expected(request)[60:240]


def test_a_cursor_that_nobody_made_is_refused(settings: Settings) -> None:
    with pytest.raises(BadInputError):
        Reader(settings).page(SearchRequest(cursor="AoNUBngBKHN5bnRoOjI0"))
