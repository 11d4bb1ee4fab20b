"""The gate before publishing: a run that is whole may still be too poor to replace what is live."""

from tinytags_tasks.errors import MissingError
from tinytags_tasks.store.model_records import ModelCard


def precision_at(card: ModelCard, threshold: int) -> float:
    """Return what a model's card tells of the images that are kept: how many get their own tag, in percent.

    Parameters
    ----------
    card
        The card; its figures on the test set are taken, else those on what was held out of the labelled set.
    threshold
        Accuracy in percent from which an image is kept.

    Raises
    ------
    MissingError
        When the card has no such figure.
    """
    remedy = "publish without asking for a precision, or train a model whose card has it"
    evaluation = card.test or card.held_out
    if evaluation is None:
        raise MissingError(f"model {card.version}: its card has no figures on images whose tags are known; {remedy}")
    votes = -(-threshold * card.trees // 100)
    figures = next((figures for figures in evaluation.thresholds if figures.votes == votes), None)
    if figures is None:
        known = ", ".join(f"{figures.threshold} %" for figures in evaluation.thresholds) or "none"
        raise MissingError(
            f"model {card.version}: its card has no precision at an accuracy of {threshold} % (it has it at: {known}); "
            f"{remedy}"
        )
    if not figures.kept:
        raise MissingError(
            f"model {card.version}: none of the {evaluation.images:,} images that its card tells of is kept at "
            f"{threshold} %, so there is no precision; {remedy}"
        )
    return 100.0 * figures.right / figures.kept


def gate_problems(
    *,
    documents: int,
    live_documents: int | None,
    least_documents_percent: float | None,
    precision: float | None,
    least_precision: float | None,
) -> list[str]:
    """Compare a run with what it must reach, and say with figures what it does not.

    Parameters
    ----------
    documents, live_documents
        The run's, and those that are live now; None where nothing is.
    least_documents_percent
        How many the run must have, in percent of the live ones; None asks for nothing.
    precision, least_precision
        In percent: the run's, and what it must be; None asks for nothing.
    """
    problems = []
    if least_documents_percent is not None and live_documents:
        percent = 100.0 * documents / live_documents
        if percent < least_documents_percent:
            problems.append(
                f"it has {documents:,} documents, {percent:.1f} % of the {live_documents:,} that are live, and at "
                f"least {least_documents_percent:g} % are asked for"
            )
    if least_precision is not None and precision is not None and precision < least_precision:
        problems.append(
            f"its model's precision is {precision:.1f} % at the run's threshold, and at least {least_precision:g} % is "
            "asked for"
        )
    return problems
