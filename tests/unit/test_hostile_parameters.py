"""Hostile and odd parameters of pages of searches, of the API, and of the old one: a clear 4xx, or nothing bad."""

import base64
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from solr_of_pages import SolrOfPages

from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.page import create_app
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

ALL_FOUND = ("/corrections/all", "/review-sets", "/export")
"""Take all that a search finds, so they heed no page of it."""

ADDRESSES = ("/search", "/api/v1/search", "/api/v1/facets", "/api/search", *ALL_FOUND)
OLD_PARAMETERS = ("tag", "confidence", "precision", "block", "keyword", "rows", "cursor")
PARSED = ("q", "fq", "sort", "fl", "json.facet")
"""What Solr parses; what a reader writes must never get there."""

ENGINE = ("apache", "SyntaxError", "Traceback", "pydantic", "127.0.0.1", "KeyError", "ValueError", "NoneType")

NUMBERS = [
    *(
        "-1",
        "1e1",
        "0x10",
        "1_0",
        "1.0",
        "NaN",
        "inf",
        "%2B1",
        "1%002",
        "1%0A2",
        "%D9%A1%D9%A2",
        "%C2%B2",
        "99999999999",
    ),
    *("[0+TO+*]", "*", "40+OR+1=1", "{!func}1", "$%7Bblock%7D", "1;2", "9" * 5000, "%F0%9F%98%BA", "true", "null"),
]
BAD = [
    *(f"confidence={value}" for value in NUMBERS),
    *(f"block={value}" for value in NUMBERS),
    *(f"rows={value}" for value in NUMBERS),
    *("confidence=101", "precision=101", "precision=50", "block=2147483648", "rows=0", "rows=101", "rows=1000000"),
    *("max_confidence=101", "confidence=80&max_confidence=70", "precision=80&max_precision=70", "max_precision=-1"),
    *("seed=-1", "seed=2147483648", "seed=x", "alike=two", "alike=1"),
    *(
        "sort=score+desc",
        "sort=id",
        "sort=confidence,id",
        "sort={!func}x",
        "sort=_version_",
        "sort=SIMILAR",
        "sort=similar",
    ),
    *("tag=%00", "tag=a%0Ab", "tag=a%0D%0ASet-Cookie:x", "tag=%1B[31m", "tag=%7F", "tag=%E2%80%AE", "tag=" + "a" * 101),
    *("without=%00", "without=a%0Ab", "without=" + "a" * 101, "&".join(f"tag={number}" for number in range(1001))),
    *("keyword=%00", "keyword=a%0Ab", "keyword=a%09b", "keyword=" + "a" * 201),
    *("word=*", "word=**", "word=a%0Ab", "word=" + "a" * 201, "&".join(f"word=w{number}" for number in range(21))),
    *("without_word=*", "without_word=%00", "corpus=%00", "corpus=" + "a" * 201, "run=a%00", "run=" + "a" * 201),
    *("cursor=" + "A" * 2001, "cursor=%00", "cursor=AoE%3D", "cursor=../..", "cursor=%3Cscript%3E", "cursor={!terms}"),
    *("cursor=AAAA", "cursor=%F0%9F%98%BA", "cursor=eyJhIjoxfQ", "cursor=cat", "cursor=-1"),
    *(
        "block=1&block=2",
        "confidence=40&confidence=40",
        "rows=1&rows=2",
        "keyword=a&keyword=b",
        "sort=random&sort=random",
    ),
    *("fq=*:*", "qt=/update", "stream.body=x", "shards=http://x.example/solr", "wt=xslt", "debug=all", "defType=func"),
    *("json.facet={}", "_query_=1", "__proto__=1", "constructor=1", "tag[]=cat", "Tag=cat", "confidence[]=1", "%00=1"),
    *("$%7Bjndi:ldap://x.example%7D=1", "%3Cscript%3E=1", "a" * 5000 + "=1", "=1", "rows%00=1", "start=10", "hl=true"),
]
ODD = [
    *(
        "{!func}x",
        "id:*",
        "*",
        "_query_:%22{!func}x%22",
        "{!terms f=data v=$fl}",
        "$%7Bsolr.home%7D",
        "%22+OR+%22",
        "a,b",
    ),
    *(
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "%22%3E%3Cimg+src=x%3E",
        "';DROP+TABLE",
        "%5C",
        "%5C%22",
        "a%26b%3Dc",
        "..%2F..",
    ),
    *(
        "%F0%9F%98%BA",
        "%D7%A9%D7%9C%D7%95%D7%9D",
        "e%CC%81",
        "%EF%AC%81",
        "%ED%A0%80",
        "%C3%28",
        "%25",
        "%2500",
        "{{7*7}}",
    ),
]


@pytest.fixture(scope="module")
def solr() -> Iterator[SolrOfPages]:
    found = SolrOfPages()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def reader(solr: SolrOfPages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("home")
    clients = SimpleNamespace(storage=LocalStorage(home / "store"), solr=SimpleNamespace(aliases=dict))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(page_module, "Runtime", lambda *_, **__: clients)
        app = create_app(Settings(home=home, search_password="pass", solr_url=solr.url, search_rate_limit=0))
        login = "Basic " + base64.b64encode(b"tinytags:pass").decode()
        yield TestClient(app, headers={"Authorization": login}, raise_server_exceptions=False)


def check_clear(answer: Any, path: str) -> None:
    """Assert that an answer says what is wrong in our words."""
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith(
        {"/api/v1": "application/problem+json", "/api/se": "application/json"}.get(path[:7], "text/html")
    )
    assert not [word for word in ENGINE if word in answer.text]
    assert "<script" not in answer.text.partition("<main")[2]
    assert len(answer.content) < 20_000


@pytest.mark.parametrize("query", BAD, ids=lambda query: query[:40])
def test_a_bad_parameter_is_refused_in_our_words(reader: TestClient, query: str) -> None:
    for path in ADDRESSES:
        name = query.partition("=")[0]
        if path == "/api/v1/facets" and name in ("rows", "cursor", "sort", "seed"):
            continue
        if path in ALL_FOUND and name in ("rows", "cursor"):
            continue
        check_clear(reader.get(f"{path}?{query}"), path)


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:40])
def test_an_odd_text_is_only_ever_a_value(reader: TestClient, solr: SolrOfPages, text: str) -> None:
    for name in ("tag", "without", "keyword", "word", "without_word"):
        for path in ADDRESSES:
            if path == "/api/search" and name not in OLD_PARAMETERS:
                continue
            solr.asked.clear()
            answer = reader.get(f"{path}?{name}={text}")
            if answer.status_code != 200:
                check_clear(answer, path)
                continue
            assert "<script>alert" not in answer.text or path != "/search"
            asked = str(answer.request.url.params[name])
            parsed = [part for search in solr.asked for field in PARSED for part in search.get(field, ())]
            assert len(asked) < 3 or not [part for part in parsed if asked in part]


@pytest.mark.parametrize(
    "path",
    [
        *(f"/api/v1/images/{name}" for name in ("demo", "demo:", ":7", "demo:-1", "demo:1e3", "demo:9999999999999")),
        *(
            f"/api/v1/images/{name}"
            for name in ("..%2F..%2Fetc:1", "%00:1", "demo*:1", "{!terms}:1", "a:b:1", "demo:7.jpg")
        ),
        *(
            f"/api/v1/images/{name}"
            for name in ("demo:%D9%A1", "demo:7.png.png", "a" * 300 + ":1", "demo:7%00", "demo:7%0A")
        ),
        *(
            "/pictures/..%2F../7.png",
            "/pictures/demo/x.png",
            "/pictures/demo/-1.png",
            "/pictures/demo/" + "9" * 99 + ".png",
        ),
        *("/pictures/demo/7.png%00", "/pictures/%00/7.png", "/pictures/{!x}/7.png", "/pictures/demo/7.svg"),
        *("/models/..%2Fcard/report", "/models/%00/report", "/models/" + "a" * 3000 + "/report", "/models/*/report"),
        *("/api/v1/runs?rows=0", "/api/v1/runs?cursor=x", "/api/v1/models?cursor=%00", "/api/v1/tags?x=1"),
        *(
            "/api/v1/ready?x=1",
            "/api/v1/",
            "/api/v1/search/",
            "/api/v1/search/..",
            "/api/v2/search",
            "/search/x",
            "/%00",
        ),
        *("/scripts/..%2Fpage.py", "/scripts/%00", "/review/..%2F..", "/review/%00/one", "/api/precision?run=..%2Fx"),
    ],
    ids=lambda path: path[:50],
)
def test_an_address_of_nothing_is_refused_in_our_words(reader: TestClient, path: str) -> None:
    answer = reader.get(path, follow_redirects=False)
    assert answer.status_code == 307 or 400 <= answer.status_code < 500
    assert not [word for word in ENGINE if word in answer.text]


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 100
