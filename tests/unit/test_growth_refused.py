"""A growth that was refused: the corpus goes on without it, and its source may be mended."""

import shutil

import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from growing_corpus import NEW, OLD, add_new, corpus_of, define, draw, ingest, pictures_of
from ingest_steps import without_times
from small_run import quiet
from typer.testing import CliRunner

from tinytags_tasks.cli import app
from tinytags_tasks.corpus.places import ListedPlaces
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, OtherWriterError
from tinytags_tasks.ingest.plan import PlanRequest, plan_ingestion
from tinytags_tasks.ingest.plan_records import load_plan
from tinytags_tasks.ingest.verify import iterate_unreadable, verify_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage

BROKEN = NEW[-1]


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "source"
    for number, name in enumerate(OLD):
        draw(source / name, number)
    return source


@pytest.fixture
def refused(storage, folder):
    """A folder whose new pictures were refused after the first of their two shards; returns the store before that."""
    ingest(storage, folder)
    before = files_under(storage.root)
    add_new(folder, (*NEW[:2], "y/eight.png", BROKEN))
    (folder / BROKEN).write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=r"at least 1 of 4 images are unreadable.*\(8 \(z/eight.png\): not a"):
        ingest(storage, folder, grow=True)
    assert storage.exists(layout.shard_manifest_file("pets", 2))
    return before


def draw_broken(folder):
    draw(folder / BROKEN, 8)


def remove_broken(folder):
    (folder / BROKEN).unlink()


def add_others(folder):
    for number in range(10):
        draw(folder / f"others/{number}.png", 9 + number)


def test_a_run_goes_on_and_nothing_of_the_growth_is_left(storage, folder, refused):
    lines = []
    assert ingest(storage, folder, report=lines.append).images == 5
    assert any("its growth by 4 images was refused, so that it is forgotten" in line for line in lines)
    assert any("has 4 images in 4 files that corpus pets does not have; append them with" in line for line in lines)
    assert files_under(storage.root) == refused


def test_a_run_goes_on_although_the_source_is_away(storage, folder, refused):
    folder.rename(folder.with_name("away"))
    result = ingest(storage, folder)
    assert (result.images, result.awaited_images) == (5, 0)
    assert files_under(storage.root) == refused


@pytest.mark.parametrize(("mend", "images"), [(draw_broken, 9), (remove_broken, 8), (add_others, 19)])
def test_a_source_that_was_mended_is_appended_as_if_nothing_had_been_refused(
    storage, folder, refused, tmp_path, mend, images
):
    mend(folder)
    assert ingest(storage, folder, grow=True, most_unreadable_percent=10).images == images
    clean = LocalStorage(tmp_path / "clean")
    for path, content in refused.items():
        clean.write(path, content)
    ingest(clean, folder, grow=True)
    assert without_times(files_under(storage.root)) == without_times(files_under(clean.root))


def test_what_is_refused_again_goes_on_where_it_was(storage, folder, refused):
    before = files_under(storage.root)
    with pytest.raises(BadInputError, match="at least 1 of 4"):
        ingest(storage, folder, grow=True)
    assert files_under(storage.root) == before
    assert ingest(storage, folder, grow=True, most_unreadable_percent=25).unreadable == 1
    assert not storage.exists(layout.ingest_refusal_file("pets"))


@pytest.mark.parametrize("mode", MODES)
def test_a_growth_is_forgotten_whenever_that_was_killed(storage, folder, refused, tmp_path, mode):
    remove_broken(folder)
    clean = LocalStorage(tmp_path / "clean")
    shutil.copytree(storage.root, clean.root)
    counting = FaultyStorage(clean, fail_at=0)
    ingest(counting, folder, grow=True)
    expected = without_times(files_under(clean.root))
    for call in range(1, counting.calls + 1):
        killed = LocalStorage(tmp_path / f"killed-{mode}-{call}")
        shutil.copytree(storage.root, killed.root)
        with pytest.raises(Killed):
            ingest(FaultyStorage(killed, call, mode, Killed), folder, grow=True)
        assert ingest(killed, folder, grow=True).images == 8, call
        found = without_times(files_under(killed.root))
        left = {path for path in found.keys() - expected.keys() if "/source-" not in path and "refused" not in path}
        assert (left, {path: found[path] for path in expected}) == (set(), expected), call


def test_nothing_is_deleted_while_another_process_writes_a_shard(storage, folder, refused):
    before = files_under(storage.root)
    with Leases(storage).hold(layout.lease_file("pets", 3)) as is_ours:
        assert is_ours
        with pytest.raises(OtherWriterError, match="corpus pets: its earlier source is still being ingested"):
            ingest(storage, folder)
    assert files_under(storage.root) == before


def test_a_shard_that_a_slow_process_writes_of_a_forgotten_growth_is_written_again(storage, folder, refused):
    late = {path: content for path, content in files_under(storage.root).items() if "/shards/00002." in path}
    remove_broken(folder)
    request = PlanRequest(define(folder), grow=True)
    plan_ingestion(request, storage=storage, files=SourceFiles(str(folder), {}), report=quiet)
    for path, content in late.items():
        storage.write(path, content)
    assert ingest(storage, folder).images == 8
    assert sorted(pictures_of(storage)) == list(range(8))


def test_what_is_there_is_shown_and_verified_as_long_as_nobody_has_forgotten_the_growth(storage, folder, refused):
    assert list(iterate_unreadable("pets", storage=storage)) == []
    found = verify_corpus("pets", storage=storage, files=SourceFiles(str(folder), {}), deep=True, report=quiet)
    assert (found.is_intact, found.shards, found.images) == (True, 2, 5)


def test_too_many_unreadable_pictures_in_all_shards_together_bind_nobody(storage, folder):
    ingest(storage, folder)
    add_new(folder, [f"new/{number}.png" for number in range(6)])
    for number in (0, 5):
        (folder / f"new/{number}.png").write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=r"at least 2 of 6 images are unreadable.*new/0.png.*new/5.png"):
        ingest(storage, folder, grow=True, most_unreadable_percent=20)
    folder.rename(folder.with_name("away"))
    assert ingest(storage, folder, most_unreadable_percent=20).images == 5


def test_a_damaged_record_of_a_refusal_stops_no_complete_corpus(storage, folder, refused):
    storage.write(layout.ingest_refusal_file("pets"), b"{}")
    assert ingest(storage, folder).images == 5
    assert files_under(storage.root) == refused


def test_a_growth_that_was_killed_and_not_refused_still_binds(storage, folder):
    ingest(storage, folder)
    add_new(folder)
    with pytest.raises(Killed):
        ingest(FaultyStorage(storage, 6, fault=Killed), folder, grow=True)
    (folder / NEW[0]).unlink()
    with pytest.raises(BadInputError, match=r"a/six.png is missing"):
        ingest(storage, folder, grow=True)


# What else is known of a source


def test_what_is_left_out_of_the_source_is_counted_when_a_corpus_grows(storage, folder):
    (folder / "notes.txt").write_text("")
    ingest(storage, folder)
    add_new(folder)
    (folder / "more.txt").write_text("")
    for grow in (False, True):
        ingest(storage, folder, grow=grow)
        assert [(group.count, group.example) for group in load_plan(storage, "pets").left_out] == [(2, "more.txt")]


def test_the_files_of_appended_pictures_are_found(storage, folder):
    ingest(storage, folder)
    for names in (NEW[:1], NEW):
        add_new(folder, names)
        ingest(storage, folder, grow=True)
    places = ListedPlaces(storage, "pets", corpus_of(storage).sources)
    found = {position: place.path for position, place in places.find([9, 7, 0, 5, 6, -1]).items()}
    assert found == {0: "b/one.png", 5: NEW[0], 6: NEW[1], 7: NEW[2]}


def test_commands_name_the_files_of_appended_pictures_that_cannot_be_read(storage, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Runtime, "storage", storage)
    monkeypatch.setenv("TINYTAGS_CORPORA", str(tmp_path / "corpora"))
    save_definition(tmp_path / "corpora", define(folder, most_unreadable_percent=40))

    def run(*arguments):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "5 images in 2 shards, 4 blocks, 0 unreadable" in run("ingest", "pets")
    add_new(folder)
    (folder / BROKEN).write_bytes(b"no picture")
    grown = run("corpus", "grow", "pets")
    assert "5 images were there, 3 are new; 3 shards, 6 blocks; tag it with `tinytags run pets`" in grown
    assert "`tinytags corpus show pets` names the unreadable ones" in grown
    shown = run("corpus", "show", "pets")
    assert "3 of the images appended" in shown
    assert f"7 {BROKEN}: not a picture" in shown
