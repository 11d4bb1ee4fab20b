"""Renders a model's card as one self-contained HTML page, including plots (SVG in the template)."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import describe_origin, share

_TEMPLATES = Path(__file__).with_name("templates")


def render_report(card: ModelCard) -> str:
    """Return a model's report: HTML without scripts, readable in light and dark."""
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = [(what, figures) for what, figures in (("Test set", card.test), ("Held out", card.held_out)) if figures]
    return templates.get_template("report.html").render(
        card=card, facts=describe_origin(card), measured=measured, other=card.other, share=share
    )
