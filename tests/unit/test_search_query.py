"""Searching, against a Solr that answers over HTTP with what a test puts into it."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tinytags_tasks.corpus.keywords import normal_keyword
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, FinalError, MissingError, TransientError
from tinytags_tasks.search.filters import make_tag_choices
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import DAMAGED
from tinytags_tasks.search.query import Searched, search_images, solr_parameters
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.settings import Settings


class StubSolr(HTTPServer):
    """Returns prepared responses in turn, then the last one forever, and records its requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StubHandler)
        self.answers: list[tuple[int, str]] = []
        self.asked: list[dict[str, list[str]]] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/solr"


class StubHandler(BaseHTTPRequestHandler):
    server: StubSolr

    def do_GET(self) -> None:
        self.answer(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def answer(self, query: str) -> None:
        self.server.paths.append(urlsplit(self.path).path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        self.server.asked.append(parse_qs(query, keep_blank_values=True))
        status, body = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def solr() -> Iterator[StubSolr]:
    server = StubSolr()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(solr: StubSolr, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, solr_url=solr.url, alias="tinytags")


def document(position: int, stored: str | None) -> dict[str, Any]:
    found = {
        "id": f"demo:{position}",
        "tag": "cat",
        "accuracy": 70,
        "votes": 7,
        "block": 3,
        "shard": 0,
        "position": position,
        "model": "forest-12ab",
        "corpus": "demo",
    }
    return found if stored is None else {**found, "data": stored}


def answer(*documents: dict[str, Any], total: int = 1, cursor: str | None = None) -> tuple[int, str]:
    facets = {
        "count": total,
        "tags": {"buckets": [{"val": "cat", "count": total}, {"val": "dog", "count": 4}]},
        "confidences": {"buckets": [{"val": 70, "count": total}]},
        "models": {"buckets": [{"val": "forest-12ab", "count": 5}]},
        "corpora": {"buckets": [{"val": "demo", "count": 5}]},
    }
    body: dict[str, Any] = {"response": {"numFound": total, "docs": list(documents)}, "facets": facets}
    if cursor:
        body["nextCursorMark"] = cursor
    return 200, json.dumps(body)


def test_tags_that_no_search_can_name_are_no_choice(solr: StubSolr, settings: Settings) -> None:
    status, body = answer(document(17, None))
    found = json.loads(body)
    found["facets"]["tags"]["buckets"] += [{"val": bad, "count": 9} for bad in ("", "two\nlines", "a" * 101)]
    solr.answers = [(status, json.dumps(found))]
    page = search_images(settings, SearchRequest())
    assert page.tag_counts == {"cat": 1, "dog": 4}
    assert [choice.label for choice in make_tag_choices(SearchRequest(), page.tag_counts)] == ["dog", "cat"]


def test_an_image_comes_back_with_its_pixels_and_counts(solr: StubSolr, settings: Settings) -> None:
    image = np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)
    solr.answers = [answer(document(17, base64.b64encode(image.tobytes()).decode()))]

    page = search_images(settings, SearchRequest(with_pixels=True))

    assert page.total == 1
    assert page.images[0].id == "demo:17"
    values = page.images[0].values
    assert (values["confidence"], values["votes"], values["block"], values["position"]) == (70, 7, 3, 17)
    assert values["keyword"] is None
    assert page.images[0].image is not None
    np.testing.assert_array_equal(page.images[0].image, image)
    assert page.tag_counts == {"cat": 1, "dog": 4}
    assert page.confidence_counts == {70: 1}
    assert (page.models, page.corpora) == (("forest-12ab",), ("demo",))
    assert solr.paths[0].startswith("/solr/tinytags/select")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (48, 20), (20, 48), (32, 32)])
def test_an_image_of_any_size_comes_back_as_it_was(solr: StubSolr, settings: Settings, height: int, width: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    solr.answers = [answer({**document(1, base64.b64encode(image.tobytes()).decode()), "width": width})]

    found = search_images(settings, SearchRequest(with_pixels=True)).images[0].image

    assert found is not None
    np.testing.assert_array_equal(found, image)
    assert "width" in solr.asked[-1]["fl"][0].split(",")


@pytest.mark.parametrize("width", [0, -3, 31, 3072])
def test_pixels_that_are_no_rows_of_the_width_are_shown_as_missing(
    solr: StubSolr, settings: Settings, width: int
) -> None:
    solr.answers = [answer({**document(1, base64.b64encode(bytes(3072)).decode()), "width": width})]
    assert search_images(settings, SearchRequest()).images[0].image is None


@pytest.mark.parametrize("stored", [None, "", "AAAA", "no base64 !", base64.b64encode(bytes(3073)).decode()])
def test_damaged_pixels_are_shown_as_missing(solr: StubSolr, settings: Settings, stored: str | None) -> None:
    solr.answers = [answer(document(1, stored))]
    assert search_images(settings, SearchRequest()).images[0].image is None


def test_a_document_without_an_image_has_it_in_the_store(solr: StubSolr, settings: Settings) -> None:
    stored = base64.b64encode(bytes(3072)).decode()
    solr.answers = [answer(document(1, None), document(2, stored), document(3, "AAAA"))]
    found = search_images(settings, SearchRequest(with_pixels=True)).images
    assert [(image.is_in_store, image.missing) for image in found] == [(True, ""), (False, ""), (False, DAMAGED)]
    assert [image.image is None for image in found] == [True, False, True]


def test_solr_is_asked_as_the_reader(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer()]
    reader = {"solr_reader_user": "leser", "solr_reader_password": SecretStr("größe:2")}
    search_images(settings.model_copy(update=reader), SearchRequest())
    search_images(settings, SearchRequest())
    leser = "Basic " + base64.b64encode("leser:größe:2".encode()).decode()
    assert solr.authorizations == [leser, leser, None, None]


def test_a_wrong_password_is_named_by_its_variable(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [(401, "<html>Bad credentials</html>")]
    reader = settings.model_copy(update={"solr_reader_password": SecretStr("hidden")})
    with pytest.raises(FinalError, match=r"'reader' with this password: correct .*TINYTAGS_SOLR_READER_PASSWORD") as no:
        search_images(reader, SearchRequest())
    assert "hidden" not in str(no.value)


def test_a_solr_that_asks_who_calls_is_named_with_the_variables_to_set(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [(401, "<html>Authentication required</html>")]
    with pytest.raises(FinalError, match="set TINYTAGS_SOLR_READER_USER and TINYTAGS_SOLR_READER_PASSWORD"):
        search_images(settings, SearchRequest())


def test_an_alias_that_solr_keeps_from_the_reader_may_just_not_be_there(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [(403, "<html>Unauthorized request</html>")]
    reader = settings.model_copy(update={"solr_reader_password": SecretStr("hidden")})
    with pytest.raises(MissingError, match=r"nothing is published yet: .* or none that 'reader' may search"):
        search_images(reader, SearchRequest())


def test_a_search_goes_to_solr_as_parameters(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer()]
    tags = ("cat", 'a,b"} OR *:*')

    search = SearchRequest(tags=tags, min_confidence=60, block=5, keyword='C++ "x" {!func}', rows=10, start=20)
    search_images(settings, search)

    asked = solr.asked[-1]
    assert asked["tags"] == ["\n".join(tags)]
    assert asked["block"] == ["5"]
    assert asked["keyword"] == ['C++ "x" {!func}']
    assert asked["fq"] == [
        r'{!terms tag=by_tag f=tag separator="\n" v=$tags}',
        "{!tag=by_confidence}accuracy:[60 TO *]",
        "{!term tag=by_block f=block v=$block}",
        "{!term tag=by_keyword f=keyword v=$keyword}",
    ]
    assert asked["expandMacros"] == ["false"]  # or ${rows} in a keyword would become 10
    assert (asked["start"], asked["rows"]) == (["20"], ["11"])  # one more than fits says that there is a next page
    assert asked["sort"] == ["accuracy desc, position asc, id asc"]


def test_many_tags_are_posted(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer()]
    tags = tuple(f"{number} {'tag' * 30}" for number in range(50))
    search_images(settings, SearchRequest(tags=tags))
    assert solr.asked[-1]["tags"] == ["\n".join(tags)]


@given(st.text(max_size=120))
def test_no_tag_changes_the_text_of_a_query(tag: str) -> None:
    try:
        request = SearchRequest(tags=(tag, "cat"))
    except BadInputError:
        assert not (0 < len(tag) <= 100 and tag.isprintable())
        return
    parameters = solr_parameters(request)
    assert parameters.pop("tags") == f"{tag}\ncat"
    assert parameters | {"tags": ""} == solr_parameters(SearchRequest(tags=("x",))) | {"tags": ""}


@given(st.text(min_size=1, max_size=220))
def test_no_keyword_changes_the_text_of_a_query(keyword: str) -> None:
    kept = normal_keyword(keyword) or keyword
    try:
        request = SearchRequest(keyword=keyword)
    except BadInputError:
        assert len(kept) > 200 or not keyword.isprintable()
        return
    parameters = solr_parameters(request)
    assert parameters.pop("keyword") == kept
    assert parameters | {"keyword": ""} == solr_parameters(SearchRequest(keyword="x")) | {"keyword": ""}


def without(field: str) -> tuple[int, str]:
    return 400, json.dumps({"error": {"msg": f'undefined field: "{field}"', "code": 400}})


def test_by_a_keyword_nothing_is_found_where_what_is_live_is_older_than_keywords(
    solr: StubSolr, settings: Settings
) -> None:
    solr.answers = [without("keyword"), answer(total=0)]
    assert search_images(settings, SearchRequest(keyword="tabby", block=3)).total == 0
    first, second, _ = solr.asked
    assert "{!term tag=by_keyword f=keyword v=$keyword}" in first["fq"]
    assert second["fq"] == ["{!term tag=by_block f=block v=$block}", "{!tag=by_keyword}-*:*"]


@pytest.mark.parametrize(
    ("field", "search"),
    [
        ("word", {"words": ("tab*",)}),
        ("word", {"without_words": ("tabby",)}),
        ("shuffle", {"sort": Sort.RANDOM}),
        ("look", {"is_one_of_alike": True}),
    ],
)
def test_what_is_live_may_be_older_than_what_is_asked_for(
    solr: StubSolr, settings: Settings, field: str, search: dict[str, Any]
) -> None:
    solr.answers = [without(field)]
    with pytest.raises(BadInputError, match=r"was indexed before .* `tinytags run` brings that"):
        search_images(settings, SearchRequest(**search))


def test_a_field_that_no_search_can_do_without_is_told(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [without("position")]
    with pytest.raises(FinalError, match="what is published under 'tinytags' has no field position"):
        search_images(settings, SearchRequest())
    assert len(solr.asked) == 2


def test_a_keyword_narrows_the_counts_of_tags_and_not_what_is_published(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer()]
    search_images(settings, SearchRequest(keyword="tabby"))
    facets = json.loads(solr.asked[0]["json.facet"][0])
    assert "by_keyword" not in facets["tags"]["domain"]["excludeTags"]
    assert "by_keyword" not in facets["confidences"]["domain"]["excludeTags"]
    assert "by_keyword" in facets["models"]["domain"]["excludeTags"]
    assert "by_keyword" in facets["corpora"]["domain"]["excludeTags"]


def test_images_come_with_the_keyword_they_have(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer({**document(1, None), "keyword": "Säbelzahntiger"}, document(2, None))]
    found = search_images(settings, SearchRequest(with_pixels=False)).images
    assert [image.values["keyword"] for image in found] == ["Säbelzahntiger", None]


def test_pixels_are_not_fetched_unless_asked_for(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer(document(1, None))]
    search_images(settings, SearchRequest(with_pixels=False))
    assert "data" not in solr.asked[-1]["fl"][0].split(",")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tags": ("",)},
        {"tags": ("x" * 101,)},
        {"tags": ("cat\ndog",)},
        {"tags": ("x",) * 26, "without_tags": ("y",) * 25},
        {"words": ("a-b-c",) * 6, "without_words": ("a b c",)},
        {"min_confidence": -1},
        {"min_confidence": 101},
        {"keyword": "x" * 201},
        {"keyword": "two\nlines"},
        {"block": -1},
        {"block": 2**31},
        {"rows": 0},
        {"rows": 101},
        {"start": -1},
        {"start": 9_971},
        {"cursor": ""},
        {"cursor": "later", "start": 60},
    ],
)
def test_a_request_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        SearchRequest(**wrong)


def test_solr_being_away_names_address_and_remedy(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, solr_url="http://reader:hunter2@127.0.0.1:9/solr")
    with pytest.raises(EngineDownError) as raised:
        search_images(settings, SearchRequest())
    assert "http://127.0.0.1:9/solr" in str(raised.value)
    assert "tinytags up" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_no_address_is_an_engine_that_is_down(tmp_path: Path) -> None:
    with pytest.raises(EngineDownError, match="tinytags up"):
        search_images(Settings(home=tmp_path, solr_url=None), SearchRequest())


def test_a_missing_alias_means_that_nothing_is_published(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [(404, "<html><body>Not Found</body></html>")]
    with pytest.raises(MissingError, match="nothing is published yet: run `tinytags run`"):
        search_images(settings, SearchRequest())


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, '{"error": {"msg": "no servers hosting shard: shard1"}}', TransientError),
        (200, '{"responseHeader": {"partialResults": true}, "response": {"docs": []}}', EngineDownError),
        (400, '{"error": {"msg": "sort param field can\'t be found: accuracy"}}', FinalError),
        (200, "<html>a login page</html>", EngineDownError),
        (200, "[]", EngineDownError),
    ],
)
def test_what_solr_says_becomes_an_error_of_ours(
    solr: StubSolr, settings: Settings, status: int, body: str, expected: type[Exception]
) -> None:
    solr.answers = [(status, body)]
    with pytest.raises(expected):
        search_images(settings, SearchRequest())


def test_foreign_documents_are_named_as_such(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer({"id": "something else"})]
    with pytest.raises(CorruptError, match="TINYTAGS_ALIAS"):
        search_images(settings, SearchRequest())


def test_what_was_taken_down_is_not_found_and_never_returned(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer(*(document(position, None) for position in range(3)))]
    hidden = Hidden({"demo": np.array([0, 2])}, ("demo:2",))
    found = search_images(settings, SearchRequest(), hidden)
    assert [image.position for image in found.images] == [1]
    for asked in solr.asked:
        assert asked["hidden_ids"] == ["demo:2"]
        assert "{!bool cache=false must=$everything must_not=$hidden}" in asked["fq"]


def test_tags_below_what_was_published_are_not_found_and_peoples_words_always_are() -> None:
    hidden = Hidden(least={"pets": {"cat": 60, "dog": 80, "a,b": 60}, "birds": {}})
    parameters = solr_parameters(SearchRequest(), hidden=hidden)
    assert parameters["fq"] == [
        "{!bool should=$least_others should=$least_people should=$least_1_60 should=$least_1_80}"
    ]
    assert parameters["least_corpora_names"] == "pets,birds"
    assert parameters["least_1_corpus_name"] == "pets"
    assert parameters["least_1_60"] == "{!bool must=$least_1_corpus must=$least_1_60_range must=$least_1_60_tags}"
    assert parameters["least_1_60_range"] == "accuracy:[60 TO *]"
    assert parameters["least_1_60_names"] == "cat\na,b"
    assert "corrected" in str(parameters["least_people_xml"])


def test_two_limits_together_are_the_higher_of_each_tag_of_a_corpus() -> None:
    published = Hidden(least={"pets": {"cat": 60, "dog": 80}})
    both = published.at_least({"pets": {"cat": 70, "dog": 50, "emu": 40}, "birds": {"owl": 20}})
    assert both.least == {"pets": {"cat": 70, "dog": 80}, "birds": {"owl": 20}}
    assert published.at_least({}).least == published.least


def test_what_is_searched_can_be_named_and_bounded_in_time(solr: StubSolr, settings: Settings) -> None:
    solr.answers = [answer(document(1, None))]
    page = search_images(settings, SearchRequest(), searched=Searched(("one", "other")))
    assert page.collections == ("one", "other")
    assert [unquote(path.split("/")[2]) for path in solr.paths] == ["one,other"] * 2
    assert all(int(asked["timeAllowed"][0]) <= 15_000 for asked in solr.asked)


def test_every_filter_goes_to_solr_as_parameters() -> None:
    evil = "x} OR *:* {!func}"
    asked = solr_parameters(
        SearchRequest(
            without_tags=(evil, "b"),
            min_confidence=40,
            max_confidence=60,
            words=("Guinea_PIG*",),
            without_words=("Stra\u00dfe", "a b"),
            corpora=("demo", evil),
        )
    )
    assert asked["fq"] == [
        "{!bool tag=by_tag must=$everything must_not=$without_tags}",
        "{!tag=by_confidence}accuracy:[40 TO 60]",
        r'{!terms tag=by_corpus f=corpus separator="\n" v=$corpora}',
        "{!term tag=by_word f=word v=$word_0_0}",
        "{!prefix tag=by_word f=word v=$word_0_1}",
        "{!bool tag=by_word must=$everything must_not=$no_0 must_not=$no_1}",
    ]
    assert asked["without_tags_names"] == f"{evil}\nb"
    assert (asked["word_0_0"], asked["word_0_1"]) == ("guinea", "pig")
    assert (asked["no_0"], asked["no_0_0"], asked["no_0_0_word"]) == (
        "{!bool must=$no_0_0}",
        "{!term f=word v=$no_0_0}".replace("$no_0_0", "$no_0_0_word"),
        "strasse",
    )
    assert asked["no_1"] == "{!bool must=$no_1_0 must=$no_1_1}"


def test_a_range_of_precision_leaves_what_was_not_measured() -> None:
    asked = solr_parameters(SearchRequest(), hidden=Hidden(between={"pets": {"cat": (40, 60), "dog": (70, 100)}}))
    assert asked["fq"] == ["{!bool should=$between_0_40_60 should=$between_0_70 must_not=$between_people}"]
    assert asked["between_0_40_60_range"] == "accuracy:[40 TO 60]"
    assert solr_parameters(SearchRequest(), hidden=Hidden(between={}))["fq"] == ["-*:*"]
