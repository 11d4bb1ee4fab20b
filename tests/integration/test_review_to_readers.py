"""From review to readers: what people say on the pages is measured, learned from, and seen in a better live index."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_for
from page_in_browser import browsing, save_picture, serving
from playwright.sync_api import Page, expect

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.review_log import counting_words, read_words
from tinytags_tasks.train.step import TrainRequest, train_model

CORPUS = ALIAS = "improved"
TAGS = ("circle", "square", "star")
KEYS = "123"
"""Of the tags, on the review page."""

IMAGES, SCRIBBLES = 900, 0.4
BY_KEYS, BY_FORM = 48, 4
"""Looks at each run, with and without scripts."""

GATE = 50

Command = Callable[..., subprocess.CompletedProcess[str]]


def three_shapes(number: int, seed: int, scribbles: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of three of the ten shapes, or of none (-1), and which they show."""
    ((images, labels),) = draw_pictures(4 * number, seed=seed, batch=4 * number, scribbles=scribbles)
    own = np.array([TAGS.index(shape) if shape in TAGS else -2 for shape in SHAPES] + [-1])[labels]
    shapes, others = np.flatnonzero(own >= 0), np.flatnonzero(own == -1)
    chosen = np.sort(np.concatenate([shapes[: round(number * (1 - scribbles))], others[: round(number * scribbles)]]))
    return images[chosen], own[chosen]


@dataclass(frozen=True)
class Site:
    """A corpus with a model that never saw a scribble, and the truth."""

    runtime: Runtime
    labelled: Path
    truth: np.ndarray
    tinytags: Command

    def do(self, *arguments: str) -> str:
        done = self.tinytags(*arguments, TINYTAGS_ALIAS=ALIAS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def train(self, reviews: str | None = None) -> ModelCard:
        request = TrainRequest(str(self.labelled), held_out=0, reviews=reviews)
        trained = train_model(request, storage=self.runtime.storage, connect_spark=self.runtime.connect_spark)
        return ModelCard.load(self.runtime.storage, layout.card_file(trained.model))

    def tag(self, model: str) -> str:
        run = self.do("score", CORPUS, "--model", model).strip()
        self.do("index", run)
        return run

    def looked_at(self) -> set[int]:
        words = counting_words(read_words(load_corpus(CORPUS, self.runtime.storage), self.runtime.storage))
        return set(words.column("position").to_pylist())


@pytest.fixture(scope="module")
def site(engines: Settings, tinytags_here: Command, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("improved")
    images, truth = three_shapes(IMAGES, 5, SCRIBBLES)
    (folder / "corpus.bin").write_bytes(to_column_major(images))
    write_labelled_parquet(folder / "labelled.parquet", *three_shapes(90, 6), TAGS)
    runtime = Runtime(engines.model_copy(update={"alias": ALIAS}))
    fields = {"source": str(folder / "corpus.bin"), "format": "tiny-images", "shard_images": 450, "blocks_per_shard": 2}
    ingest_corpus(make_definition(CORPUS, fields), storage=runtime.storage)
    return Site(runtime, folder / "labelled.parquet", truth, tinytags_here)


@pytest.fixture
def open_as(site: Site) -> Iterator[Callable[..., Page]]:
    accounts = {"rita": Role.READER, "ann": Role.REVIEWER, "ben": Role.REVIEWER}
    with serving(site.runtime.settings, **accounts) as server, browsing(server.url) as open_as:
        yield open_as


def shown(page: Page) -> int:
    """Return which picture is shown."""
    return int((page.locator("#image").get_attribute("alt") or "").split()[1])


def look_by_keys(page: Page, run: str, site: Site) -> None:
    page.goto(f"/review/{run}/one")
    expect(page.get_by_label("Answer with single keys")).to_be_visible()
    for looks in range(BY_KEYS):
        expect(page.locator("#picture:not(.waiting)")).to_be_visible()
        shows = site.truth[shown(page)]
        page.keyboard.press(KEYS[shows] if shows >= 0 else "x")
        expect(page.locator("#count")).to_have_text(re.compile(rf"^{looks + 1} of"))


def look_by_form(page: Page, run: str, site: Site) -> None:
    page.goto(f"/review/{run}/one")
    for _ in range(BY_FORM):
        before = page.locator("#count").inner_text()
        shows = site.truth[shown(page)]
        name = f"{TAGS[shows]} {KEYS[shows]}" if shows >= 0 else "None of the tags"
        page.get_by_role("button", name=name).click()
        expect(page.locator("#count")).not_to_have_text(before)


def measured(page: Page, run: str) -> int:
    """Return the measured precision of a run, in percent, as its review page shows it."""
    page.goto(f"/review?run={run}")
    return int(page.locator("p .figure").inner_text().split()[0])


def precisions(page: Page) -> list[float | None]:
    """Return the precision that the API states of each of the first images; of whom it shows none, an empty list.

    The server looks every few seconds what is live. A page that is loaded at that moment may lack a picture, which the
    browser complains of, so the API is asked until the server knows.
    """
    answer = page.context.request.get("/api/search?rows=100")
    images = answer.json()["images"] if answer.ok else []
    return [image["precision"] and image["precision"]["percent"] for image in images]


def stated(page: Page) -> list[int]:
    """Return the precision that the search page states of each image that it shows."""
    page.goto("/search?rows=100")
    return [int(words.split()[1]) for words in page.locator(".card .stated").all_text_contents()]


def test_reviews_are_measured_and_learned_from_and_readers_see_a_better_index(
    site: Site, open_as: Callable[..., Page]
) -> None:
    ann, ben, rita = open_as("ann"), open_as("ben", scripts=False), open_as("rita", scripts=False)
    first = site.tag(site.train().version)
    site.do("publish", first)
    assert set(wait_for(lambda: precisions(rita))) == {None}
    assert stated(rita) == []
    ann.goto(f"/review?run={first}")
    expect(ann.get_by_text("Not measured on this corpus", exact=True)).to_be_visible()

    look_by_keys(ann, first, site)
    look_by_form(ben, first, site)
    wait_for(site.looked_at, lambda found: len(found) == BY_KEYS + BY_FORM)
    before = measured(ann, first)
    assert measured(ben, first) == before
    wait_for(lambda: precisions(rita), lambda seen: seen and all(seen))
    stated_before = stated(rita)

    model = site.train(reviews=CORPUS)
    assert model.reviews is not None
    assert model.reviews.words == BY_KEYS + BY_FORM
    second = site.tag(model.version)
    learned = site.looked_at()
    look_by_keys(ann, second, site)
    look_by_form(ben, second, site)
    assert len(wait_for(site.looked_at, lambda found: len(found) == 2 * len(learned)) - learned) == len(learned)
    after = measured(ann, second)
    assert measured(ben, second) == after > before

    site.do("publish", second, "--gate-measured-precision", str(GATE))
    wait_for(lambda: precisions(rita), lambda seen: seen and all(seen) and np.mean(seen) > np.mean(stated_before))
    for page in (open_as("rita"), rita):
        assert np.mean(stated(page)) > np.mean(stated_before)
    save_picture(rita, "review-learned")
    images = json.loads(site.do("search", "--json", "--rows", "1000"))["images"]
    assert {image["model"] for image in images} == {model.version}
    right = np.mean([image["tag"] == (*TAGS, "")[site.truth[image["position"]]] for image in images])
    assert 100 * right > before
