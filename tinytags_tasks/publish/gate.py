"""The gate before publishing: a run that is complete may still be too poor to replace what is live of its corpus."""

from collections.abc import Callable

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, MissingError
from tinytags_tasks.publish.live import live_collections
from tinytags_tasks.publish.publications import complete_history, live_by_corpus, of_corpus, read_history
from tinytags_tasks.review.measuring import measure_run
from tinytags_tasks.review.thresholds import choose_thresholds
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import NextPublication, Run


def precision_at(card: ModelCard, threshold: int) -> float:
    """Return the precision at a threshold: of the images that are kept, the percentage that gets the right tag.

    Parameters
    ----------
    card
        The model's card. Figures on the test set are preferred to those on the held-out part of the labelled set.
    threshold
        Lowest confidence, in percent, at which an image is kept.

    Raises
    ------
    MissingError
        If the card has no such figure.
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
            f"model {card.version}: its card has no precision at a confidence of {threshold} % (it has it at: "
            f"{known}); {remedy}"
        )
    if not figures.kept:
        raise MissingError(
            f"model {card.version}: none of the {evaluation.images:,} images that its card is based on is kept at "
            f"{threshold} %, so there is no precision; {remedy}"
        )
    return 100.0 * figures.right / figures.kept


def standing_wish(run: Run, alias: str, storage: Storage, solr: SolrClient) -> float | None:
    """Return the measured precision that was asked for when the corpus was last published under an alias.

    It stays in force while the corpus is taken out. None if this run itself is live, nothing of the corpus ever was, or
    every document is shown.
    """
    live = live_collections(alias, solr)
    if live == (run.collection,):
        return None
    history = read_history(alias, storage)
    if live_by_corpus(live, history, storage).get(run.corpus, ()) == (run.collection,):
        return None
    own = of_corpus(run.corpus, complete_history(alias, history, live, storage))
    return next((record.least_precision for record in reversed(own) if record.collection), None)


def choose_publication(
    run: Run,
    least_measured_precision: float | None,
    storage: Storage,
    report: Callable[[str], None],
    *,
    standing_under: str = "",
) -> NextPublication:
    """Return what readers are to see of a run: each tag from the confidence on that reaches a measured precision.

    Parameters
    ----------
    run
        The run.
    least_measured_precision
        In percent; None or 0 shows every document.
    storage, report
        The store, and what is called with each line about what was chosen and what it costs.
    standing_under
        The alias whose live publication asks for this precision, if nobody asked for it now.

    Raises
    ------
    FinalError
        If nothing was measured, or no tag reaches it.
    """
    if not least_measured_precision:
        return NextPublication(collection=run.collection, corpus=run.corpus)
    try:
        chosen = choose_thresholds(measure_run(run, storage, report), least_measured_precision)
    except BadInputError as error:
        why = ""
        if standing_under:
            why = (
                f"what was last live of its corpus under {standing_under} was published at a measured precision of "
                f"{least_measured_precision:g} %, which stays in force until a publication asks for another; "
            )
        raise FinalError(f"run {run.name} is verified, but not published: {why}{error}") from error
    for line in chosen.lines:
        report(line)
    return NextPublication(
        collection=run.collection,
        thresholds=chosen.thresholds,
        least_precision=least_measured_precision,
        corpus=run.corpus,
    )


def gate_problems(
    *,
    documents: int,
    live_documents: int | None,
    least_documents_percent: float | None,
    precision: float | None,
    least_precision: float | None,
) -> list[str]:
    """Compare a run with the gate, and return what falls short, with figures.

    Parameters
    ----------
    documents, live_documents
        The number of documents of the run, and of what is live of its corpus now; None if nothing is live.
    least_documents_percent
        The fewest documents that the run may have, in percent of the live ones; None does not check this.
    precision, least_precision
        In percent: the run's precision, and the lowest that is accepted; None does not check this.
    """
    problems = []
    if least_documents_percent is not None and live_documents:
        percent = 100.0 * documents / live_documents
        if percent < least_documents_percent:
            problems.append(
                f"it has {documents:,} documents, {percent:.1f} % of the {live_documents:,} that are live; the gate "
                f"requires at least {least_documents_percent:g} %"
            )
    if least_precision is not None and precision is not None and precision < least_precision:
        problems.append(
            f"its model's precision is {precision:.1f} % at the run's threshold; the gate requires at least "
            f"{least_precision:g} %"
        )
    return problems
