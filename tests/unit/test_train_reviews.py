"""Learning from reviews: what people said of a corpus' pictures joins the labelled set.

A stand-in replaces Spark's fit, and fifty rows the background.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from faulty_storage import files_under

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.catalogue import net_for
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lessons import learned_positions, read_teaching
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import describe_model, load_report
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Why, Word, picture_hash
from tinytags_tasks.train import logistic_spark, none, reviews, step
from tinytags_tasks.train.images import read_labelled
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.review_weight import KNOWN_WEIGHT, predict_shares
from tinytags_tasks.train.reviews import FEWEST_NONE
from tinytags_tasks.train.step import TrainResult, request_with_reviews, train_model
from tinytags_tasks.upkeep.learn import corpora_to_learn, last_request

TAGS = ("dark", "light")
IMAGES = 90
"""Pictures of the corpus: a third each of the hues red, green and blue, in many shades."""


def pictures(images: int, seed: int) -> np.ndarray:
    """Return pictures of one hue and shade each, the hue by ``position % 3``, with a little noise."""
    random = np.random.default_rng(seed)
    found = random.integers(0, 20, (images, 32, 32, 3))
    found[np.arange(images), :, :, np.arange(images) % 3] += random.integers(60, 230, images)[:, None, None]
    return found.astype(np.uint8)


@pytest.fixture
def corpus(tmp_path, storage) -> Corpus:
    return ingest(tmp_path, storage, pictures(IMAGES, seed=1))


def ingest(tmp_path: Path, storage: LocalStorage, images: np.ndarray) -> Corpus:
    source = tmp_path / "hues.bin"
    source.write_bytes(to_column_major(images))
    definition = CorpusDefinition(
        name="hues", source=str(source), format="tiny-images", shard_images=40, blocks_per_shard=4
    )
    ingest_corpus(definition, storage=storage, report=lambda line: None)
    return Corpus.load(storage, layout.corpus_file("hues"))


@pytest.fixture
def labelled(tmp_path) -> str:
    """Grey pictures: nothing that is labelled has a hue."""
    shades = np.random.default_rng(2).integers(0, 256, 40, dtype=np.uint8)
    images = np.repeat(shades, 32 * 32 * 3).reshape(40, 32, 32, 3)
    write_labelled_parquet(tmp_path / "labelled.parquet", images, (shades >= 128).astype(np.int64), TAGS)
    return str(tmp_path / "labelled.parquet")


class Spark:
    """A session that can only be stopped."""

    def stop(self) -> None:
        pass


@pytest.fixture
def lessons(monkeypatch) -> dict[bool, dict]:
    """What each fit was given, by whether it learns from the held-out images; scikit-learn fits in Spark's place."""
    given: dict[bool, dict] = {}

    def fit(folder, storage, spark, *, regularization, iterations, standardization, with_held_out):
        assert standardization  # with reviews, embeddings are learned as they are
        table = pq.read_table(storage.root / folder)
        held_out = table.column("held_out").to_numpy()
        chosen = np.ones(len(held_out), dtype=bool) if with_held_out else ~held_out
        values = np.stack([each["values"] for each in table.column("features").to_pylist()]).astype(np.float32)[chosen]
        labels = table.column("label").to_numpy().astype(np.int64)[chosen]
        weights = table.column("weight").to_numpy()[chosen] if "weight" in table.column_names else np.ones(len(labels))
        given[with_held_out] = {"labels": labels, "weights": weights, "regularization": regularization}
        classes = labels.max() + 1
        strength = regularization * weights.sum()
        zero, units = np.zeros((1, values.shape[1]), np.float32), np.eye(values.shape[1], dtype=np.float32)
        shares = np.log(
            np.maximum(predict_shares(values, labels, weights, strength, np.concatenate([zero, units]), classes), 1e-30)
        )
        return (shares[1:] - shares[0]).T, shares[0]

    background = np.random.default_rng(3).integers(0, 127, (50, 256), dtype=np.int8)
    monkeypatch.setattr(logistic_spark, "fit_weights", fit)
    monkeypatch.setattr(none, "choose_background", lambda *_: none.Chosen(background, (), ()))
    return given


def say(
    corpus: Corpus, storage: LocalStorage, said: dict[int, str], why: Why = Why.TEACH, verdict: Verdict | None = None
) -> int:
    """Say of pictures that they show a tag, or none if it is empty."""
    words = [
        Word(
            position,
            verdict or (Verdict.TAG if tag else Verdict.NONE),
            tag,
            picture=picture_at(corpus, storage, position),
            why=why,
        )
        for position, tag in said.items()
    ]
    return append_words(corpus, words, by="ada", storage=storage)


def picture_at(corpus: Corpus, storage: LocalStorage, position: int) -> bytes:
    shard, offset = divmod(position, corpus.shard_images)
    return picture_hash(
        storage.read(layout.shard_file(corpus.name, shard), offset * corpus.image_bytes, corpus.image_bytes)
    )


def of_hue(hue: int, first: int = 0, end: int = IMAGES) -> list[int]:
    return [position for position in range(first, end) if position % 3 == hue]


def train(storage: LocalStorage, labelled: str, spoken: list[str] | None = None, **changes: object) -> TrainResult:
    request = TrainRequest(labelled, **{"reviews": "hues", "held_out": 0, **changes})
    said = spoken if spoken is not None else []
    return train_model(request, storage=storage, connect_spark=Spark, report=said.append)


def card_of(storage: LocalStorage, trained: TrainResult) -> ModelCard:
    return ModelCard.load(storage, layout.card_file(trained.model))


def test_what_people_said_counts_more_than_a_labelled_picture_and_is_on_the_card(storage, corpus, labelled, lessons):
    say(corpus, storage, dict.fromkeys(of_hue(0), "light") | dict.fromkeys(of_hue(1), "") | {2: "dark"})
    trained = train(storage, labelled)
    card = card_of(storage, trained)
    assert (card.reviews.corpus, card.reviews.corpus_digest, card.reviews.upto) == ("hues", corpus.digest, 1)
    assert (card.reviews.words, card.reviews.of_tags, card.reviews.none) == (61, (1, 30), 30)
    assert card.reviews.weight > 1
    assert card.tags == TAGS
    lesson = lessons[True]
    assert lesson["labels"][-61:].tolist() == [
        1 if p % 3 == 0 else 2 if p % 3 == 1 else 0 for p in sorted([*of_hue(0), *of_hue(1), 2])
    ]
    assert (lesson["weights"][-61:] == card.reviews.weight).all()
    assert (lesson["weights"][:-61] == 1).all()
    described = describe_model(card)["learned from reviews"]
    assert described.startswith("61 pictures of corpus hues (up to request 1): dark 1, light 30, none 30; each counts")
    page = load_report(storage, trained.model)
    assert "<td>1</td><td>30</td><td>30</td><td>61</td>" in page.partition("<h2>Learned from reviews</h2>")[2]


def test_a_model_without_reviews_is_the_same_whatever_was_said(storage, corpus, labelled, lessons):
    before = train(storage, labelled, reviews=None)
    say(corpus, storage, dict.fromkeys(of_hue(0), "light"))
    again = train(storage, labelled, reviews=None)
    assert (again.model, again.trained) == (before.model, False)
    assert card_of(storage, before).reviews is None


def test_the_same_reviews_give_the_same_model_and_other_reviews_another(storage, corpus, labelled, lessons):
    say(corpus, storage, {0: "light", 1: "", 3: "light"})
    first = train(storage, labelled)
    say(corpus, storage, {4: "", 5: ""}, verdict=Verdict.UNCLEAR)  # which changes nothing of what is learned
    assert train(storage, labelled) == TrainResult(first.model, trained=False)
    say(corpus, storage, {4: ""})
    second = train(storage, labelled)
    assert second.trained
    assert second.model != first.model
    assert card_of(storage, second).reviews.upto == 3


def test_only_the_latest_word_teaches_and_only_if_it_says_what_is_shown(storage, corpus, labelled, lessons):
    say(corpus, storage, {position: "light" for position in range(6)}, why=Why.MEASURE)
    say(corpus, storage, {0: ""}, why=Why.CORRECTION)
    append_words(
        corpus,
        [
            Word(1, Verdict.WRONG, "light"),
            Word(2, Verdict.UNCLEAR),
            Word(3, Verdict.TAKEDOWN, reason="asked for", is_public=True),
            Word(4, Verdict.UNDO, undoes=1),
        ],
        by="ada",
        storage=storage,
    )
    trained = train(storage, labelled)
    assert learned_positions(card_of(storage, trained), storage) == {0, 5}
    append_words(corpus, [Word(3, Verdict.RESTORE)], by="ada", storage=storage)
    again = train(storage, labelled)
    assert learned_positions(card_of(storage, again), storage) == {0, 3, 5}
    assert learned_positions(card_of(storage, trained), storage) == {0, 5}  # it has not learned more since
    assert learned_positions(card_of(storage, again), storage, "another corpus") == set()


def test_tags_that_the_labelled_set_lacks_are_offered_and_learned_on_demand(storage, corpus, labelled, lessons):
    say(corpus, storage, dict.fromkeys(of_hue(2, 0, 15), "blue") | {0: "red", 1: "light"})
    spoken: list[str] = []
    card = card_of(storage, train(storage, labelled, spoken))
    assert card.tags == TAGS
    assert card.reviews.other_tags == {"blue": 5, "red": 1}
    assert "reviews also name blue, which the labelled set lacks: learn them, too, with --new-tags" in spoken
    assert "reviews also name red (1): a new tag is learned from 5 pictures on" in spoken
    card = card_of(storage, train(storage, labelled, new_tags=True, held_out=20, test=labelled))
    assert card.tags == (*TAGS, "blue")
    assert (card.reviews.new_tags, card.reviews.other_tags, card.reviews.of_tags) == (("blue",), {"red": 1}, (0, 1, 5))
    assert len(card.test.confusion) == len(card.held_out.confusion) == 3
    assert describe_model(card)["tags from reviews alone"] == "blue"


def test_the_same_tag_in_other_letters_is_no_other_tag(storage, corpus, labelled, lessons):
    blue = of_hue(2, 0, 15)
    say(corpus, storage, dict.fromkeys(blue, "Blue") | {blue[0]: "bluE", 0: "Light", 1: "LIGHT"})
    card = card_of(storage, train(storage, labelled, new_tags=True))
    assert card.tags == (*TAGS, "Blue")
    assert (card.reviews.other_tags, card.reviews.of_tags) == ({}, (0, 2, 5))
    assert learned_positions(card, storage) == {0, 1, *blue}


@pytest.mark.parametrize("tag", ["", " ", "two\nlines", "a" * 101])
def test_a_word_with_what_cannot_be_a_tag_is_refused_and_recorded_nowhere(storage, corpus, tag):
    with pytest.raises(BadInputError, match=r"position 3: .* is not a tag: a tag has 1 to 100 printable characters"):
        say(corpus, storage, {2: "light", 3: tag}, verdict=Verdict.TAG)
    assert len(read_teaching(corpus.name, corpus.digest, storage)) == 0


def test_a_word_is_recorded_in_one_unicode_form(storage, corpus):
    say(corpus, storage, {2: "cafe\u0301"})
    assert read_teaching(corpus.name, corpus.digest, storage).tags == ("café",)


def test_pictures_that_are_learned_from_are_not_measured_on(tmp_path, storage, corpus, labelled, lessons):
    images = pictures(IMAGES, seed=1)[:20]
    write_labelled_parquet(tmp_path / "test.parquet", images, np.arange(20) % 2, TAGS)
    # JPEG changes pictures: what was reviewed has to be what the test set holds.
    seen = read_labelled(tmp_path / "test.parquet", TAGS, 32, 32).images
    again = ingest(tmp_path, LocalStorage(tmp_path / "other"), np.concatenate([seen, images]))
    other = LocalStorage(tmp_path / "other")
    say(again, other, {position: "light" for position in range(8)})
    spoken: list[str] = []
    card = card_of(other, train(other, labelled, spoken, test=str(tmp_path / "test.parquet")))
    assert card.test.images == 12
    assert "8 of the images to measure on were reviewed, and are left out: the model learns from them" in spoken


def test_a_reviewed_picture_that_is_held_out_teaches_the_second_head_nothing(tmp_path, storage, labelled, lessons):
    corpus = ingest(tmp_path, storage, read_labelled(Path(labelled), TAGS, 32, 32).images)
    say(corpus, storage, {position: TAGS[position % 2] for position in range(40)})
    train(storage, labelled, held_out=20, none=False)
    assert len(lessons[True]["labels"]) == 80
    assert len(lessons[False]["labels"]) <= 64  # without 8 labelled images, and without the same ones as reviews


def test_without_a_background_reviews_alone_teach_none(storage, corpus, labelled, lessons, monkeypatch):
    say(corpus, storage, dict.fromkeys(of_hue(1), "") | {0: "light"})
    net = net_for("general32", storage).replaced(background_sha256="")
    monkeypatch.setattr(step, "net_for", lambda *_: net)
    monkeypatch.setattr(reviews, "load_net_card", lambda *_: net)
    card = card_of(storage, train(storage, labelled))
    assert (card.none, card.background, card.reviews.replaced_background) == (True, None, False)
    card = card_of(storage, train(storage, labelled, none=False))
    assert (card.none, card.reviews.none, card.reviews.words) == (False, 0, 1)


def test_reviews_that_the_net_was_fine_tuned_with_do_not_choose_how_much_they_count(
    storage, corpus, labelled, lessons, monkeypatch
):
    say(corpus, storage, dict.fromkeys(of_hue(0), "light") | dict.fromkeys(of_hue(1), ""))
    shipped = net_for("general32", storage)
    use = NetReviews(
        corpus="hues",
        corpus_digest=corpus.digest,
        upto=1,
        words=60,
        weight=20,
        tags=TAGS,
        of_tags=(0, 30),
        none=30,
        other_tags={},
        positions_sha256="",
    )
    spoken: list[str] = []
    for corpus_of_net, is_known in (("scans", False), ("hues", True)):
        tuned = shipped.replaced(reviews=(use.replaced(corpus=corpus_of_net),))
        monkeypatch.setattr(step, "net_for", lambda *_, tuned=tuned: tuned)
        trained = train(storage, labelled, spoken)
        assert trained.trained  # what counts otherwise is another model, though the net's bytes are the same
        assert any("the net was fine-tuned with reviews, so they cannot choose" in line for line in spoken) == is_known
    assert card_of(storage, trained).reviews.weight == KNOWN_WEIGHT
    assert (lessons[True]["weights"][-60:] == KNOWN_WEIGHT).all()


def test_a_few_reviews_of_none_teach_nothing_to_a_model_that_does_not_know_none(
    storage, corpus, labelled, lessons, monkeypatch
):
    say(corpus, storage, dict.fromkeys(of_hue(1)[: FEWEST_NONE - 1], ""))
    net = net_for("general32", storage).replaced(background_sha256="")
    monkeypatch.setattr(step, "net_for", lambda *_: net)
    monkeypatch.setattr(reviews, "load_net_card", lambda *_: net)
    with pytest.raises(BadInputError, match="no review of corpus hues says that a picture shows one of the"):
        train(storage, labelled)


def test_a_few_reviews_are_no_reason_to_refuse_where_so_many_are_asked_for(storage, corpus, labelled, lessons):
    say(corpus, storage, {0: "light", 1: ""})
    spoken: list[str] = []
    trained = train(storage, labelled, spoken, least_reviews=3)
    assert card_of(storage, trained).reviews is None
    assert any("2 reviews of corpus hues teach these tags, fewer than 3" in line for line in spoken)
    assert train(storage, labelled, reviews=None) == TrainResult(trained.model, trained=False)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "no review of corpus hues says .*: review some of its pictures, or train without --reviews"),
        ({1: "blue"}, "people named blue, which --new-tags learns from 5 pictures on"),
    ],
)
def test_reviews_that_teach_nothing_are_refused(storage, corpus, labelled, lessons, said, message):
    if said:
        say(corpus, storage, said)
    before = files_under(storage.root)
    with pytest.raises(BadInputError, match=message):
        train(storage, labelled)
    assert files_under(storage.root) == before


def test_a_corpus_that_is_not_there_or_of_another_size_is_refused(storage, corpus, labelled, lessons):
    with pytest.raises(MissingError, match="corpus elsewhere is not in the store"):
        train(storage, labelled, reviews="elsewhere")
    with pytest.raises(BadInputError, match="the images of corpus hues are 32x32, and the model is to see 8x8"):
        train(storage, labelled, height=8, width=8)
    with pytest.raises(BadInputError, match="reviews teach heads on a net's embeddings only"):
        train(storage, labelled, features="pixels")


def test_a_picture_that_is_not_the_one_that_was_reviewed_is_refused(storage, corpus, labelled, lessons):
    say(corpus, storage, {41: "light"})
    path = storage.root / layout.shard_file("hues", 1)
    stored = bytearray(path.read_bytes())
    stored[corpus.image_bytes] ^= 1
    path.write_bytes(stored)
    with pytest.raises(CorruptError, match=r"00001\.bin: position 41 is not the picture .* --redo 1`"):
        train(storage, labelled)


def test_what_was_learned_is_known_after_the_source_has_changed(tmp_path, storage, corpus, labelled, lessons):
    say(corpus, storage, {0: "light", 1: ""})
    card = card_of(storage, train(storage, labelled))
    (storage.root / layout.corpus_folder("hues")).rename(tmp_path / "before")
    images = pictures(IMAGES, seed=1)
    moved = ingest(tmp_path, storage, np.concatenate([images[5:6], images[:5]]))
    say(moved, storage, {0: "dark", 1: "light"})
    assert learned_positions(card, storage) == {1}


def test_a_log_that_lost_what_a_model_learned_from_is_reported(storage, corpus, labelled, lessons):
    say(corpus, storage, {0: "light", 1: ""})
    card = card_of(storage, train(storage, labelled))
    storage.delete(layout.review_log_file("hues", 1))
    with pytest.raises(CorruptError, match=f"does not have the words that model {card.version} learned from"):
        learned_positions(card, storage)


def test_a_corpus_is_due_when_enough_was_said_since_a_model_learned_from_it(storage, corpus, labelled, lessons):
    spoken: list[str] = []

    def due(least: int) -> list[str]:
        return corpora_to_learn(least, storage=storage, report=spoken.append)

    say(corpus, storage, dict.fromkeys(of_hue(0), "light") | dict.fromkeys(of_hue(1), ""))
    assert due(1) == []  # nobody knows yet what a model for it is trained on
    train(storage, labelled, reviews=None, corpus="hues")
    assert (due(60), due(61)) == (["hues"], [])
    assert "corpus hues: people said something of 60 pictures that no model has learned yet" in spoken
    request = request_with_reviews("hues", last_request("hues", storage))
    assert (request.labelled, request.reviews, request.held_out) == (labelled, "hues", 0)
    trained = train_model(request, storage=storage, connect_spark=Spark, report=spoken.append)
    assert trained.trained
    assert due(1) == []
    say(corpus, storage, {2: "blue", 0: "light", 3: "dark"})  # one is new, one is as before, one is another word
    assert (due(2), due(3)) == (["hues"], [])
    with pytest.raises(BadInputError, match="0 reviews: give 1 or more"):
        due(0)


def test_a_damaged_log_does_not_keep_other_corpora_from_learning(storage, corpus, labelled, lessons):
    say(corpus, storage, {0: "light"})
    train(storage, labelled, reviews=None, corpus="hues")
    storage.write(layout.review_log_file("hues", 1), b"no parquet", overwrite=True)
    storage.write(layout.last_training_file("elsewhere"), b"{}")
    spoken: list[str] = []
    assert corpora_to_learn(1, storage=storage, report=spoken.append) == []
    assert [line.partition(":")[0] for line in spoken] == ["corpus elsewhere is skipped", "corpus hues is skipped"]
