"""The folder of definitions: no file in it is half-written, or overwritten without being asked."""

import threading
from pathlib import Path

import pytest

from tinytags_tasks.corpus.definition import CorpusDefinition, make_definition, read_definition
from tinytags_tasks.corpus.registry import list_definitions, load_definition, remove_definition, save_definition
from tinytags_tasks.errors import BadInputError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "corpora"


def define(name="birds", **fields):
    return make_definition(name, {"source": "/pictures", "format": "folder", **fields})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_listed_and_loaded(folder):
    assert list_definitions(folder) == []
    assert save_definition(folder, define("birds", description="größer"))
    assert save_definition(folder, define("ants"))
    assert list_definitions(folder) == ["ants", "birds"]
    assert load_definition(folder, "birds") == define("birds", description="größer")
    assert names(folder) == ["ants.toml", "birds.toml"]


def test_only_definitions_are_listed(folder):
    save_definition(folder, define())
    for name in ("README.md", ".hidden.toml", ".birds.toml.0.tmp", "birds.toml~"):
        (folder / name).write_text("x")
    assert list_definitions(folder) == ["birds"]


def test_the_same_definition_is_not_written_again(folder):
    save_definition(folder, define())
    before = (folder / "birds.toml").stat()
    assert save_definition(folder, define()) is False
    assert (folder / "birds.toml").stat() == before


def test_a_definition_that_a_person_wrote_otherwise_is_the_same_when_it_says_the_same(folder):
    folder.mkdir(parents=True)
    (folder / "birds.toml").write_text('# mine\nformat = "folder"\nheight = 32\nsource = "/pictures"\n')
    assert save_definition(folder, define()) is False
    assert (folder / "birds.toml").read_text().startswith("# mine")


def test_another_definition_is_replaced_only_on_demand(folder):
    save_definition(folder, define())
    with pytest.raises(BadInputError, match=r"birds\.toml: another definition has this name; see .*, or --replace it"):
        save_definition(folder, define(resize="fit"))
    assert load_definition(folder, "birds") == define()
    assert save_definition(folder, define(resize="fit"), replace=True)
    assert load_definition(folder, "birds") == define(resize="fit")
    assert names(folder) == ["birds.toml"]


def test_a_damaged_definition_is_named_and_may_be_replaced(folder):
    folder.mkdir(parents=True)
    (folder / "birds.toml").write_text("source = ")
    for act in (lambda: load_definition(folder, "birds"), lambda: save_definition(folder, define())):
        with pytest.raises(BadInputError, match=r"birds\.toml: not a readable TOML file"):
            act()
    assert save_definition(folder, define(), replace=True)
    assert load_definition(folder, "birds") == define()


def test_a_file_whose_name_cannot_be_a_corpus_name_is_named(folder):
    folder.mkdir(parents=True)
    (folder / "My Birds.toml").write_text('source = "/p"\nformat = "folder"\n')
    with pytest.raises(BadInputError, match=r"corpora/My Birds\.toml: 'My Birds' cannot be the name of a corpus"):
        load_definition(folder, "My Birds")


def test_a_misspelt_corpus_is_named_with_the_nearest_one(folder):
    save_definition(folder, define())
    with pytest.raises(
        BadInputError, match=r"brids\.toml: no such corpus is defined \(.*birds\); did you mean birds\?"
    ):
        load_definition(folder, "brids")


def test_a_corpus_that_is_not_defined_is_named_with_those_that_are(folder):
    with pytest.raises(
        BadInputError, match=r"birds\.toml: no such corpus is defined \(defined corpora: none\); .* add birds SOURCE`"
    ):
        load_definition(folder, "birds")
    save_definition(folder, define("ants"))
    with pytest.raises(BadInputError, match=r"\(defined corpora: ants\)"):
        load_definition(folder, "birds")


@pytest.mark.parametrize("act", [load_definition, remove_definition])
@pytest.mark.parametrize("name", ["../birds", "/etc/passwd", "Birds", "", "birds.toml", "b\0"])
def test_a_name_that_leads_elsewhere_is_refused(folder, act, name):
    with pytest.raises(BadInputError, match="cannot be the name of a corpus"):
        act(folder, name)


def test_a_definition_is_removed_once(folder):
    assert remove_definition(folder, "birds") is False
    save_definition(folder, define())
    save_definition(folder, define("ants"))
    assert remove_definition(folder, "birds") is True
    assert remove_definition(folder, "birds") is False
    assert list_definitions(folder) == ["ants"]


def test_a_write_that_fails_leaves_the_old_definition_and_nothing_else(folder, monkeypatch):
    save_definition(folder, define())

    def fail(self, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(BadInputError, match=r"birds\.toml: cannot be used \(No space left on device\); fix it"):
            save_definition(folder, define(resize="fit"), replace=True)
    assert load_definition(folder, "birds") == define()
    assert names(folder) == ["birds.toml"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "corpora").write_text("x")
    folder = tmp_path / "corpora"
    for act in (lambda: list_definitions(folder), lambda: save_definition(folder, define(), replace=True)):
        with pytest.raises(BadInputError, match=r"corpora.*: cannot be used \(.*\); fix it, or set TINYTAGS_CORP"):
            act()


def test_a_folder_under_a_definitions_name_is_not_removed(folder):
    (folder / "birds.toml").mkdir(parents=True)
    with pytest.raises(BadInputError, match=r"birds\.toml: cannot be used"):
        remove_definition(folder, "birds")
    assert (folder / "birds.toml").is_dir()


def test_many_who_write_at_once_leave_one_whole_definition(folder):
    definitions = [define(description=f"{number}" * 5_000) for number in range(8)]

    def write(definition: CorpusDefinition):
        for _ in range(5):
            save_definition(folder, definition, replace=True)

    threads = [threading.Thread(target=write, args=(definition,)) for definition in definitions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_definition(folder / "birds.toml") in definitions
    assert names(folder) == ["birds.toml"]
