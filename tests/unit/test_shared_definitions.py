"""A corpus that is defined on one host is known on every host, and a file that is edited by hand counts."""

import pytest
from faulty_storage import MODES, FaultyStorage, Killed

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.definitions import (
    add_definition,
    find_definition,
    forget_definition,
    known_definitions,
    share_definitions,
)
from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.store import layout


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    return tmp_path / "elsewhere"


def define(name="birds", **fields):
    return make_definition(name, {"source": "/pictures", "format": "folder", **fields})


def write(folder, text='source = "pictures"\nformat = "folder"\n', name="birds"):
    (folder / f"{name}.toml").write_text(text)


def test_a_corpus_that_was_added_is_known_on_another_host(storage, here, elsewhere):
    added = define(description="größer", options={"anon": True}, blocks_per_shard=7)
    assert add_definition(here, added, storage)
    assert known_definitions(elsewhere, storage) == ["birds"]
    assert find_definition(elsewhere, "birds", storage) == added
    assert not elsewhere.exists(), "a copy in a worker's folder would grow old"
    assert not add_definition(here, added, storage)


def test_definitions_from_before_and_those_written_by_hand_reach_the_store(storage, here, elsewhere):
    write(here)
    write(here, "damaged", name="ants")
    share_definitions(here, storage)
    share_definitions(here, storage)
    assert storage.names(layout.DEFINITIONS) == ["birds.json"]
    assert find_definition(elsewhere, "birds", storage).source == str(here / "pictures"), "relative to its own folder"


def test_using_a_definition_is_enough_to_share_it(storage, here, elsewhere):
    write(here)
    found = find_definition(here, "birds", storage)
    assert find_definition(elsewhere, "birds", storage) == found


def test_a_file_edited_by_hand_counts_before_the_copy_and_renews_it_only_where_a_person_names_it(
    storage, here, elsewhere
):
    add_definition(here, define(), storage)
    write(here, 'source = "/others"\nformat = "folder"\n')
    assert find_definition(here, "birds", storage).source == "/others"
    assert find_definition(elsewhere, "birds", storage).source == "/pictures", "a worker's file may be old"
    find_definition(here, "birds", storage, renew=True)
    assert find_definition(elsewhere, "birds", storage).source == "/others"


def test_another_definition_in_the_store_is_not_replaced_without_being_asked(storage, here, elsewhere):
    add_definition(here, define(), storage)
    with pytest.raises(BadInputError, match=r"birds: another definition has this name in the store.*--replace"):
        add_definition(elsewhere, define(source="/others"), storage)
    assert not elsewhere.exists()
    assert add_definition(elsewhere, define(source="/others"), storage, replace=True)
    assert find_definition(elsewhere, "birds", storage).source == "/others"


def test_a_removed_definition_is_gone_everywhere(storage, here, elsewhere):
    add_definition(here, define(), storage)
    assert forget_definition(elsewhere, "birds", storage), "also from a host that only has the store's copy"
    assert forget_definition(here, "birds", storage)
    assert not forget_definition(here, "birds", storage)
    with pytest.raises(BadInputError, match=r"birds.toml: no such corpus is defined, neither here nor in the store"):
        find_definition(here, "birds", storage)


def test_a_misspelt_name_is_answered_with_the_nearest_one(storage, here, elsewhere):
    add_definition(here, define(), storage)
    with pytest.raises(BadInputError, match=r"defined corpora: birds\); did you mean birds\?"):
        find_definition(elsewhere, "brids", storage)


def test_a_damaged_copy_is_named_and_written_again_by_the_host_that_has_the_file(storage, here, elsewhere):
    add_definition(here, define(), storage)
    storage.write(layout.definition_file("birds"), b'{"toml": "half', overwrite=True)
    with pytest.raises(CorruptError, match=r"definitions/birds.json.*`tinytags corpus show birds` where its file is"):
        find_definition(elsewhere, "birds", storage)
    find_definition(here, "birds", storage, renew=True)
    assert find_definition(elsewhere, "birds", storage) == define()


@pytest.mark.parametrize("mode", MODES)
def test_an_addition_that_was_killed_is_ended_by_the_same_command(storage, here, elsewhere, mode):
    with pytest.raises(Killed):
        add_definition(here, define(), FaultyStorage(storage, 1, mode, Killed))
    add_definition(here, define(), storage)
    assert known_definitions(elsewhere, storage) == ["birds"]
    assert find_definition(elsewhere, "birds", storage) == define()
