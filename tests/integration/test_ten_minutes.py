"""Ten minutes, word for word: every command of the page, in its order, as a reader's shell runs it.

Left out by name: ``make run`` and ``tinytags up``, in whose place there are the session's engines; and *Review* on the
search page, which takes a person (``test_review_browser.py`` clicks through it), so that nothing is reviewed here.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ask_solr
from documented_commands import commands_of
from PIL import Image

from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout

PAGE = PROJECT_ROOT / "docs" / "ten-minutes.md"

TAGS = ("ring", "star")
LABELLED, PHOTOS, NEW = 5, 20, 3
"""Pictures of each tag: five are enough to begin with, the page says."""


@dataclass
class Told:
    """What the commands said, by what they begin with, and what was in the store after each."""

    said: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    stored: dict[str, dict[str, float]] = field(default_factory=dict)

    def by(self, command: str) -> str:
        """Return what a command printed, without the progress that it reported."""
        return self.said[command].stdout


def reader_shell(folder: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Return a shell in the folder that holds both, which finds ``tinytags``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PATH": path},
            timeout=600,
        )

    return run


def drawn_of(tag: str, number: int, seed: int) -> list[Image.Image]:
    """Draw pictures of one shape."""
    found: list[Image.Image] = []
    for images, labels in draw_pictures(4_000, seed=seed, batch=100):
        found += [Image.fromarray(images[at]) for at in range(len(images)) if SHAPES[labels[at]] == tag]
        if len(found) >= number:
            break
    return found[:number]


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def embeddings(runtime: Runtime) -> dict[str, float]:
    """Return when each block of the corpus was embedded."""
    storage, top = runtime.storage, layout.all_embeddings_folder("photos")
    if not storage.exists(top):
        return {}
    paths = [f"{top}/{net}/{name}" for net in storage.names(top) for name in storage.names(f"{top}/{net}")]
    return {path: storage.changed_seconds(path) for path in paths if path.endswith(".parquet")}


@pytest.fixture(scope="module")
def told(airflow: Settings, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Give every command of the page, one after another; before it says so, there are new pictures."""
    folder = tmp_path_factory.mktemp("reader")
    for tag in TAGS:
        for number, picture in enumerate(drawn_of(tag, LABELLED, seed=1), 1):
            save(picture, folder / "labelled" / tag / f"{number}.jpg")
        for number, picture in enumerate(drawn_of(tag, PHOTOS, seed=2)):
            where = "" if number % 2 else "2024"
            save(picture, folder / "photos" / where / f"{tag}-{number}.{'png' if number % 3 else 'jpg'}")
    (folder / "photos" / "notes.txt").write_text("no picture")
    shell, told = reader_shell(folder), Told()
    for line in commands_of(PAGE):
        if line.endswith("--grow"):
            for tag in TAGS:
                for number, picture in enumerate(drawn_of(tag, NEW, seed=3)):
                    save(picture, folder / "photos" / "2025" / f"{tag}-{number}.jpg")
        told.said[line] = done = shell(f"tinytags {line}")
        assert done.returncode == 0, f"{line}: {done.stderr}"
        told.stored[line] = embeddings(runtime)
        if line.startswith("corpus inspect"):
            assert Image.open(folder / "photos-sheet.png").width > 0
            assert not runtime.storage.exists(layout.corpus_folder("photos"))
    yield told
    assert shell("tinytags unpublish photos --yes").returncode == 0  # other modules count what is live


def counts(printed: str) -> dict[str, int]:
    """Return the table that a run ends with."""
    rows = re.findall(r"^│ (.+?) +│ +([\d,]+) │$", printed, re.MULTILINE)
    return {what: int(number.replace(",", "")) for what, number in rows}


def test_the_look_before_says_what_there_is_and_what_is_left_out(told: Told) -> None:
    said = told.by("corpus inspect photos")
    assert re.search(rf"^images +{2 * PHOTOS} of 32x32$", said, re.MULTILINE)
    assert re.search(rf"^keywords +folder, in {2 * PHOTOS} images: 2024 \({PHOTOS}\)$", said, re.MULTILINE)
    assert re.search(r"^left out +files that end in \.txt: 1, such as notes\.txt$", said, re.MULTILINE)


def test_the_run_ends_with_a_table_that_accounts_for_every_picture(told: Told) -> None:
    table = counts(told.by("run photos --labelled labelled"))
    parts = ("kept", "below the threshold of 40 %", "none of the tags", "unreadable")
    assert table["images read"] == 2 * PHOTOS == sum(table[part] for part in parts)
    assert 0 < table["kept"] == table["documents in Solr"]


def test_the_list_of_runs_has_the_one_that_is_live(told: Told) -> None:
    said = told.by("runs --corpus photos")
    (run,) = set(re.findall(r"│ (photos-[0-9a-f]{12}) ", said))
    assert re.search(rf"│ photos +│ tinytags-{run} +│", said)
    assert re.search(rf"│ published +│ tinytags-{run} +│", said)


def test_the_search_finds_pictures_with_this_confidence(told: Told) -> None:
    said = told.by("search 'corpus:photos confidence:60-100' --rows 10")
    (total,) = re.findall(r"^(\d+) images$", said, re.MULTILINE)
    rows = re.findall(r"│ photos:\d+ .*", said)
    assert len(rows) == min(10, int(total)) > 0
    assert all(set(TAGS) & set(re.findall(r"\w+", row)) for row in rows)


def test_without_a_review_the_precision_is_said_to_be_unmeasured(told: Told) -> None:
    assert "is not measured" in told.by("precision --corpus photos")


def test_growing_takes_in_what_is_new_and_embeds_nothing_else(told: Told, airflow: Settings) -> None:
    grown = "run photos --labelled labelled --grow"
    table = counts(told.by(grown))
    assert table["images read"] == 2 * (PHOTOS + NEW)
    before, after = told.stored["precision --corpus photos"], told.stored[grown]
    assert before == {path: after[path] for path in before}
    assert len(after) > len(before) > 0
    found = ask_solr(airflow.address("solr_url"), "tinytags", q='corpus:photos AND keyword:"2025"', rows=0)
    assert 0 < found["response"]["numFound"] <= 2 * NEW


def test_the_address_and_the_password_of_the_search_page_are_where_the_page_says(
    told: Told, airflow: Settings, tmp_path: Path
) -> None:
    page = PAGE.read_text()
    assert "`tinytags status` shows the address of the search page" in page
    assert "`tinytags passwords` the password of its user `tinytags`" in page
    shell = reader_shell(tmp_path)
    assert str(airflow.search_url) in shell("tinytags status").stdout
    assert secret(airflow, "search_password") in shell("tinytags passwords").stdout
