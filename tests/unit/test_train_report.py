"""The report: everything on the card, in a self-contained page without scripts."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_run import card

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.train.evaluation import evaluate, evaluate_other
from tinytags_tasks.train.report import render_report

TAGS = ("cat", "<script>alert(1)</script>", 'a "b" & c')


def measured_card(**changes):
    votes = np.random.default_rng(1).multinomial(10, [0.5, 0.3, 0.2], 200).astype(np.float32)
    images = np.zeros((200, 1, 1, 3), dtype=np.uint8)
    labels = np.random.default_rng(2).integers(0, 3, 200)
    measured = evaluate(votes, LabelledSet(Path("test.parquet"), images, labels, TAGS), 10, "1" * 64)
    others = evaluate_other(votes, LabelledSet(Path("other.parquet"), images, labels - 2, TAGS), 10, "2" * 64)
    fields = {"tags": TAGS, "test": measured, "held_out": measured, "other": others, "parameters": {"trees": 10}}
    return card(**{**fields, **changes})


class Elements(HTMLParser):
    """Collects the elements, and checks that each opened element is closed."""

    VOID = frozenset({"meta", "line", "circle", "polyline"})

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
    assert sum(name == "svg" and "role" in found for name, found in elements.found) == 3


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
