"""A name that is accepted at first is accepted by all that is made from it; one that is too long is refused at once."""

from functools import partial
from pathlib import Path

import pytest
from published_runs import add_corpus, make_world

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.labelled import tags_of_set
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.importing import NetImport
from tinytags_tasks.nets.recipe.training import NetTraining
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.protocol import temporary_name
from tinytags_tasks.train.import_step import ImportRequest
from tinytags_tasks.train.parameters import TrainRequest

LONGEST = "a" * layout.LONGEST_GIVEN
ALIAS = "b" * 100

DOORS = {
    "corpus": lambda name: CorpusDefinition(name=name, source="/photos", format="folder"),
    "trained model": lambda name: TrainRequest("labelled", name=name),
    "imported model": lambda name: ImportRequest("net.onnx", ("cat", "dog"), name=name),
    "imported net": lambda name: NetImport("net.onnx", name),
    "trained net": lambda name: NetTraining(name=name),
}
"""Where a person gives a name."""


@pytest.mark.parametrize("kind", DOORS)
def test_one_bound_holds_wherever_a_person_gives_a_name(kind):
    DOORS[kind](LONGEST)
    with pytest.raises(BadInputError, match="it has 88 characters; use up to 87, because names made from it are 13"):
        DOORS[kind](LONGEST + "a")


def test_the_longest_corpus_is_tagged_published_and_rolled_back_under_the_longest_alias(tmp_path):
    world = make_world(tmp_path)
    first, second = add_corpus(world, LONGEST, 40, 60)
    assert len(first.name) == 100
    world.publish(world.runs[0], first, second, alias=ALIAS)
    roll_back(RollbackRequest(ALIAS, corpus=LONGEST), storage=world.storage, solr=world.solr, report=lambda line: None)
    assert world.solr.aliases()[ALIAS] == f"{world.runs[0].collection},{first.collection}"
    assert layout.run_of_collection(first.collection) == first.name
    assert layout.corpus_of_run(first.name) == LONGEST


def test_no_path_part_made_from_the_longest_names_is_too_long_for_a_file_system():
    version = model_version(LONGEST, b"onnx")
    run = f"{LONGEST}-{'0' * 12}"
    assert len(version) == len(run) == 100
    paths = [
        layout.model_file(version),
        layout.model_lease_file(version),
        layout.net_lease_file(version),
        layout.embeddings_file(LONGEST, version, 10**6),
        layout.run_file(run),
        layout.frame_file(LONGEST, run),
        layout.next_publication_file(ALIAS),
        layout.alias_lease_file(ALIAS),
        layout.removed_folder(layout.run_folder(run)),
        f"{layout.collection_name(run)}_shard99_replica_n999",
    ]
    parts = [part for path in paths for part in (*path.split("/"), *temporary_name(path).split("/"))]
    assert max(map(len, parts)) < 200


@pytest.mark.parametrize("alias", ["-live", "_", "b" * 101, "Live"])
def test_an_alias_that_publishing_would_refuse_is_refused_as_a_setting(alias, monkeypatch):
    monkeypatch.setenv("TINYTAGS_ALIAS", alias)
    with pytest.raises(BadInputError, match="TINYTAGS_ALIAS"):
        load_settings()


@pytest.mark.parametrize("name", ["c" * 101, " cat", "two\nlines"])
def test_a_folder_whose_name_cannot_be_a_tag_is_refused_before_training(name, tmp_path: Path):
    for tag in ("dog", name):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "1.png").write_bytes(b"")
    refusals = [
        partial(tags_of_set, tmp_path),
        partial(TrainRequest, "labelled", tags=("dog", name)),
        partial(ImportRequest, "net.onnx", ("dog", name)),
    ]
    for refused in refusals:
        with pytest.raises(BadInputError, match="is not a tag: a tag has 1 to 100 printable characters"):
            refused()


def test_the_longest_tag_is_accepted(tmp_path: Path):
    for tag in ("c" * 100, "d"):
        (tmp_path / tag).mkdir()
        (tmp_path / tag / "1.png").write_bytes(b"")
    assert tags_of_set(tmp_path) == ("c" * 100, "d")
