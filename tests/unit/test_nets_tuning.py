"""Fine-tuning a net with reviewed pictures: what joins the lesson, what the cards say, what is not measured."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from made_nets import named, student_arrays
from small_run import quiet

from tinytags_tasks import cli
from tinytags_tasks.cli import net_train
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.catalogue import list_nets, load_net_card, net_version, publish_net
from tinytags_tasks.nets.description import describe_net
from tinytags_tasks.nets.recipe import make_net as recipe
from tinytags_tasks.nets.recipe.base import find_base
from tinytags_tasks.nets.recipe.graph import int8_model
from tinytags_tasks.nets.recipe.make_net import Sources, make_net, ship
from tinytags_tasks.nets.recipe.pictures import joined, plain, with_reviewed
from tinytags_tasks.nets.recipe.reviewed import ReviewedPictures, read_reviewed
from tinytags_tasks.nets.recipe.training import NetTraining
from tinytags_tasks.nets.recipe.tuning import NetTuning
from tinytags_tasks.nets.recipe.work import Work
from tinytags_tasks.nets.shipped import shipped_card, shipped_net
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.lessons import learned_positions
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import describe_model
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Why, Word, picture_hash

TAGS = ("cat", "dog")
IMAGES = 24
TINY = NetTraining(name="mine", size="tiny")
TUNING = NetTuning(name="better", base="mine", heads_epochs=1, tuning_epochs=1, batch=16, preparations=3)


def ingest(tmp_path: Path, storage: LocalStorage, name: str, seed: int = 0) -> Corpus:
    images = np.random.default_rng(seed).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    (tmp_path / f"{name}.bin").write_bytes(to_column_major(images))
    source = {"source": str(tmp_path / f"{name}.bin"), "format": "tiny-images"}
    ingest_corpus(CorpusDefinition(name=name, shard_images=10, **source), storage=storage, report=quiet)
    return load_corpus(name, storage)


@pytest.fixture
def corpus(tmp_path, storage) -> Corpus:
    return ingest(tmp_path, storage, "photos")


@pytest.fixture
def mine(tmp_path, storage) -> str:
    """The version of a tiny net of the recipe, with nothing learned."""
    return shipped(Work(tmp_path / "work", quiet), TINY, Sources(labelled=labelled(), general_names={}), storage)


def shipped(work: Work, training: NetTraining | NetTuning, sources: Sources, storage: LocalStorage) -> str:
    with work.path("student.npz").open("wb") as file:
        np.savez(file, **student_arrays())
    work.write_text("learned.json", '{"figures": {}, "parameters": {}}')
    return ship(work, training, sources, storage).version


def labelled():
    return named("pets.parquet", TAGS, 40)


def pixels_at(corpus: Corpus, storage: LocalStorage, position: int) -> bytes:
    shard, offset = corpus.partition.place(position)
    return storage.read(layout.shard_file(corpus.name, shard), offset * corpus.image_bytes, corpus.image_bytes)


def say(corpus: Corpus, storage: LocalStorage, said: dict[int, str], verdict: Verdict | None = None) -> int:
    """Say of pictures that they show a tag, or none if it is empty."""
    words = [
        Word(
            position,
            verdict or (Verdict.TAG if tag else Verdict.NONE),
            tag,
            picture=picture_hash(pixels_at(corpus, storage, position)),
            why=Why.TEACH,
        )
        for position, tag in said.items()
    ]
    return append_words(corpus, words, by="ada", storage=storage)


def reviewed_of(storage: LocalStorage, *corpora: str, weight: int = 20) -> tuple[ReviewedPictures, ...]:
    return read_reviewed(corpora, TAGS, weight, storage, quiet)


# The net that is fine-tuned


def test_the_net_that_ships_is_read_without_loss(storage):
    base = find_base("general32", storage)
    assert base.card == shipped_card()
    assert int8_model(base.arrays, base.shape, "general32").SerializeToString(deterministic=True) == shipped_net()


def test_a_net_of_ones_own_is_read_without_loss(storage, mine):
    base = find_base("mine", storage)
    assert base.card.version == mine
    again = int8_model(base.arrays, base.shape, "mine").SerializeToString(deterministic=True)
    assert net_version("mine", again) == mine


def test_a_net_from_elsewhere_is_refused(storage):
    nodes = [onnx.helper.make_node("Relu", ["pixels"], ["embedding"])]
    values = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("pixels", "embedding")]
    content = onnx.helper.make_model(onnx.helper.make_graph(nodes, "dino", values[:1], values[1:])).SerializeToString()
    card = shipped_card().replaced(version=net_version("dino", content), background_sha256="")
    publish_net(card, content, None, storage)
    with pytest.raises(BadInputError, match=r"^net dino-\w+ cannot be fine-tuned: only general32 and nets that"):
        find_base("dino", storage)


# The reviewed pictures


def test_reviewed_pictures_of_several_corpora_join_the_labelled_ones_and_are_drawn_more_often(
    tmp_path, storage, corpus
):
    other = ingest(tmp_path, storage, "scans", seed=1)
    say(corpus, storage, {3: "dog", 12: "", 0: "Cat"})
    say(other, storage, {5: "cat"})
    reviewed = reviewed_of(storage, "photos", "scans", "photos", weight=7)
    lesson = with_reviewed(joined(labelled(), None, {}), reviewed)
    assert lesson.tags[40:].tolist() == [0, 1, 2, 0]
    assert lesson.times.tolist() == [1] * 40 + [7] * 4
    assert set(lesson.classes.tolist()) == {-1}
    shown = [plain(encoded, encode_again=False).tobytes() for encoded in lesson.encoded[40:]]
    places = ((corpus, 0), (corpus, 3), (corpus, 12), (other, 5))
    assert shown == [pixels_at(source, storage, position) for source, position in places]


def test_the_card_of_the_net_says_whose_words_it_learned_up_to_which_request(tmp_path, storage, corpus, mine):
    say(corpus, storage, {0: "cat", 1: "", 2: "okapi"})
    last = say(corpus, storage, {3: ""}, verdict=Verdict.UNCLEAR)
    base, said = find_base("mine", storage), list[str]()
    reviewed = read_reviewed(["photos"], TAGS, 20, storage, said.append)
    sources = Sources(labelled=labelled(), general_names={}, base=base, reviewed=reviewed)
    card = load_net_card(storage, shipped(Work(tmp_path / "tuned", quiet), TUNING, sources, storage))
    (use,) = card.reviews
    assert (use.corpus, use.corpus_digest, use.upto) == ("photos", corpus.digest, last)
    assert (use.words, use.of_tags, use.none, use.other_tags) == (2, (1, 0), 1, {"okapi": 1})
    assert card.origin == f"learned by `tinytags nets train` from {mine} and pets.parquet"
    assert describe_net(card)["fine-tuned with reviews"] == (
        "2 pictures of corpus photos (up to request 2): cat 1, dog 0, none 1; each was drawn 20 times as often as a "
        "labelled one"
    )
    assert any("reviews also name okapi" in line for line in said)
    assert card.version in {each.version for each in list_nets(storage)}

    # What is fine-tuned again has learned from the earlier reviews, too.
    again = replace(sources, base=replace(base, card=card), reviewed=())
    further = replace(TUNING, name="best")
    assert load_net_card(storage, shipped(Work(tmp_path / "again", quiet), further, again, storage)).reviews == (use,)


def test_only_words_that_teach_make_another_training(storage, corpus):
    def identity(weight: int = 20) -> str:
        return TUNING.identity(labelled(), None, None, *reviewed_of(storage, "photos", weight=weight))

    say(corpus, storage, {0: "cat", 1: ""})
    first = identity()
    say(corpus, storage, {2: ""}, verdict=Verdict.UNCLEAR)
    assert identity() == first
    assert identity(weight=10) != first
    say(corpus, storage, {2: "dog"})
    assert identity() != first


def test_a_picture_that_is_not_the_one_that_was_looked_at_stops_the_training(storage, corpus):
    append_words(corpus, [Word(12, Verdict.TAG, "cat", picture=b"0" * 16)], by="ada", storage=storage)
    with pytest.raises(CorruptError, match="position 12 is not the picture that was reviewed; write the shard again"):
        reviewed_of(storage, "photos")


def test_test_pictures_that_were_reviewed_are_not_measured(storage, corpus):
    say(corpus, storage, {4: "cat"})
    reviewed, said = reviewed_of(storage, "photos"), list[str]()
    test = replace(
        named("test", TAGS, 4, seed=9), encoded=[*named("test", TAGS, 3, seed=9).encoded, *reviewed[0].encoded]
    )
    sources = Sources(labelled=labelled(), general_names={}, test=test, reviewed=reviewed)
    _, (pixels, tags) = recipe._test_pictures(sources, said.append)
    assert (len(pixels), tags.tolist()) == (3, [0, 1, 0])
    assert said == ["1 test pictures were reviewed, too: they are learned from, and not measured"]


# What a model on such a net is not measured on


def card_on(net: str, storage: LocalStorage, **changes: object) -> ModelCard:
    """Return the card of a model that learned from labelled pictures alone, seen through a net."""
    return ModelCard(
        version="m-0123456789ab",
        tags=TAGS,
        trees=100,
        features=net,
        height=32,
        width=32,
        preparation="",
        labelled_set="pets.parquet",
        labelled_sha256="",
        labelled_images=40,
        parameters={},
        metrics={},
        libraries={},
        seconds={},
        created="",
        **{"net_reviews": load_net_card(storage, net).reviews, **changes},
    )


def test_a_model_is_not_measured_on_pictures_that_its_net_learned_from(tmp_path, storage, corpus, mine):
    say(corpus, storage, {0: "cat", 7: "", 9: "okapi"})
    reviewed = reviewed_of(storage, "photos")
    sources = Sources(labelled=labelled(), general_names={}, base=find_base("mine", storage), reviewed=reviewed)
    net = shipped(Work(tmp_path / "tuned", quiet), TUNING, sources, storage)
    say(corpus, storage, {1: "dog"})
    card = card_on(net, storage)
    assert learned_positions(card, storage, "photos") == {0, 7}
    assert learned_positions(card, storage, "scans") == set()
    assert learned_positions(card_on(mine, storage), storage, "photos") == set()
    assert describe_model(card)["its net learned from reviews"].startswith("2 pictures of corpus photos")
    storage.delete(layout.review_log_folder("photos"))
    with pytest.raises(CorruptError, match=rf"does not have the words that net {net} learned from; restore"):
        learned_positions(card, storage, "photos")


# The command


@pytest.fixture
def run(storage, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command as if PyTorch was installed."""
    runtime = SimpleNamespace(storage=storage, settings=SimpleNamespace(home=tmp_path / "home"), files_at=SourceFiles)
    monkeypatch.setattr(net_train, "clients", lambda: runtime)
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    pets = tmp_path / "pets.parquet"
    write_labelled_parquet(pets, np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 0, 1]), TAGS)

    def run_command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tinytags", "nets", "train", str(pets), "--name", "better", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_command


def test_reviews_fine_tune_the_net_that_ships_unless_another_is_named(run, storage, corpus, mine, monkeypatch):
    given = {}

    def fake(training: NetTuning, sources: Sources, **options: object) -> SimpleNamespace:
        given.update(training=training, sources=sources)
        return SimpleNamespace(version="better-0123456789ab")

    monkeypatch.setattr(recipe, "make_net", fake)
    say(corpus, storage, {0: "cat", 1: ""})
    code, printed, errors = run("--reviews", "photos", "--tuning-epochs", "3", "--batch", "32")
    assert (code, printed) == (0, "better-0123456789ab\n"), errors
    assert given["training"] == NetTuning(name="better", base=shipped_card().version, tuning_epochs=3, batch=32)
    assert [part.use.words for part in given["sources"].reviewed] == [2]
    assert "2 reviews of corpus photos join the labelled pictures, 20 times each" in errors
    assert "the net will have no background" in errors
    code, _, errors = run("--reviews", "photos", "--from", "mine", "--review-weight", "5")
    assert code == 0, errors
    assert given["training"].base == mine
    assert given["sources"].reviewed[0].use.weight == 5
    assert "background" not in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--reviews", "photos"),
            "no review of corpus photos says that a picture shows one of the labelled set's tags",
        ),
        (("--reviews", "phtos"), "phtos"),
        (("--reviews", "photos", "--from", "nothing"), "nothing: no such net; `tinytags nets list` lists the nets"),
        (("--reviews", "photos", "--review-weight", "0"), "the weight of reviews is 0: it must be from 1 to 1,000"),
        (("--reviews", "photos", "--tuning-epochs", "0"), "tuning_epochs is 0.0: it must be from 0.01"),
    ],
)
def test_what_cannot_be_fine_tuned_is_said(run, storage, corpus, tmp_path, words, message):
    code, _, errors = run(*words)
    assert code == 2
    assert message in " ".join(errors.split())
    assert not (tmp_path / "home").exists()


# Learning


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_fine_tuning_that_was_killed_ends_in_the_same_net(tmp_path, storage, corpus, mine, monkeypatch):
    from tinytags_tasks.nets.recipe import phases

    say(corpus, storage, {position: ("cat", "dog", "")[position % 3] for position in range(IMAGES)})
    base = find_base(mine, storage)
    sources = Sources(labelled=labelled(), general_names={}, base=base, reviewed=reviewed_of(storage, "photos"))

    def learn(folder: str):
        said: list[str] = []
        options = {"folder": lambda identity: tmp_path / folder, "storage": storage, "report": said.append}
        return make_net(TUNING, sources, checkpoint_seconds=0, **options), said

    whole, _ = learn("whole")
    for name in ("heads", "tuning"):

        def dies(setup, phase, learner, optimizer, batches, done, *, name=name, keep=phases._keep):
            keep(setup, phase, learner, optimizer, batches, done)
            if (phase.name, done) == (name, 2):
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(phases, "_keep", dies)
            with pytest.raises(KeyboardInterrupt):
                learn("killed")
    resumed, said = learn("killed")
    assert any(line.startswith("tuning: goes on after") for line in said)
    assert resumed.version == whole.version
    assert whole.version != mine
    assert set(whole.figures) == {"heads: test pictures right", "tuning: test pictures right"}
    assert whole.reviews[0].words == IMAGES
    content = storage.read(layout.net_file(whole.version))
    assert hashlib.sha256(content).hexdigest().startswith(whole.version.rpartition("-")[2])
