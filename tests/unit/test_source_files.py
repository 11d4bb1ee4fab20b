"""Sources on this machine: the same files in the same order, read as they lie; one clear error for each failure."""

import hashlib
import os
import re
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_trees import CONTENT, IN_ORDER, make_tree, paths

from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError, FinalError


# Files of this machine
@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pictures.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_listed_with_size_and_time(file):
    os.utime(file, ns=(1, 1_234_567_890_123_456_789))
    files = SourceFiles(str(file))
    assert list(files.files()) == [SourceFile("pictures.bin", len(CONTENT), "1234567890123456789")]
    assert list(files.files(".jpg")) == list(files.files())  # it was named: its ending does not matter
    assert files.only_file() == files.current("pictures.bin")
    assert (files.is_local, files.address, files.name("pictures.bin")) == (True, str(file), str(file))


def test_nothing_stays_open_when_nobody_needs_a_source_any_more(file):
    def is_open() -> bool:
        return str(file) in {each.path for each in psutil.Process().open_files()}

    files = SourceFiles(str(file))
    files.read("pictures.bin", 0, 3)
    assert is_open()
    del files
    assert not is_open()


@pytest.mark.parametrize("source", ["pictures.bin", "./pictures.bin", "~/pictures.bin"])
def test_a_path_may_begin_here_or_at_home(file, source, monkeypatch):
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("HOME", str(file.parent))
    files = SourceFiles(source)
    assert files.address == str(file)
    assert files.read("pictures.bin", 0, 3) == b"\0\1\2"


def test_a_path_may_be_written_as_an_address(file):
    assert paths(SourceFiles(f"file://{file}")) == ["pictures.bin"]


def test_a_folder_is_listed_part_by_part_without_hidden_names(tmp_path):
    files = SourceFiles(str(make_tree(tmp_path)))
    assert paths(files, ".jpg") == IN_ORDER
    assert paths(files) == [*IN_ORDER[:-1], "note.txt", IN_ORDER[-1]]
    assert paths(files, ".txt", ".png") == ["note.txt"]
    assert [files.read(file.path, 0, file.size_bytes).decode() for file in files.files(".jpg")] == IN_ORDER


def test_a_hidden_folder_may_itself_be_the_source(tmp_path):
    make_tree(tmp_path)
    assert paths(SourceFiles(f"{tmp_path}/.cache/")) == ["x.jpg"]


def test_an_empty_folder_has_no_files(tmp_path):
    assert paths(SourceFiles(str(tmp_path))) == []


def test_links_to_files_and_folders_are_followed_if_asked_for(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    make_tree(tmp_path / "elsewhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    for name in ("birds", "cats"):
        (folder / name).symlink_to(tmp_path / "elsewhere" / "a")
    files = SourceFiles(str(folder), {"follow_links": True})
    inside = ["10.jpg", "2.JPG", "b/x.jpg"]
    assert paths(files) == [*(f"birds/{name}" for name in inside), *(f"cats/{name}" for name in inside), "link.jpg"]
    assert files.read("cats/b/x.jpg", 0, 9) == b"a/b/x.jpg"
    assert files.current("link.jpg").size_bytes == len("a.jpg")


@pytest.mark.parametrize("ending", [(), (".jpg",)])
def test_a_link_that_leads_to_no_file_is_named(tmp_path, ending):
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(BadInputError, match=r"/lost\.jpg: a broken link; fix it or remove it"):
        paths(SourceFiles(str(tmp_path)), *ending)
    assert paths(SourceFiles(str(tmp_path)), ".png") == []


def test_links_in_a_circle_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    with pytest.raises(BadInputError, match=r"/a/to-b/to-a: a link to a folder that contains it; remove it"):
        paths(SourceFiles(str(tmp_path)))
    (tmp_path / "b" / "to-a").unlink()
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(BadInputError, match="cannot be read"):
        paths(SourceFiles(str(tmp_path)))


def test_what_is_no_file_is_not_taken_for_one(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert paths(SourceFiles(str(tmp_path))) == []
    with pytest.raises(BadInputError, match=r"pipe\.jpg: not a file; name a file, or the folder it is in"):
        paths(SourceFiles(str(tmp_path / "pipe.jpg")))
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInputError, match="folder: not a file"):
        SourceFiles(str(tmp_path)).current("folder")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["B.jpg", "a.jpg", "猫.jpg"]),
        ("*", ["B.jpg", "a.jpg", "note.txt", "猫.jpg"]),
        ("a*", ["a.jpg"]),
        ("a*/*.jpg", ["a/10.jpg", "a.b/x.jpg"]),
        ("*/*/x.jpg", ["a/b/x.jpg"]),
        ("*/x.jpg", ["a.b/x.jpg"]),
        ("a/*", ["10.jpg", "2.JPG"]),
    ],
)
def test_a_pattern_stands_for_parts_of_names(tmp_path, pattern, expected):
    files = SourceFiles(f"{make_tree(tmp_path / 'with [marks] + ?')}/{pattern}")
    assert paths(files) == expected
    assert paths(files, ".png") == expected
    assert all(files.current(path).size_bytes for path in expected)


@pytest.mark.parametrize("pattern", ["*.png", "*/*/*/*", "a.jpg*x", "a/b/*.txt"])
def test_a_pattern_without_a_match_is_told(tmp_path, pattern):
    with pytest.raises(BadInputError, match=r"\*.*: no file matches; correct the corpus' source"):
        paths(SourceFiles(f"{make_tree(tmp_path)}/{pattern}"))


@pytest.mark.parametrize("source", ["none.bin", "none/pictures.bin", "none/*.bin"])
def test_what_is_not_there_is_named(tmp_path, source):
    with pytest.raises(BadInputError, match=r"none.*: no such file or folder; correct the corpus' source"):
        paths(SourceFiles(str(tmp_path / source)))


@pytest.mark.parametrize("source", ["/x" * 3_000, "/" + "x" * 300, "/a\0b", "~nobody-at-all/x", "/dev/null/x"])
def test_what_can_be_no_path_is_told(source):
    with pytest.raises(BadInputError, match=r": (cannot be read \(|no such file)"):
        paths(SourceFiles(source))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("source", ["", "pictures.bin", "*"])
def test_what_may_not_be_read_is_told(file, source):
    file.chmod(0)
    file.parent.chmod(0 if source == "" else 0o700)
    try:
        files = SourceFiles(str(file.parent / source))
        with pytest.raises(BadInputError, match="permission denied; check its permissions"):
            files.read(next(files.files()).path, 0, 1)
    finally:
        file.parent.chmod(0o700)


@pytest.mark.parametrize("call", ["open", "stat", "scandir"])
def test_what_the_system_forbids_is_told(file, monkeypatch, call):
    def forbid(*_, **__):
        raise PermissionError(13, "Permission denied")

    files = SourceFiles(str(file.parent))
    assert paths(files) == ["pictures.bin"]
    monkeypatch.setattr(os, call, forbid)
    with pytest.raises(BadInputError, match="permission denied; check its permissions"):
        if call == "scandir":
            paths(files)
        else:
            {"open": lambda: files.read("pictures.bin", 0, 1), "stat": lambda: files.current("pictures.bin")}[call]()


def test_a_disk_that_fails_is_told(file, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(BadInputError, match=r"pictures\.bin: cannot be read \(Input/output error\)"):
        SourceFiles(str(file)).read("pictures.bin", 0, 1)


@pytest.mark.parametrize("source", ["", "*", os.fsdecode(b"caf\xe9.jpg")])
def test_a_name_that_is_not_utf_8_is_listed_escaped_and_read(tmp_path, source):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_text("x")
    files = SourceFiles(f"{tmp_path}/{source}")
    assert paths(files) == [r"caf\xe9.jpg"]
    file = files.only_file()
    assert files.read(file.path, 0, 1, file.version) == b"x"
    files.check_unchanged(file.path, file.size_bytes, file.version)
    assert files.name(file.path) == rf"{tmp_path}/caf\xe9.jpg"


def test_a_folder_that_is_not_utf_8_is_escaped_and_its_files_are_read(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xe9t\xe9")
    folder.mkdir()
    (folder / "猫.jpg").write_text("x")
    (tmp_path / r"b\xe9.jpg").write_text("y")  # a name that only looks escaped
    files = SourceFiles(str(tmp_path))
    assert paths(files) == [r"b\xe9.jpg", r"\xe9t\xe9/猫.jpg"]
    assert [files.read(path, 0, 1) for path in paths(files)] == [b"y", b"x"]


def test_one_file_is_asked_for_and_another_number_told(tmp_path):
    with pytest.raises(BadInputError, match="0 files where one is needed; name the file"):
        SourceFiles(str(tmp_path)).only_file()
    with pytest.raises(BadInputError, match="9 files where one is needed"):
        SourceFiles(str(make_tree(tmp_path))).only_file()


# Reading
@settings(deadline=None)
@given(st.data())
def test_any_range_is_read_as_it_lies_in_the_file(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("range")
    content = data.draw(st.binary(max_size=300))
    (folder / "file").write_bytes(content)
    files = SourceFiles(str(folder))
    for _ in range(3):
        offset = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, len(content) - offset))
        assert files.read("file", offset, length) == content[offset : offset + length]
    files.close()


def test_a_read_that_the_system_gives_in_pieces_is_whole(file, monkeypatch):
    genuine = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: genuine(descriptor, min(length, 1_000), offset))
    assert SourceFiles(str(file)).read("pictures.bin", 5, 9_999) == CONTENT[5:10_004]
    with pytest.raises(BadInputError, match="ends at offset 10,240, where 10,241 was expected"):
        SourceFiles(str(file)).read("pictures.bin", 0, 10_241)


@pytest.mark.parametrize(
    ("offset", "length", "told"), [(10_000, 241, "10,240"), (10_240, 1, "10,240"), (20_000, 1, "20,000")]
)
def test_a_file_that_ends_before_the_range_is_told_with_the_offset(file, offset, length, told):
    with pytest.raises(BadInputError, match=f"ends at offset {told}, where {offset + length:,} was expected"):
        SourceFiles(str(file)).read("pictures.bin", offset, length)


def test_a_file_that_has_changed_since_it_was_listed_is_refused(file):
    files = SourceFiles(str(file))
    listed = files.only_file()
    files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    assert files.read(listed.path, 0, 1, listed.version) == b"\0"
    files.close()
    os.utime(file, ns=(1, 1))
    with pytest.raises(BadInputError, match=r"pictures\.bin: has changed since it was listed \(10,240 bytes then, 10"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    with pytest.raises(BadInputError, match=r"pictures\.bin: has changed since it was listed; restore it, or remove"):
        files.read(listed.path, 0, 1, listed.version)
    assert SourceFiles(str(file)).read(listed.path, 0, 1) == b"\0"
    file.write_bytes(b"short")
    with pytest.raises(BadInputError, match=r"\(10,240 bytes then, 5 now\)"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)
    file.unlink()
    with pytest.raises(BadInputError, match="no such file"):
        files.check_unchanged(listed.path, listed.size_bytes, listed.version)


def open_descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_only_one_file_is_open_at_a_time(tmp_path):
    opened = open_descriptors()
    files = SourceFiles(str(make_tree(tmp_path)))
    for path in [*IN_ORDER, *IN_ORDER]:
        assert files.read(path, 0, len(path.encode())).decode() == path
        assert len(open_descriptors() - opened) == 1
    files.close()
    files.close()
    assert open_descriptors() == opened


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_head_and_tail_are_hashed(tmp_path, size):
    content = (CONTENT * 20)[:size]
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(content + (b"b" if name == "b" else b""))
    files = SourceFiles(str(tmp_path))
    first, last = files.files()
    expected = (content[:65_536], (content + b"b")[-65_536:])
    assert hash_ends(files, first, last) == tuple(hashlib.sha256(part).hexdigest() for part in expected)


# Addresses
@pytest.mark.parametrize("source", ["nope://host/x", "http://", "https:///x", "s3://", "s3:///", "http://[bad/x"])
def test_an_address_that_leads_nowhere_is_told(source):
    with pytest.raises(FinalError, match=f"^{re.escape(source)}: "):
        paths(SourceFiles(source))
