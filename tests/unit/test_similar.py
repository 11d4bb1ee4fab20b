"""Similar pictures: looks and vectors in documents, what keeps them right, and the searches that use them."""

import html
import io
import json
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pages_of_world import Pages, make_settings
from PIL import Image
from published_runs import World
from read_javabin import read_documents
from small_nets import HALF_NET, MEANS_NET, embed, make_net_run, means_of, publish_means_net
from small_run import (
    BLOCKS,
    CORPUS,
    MODEL,
    SolrHere,
    index_all,
    make_corpus,
    make_run,
    pictures,
    quiet,
    score_all,
)
from small_words import tag

from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.document_fields import LOOK_FIELDS, VECTOR_NUMBERS
from tinytags_tasks.errors import BadInputError, MissingError, TransientError
from tinytags_tasks.index.javabin import Body, encode_numbers
from tinytags_tasks.index.step import IndexRequest, index_blocks
from tinytags_tasks.look import looks
from tinytags_tasks.nets import vectors
from tinytags_tasks.nets.shipped import shipped_card
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.review.words import say
from tinytags_tasks.score import plan
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.search import similar
from tinytags_tasks.search.embedder import MOST_PICTURE_BYTES, Embedder
from tinytags_tasks.search.query import solr_parameters
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_identity import rebuild_run
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.prune_embeddings import find_embeddings


@pytest.fixture
def run(storage, solr):
    """Return a run whose documents have vectors."""
    planned = make_net_run(storage)
    embed(storage)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    return planned


def scenes(count: int) -> np.ndarray:
    """Return pictures that are as smooth as photographs, uint8 (count, 32, 32, 3)."""
    coarse = np.random.default_rng(5).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in coarse])


def looks_of(images: np.ndarray) -> np.ndarray:
    return looks(images.reshape(len(images), -1), images.shape[2])


# Looks


def test_compressed_copies_share_a_look_and_different_pictures_do_not() -> None:
    originals = scenes(200)
    copies = []
    for picture in originals:
        stored = io.BytesIO()
        Image.fromarray(picture).save(stored, "JPEG", quality=85)
        copies.append(np.asarray(Image.open(stored)))
    first, second = looks_of(originals), looks_of(np.stack(copies))
    assert (first == second).any(axis=1).mean() > 0.95
    assert all(len(set(first[:, column].tolist())) == len(first) for column in (0, 1))


def test_a_larger_copy_shares_a_look() -> None:
    small = scenes(100)
    large = np.stack([np.asarray(Image.fromarray(one).resize((96, 96), Image.Resampling.BICUBIC)) for one in small])
    assert (looks_of(small) == looks_of(large)).any(axis=1).mean() > 0.9


def test_looks_never_change() -> None:
    """Otherwise every document of every collection would differ from its picture."""
    ramp = np.arange(2 * 32 * 32 * 3, dtype=np.int64).reshape(2, 32, 32, 3) * 7 % 256
    assert looks_of(ramp.astype(np.uint8)).tolist() == [[179264376, -1010425088]] * 2
    assert looks_of(np.zeros((1, 4, 6, 3), dtype=np.uint8)).tolist() == [[62157585, 62157585]]


# Documents


def test_lists_of_numbers_are_sent_as_they_are() -> None:
    rows = np.array([[-128, -1, 0, 127], [1, 2, 3, 4]], dtype=np.int8)
    body = Body()
    common = {"tag": "cat"}
    for row, number in zip(encode_numbers(rows), (-(2**31), -1), strict=True):
        body.add({"vector": row, "look": number}, common)
    found = read_documents(body.finished())
    assert [document["vector"] for document in found] == rows.tolist()
    assert [document["look"] for document in found] == [-(2**31), -1]


def test_documents_have_their_own_embedding_and_look(run, solr) -> None:
    images = pictures()
    for document in solr.documents(run.collection).values():
        position = document["position"]
        own = (images[position].reshape(-1)[:10] // 2).tolist()
        assert document["vector"] == own + [0] * (VECTOR_NUMBERS - len(own))
        assert [document[name] for name in LOOK_FIELDS] == looks_of(images[position : position + 1])[0].tolist()


def test_a_corrected_document_keeps_its_vector_and_look(storage, run, solr) -> None:
    before = {name: dict(document) for name, document in solr.documents(run.collection).items()}
    name, document = next(iter(before.items()))
    other = "dog" if document["tag"] == "cat" else "cat"
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(corpus, (tag(document["position"], other),), by="ann", storage=storage, report=quiet)
    apply_corrections(run, storage=storage, solr=solr, report=quiet)
    after = solr.documents(run.collection)[name]
    assert after["tag"] == other
    for field in ("vector", "data", *LOOK_FIELDS):
        assert after[field] == document[field]


def test_a_block_whose_embeddings_are_gone_is_not_indexed_without_vectors(storage, run, solr) -> None:
    storage.delete(layout.embeddings_file(CORPUS, HALF_NET, 0))
    with pytest.raises(MissingError, match=f"tinytags embed {CORPUS} --net {HALF_NET} --blocks 0"):
        index_blocks(IndexRequest(run.name, (0,), redo=True), storage=storage, solr=solr, report=quiet)


def test_a_collection_from_before_vectors_gets_documents_without(storage, solr, monkeypatch) -> None:
    planned = make_net_run(storage)
    embed(storage)
    score_all(storage, planned)
    known = solr.field_names(planned.collection) - {"vector", *LOOK_FIELDS}
    monkeypatch.setattr(solr, "field_names", lambda collection: known)
    index_all(storage, planned, solr)
    assert not any(
        {"vector", *LOOK_FIELDS} & document.keys() for document in solr.documents(planned.collection).values()
    )
    assert compare_all(planned, storage, solr) == {}


# Comparing


def compare_all(run: Run, storage: LocalStorage, solr: SolrHere) -> dict[int, str]:
    """Return each block's problem, by comparing all and by a sample, which must agree."""
    comparison = PictureComparison(run, Corpus.load(storage, layout.corpus_file(run.corpus)), storage, solr)
    found = {}
    for block in range(BLOCKS):
        positions = read_scored(storage, run.name, block)[0].column("position").to_pylist()
        for batch in comparison.read_batches(block):
            if problem := comparison.block_problem(positions, batch):
                found.setdefault(block, problem)
    assert comparison.sample(read_ledger(storage, run), 1_000) == found
    return found


@pytest.mark.parametrize("thumbnails", ["solr", "store"])
def test_a_vector_or_a_look_that_was_changed_is_found(storage, solr, thumbnails) -> None:
    model = make_net_run(storage).model
    embed(storage)
    request = PlanRequest(CORPUS, model, thumbnails=thumbnails, similar="on")
    planned = Run.load(storage, layout.run_file(plan_run(request, storage=storage, report=quiet).run))
    score_all(storage, planned)
    index_all(storage, planned, solr)
    assert compare_all(planned, storage, solr) == {}
    for name, document in solr.documents(planned.collection).items():
        good = dict(document)
        document["vector"] = [*good["vector"][:-1], 1]
        expected = f"document {name} has another vector than the picture's embedding"
        assert compare_all(planned, storage, solr) == {good["block"]: expected}
        document.update(good)
        document["other_look"] += 1
        expected = f"document {name} has another look than its picture in the shard"
        assert compare_all(planned, storage, solr) == {good["block"]: expected}
        document.update(good)
        del document["vector"]
        assert good["block"] in compare_all(planned, storage, solr)
        document.update(good)


# Planning


def planned_net(storage, model: str, similar: str, told: list[str]) -> str:
    request = PlanRequest(CORPUS, model, similar=similar)
    return Run.load(storage, layout.run_file(plan_run(request, storage=storage, report=told.append).run)).similar


def test_a_run_has_vectors_unless_they_are_off_or_the_corpus_is_large(storage, monkeypatch) -> None:
    model = make_net_run(storage).model
    told: list[str] = []
    assert planned_net(storage, model, "auto", told) == planned_net(storage, model, "on", told) == HALF_NET
    assert planned_net(storage, model, "off", told) == ""
    assert told == []
    monkeypatch.setattr(vectors, "MOST_IMAGES", 2)
    assert planned_net(storage, model, "auto", told) == ""
    assert planned_net(storage, model, "on", told) == HALF_NET
    assert ["more than 2 images" in line for line in told] == [True]


def test_a_model_on_pixels_takes_the_shipped_nets_embeddings_if_they_are_there(storage, monkeypatch) -> None:
    make_run(storage)
    told: list[str] = []
    assert planned_net(storage, MODEL, "auto", told) == ""
    assert "tinytags embed" in told[0]
    with pytest.raises(BadInputError, match="tinytags embed"):
        planned_net(storage, MODEL, "on", told)


def test_a_run_that_was_planned_is_found_again_whatever_was_embedded_since(storage, monkeypatch) -> None:
    make_run(storage)
    told: list[str] = []
    request = PlanRequest(CORPUS, MODEL, similar="auto")
    before = plan_run(request, storage=storage, report=quiet).run
    monkeypatch.setattr(plan, "choose_vectors", lambda *_: shipped_card().version)
    assert plan_run(request, storage=storage, report=told.append).run == before
    assert told == [f"run {before} was planned without vectors, and is taken; --similar on plans another"]
    assert plan_run(replace(request, similar="on"), storage=storage, report=quiet).run != before


def test_vectors_are_part_of_a_runs_name_which_proves_a_damaged_record(storage) -> None:
    model = make_net_run(storage).model
    names = {
        choice: plan_run(PlanRequest(CORPUS, model, similar=choice), storage=storage, report=quiet).run
        for choice in ("on", "off")
    }
    assert names["on"] != names["off"]
    for choice, net in (("on", HALF_NET), ("off", "")):
        storage.write(layout.run_file(names[choice]), b"damaged", overwrite=True)
        assert rebuild_run(names[choice], storage).similar == net


def test_embeddings_that_a_run_has_as_vectors_are_not_pruned(storage, run) -> None:
    for version in storage.names(layout.MODELS):
        storage.delete(layout.model_folder(version))
    assert find_embeddings(storage) == ((), {})
    assert [found.net for found in find_embeddings(storage, without={run.name})[0]] == [HALF_NET]
    run.replaced(pruned="2026-01-01T00:00:00+00:00").save(storage, layout.run_file(run.name))
    (found,) = find_embeddings(storage)[0]
    assert found.net == HALF_NET


# Searching


def test_one_of_alike_pictures_is_left_and_older_indexes_say_that_they_cannot() -> None:
    asked = solr_parameters(SearchRequest(is_one_of_alike=True))
    assert [filter_ for filter_ in asked["fq"] if "collapse" in filter_] == [
        f"{{!collapse field={name} nullPolicy=expand max=accuracy}}" for name in LOOK_FIELDS
    ]
    with pytest.raises(BadInputError, match="tinytags run"):
        solr_parameters(SearchRequest(is_one_of_alike=True), frozenset({"look"}))


# Pictures that readers hand in


@pytest.fixture
def embedder():
    made = Embedder()
    yield made
    made.close()


@pytest.fixture
def corpus(storage):
    make_corpus(storage)
    publish_means_net(storage)
    return Corpus.load(storage, layout.corpus_file(CORPUS))


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    stored = io.BytesIO()
    Image.fromarray(picture).save(stored, kind)
    return stored.getvalue()


def test_a_picture_is_embedded_like_the_corpus_own_and_not_stored(storage, corpus, embedder) -> None:
    before = sorted(str(path) for path in storage.root.rglob("*"))
    for picture in pictures()[:2]:
        found = embedder.embed(encoded(picture), MEANS_NET, corpus, storage)
        np.testing.assert_array_equal(found, means_of(picture[None])[0])
    assert sorted(str(path) for path in storage.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("upload", "said"),
    [(b"", "0 bytes"), (b"no picture", "neither JPEG"), (b"x" * (MOST_PICTURE_BYTES + 1), "more than 10 MB")],
)
def test_what_is_no_picture_is_refused(storage, corpus, embedder, upload, said) -> None:
    with pytest.raises(BadInputError, match=said):
        embedder.embed(upload, MEANS_NET, corpus, storage)


def test_a_broken_picture_leaves_the_decoder_working(storage, corpus, embedder) -> None:
    good = encoded(pictures()[0])
    with pytest.raises(BadInputError, match="cannot be read"):
        embedder.embed(good[: len(good) // 2], MEANS_NET, corpus, storage)
    assert embedder.embed(good, MEANS_NET, corpus, storage).shape == (3,)


def test_too_many_pictures_at_once_are_refused_for_the_moment(storage, corpus, embedder, monkeypatch) -> None:
    good = encoded(pictures()[0])
    begun, may_end = threading.Semaphore(0), threading.Event()

    def decode(upload: bytes, target: object) -> np.ndarray:
        begun.release()
        assert may_end.wait(20)
        return pictures()[:1].reshape(1, -1)

    monkeypatch.setattr(embedder, "_decode", decode)
    threads = [
        threading.Thread(target=embedder.embed, args=(good, MEANS_NET, corpus, storage), daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=20)
    while embedder._under_way._value:
        threading.Event().wait(0.01)
    with pytest.raises(TransientError, match="try again"):
        embedder.embed(good, MEANS_NET, corpus, storage)
    may_end.set()
    for thread in threads:
        thread.join(20)
    assert embedder.embed(good, MEANS_NET, corpus, storage).shape == (3,)


# The pages


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run whose documents have vectors is live."""
    storage, solr = LocalStorage(tmp_path_factory.mktemp("world")), SolrHere()
    planned = make_net_run(storage)
    embed(storage)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    made = World(storage, solr, (planned,))
    made.publish(planned)
    return made


@pytest.fixture
def asked(monkeypatch):
    """Solr's parameters of each search for similar pictures."""
    found: list[dict] = []
    monkeypatch.setattr(similar, "ask_solr", lambda settings, parameters: found.append(parameters) or NEAREST)
    return found


NEAREST = {
    "response": {
        "numFound": 1,
        "docs": [
            {
                "id": f"{CORPUS}:1",
                "corpus": CORPUS,
                "tag": "dog",
                "accuracy": 100,
                "votes": 10,
                "block": 0,
                "position": 1,
                "model": "m",
                "vector": list(range(VECTOR_NUMBERS)),
            }
        ],
    }
}


@pytest.fixture
def pages(prepared, tmp_path, monkeypatch):
    made = Pages(prepared, make_settings(tmp_path / "home", monkeypatch), monkeypatch)
    monkeypatch.setattr(made.app.state.context.live, "_fields", {})
    return made


def test_the_nearest_are_asked_for_after_the_filters_and_without_the_picture_itself(pages, asked) -> None:
    context = pages.app.state.context
    request = SearchRequest(similar_to=f"{CORPUS}:0", block=0, min_confidence=70, rows=10)
    page = similar.similar_to(context, request)
    assert [image.id for image in page.images] == [f"{CORPUS}:1"]
    vector, nearest = asked
    assert (vector["q"], vector["id"]) == ("{!term f=id v=$id}", f"{CORPUS}:0")
    assert nearest["q"] == "{!knn f=vector topK=200 v=$vector}"
    assert json.loads(nearest["vector"]) == list(range(VECTOR_NUMBERS))
    assert nearest["collection"] == vector["collection"] == pages.world.live()
    assert (nearest["block"], nearest["rows"], nearest["similar_to"]) == (0, 10, f"{CORPUS}:0")
    assert any("accuracy:[70 TO" in each for each in nearest["fq"])
    assert any("must_not=$itself" in each for each in nearest["fq"])
    assert "cursorMark" not in nearest and "json.facet" not in nearest


@pytest.mark.parametrize(("name", "error"), [("x", BadInputError), ("a:b", BadInputError), ("other:1", MissingError)])
def test_a_picture_that_is_not_there_is_named(pages, asked, name, error) -> None:
    with pytest.raises(error, match=name.partition(":")[0]):
        similar.similar_to(pages.app.state.context, SearchRequest(similar_to=name))
    assert asked == []


def test_an_older_run_says_that_it_has_no_vectors(pages, asked, monkeypatch) -> None:
    live = [replace(one, run=one.run.replaced(similar="")) for one in pages.app.state.context.live.runs()]
    monkeypatch.setattr(type(pages.app.state.context.live), "runs", lambda self: tuple(live))
    context = pages.app.state.context
    with pytest.raises(MissingError, match="--similar on"):
        similar.similar_to(context, SearchRequest(similar_to=f"{CORPUS}:1"))
    with pytest.raises(MissingError, match="--similar on"):
        similar.similar_to_picture(context, SearchRequest(), encoded(pictures()[0]))


def test_a_picture_need_not_have_the_precision_that_is_asked_of_others(pages, asked, monkeypatch) -> None:
    context = pages.app.state.context
    (live,) = context.live.runs()
    table = SimpleNamespace(is_measured=True, curves={})
    monkeypatch.setattr(context.searches.measured, "tables", lambda runs, is_needed: {live.run.corpus: table})
    similar.similar_to(context, SearchRequest(similar_to=f"{CORPUS}:0", min_precision=90))
    vector, nearest = asked
    assert len(nearest["fq"]) == len(vector["fq"]) + 2  # the precision, and not itself


def test_pictures_are_compared_in_the_corpora_that_are_asked_for(pages, asked, monkeypatch) -> None:
    context = pages.app.state.context
    (live,) = context.live.runs()
    other = replace(live, run=live.run.replaced(corpus="other", similar="another net"))
    monkeypatch.setattr(type(context.live), "runs", lambda self: (other, live))
    nets = []
    monkeypatch.setattr(
        context.embedder, "embed", lambda upload, net, *which: nets.append(net) or np.arange(10, dtype=np.int8)
    )
    picture = encoded(pictures()[0])
    assert similar.similar_to_picture(context, SearchRequest(corpora=(CORPUS,)), picture).left_out == ()
    assert similar.similar_to_picture(context, SearchRequest(), picture).left_out == (CORPUS,)
    assert nets == [live.run.similar, "another net"]
    assert similar.similar_to(context, SearchRequest(similar_to=f"{CORPUS}:0")).left_out == ("other",)
    with pytest.raises(MissingError, match="of other has no vectors"):
        similar.similar_to(context, SearchRequest(similar_to=f"{CORPUS}:0", corpora=("other",)))


def hand_in(pages, picture: bytes, token: str | None = None, **kept) -> object:
    client = pages.client("reader")
    if token is None:
        form = client.get("/").text.partition('action="/similar"')[2]
        token = html.unescape(re.search('name="token" value="([^"]*)"', form)[1])
    return client.post("/similar", data={"token": token}, files={"picture": ("mine.png", picture)}, **kept)


def test_a_picture_that_is_handed_in_is_compared_by_its_embedding(pages, asked, monkeypatch) -> None:
    context = pages.app.state.context
    context.live.runs()
    numbers = np.arange(10, dtype=np.int8)
    given = []
    monkeypatch.setattr(context.embedder, "embed", lambda upload, *which: given.append(upload) or numbers)
    upload = encoded(pictures()[0])
    answer = hand_in(pages, upload)
    assert answer.status_code == 200
    assert given == [upload]
    assert json.loads(asked[0]["vector"]) == [*numbers.tolist(), *[0] * (VECTOR_NUMBERS - 10)]
    assert f"/pictures/{CORPUS}/1" in answer.text and "was not kept" in answer.text


def test_only_our_own_form_hands_pictures_in(pages, asked) -> None:
    pages.app.state.context.live.runs()
    upload = encoded(pictures()[0])
    assert hand_in(pages, upload, token="").status_code == 403
    assert hand_in(pages, upload, headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert pages.client("reader").post("/similar", data={"picture": "x"}).status_code == 400
    assert hand_in(pages, b"").status_code == 400
    assert hand_in(pages, b"x" * (MOST_PICTURE_BYTES + 2**17)).status_code == 400
    assert asked == []
