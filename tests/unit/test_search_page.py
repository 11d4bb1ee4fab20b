"""The search page's routes, with and without the password, over searches that a test prepares."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from small_run import make_run, pictures

from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, MissingError, TinyTagsError
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage

VALUES = {
    "id": "demo:1234",
    "tag": "cat",
    "confidence": 70,
    "votes": 7,
    "block": 3,
    "position": 1234,
    "model": "forest-12ab",
    "corpus": "demo",
    "keyword": "Säbelzahntiger",
    "corrected": None,
}
IMAGE = TaggedImage(
    VALUES,
    image=np.zeros((32, 32, 3), dtype=np.uint8),
)
PAGE = SearchPage(
    total=250,
    images=(IMAGE,),
    tag_counts={"cat": 250, "dog": 4},
    confidence_counts={40: 50, 70: 200},
    models=("forest-12ab",),
    corpora=("demo",),
    next_cursor=None,
    seconds=0.012,
)


def with_values(**values: object) -> TaggedImage:
    """Return the image with different values."""
    return replace(IMAGE, values=VALUES | values)


Answer = Callable[[SearchPage | TinyTagsError], list[SearchRequest]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Prepare what every search finds; the returned list gets the requests."""

    def prepare(found: SearchPage | TinyTagsError) -> list[SearchRequest]:
        asked: list[SearchRequest] = []

        def search(_: Searches, request: SearchRequest) -> SearchPage:
            asked.append(request)
            if isinstance(found, TinyTagsError):
                raise found
            return found

        monkeypatch.setattr(Searches, "page", search)
        return asked

    return prepare


def clients(storage: LocalStorage) -> SimpleNamespace:
    """Return the clients of a page; nothing is live."""
    return SimpleNamespace(storage=storage, solr=SimpleNamespace(aliases=dict))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """A store in which nobody said anything of any picture."""
    storage = LocalStorage(tmp_path / "store")
    monkeypatch.setattr(
        page_module,
        "Runtime",
        lambda settings, as_writer: SimpleNamespace(storage=storage, solr=SimpleNamespace(aliases=dict)),
    )
    return storage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "search_password").write_text("pässword\n")
    return Settings(home=tmp_path, search_user="tinytags", search_password=None)


@pytest.fixture
def stranger(settings: Settings) -> TestClient:
    return TestClient(create_app(settings))


@pytest.fixture
def reader(settings: Settings) -> TestClient:
    client = TestClient(create_app(settings))
    client.headers["Authorization"] = basic("tinytags:pässword")
    return client


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize("path", ["/", "/api/search", "/style.css", "/docs", "/openapi.json", "/nowhere", "/healthz/"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Bearer " + basic("tinytags:pässword").removeprefix("Basic "),
        basic("tinytags:"),
        basic("tinytags:wrong"),
        basic("other:pässword"),
        basic("tinytags:pässword "),
    ],
)
def test_every_route_asks_who_is_there(
    stranger: TestClient, answer: Answer, path: str, authorization: str | None
) -> None:
    asked = answer(PAGE)
    headers = {} if authorization is None else {"Authorization": authorization}
    response = stranger.get(path, headers=headers, follow_redirects=False)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert "cat" not in response.text
    assert not asked


@pytest.mark.parametrize("host", ["here/healthz?", "here/healthz#", "here:80/healthz?x="])
def test_a_host_header_cannot_pass_for_the_health_route(stranger: TestClient, answer: Answer, host: str) -> None:
    answer(PAGE)
    assert stranger.get("/api/search", headers={"Host": host}).status_code == 401


def test_health_is_for_everyone_and_says_only_ok(stranger: TestClient) -> None:
    response = stranger.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_no_description_of_the_routes_is_served(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_without_a_password_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="TINYTAGS_SEARCH_PASSWORD"):
        create_app(Settings(home=tmp_path, search_password=None))


def test_an_empty_password_opens_nothing(settings: Settings) -> None:
    (settings.secrets_folder / "search_password").write_text("\n")
    with pytest.raises(BadInputError, match="empty"):
        create_app(settings)


def test_the_page_shows_each_image_with_its_words(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/").text
    for part in ("250 images", "data:image/png;base64,", "70 %", "7 votes", "block 3", "1,234", "forest-12ab", "12 ms"):
        assert part in text
    assert 'alt="cat, image 1234 of demo"' in text
    assert "generated pictures" not in text


def test_votes_that_only_repeat_the_confidence_are_not_shown(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(with_values(votes=70),)))
    text = reader.get("/").text
    assert "70 %" in text
    assert "70 votes" not in text


def test_the_page_links_the_report_of_each_model(
    reader: TestClient, stranger: TestClient, answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(replace(PAGE, models=("forest-12ab", "forest-34cd")))
    storage = LocalStorage(tmp_path / "store")
    storage.write(layout.report_file("forest-12ab"), "<p>Säbel</p>".encode())
    monkeypatch.setattr(
        page_module,
        "Runtime",
        lambda settings, as_writer: SimpleNamespace(storage=storage, solr=SimpleNamespace(aliases=dict)),
    )
    reader = TestClient(create_app(Settings(home=tmp_path)), headers=dict(reader.headers))
    links = re.findall(r'href="(/models/[^"]+)"', reader.get("/").text)
    assert links == ["/models/forest-12ab/report", "/models/forest-34cd/report"]
    shown = reader.get(links[0])
    assert (shown.status_code, shown.text) == (200, "<p>Säbel</p>")
    policy = shown.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "sandbox" in policy
    assert stranger.get(links[0]).status_code == 401
    without = reader.get(links[1])
    assert without.status_code == 404
    assert "model forest-34cd has no report" in without.text
    assert reader.get("/models/..%2f..%2fsecrets/report").status_code in (400, 404)
    assert reader.get("/models/A!/report").status_code == 400


def test_the_pages_policy_allows_only_our_own_scripts_and_no_frames(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    response = reader.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"
    assert re.findall(r"<script[^>]*>(?!</script>)|<script(?! src=\"/scripts/)", response.text) == []
    assert "style=" not in response.text


def test_what_a_reader_writes_is_escaped(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, images=(with_values(tag='"><img src=x onerror=alert(1)>'),)))
    text = reader.get("/", params={"tag": "<script>alert(1)</script>"}).text
    assert asked[0].tags == ("<script>alert(1)</script>",)
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_an_error_is_escaped_too(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    response = reader.get("/", params={"block": "<script>"})
    assert response.status_code == 400
    assert re.findall(r"<script[^>]*>(?!</script>)|<script(?! src=\"/scripts/)", response.text) == []


def test_the_address_says_what_is_searched(reader: TestClient, answer: Answer) -> None:
    asked = answer(PAGE)
    reader.get("/?tag=cat&tag=dog&tag=cat&confidence=60&block=5&rows=20&page=3")
    assert asked == [
        SearchRequest(tags=("cat", "dog"), min_confidence=60, block=5, rows=20, start=40, with_pixels=True)
    ]


def test_addresses_and_programs_from_before_confidence_had_its_name_still_work(
    reader: TestClient, answer: Answer
) -> None:
    asked = answer(PAGE)
    page = reader.get("/?tag=cat&accuracy=60")
    found = reader.get("/api/search?tag=cat&accuracy=60").json()
    assert [request.min_confidence for request in asked] == [60, 60]
    assert "accuracy=" not in page.text
    assert found["images"][0]["accuracy"] == found["images"][0]["confidence"] == 70
    assert found["accuracies"] == found["confidences"]


def test_the_page_says_what_confidence_means_and_what_it_does_not(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/").text
    (note,) = re.findall(r"<summary>What confidence means</summary>\s*<p>([^<]+)</p>", text)
    assert "not the chance that the tag is right" in note
    assert re.search(r'<span title="Share of the model&#39;s votes[^"]*">70 %</span>', text)


def test_a_keyword_is_searched_and_kept_in_every_link(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, next_cursor="later"))
    keyword = 'C++ "x" {!func}&tag=dog'
    text = reader.get("/", params={"keyword": f" {keyword} ", "page": "2"}).text
    assert asked == [SearchRequest(keyword=keyword, rows=60, start=60, with_pixels=True)]
    address = "keyword=C%2B%2B+%22x%22+%7B%21func%7D%26tag%3Ddog"
    assert f'href="/search?tag=cat&amp;rows=60&amp;{address}"' in text
    assert f'href="/search?confidence=40&amp;rows=60&amp;{address}"' in text
    assert f'rel="next" href="/search?rows=60&amp;{address}&amp;cursor=later"' in text
    assert 'name="keyword" maxlength="200"' in text
    assert 'value="C++ &#34;x&#34; {!func}&amp;tag=dog"' in text
    assert "Clear all filters" in text


def test_each_image_shows_its_keyword_where_it_has_one(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(IMAGE, with_values(keyword=None))))
    text = reader.get("/").text
    assert text.count('class="detail keyword"') == 1
    assert ">Säbelzahntiger</span>" in text


def test_keywords_are_escaped(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(with_values(keyword='"><script>alert(1)</script>'),)))
    text = reader.get("/", params={"keyword": '"><img src=x onerror=alert(1)>'}).text
    assert "<script>" not in text
    assert "<img src=x" not in text


def sources(text: str) -> list[Image.Image]:
    """Return the pictures of a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(encoded))) for encoded in found]


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(32, 32, (32, 32)), (48, 20, (20, 48)), (320, 200, (200, 320)), (1024, 512, (160, 320)), (1, 1024, (320, 1))],
)
def test_an_image_of_any_size_is_shown_in_its_proportions_and_never_larger_than_a_card(
    reader: TestClient, answer: Answer, height: int, width: int, shown: tuple[int, int]
) -> None:
    answer(replace(PAGE, images=(replace(IMAGE, image=np.zeros((height, width, 3), dtype=np.uint8)),)))
    text = reader.get("/").text
    assert [picture.size for picture in sources(text)] == [shown]
    assert re.search(rf'width="{shown[0]}"\s+height="{shown[1]}"', text)
    assert ('class="enlarged"' in text) == (max(height, width) < 128)


def test_the_api_gives_large_images_whole(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(replace(IMAGE, image=np.zeros((400, 500, 3), dtype=np.uint8)),)))
    found = reader.get("/api/search?pixels=1").json()["images"][0]
    assert [picture.size for picture in sources(f'src="{found["png"]}"')] == [(500, 400)]
    assert found["keyword"] == "Säbelzahntiger"


def test_fields_left_empty_count_as_left_out(reader: TestClient, answer: Answer) -> None:
    asked = answer(PAGE)
    assert reader.get("/?tag=&confidence=&block=&keyword=&rows=30").status_code == 200
    assert asked == [SearchRequest(with_pixels=True)]


def test_a_chosen_tag_can_be_joined_and_left(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    text = reader.get("/search?tag=cat&confidence=40&cursor=here").text
    assert 'href="/search?tag=cat&amp;tag=dog&amp;confidence=40"' in text
    assert 'href="/search?confidence=40" aria-current="true"' in text


def test_a_chosen_tag_without_images_can_still_be_left(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, total=0, images=(), tag_counts={}))
    response = reader.get("/?tag=unicorn")
    assert response.status_code == 200
    assert "unicorn" in response.text
    assert "No published image matches" in response.text


def test_pages_are_linked_by_cursors_both_ways(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, next_cursor="later", previous_cursor="earlier"))
    text = reader.get("/search?tag=cat&cursor=here").text
    assert 'rel="next" href="/search?tag=cat&amp;cursor=later"' in text
    assert 'rel="prev" href="/search?tag=cat&amp;cursor=earlier"' in text
    answer(PAGE)
    assert 'rel="next"' not in reader.get("/search").text
    assert reader.get("/?page=101&rows=100").status_code == 400  # numbers end; cursors do not


@pytest.mark.parametrize(
    "query",
    [
        "confidence=101",
        "confidence=-1",
        "confidence=x",
        "confidence=1e3",
        "accuracy=101",
        "accuracy=40&confidence=50",
        "rows=0",
        "rows=1000",
        "page=0",
        "page=99999999999999999999",
        "block=٣",
        "block=1&block=2",
        "tag=" + "x" * 101,
        "tag=%00",
        "keyword=%00",
        "keyword=" + "x" * 201,
        "keyword=a&keyword=b",
        "min_accuracy=50",
    ],
)
def test_what_cannot_be_searched_is_said_readably(reader: TestClient, answer: Answer, query: str) -> None:
    asked = answer(PAGE)
    response = reader.get("/?" + query)
    assert response.status_code == 400
    assert "This search is not valid" in response.text
    assert not asked


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (EngineDownError("Solr does not answer at http://there"), 503),
        (MissingError("nothing is published yet: run `tinytags run`"), 404),
        (BadInputError("no such cursor"), 400),
        (CorruptError("foreign documents"), 500),
    ],
)
def test_an_error_is_a_page_or_json_of_its_status(
    reader: TestClient, answer: Answer, error: TinyTagsError, status: int
) -> None:
    answer(error)
    page, api = reader.get("/"), reader.get("/api/search")
    assert page.status_code == api.status_code == status
    assert str(error).split(":")[0] in page.text
    assert "Traceback" not in page.text
    assert api.json() == {"error": str(error)}
    assert page.headers["X-Frame-Options"] == "DENY"


def test_a_fault_of_ours_shows_no_traceback(
    settings: Settings, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(Searches, "page", fail)
    client = TestClient(create_app(settings), raise_server_exceptions=False, headers=dict(reader.headers))
    response = client.get("/")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_a_damaged_image_is_shown_as_unreadable(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(replace(IMAGE, image=None),)))
    response = reader.get("/")
    assert response.status_code == 200
    assert "unreadable" in response.text


def test_an_image_out_of_reach_leaves_a_page_that_says_why(
    reader: TestClient, store: LocalStorage, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise EngineDownError("HDFS does not answer: run `tinytags up`")

    monkeypatch.setattr(store, "read", away)
    answer(replace(PAGE, images=(replace(IMAGE, image=None, is_in_store=True), IMAGE)))
    response = reader.get("/")
    assert response.status_code == 200
    assert len(sources(response.text)) == 1
    assert "Some pictures cannot be shown: HDFS does not answer" in response.text
    assert ">unavailable<" in response.text
    out_of_reach, shown = reader.get("/api/search?pixels=1").json()["images"]
    assert out_of_reach["png"] is None
    assert "tinytags up" in out_of_reach["missing"]
    assert "missing" not in shown


def test_an_image_of_the_store_is_shown_like_any_other(
    settings: Settings, answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = LocalStorage(tmp_path / "store")
    run = make_run(storage)
    monkeypatch.setattr(
        page_module,
        "Runtime",
        lambda settings, as_writer: SimpleNamespace(storage=storage, solr=SimpleNamespace(aliases=dict)),
    )
    in_store = with_values(id="pets:6", corpus=run.corpus, block=3, position=6)
    in_store = replace(in_store, image=None, is_in_store=True)
    answer(replace(PAGE, images=(in_store,)))
    page = TestClient(create_app(settings)).get("/", headers={"Authorization": basic("tinytags:pässword")})
    (shown,) = sources(page.text)
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), pictures()[6])
    assert 'role="note"' not in page.text


def test_generated_pictures_are_named_as_such(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, corpora=("drawn",)))
    assert "generated pictures (drawn shapes), not photographs" in reader.get("/").text


def test_the_api_gives_pixels_only_when_asked(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, next_cursor="A"))
    without = reader.get("/api/search?tag=cat&cursor=*").json()
    assert asked[0] == SearchRequest(tags=("cat",), rows=60)
    assert without["total"] == 250
    assert without["next_cursor"] == "A"
    assert without["images"][0]["id"] == "demo:1234"
    assert without["confidences"] == {"40": 50, "70": 200}
    assert without["images"][0] == VALUES | {"accuracy": 70, "precision": None}
    assert "png" not in without["images"][0]
    assert reader.get("/api/search?pixels=1").json()["images"][0]["png"].startswith("data:image/png;base64,")
