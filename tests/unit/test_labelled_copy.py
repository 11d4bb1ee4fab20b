"""A labelled set at an address is as good as one on this machine: the same pictures, tags and hash."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tinytags_tasks.corpus.labelled import file_sha256, read_labelled_set, refuse_missing
from tinytags_tasks.corpus.labelled_copy import sets_here
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

Put = Callable[[str, bytes], None]


def picture(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def pets(tmp_path: Path, put: Put) -> Path:
    """Return a labelled folder that is at ``memory://sets/pets``, too."""
    folder = tmp_path / "pets"
    for name, colour in (("cat/1.png", "red"), ("cat/more/2.png", "blue"), ("dog/1.png", "green")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(colour))
        put(f"/sets/pets/{name}", path.read_bytes())
    return folder


def test_a_folder_at_an_address_is_the_same_set_and_its_copy_goes(pets: Path) -> None:
    told: list[str] = []
    with sets_here("memory://sets/pets", None, str(pets), open_source=SourceFiles, report=told.append) as sets:
        copied, none, path = sets.paths
        assert (none, path) == (None, str(pets))
        assert Path(copied or "").name == "pets"
        assert file_sha256(Path(copied or "")) == file_sha256(pets)
        assert read_labelled_set(Path(copied or "")).tags == ("cat", "dog")
        sets.report(f"read 3 images from {copied}")
    assert not Path(copied or "").exists()
    assert told[0].startswith("copied 3 files (0.0 MB) of memory://sets/pets in ")
    assert told[1] == "read 3 images from memory://sets/pets"


def test_a_file_at_an_address_keeps_its_name(put: Put) -> None:
    put("/sets/cifar10-train.parquet", b"content")
    with sets_here("memory://sets/cifar10-train.parquet", open_source=SourceFiles) as sets:
        path = Path(sets.paths[0] or "")
        assert (path.name, path.read_bytes()) == ("cifar10-train.parquet", b"content")


def test_an_error_names_the_address(pets: Path, put: Put) -> None:
    put("/sets/pets/dog/2.png", b"no picture")
    with (
        pytest.raises(BadInputError, match=r"^memory://sets/pets/dog/2\.png: not a readable picture"),
        sets_here("memory://sets/pets", open_source=SourceFiles) as sets,
    ):
        read_labelled_set(Path(sets.paths[0] or ""))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://sets/none", "no such file or folder"),
        ("memory://sets/unfinished", "memory://sets/unfinished/_temporary: the set is still being written"),
        ("https://me:hidden@host/pets", "its login is a secret, which would be stored"),
        ("https://host/pets?token=hidden", "token is a secret, which would be stored"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_before_anything_is_read(
    address: str, message: str, pets: Path, put: Put
) -> None:
    put("/sets/unfinished/part-0.parquet", b"")
    put("/sets/unfinished/_temporary/0/part-1.parquet", b"")
    with pytest.raises(BadInputError, match=message) as refused:
        refuse_missing(str(pets), address, None)
    assert "hidden" not in str(refused.value)
