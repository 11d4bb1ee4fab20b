"""What is in a folder but does not belong to a source: left out, counted, and said."""

import json
import os
import re

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_trees import paths
from typer.testing import CliRunner

from tinytags_tasks.cli import app
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.sources import tables
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.corpus.sources.left_out import FORBIDDEN, HIDDEN, JUNK, LINKS, LeftOut, is_junk_path
from tinytags_tasks.errors import BadInputError, one_line
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store.local import LocalStorage


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return SourceFiles(str(folder))


def left_out(files):
    return {group.reason: (group.count, group.example) for group in files.left_out}


def test_what_spark_and_hive_have_not_finished_is_left_out_at_any_depth(tmp_path):
    files = make(
        tmp_path,
        "_SUCCESS",
        "_metadata",
        "_temporary/0/task_1/part-0.parquet",
        "_year=2020/part-0.parquet",
        "_year=2020/.part-0.parquet.crc",
        "label=cat/_temporary/part-1.parquet",
        "label=cat/part-0.parquet",
        "part-2.parquet._COPYING_",
    )
    assert paths(files, ".parquet") == ["_year=2020/part-0.parquet", "label=cat/part-0.parquet"]
    assert left_out(files) == {HIDDEN: (6, "_SUCCESS")}


def test_junk_of_file_systems_is_left_out_and_counted(tmp_path):
    files = make(
        tmp_path,
        "cats/a.jpg",
        "cats/@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg",
        "cats/Thumbs.db",
        "cats/._a.jpg",
        ".DS_Store",
        "#recycle/b.jpg",
        "#snapshot/2024/a.jpg",
        "$RECYCLE.BIN/c.jpg",
        "System Volume Information/d.jpg",
        "lost+found/e.jpg",
        "__MACOSX/cats/._a.jpg",
        "desktop.ini",
    )
    for endings in ((), (".jpg",)):
        assert paths(files, *endings) == ["cats/a.jpg"]
        found = left_out(files)
        assert (found[JUNK][0], found[HIDDEN][0]) == (9, 2)
    assert is_junk_path("x/@eaDir/a.jpg")
    assert is_junk_path("cats/.ipynb_checkpoints/a.jpg")
    assert not is_junk_path("./x/ea/a.jpg")


def test_a_photograph_whose_camera_begins_its_name_with_a_dash_is_taken(tmp_path):
    files = make(tmp_path, "_MG_0001.JPG", "_DSC0002.jpg", "_notes.txt", "_drafts/a.jpg")
    assert paths(files, *ENDINGS) == ["_DSC0002.jpg", "_MG_0001.JPG"]
    assert left_out(files)[HIDDEN][0] == 2


def test_a_pattern_may_name_what_begins_with_a_dash(tmp_path):
    make(tmp_path, "_old/a.bin", "_x.bin", "y.bin")
    assert paths(SourceFiles(f"{tmp_path}/_*.bin")) == ["_x.bin"]
    assert paths(SourceFiles(f"{tmp_path}/_old/*")) == ["a.bin"]
    assert paths(SourceFiles(f"{tmp_path}/*.bin")) == ["y.bin"]


def test_files_with_other_endings_are_counted_by_ending(tmp_path):
    files = make(tmp_path, "a.jpg", "b.jxl", "sub/c.JXL", "d.txt", "README", "x.averylongending")
    assert paths(files, ".jpg") == ["a.jpg"]
    assert left_out(files) == {
        "files that end in .jxl (pictures: convert them to JPEG)": (2, "b.jxl"),
        "files that end in .txt": (1, "d.txt"),
        "files without an ending that is known": (2, "README"),
    }
    assert str(files.left_out).startswith("; left out: files that end in .jxl (pictures: convert them to JPEG): 2, su")


def test_very_many_endings_are_counted_together(tmp_path):
    counted = LeftOut()
    for number in range(1_000):
        counted.add_ending(f"a.{number}")
    groups = list(counted)
    assert len(groups) == 51
    assert (groups[0].count, sum(group.count for group in groups)) == (950, 1_000)


def test_links_out_of_the_folder_are_left_out_and_those_inside_are_followed(tmp_path):
    make(tmp_path / "elsewhere", "secret.jpg")
    files = make(tmp_path / "folder", "cats/a.jpg")
    folder = tmp_path / "folder"
    (folder / "felines").symlink_to(folder / "cats")
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "out.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (folder / "up").symlink_to("..")
    assert paths(files) == ["cats/a.jpg", "felines/a.jpg"]
    assert left_out(files)[LINKS][0] == 3
    assert paths(SourceFiles(f"{folder}/*.jpg"[:-5] + "*/*.jpg")) == ["cats/a.jpg", "felines/a.jpg"]


def test_a_source_that_is_itself_a_link_is_followed(tmp_path):
    make(tmp_path / "elsewhere", "a.jpg", "b/c.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert paths(SourceFiles(str(tmp_path / "link"))) == ["a.jpg", "b/c.jpg"]


def test_a_folder_that_may_not_be_read_is_counted_and_named(tmp_path, monkeypatch):
    files = make(tmp_path, "a.jpg", "private/b.jpg", "z/c.jpg")
    genuine = os.scandir

    def scandir(folder):
        if str(folder).endswith(forbidden):
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    forbidden = "/private"
    assert paths(files, ".jpg") == ["a.jpg", "z/c.jpg"]
    assert left_out(files) == {FORBIDDEN: (1, "private/")}


def test_a_folder_called_metadata_that_may_not_be_read_hides_no_other(tmp_path, monkeypatch):
    files = make(tmp_path, "data/a.jpg", "metadata/b.jpg", "z.jpg")
    genuine = os.scandir

    def scandir(folder):
        if str(folder).endswith("/metadata"):
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert paths(files, ".jpg") == ["data/a.jpg", "z.jpg"]
    assert left_out(files) == {FORBIDDEN: (1, "metadata/")}


def test_a_source_of_which_nothing_may_be_read_is_refused(tmp_path, monkeypatch):
    files = make(tmp_path, "private/b.jpg", "note.txt")
    genuine = os.scandir

    def scandir(folder):
        if str(folder).endswith("/private"):
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInputError, match=r"permission denied; check its permissions.*such as private/"):
        paths(files, ".jpg")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["_delta_log/00000000000000000000.json", "part-0.parquet"], "Delta"),
        ([".hoodie/hoodie.properties", "part-0.parquet"], "Hudi"),
        (["data/part-0.parquet", "metadata/00000-x.metadata.json"], "Iceberg"),
    ],
)
@pytest.mark.parametrize("below", ["", "table/"])
def test_a_table_with_a_log_is_refused_by_name_with_the_remedy(tmp_path, monkeypatch, names, kind, below):
    monkeypatch.setattr(tables, "find_spec", lambda _: None)  # as without deltalake
    files = make(tmp_path, *(below + name for name in names))
    with pytest.raises(
        BadInputError, match=rf"{below.rstrip('/')}: a {kind} table, .*(; |, or )write its rows as plain Parquet"
    ):
        paths(files, ".parquet")
    if not below and kind != "Iceberg":
        with pytest.raises(BadInputError, match=f"a {kind} table"):
            paths(SourceFiles(f"{tmp_path}/*.parquet"))


def test_a_delta_table_is_read_through_its_log(tmp_path):
    folder = tmp_path / "table é b"
    for images in ([b"1", b"2"], [b"3"]):
        rows = pa.table({"image": images, "label": ["d g", "cat"][: len(images)]})
        deltalake.write_deltalake(folder, rows, partition_by=["label"], mode="overwrite")
    assert len(list(folder.rglob("*.parquet"))) == 3
    files = SourceFiles(str(folder))
    (path,) = paths(files, ".parquet")
    assert path.startswith("label=d%20g/part-")
    assert pq.read_table(folder / path, partitioning=None).column("image").to_pylist() == [b"3"]
    assert files.read(path, 0, 4) == b"PAR1"


def test_a_delta_table_within_a_source_is_pointed_at(tmp_path):
    files = make(tmp_path, "table/_delta_log/00000000000000000000.json", "table/part-0.parquet")
    with pytest.raises(BadInputError, match=r"/table: a Delta table, .*; give this folder itself as the source, or wr"):
        paths(files)


def test_a_delta_table_whose_rows_are_not_those_of_its_files_is_refused(tmp_path):
    deltalake.write_deltalake(tmp_path, pa.table({"image": [b"1"]}))
    deltalake.DeltaTable(tmp_path).alter.add_feature(
        deltalake.TableFeatures.DeletionVectors, allow_protocol_versions_increase=True
    )
    with pytest.raises(BadInputError, match="a Delta table that needs deletionVectors, whose folder also has files"):
        paths(SourceFiles(str(tmp_path)))


def test_a_damaged_delta_log_is_named(tmp_path):
    files = make(tmp_path, "_delta_log/00000000000000000000.json", "part-0.parquet")
    with pytest.raises(BadInputError, match="its Delta log cannot be read"):
        paths(files)


def test_folders_that_are_only_named_data_and_metadata_are_no_table(tmp_path):
    assert paths(make(tmp_path, "data/a.jpg", "metadata/b.jpg"), ".jpg") == ["data/a.jpg", "metadata/b.jpg"]


def test_a_message_is_one_line_whatever_a_file_is_called(tmp_path):
    assert one_line("a\nb\x1b[31m é 猫") == r"a\nb\x1b[31m é 猫"
    files = make(tmp_path, "a\nb.txt", "c.jpg")
    paths(files, ".jpg")
    assert "\n" not in str(files.left_out)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A defined corpus of pictures with other things beside them; returns the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runtime, "storage", LocalStorage(tmp_path / "store"))
    monkeypatch.setenv("TINYTAGS_CORPORA", str(tmp_path / "corpora"))
    make(tmp_path / "photos", "@eaDir/a.jpg", "b.txt", "_SUCCESS", "c.cr2")
    for number in range(3):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")

    def run(*arguments):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    run("corpus", "add", "photos", "photos", "--format", "folder")
    return run


@pytest.mark.parametrize("command", [("corpus", "inspect", "photos"), ("ingest", "photos")])
def test_commands_say_what_was_left_out(photos, command):
    lines = photos(*command).splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines if line.startswith("left out")] == [
        "files that end in .cr2 (pictures: convert them to JPEG): 1, such as c.cr2",
        "files that end in .txt: 1, such as b.txt",
        "names that begin with . or _: 1, such as _SUCCESS",
        "what file systems keep for themselves: 1, such as @eaDir/",
    ]


def test_show_says_what_was_left_out_at_ingestion(photos):
    photos("ingest", "photos")
    assert "left out: what file systems keep for themselves: 1, such as @eaDir/" in photos("corpus", "show", "photos")
    shown = json.loads(photos("corpus", "show", "photos", "--json"))["left_out"]
    assert shown[1] == {"reason": "files that end in .txt", "count": 1, "example": "b.txt"}


def test_show_names_the_files_of_unreadable_pictures(photos, tmp_path):
    (tmp_path / "photos" / "1.png").write_bytes(b"no picture")
    photos("corpus", "add", "some", "photos", "--format", "folder", "--most-unreadable-percent", "50")
    photos("ingest", "some")
    assert "           1  1.png: not a picture" in photos("corpus", "show", "some")
    (unreadable,) = json.loads(photos("corpus", "show", "some", "--json"))["unreadable"]
    assert (unreadable["position"], unreadable["file"]) == (1, "1.png")


def test_inspect_and_a_refused_ingestion_name_the_files_of_unreadable_pictures(photos, tmp_path):
    (tmp_path / "photos" / "1.png").write_bytes(b"no picture")
    assert "unreadable 1: 1.png: not a picture" in photos("corpus", "inspect", "photos")
    refused = CliRunner().invoke(app, ["ingest", "photos"])
    assert "at least 1 of 3 images are unreadable" in str(refused.exception)
    assert "(1 (1.png): not a picture" in str(refused.exception)


@pytest.mark.parametrize("is_json", [False, True])
def test_inspect_says_what_it_found_also_where_it_cannot_draw_it(photos, tmp_path, is_json):
    # Root, too, writes into no folder that does not exist.
    arguments = ["corpus", "inspect", "photos", "--sheet", "nowhere/sheet.png", *["--json"] * is_json]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, BadInputError)
    assert str(result.exception) == (
        f"{tmp_path}/nowhere/sheet.png: cannot be written (No such file or directory); make that folder writable, "
        "or give another --sheet"
    )
    if is_json:
        assert json.loads(result.stdout)["images"] == 3
    else:
        assert re.search(r"^format +folder\b", result.stdout, re.MULTILINE)
        assert re.search(r"^images +3 of 32x32$", result.stdout, re.MULTILINE)
        assert "sheet" not in result.stdout


def test_links_are_followed_if_the_definition_says_so(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_bytes((tmp_path / "photos" / "0.png").read_bytes())
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    assert "links that lead out of the folder (the option follow_links=true takes them): 1, such as more" in photos(
        "corpus", "inspect", "photos"
    )
    assert "4 images" not in photos("ingest", "photos")
    photos("corpus", "add", "all", "photos", "--format", "folder", "--option", "follow_links=true")
    assert "corpus all: 4 images" in photos("ingest", "all")
