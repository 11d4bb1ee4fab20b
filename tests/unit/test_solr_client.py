"""The Solr client against a small HTTP server: what is retried, and how responses are interpreted."""

import base64
import io
import json
import re
import socket
import zipfile
from urllib.parse import parse_qs

import pytest
import recorded_solr
from certificates import make_certificate, speak_tls

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_http import (
    CONNECTIONS,
    ForbiddenError,
    NotSolrError,
    SolrHttp,
    UndefinedFieldError,
    undefined_field,
)
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError, TransientError, WaitError
from tinytags_tasks.store.configsets import Configset

solr, client = recorded_solr.solr, recorded_solr.client


@pytest.mark.parametrize("status", [503, 429, 504, 500, 409])
def test_a_busy_solr_is_asked_again(solr, client, status):
    solr.will_answer((status, b"wait"), (status, {}), (200, {"collections": ["b", "a"]}))
    assert client.collections() == ["a", "b"]
    assert len(solr.asked) == 3


def test_an_authority_of_ones_own_is_named_by_a_variable_and_a_wrong_one_is_not_waited_for(solr, monkeypatch, tmp_path):
    certificate = make_certificate(tmp_path)
    speak_tls(solr.server, certificate)
    url = solr.url.replace("http", "https")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with pytest.raises(FinalError, match=r"certificate of Solr is not valid .*file of its authority in SSL_CERT_FILE"):
        SolrClient(url, pauses_seconds=(60,)).collections()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    solr.will_answer((200, {"collections": ["a"]}))
    assert SolrClient(url).collections() == ["a"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (503, "Cannot talk to ZooKeeper - Updates are disabled."),
        (503, "SolrCore is loading"),
        (429, "too many requests"),
        (500, "KeeperErrorCode = ConnectionLoss for /collections/run/state.json"),
        (500, "No registered leader was found after waiting for 4000ms, collection: run slice: shard1"),
        (510, "no servers hosting shard: shard1"),
        (503, "no servers hosting shard: shard1"),
        (503, "ClusterState says we are the leader, but locally we don't think so"),
        (500, "ClusterState says we are the leader (http://a/solr/run_1), but locally we don't think so."),
        (500, "KeeperErrorCode = Session expired for /live_nodes"),
        (500, "Server refused connection at: http://other:8983/solr/run_2"),
        (500, "IOException occurred when talking to server at: http://other:8983/solr/run_2"),
        (500, "Timeout occurred while waiting response from server at: http://other:8983/solr"),
        (500, "Async exception during distributed update: Connection refused"),
        (500, "No live SolrServers available to handle this request"),
        (500, "Impossible assign request: no live nodes for collection run"),
        (500, "CoreContainer is shutting down."),
    ],
)
def test_a_solr_that_cannot_work_now_is_away(solr, client, status, said):
    solr.will_answer(*[(status, {"error": {"msg": said}})] * 3)
    with pytest.raises(EngineDownError, match=rf"Solr answers {status} \({re.escape(said)}\)") as raised:
        client.collections()
    assert raised.value.awaited == "Solr"
    assert len(solr.asked) == 3


def test_a_solr_without_room_says_that_its_disk_is_full(solr, client):
    solr.will_answer(*[(500, {"error": {"msg": "java.io.IOException: No space left on device"}})] * 3)
    with pytest.raises(EngineDownError, match="Solr's disk is full; make room on it"):
        client.collections()


@pytest.mark.parametrize("status", [500, 409])
def test_a_solr_that_fails_is_not_away(solr, client, status):
    solr.will_answer(*[(status, {"error": {"msg": "NullPointerException"}})] * 3)
    with pytest.raises(TransientError, match=rf"Solr answers {status} \(NullPointerException\)") as raised:
        client.collections()
    assert not isinstance(raised.value, WaitError)


def test_an_update_that_found_solr_busy_is_sent_again_whole(solr, client):
    solr.will_answer((503, {}), (200, {}))
    client.delete_ids("run", ["a:1", "a:2"])
    assert [json.loads(body) for _, _, body in solr.asked] == [{"delete": ["a:1", "a:2"]}] * 2


def test_nothing_at_the_address_is_told_with_the_remedy():
    with socket.socket() as taken:  # bound, but nothing listens
        taken.bind(("127.0.0.1", 0))
        client = SolrClient(f"http://127.0.0.1:{taken.getsockname()[1]}/solr", pauses_seconds=(0, 0))
        with pytest.raises(EngineDownError, match=r"Solr does not answer; see `tinytags status`, .*TINYTAGS_SOLR_URL"):
            client.collections()


def test_a_solr_that_is_back_at_the_second_try_is_no_error(solr, client, monkeypatch):
    once = client._admin._request_once
    tries = []

    def refused_at_first(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise EngineDownError("refused")
        return once(*arguments)

    monkeypatch.setattr(client._admin, "_request_once", refused_at_first)
    solr.will_answer((200, {"collections": []}))
    assert client.collections() == []
    assert len(tries) == 2


def test_a_request_that_solr_refuses_is_final_at_once(solr, client):
    solr.will_answer((400, {"error": {"msg": "unknown field 'tga'"}}))
    with pytest.raises(FinalError, match=r"/run/select\?wt=json: Solr answers 400 \(unknown field 'tga'\)"):
        client.count("run")
    assert len(solr.asked) == 1


def test_a_collection_that_is_not_there_is_missing_at_once(solr, client):
    solr.will_answer((404, b"<html>Not Found</html>"), (200, {"collections": ["other"]}), (200, {"aliases": {}}))
    with pytest.raises(MissingError, match="the collection run does not exist"):
        client.count("run")
    assert len(solr.asked) == 3


@pytest.mark.parametrize("content", [b"<html>Welcome</html>", b"", b"[]", b"5"])
def test_an_answer_that_is_not_solrs_is_final_and_names_the_setting(solr, client, content):
    solr.will_answer((200, content))
    with pytest.raises(FinalError, match="TINYTAGS_SOLR_URL"):
        client.collections()


@pytest.mark.parametrize("content", [b'"no"', b'{"error": "no"}', b"[1]"])
def test_a_refusal_in_other_words_is_still_final(solr, client, content):
    solr.will_answer((403, content))
    with pytest.raises(FinalError, match="Solr answers 403"):
        client.collections()


def test_every_body_is_posted_once(solr, client):
    bodies = [json.dumps([{"id": f"a:{number}"}]).encode() for number in range(11)]
    with client.posting("run", "application/json") as post:
        answers = [post(body) for body in bodies]
    assert [answer.exception() for answer in answers] == [None] * len(bodies)
    assert sorted(body for _, _, body in solr.asked) == sorted(bodies)
    assert {path for _, path, _ in solr.asked} == {"/solr/run/update?wt=json"}


def test_a_body_that_is_refused_says_so_and_the_others_go_on(solr, client):
    solr.will_answer((200, {}), (400, {"error": {"msg": "bad document"}}))
    with client.posting("run", "application/json") as post:
        answers = [post(b"[]") for _ in range(9)]
    (refused,) = [answer for answer in answers if answer.exception()]
    with pytest.raises(FinalError, match="bad document"):
        refused.result()
    assert len(solr.asked) == 9


def test_what_was_not_sent_yet_is_not_sent_when_the_sender_gives_up(solr, client):
    with pytest.raises(ZeroDivisionError), client.posting("run", "application/json") as post:
        for _ in range(3 * CONNECTIONS):
            post(b"[]")
        raise ZeroDivisionError
    assert len(solr.asked) <= 3 * CONNECTIONS


def test_ids_are_read_page_after_page(solr, client):
    solr.will_answer(
        (200, {"response": {"docs": [{"id": "a:1"}, {"id": "a:2"}]}, "nextCursorMark": "one"}),
        (200, {"response": {"docs": [{"id": "a:3"}]}, "nextCursorMark": "two"}),
        (200, {"response": {"docs": []}, "nextCursorMark": "two"}),
    )
    assert client.ids_of_block("run", 7) == ["a:1", "a:2", "a:3"]
    queries = [json.loads(body)["params"] for _, _, body in solr.asked]
    assert queries == [{"block": "7", "cursorMark": mark} for mark in ("*", "one", "two")]


def test_counts_are_by_block_and_only_of_those_asked_for(solr, client):
    solr.will_answer((200, {"facets": {"count": 5, "blocks": {"buckets": [{"val": 3, "count": 5}]}}}))
    assert client.count_by_block("run", [3, 4]) == {3: 5}
    assert json.loads(solr.asked[0][2])["params"] == {"blocks": "3,4"}


def test_an_empty_collection_has_no_counts(solr, client):
    solr.will_answer((200, {"facets": {"count": 0}}))
    assert client.count_by_block("run") == {}


def test_a_collection_that_exists_is_left_as_it_is(solr, client):
    solr.will_answer((200, {"collections": ["run"]}))
    assert client.ensure_collection("run", "newer") is False
    assert len(solr.asked) == 1


def test_a_collection_that_another_writer_made_meanwhile_is_taken(solr, client):
    solr.will_answer(
        (200, {"collections": []}),
        (400, {"error": {"msg": "collection already exists: run"}}),
        (200, {"collections": ["run"]}),
    )
    assert client.ensure_collection("run", "conf") is False


def test_a_collection_that_cannot_be_made_is_an_error(solr, client):
    solr.will_answer(
        (200, {"collections": []}), (400, {"error": {"msg": "no such configset"}}), (200, {"collections": []})
    )
    with pytest.raises(FinalError, match="no such configset"):
        client.ensure_collection("run", "conf")


def test_a_configset_is_uploaded_under_its_own_name(solr, client):
    configset = Configset({"solrconfig.xml": b"<config/>", "lang/stop.txt": b"a"})
    solr.will_answer((200, {}))
    client.upload_configset(configset)
    ((method, path, body),) = solr.asked
    assert (method, f"name={configset.name}&" in path) == ("POST", True)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == configset.files


def test_a_collections_fields_are_asked_for_as_the_admin(solr):
    client = SolrClient(solr.url, admin=("boss", "a"), writer=("clerk", "b"), pauses_seconds=())
    solr.will_answer((200, {"fields": [{"name": "id"}, {"name": "tag"}]}))
    assert client.field_names("run") == {"id", "tag"}
    assert asked_as(solr.authorizations[0]) == "boss:a"


def test_no_aliases_are_an_empty_answer(solr, client):
    solr.will_answer((200, {"aliases": None}))
    assert client.aliases() == {}


def test_each_collection_tells_its_configset(solr, client):
    collections = {"run": {"configName": "tinytags-1"}, "other": {}}
    solr.will_answer((200, {"cluster": {"collections": collections}}), (200, {"cluster": {}}))
    assert client.configsets() == {"run": "tinytags-1", "other": ""}
    assert client.configsets() == {}


def asked_as(header):
    return base64.b64decode(header.removeprefix("Basic ")).decode()


def test_the_cluster_is_asked_as_the_admin_and_documents_as_the_writer(solr):
    client = SolrClient(solr.url, admin=("boss", "a:ä"), writer=("clerk", "b"), pauses_seconds=())
    solr.will_answer((200, {"collections": []}), (200, {}))
    client.collections()
    client.commit("run")
    assert [asked_as(header) for header in solr.authorizations] == ["boss:a:ä", "clerk:b"]


def test_a_solr_that_asks_nobody_is_told_no_name(solr, client):
    solr.will_answer((200, {"collections": []}))
    client.collections()
    assert solr.authorizations == [""]


def test_a_wrong_password_is_final_at_once_and_says_which_variable_to_correct(solr):
    client = SolrClient(solr.url, writer=("clerk", "hidden"), pauses_seconds=(0, 0))
    solr.will_answer((401, b"<html>Bad credentials</html>"))
    with pytest.raises(BadInputError, match=r"'clerk'.*TINYTAGS_SOLR_WRITER_PASSWORD.*tinytags up solr") as raised:
        client.count("run")
    assert len(solr.asked) == 1
    assert "hidden" not in str(raised.value)


def test_a_solr_that_asks_who_calls_is_told_of_with_the_variables_to_set(solr, client):
    solr.will_answer((401, b"<html>Authentication required</html>"))
    with pytest.raises(BadInputError, match="set TINYTAGS_SOLR_ADMIN_USER and TINYTAGS_SOLR_ADMIN_PASSWORD"):
        client.collections()


@pytest.mark.parametrize(
    ("collections", "aliases", "error"),
    [([], {}, MissingError), (["run"], {}, TransientError), ([], {"run": "run-1"}, TransientError)],
)
def test_a_collection_that_is_not_there_is_missing_where_solr_only_says_403(solr, collections, aliases, error):
    client = SolrClient(solr.url, pauses_seconds=())
    solr.will_answer(
        (403, b"<html>Unauthorized request</html>"), (200, {"collections": collections}), (200, {"aliases": aliases})
    )
    with pytest.raises(error) as raised:
        client.count("run")
    assert type(raised.value) is error


def test_a_collection_that_solr_knows_and_does_not_serve_yet_is_waited_for(solr):
    client = SolrClient(solr.url, pauses_seconds=())
    solr.will_answer((404, b"<html>Not Found</html>"), (200, {"collections": ["run"]}))
    with pytest.raises(EngineDownError, match="does not serve it yet"):
        client.count("run")


def test_what_solr_forbids_its_writer_while_it_knows_no_user_is_tried_again(solr):
    client = SolrClient(solr.url, pauses_seconds=(0,))
    solr.will_answer(
        (403, b"<html>Unauthorized request</html>"),
        (200, {"collections": ["run"]}),
        (200, {"response": {"numFound": 7, "docs": []}}),
    )
    assert client.count("run") == 7


def test_an_answer_that_takes_too_long_is_an_engine_that_is_down(solr):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = SolrClient(f"http://127.0.0.1:{silent.getsockname()[1]}/solr", pauses_seconds=(), timeout_seconds=0.05)
        with pytest.raises(EngineDownError, match="ReadTimeoutError"):
            client.collections()


def test_a_reader_searches_with_parameters_of_any_length_and_number(solr):
    reader = SolrHttp(solr.url, "reader", ("reader", "c"), pauses_seconds=())
    solr.will_answer((200, {"response": {}}))
    assert reader.select("live", {"q": "*:*", "fq": ["a b", "ä&c"], "tags": "x" * 100_000}) == {"response": {}}
    ((method, path, body),) = solr.asked
    assert (method, path) == ("POST", "/solr/live/select")
    asked = parse_qs(body.decode())
    assert (asked["fq"], len(asked["tags"][0]), asked["wt"]) == (["a b", "ä&c"], 100_000, ["json"])
    assert asked_as(solr.authorizations[0]) == "reader:c"


def test_a_user_who_may_not_do_that_and_an_address_that_is_not_solrs_are_told_apart(solr):
    reader = SolrHttp(solr.url, "reader", pauses_seconds=())
    solr.will_answer((403, b"<html>Unauthorized request</html>"), (200, b"<html>Welcome</html>"), (401, b""))
    with pytest.raises(ForbiddenError, match="lacks permission"):
        reader.select("live", {})
    with pytest.raises(NotSolrError, match="TINYTAGS_SOLR_URL"):
        reader.select("live", {})
    with pytest.raises(BadInputError, match="set TINYTAGS_SOLR_READER_USER"):
        reader.select("live", {})


def test_a_password_in_the_address_is_used_and_not_shown(solr):
    reader = SolrHttp(solr.url.replace("//", "//me:hid%20den@"), "reader", pauses_seconds=())
    solr.will_answer((400, {"error": {"msg": "no"}}))
    with pytest.raises(FinalError) as raised:
        reader.select("live", {})
    assert str(raised.value) == f"{solr.url}/live/select: Solr answers 400 (no)"
    assert asked_as(solr.authorizations[0]) == "me:hid den"


def test_a_field_that_the_collection_lacks_is_named(solr):
    reader = SolrHttp(solr.url, "reader", pauses_seconds=())
    solr.will_answer((400, {"error": {"msg": 'undefined field: "colour"'}}))
    with pytest.raises(UndefinedFieldError) as raised:
        reader.select("live", {})
    assert raised.value.field == "colour"


@pytest.mark.parametrize(
    ("reason", "field"),
    [
        ('undefined field: "colour"', "colour"),
        ("undefined field colour", "colour"),
        ("Undefined field: colour", "colour"),
        ("sort param could not be parsed", ""),
    ],
)
def test_solrs_words_for_an_undefined_field(reason, field):
    assert undefined_field(reason) == field


def test_images_are_read_by_a_range_of_positions_as_bytes(solr, client):
    two = b"\x0b\xa2\xe0\x22id\x23a:3\xe0\x24data\x0d\x02\x00\xff" + b"\x0b\xa1\xe2\x23a:4"  # one has no image
    solr.will_answer((200, b"\x02\xa1\xe0\x28response\x0c\x83\x45\x60\x00\x82" + two))
    assert client.images_at("run", 1, 3, 9, 2) == (5, {"a:3": b"\x00\xff"})
    (((_, path, body)),) = solr.asked
    assert path == "/solr/run/select?wt=javabin"
    assert json.loads(body)["query"].endswith("position:[3 TO 9]")
    assert json.loads(body)["filter"].endswith("block:1")
    assert json.loads(body)["limit"] == 2


def test_a_refusal_in_the_binary_format_says_why(solr, client):
    refusal = b'\x02\xa1\xe0\x25error\xa1\xe0\x23msg\x34undefined field: "x"'
    solr.will_answer((400, refusal))
    with pytest.raises(UndefinedFieldError, match='undefined field: "x"'):
        client.images_at("run", 1, 3, 9, 2)


def test_a_binary_response_that_is_cut_short_is_refused(solr, client):
    solr.will_answer((200, b"\x02\xa1\xe0\x28respo"))
    with pytest.raises(NotSolrError, match="TINYTAGS_SOLR_URL"):
        client.images_at("run", 1, 3, 9, 2)


def counted(count, **same):
    """Return Solr's answer of how many documents there are, and how many have each field's most frequent value."""
    fields = {name: {"buckets": [{"val": value, "count": of}]} for name, (value, of) in same.items()}
    return 200, {"facets": {"count": count, **fields}}


def exported(*documents):
    return 200, {"response": {"numFound": len(documents), "docs": list(documents)}}


def asked_fields(solr):
    """Return the fields that each export asked for."""
    queries = (parse_qs(path.partition("?")[2]) for _, path, _ in solr.asked if "/export?" in path)
    return [query["fl"][0].split(",") for query in queries]


def test_fields_that_all_documents_have_in_common_are_counted_instead_of_read(solr, client):
    solr.will_answer(
        counted(2, model=("m", 2), block=(7, 1), width=(32, 2)),
        exported({"id": "a:3", "position": 3, "block": 7}, {"id": "a:4", "position": 4, "block": 8}),
    )
    found = client.export(("run",), ("id", "position", "block", "model", "width"), first=3, last=9)
    same = {"model": "m", "width": 32}
    assert found == [{"id": "a:3", "position": 3, "block": 7, **same}, {"id": "a:4", "position": 4, "block": 8, **same}]
    assert asked_fields(solr) == [["id", "position", "block"]]
    assert json.loads(solr.asked[0][2])["query"].endswith("position:[3 TO 9]")


def test_a_field_that_one_document_lacks_is_read(solr, client):
    one = {"id": "a:4", "position": 4}
    solr.will_answer(counted(2, width=(32, 1)), exported({"id": "a:3", "position": 3, "width": 32}, one))
    assert client.export(("run",), ("id", "position", "width"))[1] == one
    assert asked_fields(solr) == [["id", "position", "width"]]


def test_all_fields_are_read_if_the_number_of_documents_changes_meanwhile(solr, client):
    more = [{"id": "a:3", "position": 3, "model": "m"}, {"id": "a:4", "position": 4, "model": "other"}]
    without = [{"id": each["id"], "position": each["position"]} for each in more]
    solr.will_answer(counted(1, model=("m", 1)), exported(*without), exported(*more))
    assert client.export(("run",), ("id", "position", "model")) == more


def test_documents_of_several_cores_come_by_position(solr, client):
    solr.will_answer(
        counted(1, model=("m", 1)),
        exported({"id": "a:4", "position": 4}),
        counted(1, model=("n", 1)),
        exported({"id": "a:3", "position": 3}),
    )
    found = client.export(("one", "two"), ("id", "position", "model"))
    assert [(each["position"], each["model"]) for each in found] == [(3, "n"), (4, "m")]
    assert [path.split("/")[2] for _, path, _ in solr.asked] == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    "response", [{"numFound": 2, "docs": [{"EXCEPTION": "out of memory"}]}, {"numFound": 2, "docs": [{"id": "a:3"}]}]
)
def test_an_export_that_breaks_off_is_worth_a_retry(solr, client, response):
    solr.will_answer(counted(2), (200, {"response": response}))
    with pytest.raises(TransientError, match=r"out of memory|1 of 2 documents came"):
        client.export(("run",), ("id", "position"))
