"""The formats' registry: one object per format, and formats from other packages."""

import sys

import pytest

from tinytags_tasks.corpus.definition import CorpusDefinition, definition_toml, make_definition
from tinytags_tasks.corpus.formats import registry
from tinytags_tasks.corpus.formats.registry import all_formats, find_format, format_names, list_items, open_reader
from tinytags_tasks.corpus.inspect import guess_definition, inspect_source
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

GREY = '''
import numpy as np
from tinytags_tasks.corpus.formats.base import Format, Guess
from tinytags_tasks.corpus.reader import Batch, ListedItem

class Grey(Format):
    """A byte an image: how grey all of it is, in a file that begins with GREY."""

    name = "grey"
    recognised_by = "GREY"
    holds_pixels = True
    keywords = ()

    def check(self, definition):
        if set(definition.format_options) - {"lightest"}:
            raise ValueError("format_options of the format grey may be lightest; correct them")
        self.check_common(definition)

    def guess(self, sample):
        return Guess({"description": "grey"}, ("a byte an image",)) if sample.head.startswith(b"GREY") else None

    def preparation(self, definition):
        return "grey"

    def list_items(self, files, definition):
        for file in files.files():
            yield ListedItem(file.path, file.size_bytes - 4, 4, file.size_bytes, file.version)

    def open_reader(self, definition, files, listing):
        return Reader(definition, files, listing)

class Reader:
    def __init__(self, definition, files, listing):
        self.definition, self.files, self.listing = definition, files, listing

    def batches(self, first, images, *, decode=True):
        lightest = self.definition.format_options.get("lightest", 255)
        for item_first, item in self.listing.items(first, images):
            start, stop = max(first - item_first, 0), min(first + images - item_first, item.images)
            greys = np.frombuffer(self.files.read(item.path, item.offset + start, stop - start), np.uint8)
            shape = (len(greys), self.definition.height, self.definition.width, 3)
            pixels = np.broadcast_to(np.minimum(greys, lightest)[:, None, None, None], shape).copy()
            yield Batch(item_first + start, len(greys), pixels)

    def close(self):
        self.files.close()
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with entry points for formats, as pip would: into a folder of the path."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    caches = (find_format, registry._external)

    def add(package, code="", version="1.2", **points):
        module = package.replace("-", "_")
        (site / f"{module}.py").write_text(code)
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
        modules.append(module)
        for cached in caches:
            cached.cache_clear()

    modules: list[str] = []
    yield add
    for cached in caches:
        cached.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def greys(tmp_path):
    path = tmp_path / "some.grey"
    path.write_bytes(b"GREY" + bytes(range(0, 250, 10)))
    return path


def test_each_format_is_named_once_and_says_what_a_person_is_told_of_it():
    names = format_names()
    assert len(set(names)) == len(names)
    for known in all_formats():
        assert find_format(known.name) is known
        assert known.recognised_by
        assert all(ending == ending.lower() and ending.startswith(".") for ending in known.endings)


def test_a_format_of_another_package_is_defined_recognised_listed_and_read(install, greys):
    install("grey-pictures", GREY, grey="grey_pictures:Grey")
    definition = make_definition("greys", {"source": str(greys), "format": "grey", "format_options": {"lightest": 50}})
    assert definition_toml(definition).endswith("[format_options]\nlightest = 50\n")
    assert CorpusDefinition.model_validate_json(definition.model_dump_json()) == definition
    files = SourceFiles(str(greys))
    listing = MemoryListing(list_items(files, definition))
    (batch,) = open_reader(definition, files, listing).batches(3, 4)
    assert batch.pixels[:, 0, 0, 0].tolist() == [30, 40, 50, 50]
    guessed, notes = guess_definition(SourceFiles(str(greys)))
    assert (guessed.format, guessed.description, notes) == ("grey", "grey", ("a byte an image",))
    assert inspect_source(guessed, SourceFiles(str(greys))).images == 25


def test_a_record_without_format_options_can_be_read_by_an_older_tinytags():
    definition = make_definition("birds", {"source": "/x", "format": "folder"})
    assert "format_options" not in definition.model_dump_json()


def test_a_format_of_another_package_checks_its_own_options(install):
    install("grey-pictures", GREY, grey="grey_pictures:Grey")
    with pytest.raises(BadInputError, match=r"^corpus greys: format_options of the format grey may be lightest"):
        make_definition("greys", {"source": "/x", "format": "grey", "format_options": {"darkest": 1}})
    with pytest.raises(
        BadInputError, match=r"^corpus greys: format_options\.token: a definition must not contain secrets"
    ):
        make_definition("greys", {"source": "/x", "format": "grey", "format_options": {"token": "x"}})
    with pytest.raises(BadInputError, match=r"^corpus greys: the format grey has no keywords"):
        make_definition("greys", {"source": "/x", "format": "grey", "keywords": "label"})


@pytest.mark.parametrize(
    ("code", "target", "reason"),
    [
        ("import a_package_that_is_not_there", "Grey", "cannot be loaded .*a_package_that_is_not_there"),
        ("raise SystemError(1)", "Grey", "cannot be loaded .*SystemError"),
        ("", "Grey", "cannot be loaded .*Grey"),
        ("Grey = 7", "Grey", "is not a subclass of tinytags_tasks.corpus.formats.base.Format"),
        (GREY.replace('name = "grey"', 'name = "gray"'), "Grey", "calls itself 'gray'"),
        (GREY.replace("def guess", "def other"), "Grey", "cannot be used .*guess"),
    ],
    ids=["import", "raises", "missing", "no class", "another name", "unfinished"],
)
def test_a_broken_package_is_named_with_the_remedy_and_stops_no_other_corpus(install, greys, code, target, reason):
    install("grey-pictures", code, grey=f"grey_pictures:{target}")
    message = rf"format grey of grey-pictures 1\.2 \(grey_pictures:Grey\) {reason}.*; update or uninstall the package"
    for ask in (
        lambda: make_definition("greys", {"source": "/x", "format": "grey"}),
        lambda: guess_definition(SourceFiles(str(greys))),
    ):
        with pytest.raises(BadInputError, match=message):
            ask()
    assert make_definition("birds", {"source": "/x", "format": "folder"}).format == "folder"


def test_two_packages_with_one_format_are_both_named(install):
    install("grey-pictures", GREY, grey="grey_pictures:Grey")
    install("more-pictures", GREY, version="3", grey="more_pictures:Grey")
    with pytest.raises(
        BadInputError,
        match=r"grey is provided by grey-pictures 1\.2 and by more-pictures 3; uninstall all packages but",
    ):
        make_definition("greys", {"source": "/x", "format": "grey"})


def test_a_package_may_not_replace_a_format_of_tinytags(install):
    install("grey-pictures", GREY, folder="grey_pictures:Grey")
    with pytest.raises(BadInputError, match=r"folder is provided by grey-pictures 1\.2 and by TinyTags itself; uninst"):
        make_definition("birds", {"source": "/x", "format": "folder"})


def test_a_format_whose_package_is_gone_is_named_with_the_remedy():
    with pytest.raises(
        BadInputError, match=r"there is no format grey \(formats are parquet, .*install the package that"
    ):
        make_definition("greys", {"source": "/x", "format": "grey"})
