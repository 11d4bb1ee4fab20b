"""Lists of models and corpora with one damaged record: the others are listed, and the damaged one is named."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from small_run import CORPUS, MODEL, card, make_corpus, publish_model
from typer.testing import CliRunner

from tinytags_tasks.cli import app, corpora, models
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.score.plan import PlanRequest, latest_model, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.models import list_models

WORDS = ["cat", "dog", None, "cat"] * 10
DAMAGED = "forest-ba9876543210"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """A store with a corpus and a model, and the commands that work on it."""
    storage = LocalStorage(tmp_path / "store")
    make_corpus(storage)
    publish_model(storage)
    settings = SimpleNamespace(corpora_folder=tmp_path / "corpora")
    for module in (corpora, models):
        monkeypatch.setattr(module, "clients", lambda: SimpleNamespace(storage=storage, settings=settings))
    for name in (CORPUS, "zoo"):
        save_definition(settings.corpora_folder, CorpusDefinition(name=name, source="/x.bin", format="tiny-images"))
    return storage


def damage_the_card(storage):
    storage.write(layout.card_file(DAMAGED), b"{")


def lose_the_card(storage):
    storage.write(layout.model_file(DAMAGED), b"")


def write_the_card_by_a_newer_version(storage):
    newer = {**json.loads(card().stored()), "format": 99}
    storage.write(layout.card_file(DAMAGED), json.dumps(newer).encode())


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("plant", "remedy"),
    [
        (damage_the_card, "train or import the same model again"),
        (lose_the_card, "train or import the same model again"),
        (write_the_card_by_a_newer_version, "upgrade this TinyTags"),
    ],
)
def test_models_are_listed_although_one_card_cannot_be_read(storage, plant, remedy, options):
    plant(storage)
    outcome = CliRunner().invoke(app, ["models", "list", *options], catch_exceptions=False)
    assert outcome.exit_code == 1
    assert MODEL in outcome.stdout
    assert DAMAGED not in outcome.stdout
    assert f"models/{DAMAGED}/model.json" in outcome.stderr
    assert remedy in outcome.stderr


def test_the_latest_model_is_found_although_another_card_cannot_be_read(storage):
    damage_the_card(storage)
    lines = []
    assert latest_model(CORPUS, storage, report=lines.append) == MODEL
    (line,) = lines
    assert f"models/{DAMAGED}/model.json" in line
    assert "train or import the same model again" in line


def test_without_any_card_that_can_be_read_no_model_is_the_latest(storage):
    storage.write(layout.card_file(MODEL), b"{")
    with pytest.raises(CorruptError, match=rf"no model's card can be read: models/{MODEL}/model\.json"):
        latest_model(CORPUS, storage)


def test_the_latest_model_is_one_for_images_of_the_size_of_the_corpus(storage):
    size = Corpus.load(storage, layout.corpus_file(CORPUS))
    other = "newer-0123456789ab"
    newer = card().replaced(version=other, height=size.height + 1, created="2099-01-01T00:00:00Z")
    newer.save(storage, layout.card_file(other))
    assert [each.version for each in list_models(storage)] == [MODEL, other]
    assert latest_model(CORPUS, storage) == MODEL
    storage.delete(layout.model_folder(MODEL))
    with pytest.raises(
        MissingError, match=rf"no model fits corpus {CORPUS}: of the latest, {other}, its image size is"
    ):
        latest_model(CORPUS, storage)


def test_a_misspelt_model_gets_the_nearest_and_all(storage):
    wrong = MODEL.replace("a", "e", 1) if "a" in MODEL else MODEL[1:]
    with pytest.raises(MissingError, match=rf"{wrong}: no such model; .*did you mean {MODEL}\?"):
        plan_run(PlanRequest(CORPUS, wrong), storage=storage)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_corpora_are_listed_although_the_totals_of_one_are_damaged(storage, options):
    storage.write(layout.corpus_file(CORPUS), b"{")
    outcome = CliRunner().invoke(app, ["corpus", "list", *options], catch_exceptions=False)
    assert outcome.exit_code == 1
    assert "zoo" in outcome.stdout
    assert f"tinytags ingest {CORPUS}" in outcome.stderr


def test_a_definition_that_cannot_be_used_has_a_row_and_the_others_theirs(storage, tmp_path):
    (tmp_path / "corpora" / "birds.toml").write_text("height = " + "9" * 5_000)
    outcome = CliRunner().invoke(app, ["corpus", "list"], catch_exceptions=False)
    assert outcome.exit_code == 1
    assert "/x.bin" in outcome.stdout
    assert next(line for line in outcome.stdout.splitlines() if "birds" in line).count("cannot be used") == 1
    assert f"left out: {tmp_path}/corpora/birds.toml: not a readable TOML file" in outcome.stderr
    listed = json.loads(CliRunner().invoke(app, ["corpus", "list", "--json"], catch_exceptions=False).stdout)
    assert [one.get("name") or one["definition"]["name"] for one in listed] == [CORPUS, "zoo", "birds"]
    assert "not a readable TOML file" in listed[2]["error"]


def test_the_keywords_of_a_corpus_are_listed_with_counts(storage):
    outcome = CliRunner().invoke(app, ["corpus", "keywords", CORPUS])
    assert isinstance(outcome.exception, BadInputError)
    assert f"corpus {CORPUS} has no keywords" in str(outcome.exception)
    images = make_corpus(storage, keywords=WORDS).images
    counts = sorted(Counter(filter(None, WORDS[:images])).items(), key=lambda item: (-item[1], item[0]))
    outcome = CliRunner().invoke(app, ["corpus", "keywords", CORPUS, "--json"], catch_exceptions=False)
    assert json.loads(outcome.stdout) == [{"keyword": keyword, "images": count} for keyword, count in counts]
    outcome = CliRunner().invoke(app, ["corpus", "keywords", CORPUS, "--limit", "1"], catch_exceptions=False)
    assert f"1 of {len(counts)} keywords; --limit {len(counts)} shows all" in outcome.stdout


@pytest.mark.parametrize("command", ["models", "corpus"])
def test_a_list_without_damage_ends_well(storage, command):
    outcome = CliRunner().invoke(app, [command, "list"], catch_exceptions=False)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
