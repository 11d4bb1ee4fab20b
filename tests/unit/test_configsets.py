"""Configsets: what counts as a change, what a run keeps, and names that must not change."""

import shutil

import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, upload, with_comment, with_field
from small_run import CORPUS, MODEL, card, make_corpus, make_run

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError
from tinytags_tasks.index.step import prepare_collection
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import (
    CONFIGSET_FOLDER,
    Configset,
    current_configset,
    is_own_name,
    kept_configset,
    read_configset,
)
from tinytags_tasks.store.run_records import Run


@pytest.fixture
def founding():
    return read_configset(FOUNDING_FOLDER)


def plan_again(storage, threshold=40, thumbnails="solr", model=MODEL):
    name = plan_run(PlanRequest(CORPUS, model, threshold, thumbnails=thumbnails), storage=storage).run
    return Run.load(storage, layout.run_file(name))


def names_of_runs(storage, *choices):
    """Plan runs of a model whose version does not change with this version of TinyTags; return their names."""
    make_corpus(storage)
    model = card(version="forest-0123456789ab")
    model.save(storage, layout.card_file(model.version))
    return [plan_again(storage, *choice, model=model.version).name for choice in choices]


# Values that must not change


def test_the_founding_configset_keeps_its_identity_and_the_name_that_collections_know_it_by(founding):
    assert founding.identity == "212f605053bcaeb1836beefe061f4dc2984fd971724d50d011a5827f9d808d74"
    assert founding.name == "tinytags-c38ce0817f"


def test_runs_of_the_founding_configset_keep_their_names(storage, monkeypatch):
    check_out(monkeypatch, FOUNDING_FOLDER)
    names = names_of_runs(storage, (40,), (60,), (40, "store"))
    assert names == ["pets-34457b37f5da", "pets-ae74dcbcaa4b", "pets-0248107b7890"]


def test_runs_of_a_later_configset_keep_their_names(storage, monkeypatch, tmp_path):
    assert check_out(monkeypatch, with_field(tmp_path / "conf")) == "tinytags-aa34ecfdf0"
    assert names_of_runs(storage, (40,), (40, "store")) == ["pets-34eaba05fdee", "pets-cb20dd90efac"]


def test_the_configset_of_this_checkout_changes_only_on_purpose():
    """If this changes, every corpus gets a new run the next time it is tagged: see ``docs/adr/0018-configsets.md``."""
    assert read_configset(CONFIGSET_FOLDER).name == "tinytags-380fe8e1b7"


# What counts as a change


def test_comments_white_space_and_the_order_of_attributes_do_not_count(founding, tmp_path):
    changed = read_configset(with_comment(tmp_path / "conf"))
    assert changed.files != founding.files
    assert changed.name == founding.name


def test_line_ends_of_another_system_do_not_count(founding):
    files = {path: content.replace(b"\n", b"\r\n") for path, content in founding.files.items()}
    assert Configset(files).name == founding.name


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("schema.xml", b'docValues="true"', b'docValues="false"'),
        ("schema.xml", b"<uniqueKey>id<", b"<uniqueKey>tag<"),
        ("solrconfig.xml", b"BEST_SPEED", b"BEST_COMPRESSION"),
    ],
)
def test_a_value_counts(founding, path, old, new):
    assert Configset({**founding.files, path: founding.files[path].replace(old, new)}).name != founding.name


def test_other_files_count_by_their_bytes_and_their_path(founding):
    names = [
        Configset({**founding.files, path: content}).name
        for path, content in (("stopwords.txt", b"a\n"), ("stopwords.txt", b"a\n#\n"), ("lang/stopwords.txt", b"a\n"))
    ]
    assert len({founding.name, *names}) == 4
    assert all(map(is_own_name, names))


def test_hidden_files_and_an_editors_backups_are_not_part_of_it(founding, tmp_path):
    folder = tmp_path / "conf"
    shutil.copytree(FOUNDING_FOLDER, folder)
    (folder / ".schema.xml.swp").write_bytes(b"\0")
    (folder / "schema.xml~").write_text("<schema/>")
    assert read_configset(folder) == founding


def test_a_folder_without_a_configset_or_with_broken_xml_is_told(tmp_path):
    with pytest.raises(MissingError, match="is the checkout complete"):
        read_configset(tmp_path)
    (tmp_path / "schema.xml").write_text("<schema>")
    with pytest.raises(BadInputError, match=rf"{tmp_path}/schema.xml: is not XML"):
        read_configset(tmp_path)


@pytest.mark.parametrize("name", ["tinytags-custom", "tinytags-0123456789a", "_default", "my-tinytags-0123456789"])
def test_configsets_of_others_are_not_taken_for_tinytags_own(name):
    assert not is_own_name(name)


# What a run keeps


def test_a_run_keeps_a_copy_of_its_configset_in_the_store(storage, founding, monkeypatch, tmp_path):
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = make_run(storage)
    assert run.configset == founding.name
    later = check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert kept_configset(run.configset, storage) == founding
    assert kept_configset(later, storage) == current_configset()


def test_a_copy_that_is_missing_damaged_or_of_another_configset_is_told(storage, founding, monkeypatch, tmp_path):
    check_out(monkeypatch, with_field(tmp_path / "conf"))
    with pytest.raises(MissingError, match=f"the store has no copy of configset {founding.name}"):
        kept_configset(founding.name, storage)
    path = layout.configset_file(founding.name)
    for content in (b"", founding.packed()[:-30], b"no zip"):
        storage.write(path, content)
        with pytest.raises(CorruptError, match=f"{path}: damaged"):
            kept_configset(founding.name, storage)
    storage.write(path, current_configset().packed())
    with pytest.raises(CorruptError, match=f"{path}: holds another configset"):
        kept_configset(founding.name, storage)


def test_the_copy_is_there_before_the_run_that_names_it(storage, founding):
    run = make_run(storage)
    storage.delete(layout.run_file(run.name))
    storage.delete(layout.configset_file(run.configset))
    written = []
    write = storage.write

    def note(path, content, **options):
        written.append(path)
        return write(path, content, **options)

    storage.write = note
    assert plan_again(storage).name == run.name
    assert written == [layout.configset_file(run.configset), layout.run_file(run.name)]


def test_a_changed_comment_finds_the_same_run_and_a_new_field_makes_another(storage, monkeypatch, tmp_path):
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = make_run(storage)
    check_out(monkeypatch, with_comment(tmp_path / "comment"))
    assert plan_again(storage) == run
    later = check_out(monkeypatch, with_field(tmp_path / "field"))
    other = plan_again(storage)
    assert other.collection != run.collection
    assert (other.configset, other.model, other.threshold) == (later, run.model, run.threshold)


# What a collection is made with


def prepare_run(run, storage, solr):
    prepare_collection(run.name, storage=storage, solr=solr)
    return solr.configsets()[run.collection]


def test_a_collection_is_made_with_the_configset_that_its_run_was_planned_with(storage, solr, monkeypatch, tmp_path):
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = make_run(storage)
    check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert prepare_run(run, storage, solr) == run.configset
    assert solr.uploaded[run.configset] == read_configset(FOUNDING_FOLDER)


def test_half_a_configset_of_a_killed_upload_is_uploaded_again(storage, solr, monkeypatch):
    run = make_run(storage)
    solr.upload_configset(current_configset())
    ensure = solr.ensure_collection

    def refused_until_uploaded(*arguments, **options):
        if not solr.uploaded[run.configset].files:
            raise FinalError("Can't find resource 'schema.xml'")
        return ensure(*arguments, **options)

    solr.uploaded[run.configset] = Configset({})
    monkeypatch.setattr(solr, "ensure_collection", refused_until_uploaded)
    assert prepare_run(run, storage, solr) == run.configset


def test_a_collection_that_exists_keeps_its_configset(storage, solr, monkeypatch, tmp_path):
    check_out(monkeypatch, FOUNDING_FOLDER)
    run = make_run(storage)
    prepare_run(run, storage, solr)
    check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert prepare_run(run, storage, solr) == run.configset


def forget_configset(run, storage):
    """Turn a run into one from before configsets were recorded."""
    old = run.replaced(configset="")
    old.save(storage, layout.run_file(run.name))
    storage.delete(layout.configset_file(run.configset))
    return old


def test_an_older_run_goes_on_with_what_its_collection_has(storage, solr, monkeypatch, tmp_path):
    run = make_run(storage)
    prepare_run(run, storage, solr)
    solr.configset_of[run.collection] = "tinytags-0123456789"
    forget_configset(run, storage)
    check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert prepare_run(run, storage, solr) == "tinytags-0123456789"
    assert Run.load(storage, layout.run_file(run.name)).configset == ""


def test_an_older_run_without_a_collection_gets_the_current_configset_and_keeps_it(
    storage, solr, monkeypatch, tmp_path
):
    run = forget_configset(make_run(storage), storage)
    current = check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert prepare_run(run, storage, solr) == current
    assert Run.load(storage, layout.run_file(run.name)).configset == current
    solr.delete_collection(run.collection)
    solr.delete_configset(current)
    check_out(monkeypatch, FOUNDING_FOLDER)
    assert prepare_run(run, storage, solr) == current


def test_a_configset_that_solr_has_is_enough(storage, solr, monkeypatch, tmp_path):
    run = make_run(storage)
    upload(solr, current_configset())
    storage.delete(layout.configset_file(run.configset))
    check_out(monkeypatch, with_field(tmp_path / "conf"))
    assert prepare_run(run, storage, solr) == run.configset


def test_a_configset_that_is_pruned_while_its_collection_is_made_is_uploaded_again(storage, solr, monkeypatch):
    run = make_run(storage)
    names = solr.configset_names
    upload(solr, current_configset())

    def pruned_just_after():
        monkeypatch.setattr(solr, "configset_names", names)
        found = names()
        solr.delete_configset(run.configset)
        return found

    monkeypatch.setattr(solr, "configset_names", pruned_just_after)
    assert prepare_run(run, storage, solr) == run.configset
