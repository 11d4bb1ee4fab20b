"""Renders a model's card as one self-contained HTML page, including plots (SVG) and pictures (JPEG in the page)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinytags_tasks.store.model_figures import share
from tinytags_tasks.store.model_records import Evaluation, ModelCard, OtherEvaluation
from tinytags_tasks.store.models import describe_origin
from tinytags_tasks.train.gallery import Cell, Gallery, Part, Picture

_TEMPLATES = Path(__file__).with_name("templates")

_MOST_MISTAKES = 10


@dataclass(frozen=True)
class Line:
    """A line of a plot: its name, and a percentage, or None, at each threshold."""

    name: str
    values: tuple[float | None, ...]

    @property
    def text(self) -> str:
        """The values in words, for people who cannot see the plot."""
        return f"{self.name}: {', '.join('-' if value is None else f'{value:.1f} %' for value in self.values)}"


@dataclass(frozen=True)
class Mistake:
    """How many images of one tag get another one, or none."""

    tag: str
    winner: str
    images: int
    of_tag: int


@dataclass(frozen=True)
class Measured:
    """A section of the report: figures on images whose tags are known, and pictures of some of them."""

    what: str
    figures: Evaluation
    pictures: Mapping[Cell, Sequence[Picture]]
    winners: tuple[str, ...]

    @property
    def lines(self) -> list[Line]:
        """The lines of its plot of thresholds."""
        thresholds, images = self.figures.thresholds, self.figures.images
        return [
            Line("images kept", tuple(_percentage(each.kept, images) for each in thresholds)),
            Line("right of the kept", tuple(_percentage(each.right, each.kept) for each in thresholds)),
        ]

    @property
    def mistakes(self) -> list[Mistake]:
        """The most frequent mistakes."""
        counts = [
            Mistake(self.winners[right], self.winners[winner], count, sum(row))
            for right, row in enumerate(self.figures.confusion)
            for winner, count in enumerate(row)
            if count and right != winner
        ]
        return sorted(counts, key=lambda mistake: -mistake.images)[:_MOST_MISTAKES]


def render_report(card: ModelCard, pictures: Gallery | None = None) -> str:
    """Return a model's report: HTML without scripts, readable in light and dark.

    Parameters
    ----------
    card
        The model's card.
    pictures
        Pictures for the cells of the confusion matrices; None shows the counts alone.
    """
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts: tuple[tuple[str, Part, Evaluation | None], ...] = (
        ("Test set", "test", card.test),
        ("Held out", "held_out", card.held_out),
    )
    measured = [
        Measured(what, figures, pictures.pictures(part) if pictures else {}, (*card.tags, "none"))
        for what, part, figures in parts
        if figures
    ]
    others = [
        (what, figures, _other_lines(figures))
        for what, figures in (("Other things", card.other), ("Background held back", card.background_held_back))
        if figures
    ]
    return templates.get_template("report.html").render(
        card=card, facts=describe_origin(card), measured=measured, others=others, share=share
    )


def _other_lines(figures: OtherEvaluation) -> list[Line]:
    """Return the lines of a plot of thresholds; those without any value are left out."""
    thresholds = figures.thresholds
    lines = [
        Line(
            "tagged, of images of no tag",
            tuple(_percentage(each.tagged_without_tag, figures.without_tag) for each in thresholds),
        ),
        Line(
            "tagged, of images of a tag",
            tuple(_percentage(each.tagged_with_tag, figures.with_tag) for each in thresholds),
        ),
    ]
    if figures.with_tag:
        lines.append(Line("right of the tagged", tuple(_percentage(each.right, each.tagged) for each in thresholds)))
    return [line for line in lines if any(value is not None for value in line.values)]


def _percentage(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
