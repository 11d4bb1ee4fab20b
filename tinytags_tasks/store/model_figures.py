"""A model's figures, as text for people."""

from tinytags_tasks.store.model_records import Evaluation, ModelCard, OtherEvaluation


def share(part: int, whole: int) -> str:
    """Return a share in percent; a dash if the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def describe_figures(card: ModelCard) -> dict[str, str]:
    """Return a model's figures, as text by heading; those that were not measured are left out."""
    described: dict[str, str] = {}
    for what, measured in (("held out", card.held_out), ("test set", card.test)):
        if measured:
            described |= _describe_evaluation(what, measured, has_none=card.none)
    for what, others in (("other things", card.other), ("background held back", card.background_held_back)):
        if others:
            described |= _describe_others(what, others)
    if card.probe:
        described[f"preparation of corpus {card.probe.corpus}"] = (
            card.probe.warning or f"like that of the labelled images (AUROC {card.probe.auroc:.2f})"
        )
    return described


def _describe_evaluation(what: str, measured: Evaluation, *, has_none: bool) -> dict[str, str]:
    described = {f"{what}: accuracy": f"{measured.accuracy:.2f} % of {measured.images:,}"}
    if has_none:
        described[f"{what}: none"] = f"{share(measured.none, measured.images)} called none of the tags"
    if measured.calibration_error is not None:
        described[f"{what}: calibration error"] = f"{measured.calibration_error:.2f} %"
    return described | {
        f"{what}: confidence from {figures.threshold} %": (
            f"{share(figures.kept, measured.images)} kept, {share(figures.right, figures.kept)} of these right"
        )
        for figures in measured.thresholds
    }


def _describe_others(what: str, others: OtherEvaluation) -> dict[str, str]:
    described = {}
    images = others.without_tag + others.with_tag
    if others.auroc is not None:
        described[f"{what}: tag against none"] = f"AUROC {others.auroc:.3f}"
    if others.none_without_tag is not None:
        described[f"{what}: none"] = (
            f"{share(others.none_without_tag, others.without_tag)} of the {others.without_tag:,} images of no tag"
        )
    for figures in others.thresholds:
        right = f", {share(figures.right, figures.tagged)} of these right" if others.with_tag else ""
        described[f"{what}: confidence from {figures.threshold} %"] = f"{share(figures.tagged, images)} tagged{right}"
    return described
