"""The report: everything on the card, in a self-contained page without scripts."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_run import card

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.store.model_records import Probe
from tinytags_tasks.train.evaluation import evaluate, evaluate_background, evaluate_other
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.report import render_report

TAGS = ("cat", "<script>alert(1)</script>", 'a "b" & c')


def seen_images() -> LabelledSet:
    images = np.random.default_rng(3).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    return LabelledSet(Path("test.parquet"), images, np.random.default_rng(2).integers(0, 3, 200), TAGS)


def measured_card(**changes):
    votes = np.random.default_rng(1).multinomial(10, [0.5, 0.3, 0.2], 200).astype(np.float32)
    images, labels = seen_images().images, seen_images().labels
    measured = evaluate(votes, seen_images(), 10, "1" * 64)
    others = evaluate_other(votes, LabelledSet(Path("other.parquet"), images, labels - 2, TAGS), 10, "2" * 64)
    fields = {"tags": TAGS, "test": measured, "held_out": measured, "other": others, "parameters": {"trees": 10}}
    return card(**{**fields, **changes})


def add(shown: Gallery, part: str, votes: np.ndarray, images: LabelledSet, total: int) -> None:
    shown.add(part, votes, images.labels, total, images.images.__getitem__)


class Elements(HTMLParser):
    """Collects the elements, and checks that each opened element is closed."""

    VOID = frozenset({"meta", "line", "circle", "polyline", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag


def test_a_tag_is_text_whatever_it_holds():
    page = render_report(measured_card())
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_needs_nothing_else_and_runs_nothing():
    elements = Elements(render_report(measured_card()))
    names = {name for name, _ in elements.found}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form"})
    attributes = {attribute for _, found in elements.found for attribute in found}
    assert not [attribute for attribute in attributes if attribute.startswith("on") or attribute in ("src", "href")]
    assert sum(name == "svg" and "role" in found for name, found in elements.found) == 5


def test_the_figures_of_the_card_are_in_the_page():
    known = measured_card(licence="CC BY 4.0")
    page = render_report(known)
    for count in (known.test.thresholds[0].kept, known.test.confusion[0][1], known.other.thresholds[0].tagged):
        assert f">{count}<" in page
    assert f"accuracy {known.test.accuracy} %" in page
    assert "CC BY 4.0" in page
    assert "prefers-color-scheme: dark" in page


def test_points_of_a_plot_lie_where_their_percentage_is():
    known = measured_card(held_out=None, other=None)
    page = render_report(known)
    (line, _) = re.findall(r'<polyline class="line l\d" points="([^"]+)"', page)
    heights = [float(point.split(",")[1]) for point in line.split()]
    shares = [100 * each.kept / known.test.images for each in known.test.thresholds]
    assert [(190 - height) / 1.7 for height in heights] == pytest.approx(shares, abs=0.05)


def test_a_card_without_figures_says_so():
    page = render_report(card())
    Elements(page)
    assert "Nothing was measured" in page


def test_where_nothing_is_kept_there_is_a_dash_and_no_point():
    votes = np.array([[4, 3, 3]], dtype=np.float32)
    image = np.zeros((1, 1, 1, 3), dtype=np.uint8)
    measured = evaluate(votes, LabelledSet(Path("one.parquet"), image, np.array([0]), TAGS), 10, "")
    page = render_report(measured_card(test=measured, held_out=None, other=None))
    assert "<td>-</td>" in page
    assert page.count("<circle") == 7 + 1  # what is right of the kept is known at one threshold alone


# Pictures, "none", reliability, preparation


def card_with_none(**changes):
    votes = np.random.default_rng(1).multinomial(100, [0.4, 0.3, 0.2, 0.1], 200).astype(np.float32)
    others = LabelledSet(Path("other.parquet"), seen_images().images, seen_images().labels - 1, TAGS)
    fields = {
        "tags": TAGS,
        "trees": 100,
        "output": "probabilities",
        "none": True,
        "test": evaluate(votes, seen_images(), 100, "1" * 64),
        "other": evaluate_other(votes, others, 100, "2" * 64),
        "background_held_back": evaluate_background(votes, 3, 100, "general32-1", "3" * 64),
    }
    shown = Gallery()
    add(shown, "test", votes, seen_images(), 100)
    return card(**{**fields, **changes}), shown


def test_a_confusion_matrix_has_a_column_of_none_and_pictures_with_words():
    known, shown = card_with_none()
    page = render_report(known, shown)
    elements = Elements(page)
    pictures = [found for name, found in elements.found if name == "img"]
    assert len(pictures) == sum(len(cell) for cell in shown.pictures("test").values()) > 12
    assert all(found["src"].startswith("data:image/jpeg;base64,") and "tagged" in found["alt"] for found in pictures)
    assert '<th scope="col">none</th>' in page
    assert "none of its tags" in page
    cells = [name for name, _ in elements.found if name == "details"]
    assert len(cells) == len(shown.pictures("test"))


def test_a_page_with_pictures_runs_nothing_and_loads_nothing():
    elements = Elements(render_report(*card_with_none()))
    assert {name for name, _ in elements.found}.isdisjoint({"script", "link", "iframe", "object", "embed", "form"})
    for name, found in elements.found:
        assert not [attribute for attribute in found if attribute.startswith("on") or attribute == "href"]
        assert "src" not in found or (name == "img" and found["src"].startswith("data:"))


def test_a_page_stays_below_a_megabyte_with_twenty_tags():
    tags = tuple(f"tag {number}" for number in range(20))
    images = np.random.default_rng(0).integers(0, 256, (4_000, 64, 64, 3), dtype=np.uint8)
    votes = np.random.default_rng(1).random((4_000, 21)).astype(np.float32)
    seen = LabelledSet(Path("test.parquet"), images, np.arange(4_000) % 20, tags)
    shown = Gallery()
    add(shown, "test", votes, seen, 1)
    known = card(tags=tags, none=True, trees=1, test=evaluate(votes, seen, 1, ""))
    assert len(render_report(known, shown)) < 1_000_000


def test_bands_of_confidence_are_drawn_and_in_a_table():
    known, _ = card_with_none(other=None, background_held_back=None)
    page = render_report(known)
    drawn = [
        float(height)
        for height in re.findall(r'<rect class="bar" x="\d+" width="36" y="[\d.]+" height="([\d.]+)"', page)
    ]
    bands = [band for band in known.test.reliability if band.images]
    assert [height / 1.7 for height in drawn] == pytest.approx([100 * b.right / b.images for b in bands], abs=0.05)
    assert f"<b>{known.test.calibration_error} %</b>" in page
    for band in bands:
        assert f"{band.confidence} to {band.confidence + 10} %" in page


def test_every_plot_has_a_title_and_a_text_that_exist():
    elements = Elements(render_report(*card_with_none()))
    ids = [found["id"] for _, found in elements.found if "id" in found]
    assert len(ids) == len(set(ids))
    named = [found["aria-labelledby"] for name, found in elements.found if name == "svg" and "role" in found]
    assert len(named) == 4
    assert {part for names in named for part in names.split()} <= set(ids)


def test_what_other_pictures_become_is_in_the_page():
    known, _ = card_with_none()
    page = render_report(known)
    assert f"AUROC of <b>{known.other.auroc:.3f}</b>" in page
    assert f"The model calls {known.other.none_without_tag} of no tag" in page
    assert "Background held back: background of general32-1" in page


def test_a_different_preparation_is_the_first_thing_that_the_page_says():
    probe = Probe(corpus="photos", corpus_digest="d", labelled_images=2_000, corpus_images=1_990, auroc=0.973)
    page = render_report(measured_card(probe=probe))
    assert page.index("<b>Warning:</b> the labelled images and those of corpus photos") < page.index("<table")
    assert "AUROC 0.97 (0.5" in page
    alike = render_report(measured_card(probe=probe.replaced(auroc=0.55)))
    assert "Warning" not in alike
    assert "AUROC 0.55" in alike


def test_a_card_from_before_these_figures_is_shown():
    old = measured_card()
    test = old.test.replaced(reliability=())
    other = old.other.replaced(none_without_tag=None, none_with_tag=None, auroc=None)
    page = render_report(old.replaced(test=test, held_out=None, other=other))
    Elements(page)
    assert "Reliability" not in page
    assert "AUROC" not in page
    assert f"accuracy {test.accuracy} %" in page


def test_the_most_frequent_mistakes_are_listed_in_words():
    known, _ = card_with_none(tags=("cat", "dog", "emu"))
    page = render_report(known)
    most = max(
        (count, row, column)
        for row, counts in enumerate(known.test.confusion)
        for column, count in enumerate(counts)
        if row != column
    )
    names = ("cat", "dog", "emu", "none")
    listed = page.partition("Most frequent mistakes")[2]
    assert f'<td class="text">{names[most[1]]}</td><td class="text">{names[most[2]]}</td><td>{most[0]}</td>' in listed
