"""The training step: turns a labelled set into a published model."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tinytags_tasks.clients.spark import ConnectSpark
from tinytags_tasks.corpus.labelled import file_sha256, refuse_missing, refuse_other_classes
from tinytags_tasks.corpus.labelled_copy import OpenSource, sets_here
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.nets.catalogue import net_for, read_background
from tinytags_tasks.nets.compose import compose_model
from tinytags_tasks.nets.running import CPU, offered_here
from tinytags_tasks.store import layout
from tinytags_tasks.store.labelled_pictures import hashes_of, keep_pictures, pictures_file
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.model_records import (
    PIXELS,
    BackgroundUse,
    Evaluation,
    LastTraining,
    ModelCard,
    OtherEvaluation,
    ReviewUse,
    Training,
)
from tinytags_tasks.store.models import model_version, publish_model, read_model
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.train import none, review_weight, whitening
from tinytags_tasks.train.evaluation import read_yardstick
from tinytags_tasks.train.family import Classifier, model_metadata
from tinytags_tasks.train.features import LabelledFeatures, head_votes, read_features, sight_of
from tinytags_tasks.train.fitting import fit_heads, make_lesson
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.held_back import measure_background, measure_held_out
from tinytags_tasks.train.images import preparation, read_labelled
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.probe import probe_training, warn_again
from tinytags_tasks.train.report import render_report
from tinytags_tasks.train.review_weight import choose_way
from tinytags_tasks.train.reviews import ENOUGH, FEWEST_NONE, Reviewed, Reviews, embed_reviewed, find_reviews
from tinytags_tasks.train.spark_features import PARTITION_VALUES
from tinytags_tasks.train.tag_counts import count_learned, images_of_tags, report_counts
from tinytags_tasks.votes import winners

__all__ = ["TrainRequest", "TrainResult", "train_model"]


@dataclass(frozen=True)
class TrainResult:
    """The published model's version; ``trained`` is False if it had been published before."""

    model: str
    trained: bool


@dataclass(frozen=True)
class _Training:
    """A request of which everything is known that decides the outcome.

    Attributes
    ----------
    request
        The request.
    labelled_sha256
        The hash of the labelled set.
    net
        The net that the model sees through; None if it sees pixels.
    has_none
        Whether the model can say "none of the tags".
    reviews
        What people said of a corpus' pictures; None if it learns from the labelled set alone.
    """

    request: TrainRequest
    labelled_sha256: str
    net: NetCard | None
    has_none: bool
    reviews: Reviews | None = None

    @property
    def identity(self) -> str:
        """The hash of everything that decides the outcome."""
        return _training_id(self.request, self.labelled_sha256, self.net, has_none=self.has_none, reviews=self.reviews)


@dataclass(frozen=True)
class _Figures:
    """A model's figures: on images held out from a second model, the test set and other things, and a summary."""

    held_out: Evaluation | None
    test: Evaluation | None
    other: OtherEvaluation | None
    metrics: dict[str, float]


def train_model(
    request: TrainRequest,
    *,
    storage: Storage,
    connect_spark: ConnectSpark,
    report: Callable[[str], None] = print,
    providers: Sequence[str] = (CPU,),
    open_source: OpenSource = SourceFiles,
) -> TrainResult:
    """Publish the model that the labelled set and the request determine, unless it has been published already.

    If another process is training the same model, wait for it. The labelled set is embedded in this process, by those
    of ``providers`` that ONNX Runtime offers it. Sets at an address, which ``open_source`` opens, are copied to this
    machine for as long as that takes.

    Raises
    ------
    BadInputError
        If a labelled set or its combination with the net cannot be used.
    MissingError
        If there is no such net.
    TransientError
        If Spark or HDFS is unavailable.
    """
    given = (request.labelled, request.test, request.other)
    refuse_missing(*given, open_source=open_source)
    with sets_here(*given, open_source=open_source, report=report) as sets:
        labelled, test, other = sets.paths
        here = replace(request, labelled=labelled or "", test=test, other=other)
        trained = _train_here(here, storage, connect_spark, sets.report, providers)
    if request.corpus:
        last = LastTraining(model=trained.model, request=asdict(request))
        last.save(storage, layout.last_training_file(request.corpus))
    return trained


def _train_here(
    request: TrainRequest,
    storage: Storage,
    connect_spark: ConnectSpark,
    report: Callable[[str], None],
    providers: Sequence[str],
) -> TrainResult:
    """Train with labelled sets that are on this machine."""
    labelled_sha256 = file_sha256(Path(request.labelled))
    reviews = find_reviews(request, storage, report)
    net = None if request.features == PIXELS else net_for(request.features, storage)
    training = _Training(request, labelled_sha256, net, _has_none(request, net, reviews), reviews)
    lease = layout.training_lease_file(training.identity)
    with Leases(storage).wait_for(lease, f"training {training.identity}", report):
        return _train(training, storage, connect_spark, report, providers)


def request_with_reviews(corpus: str, last: LastTraining) -> TrainRequest:
    """Return the request of a corpus' last training, with what people have said of the corpus since.

    Raises
    ------
    BadInputError
        If it can no longer be made: a newer or older TinyTags has other parameters.
    """
    known = {each.name for each in fields(TrainRequest)}
    given: dict[str, Any] = {name: value for name, value in last.request.items() if name in known}
    try:
        return replace(TrainRequest(**given), reviews=corpus, least_reviews=ENOUGH)
    except TypeError as error:
        raise BadInputError(
            f"{layout.last_training_file(corpus)}: not a training's request ({error}); "
            f"{last.remedy(layout.last_training_file(corpus))}"
        ) from error


def _has_none(request: TrainRequest, net: NetCard | None, reviews: Reviews | None) -> bool:
    has_background = net is not None and bool(net.background_sha256)
    can_learn = has_background or (reviews is not None and reviews.none >= FEWEST_NONE)
    if request.none and not can_learn:
        raise BadInputError(
            f"net {request.features} has no background that could teach none of the tags: train with --no-none, with "
            f"a net that has one, or with reviews of {FEWEST_NONE} pictures that show none"
        )
    return can_learn if request.none is None else request.none


def _train(
    training: _Training,
    storage: Storage,
    connect_spark: ConnectSpark,
    report: Callable[[str], None],
    providers: Sequence[str],
) -> TrainResult:
    """Train as the only one."""
    request, identity = training.request, training.identity
    started = time.monotonic()
    storage.delete_leftovers(layout.training_file(identity), layout.training_lease_file(identity))
    existing = _existing_model(identity, storage)
    if existing:
        _keep_pictures(request, training.labelled_sha256, storage)
        report(f"model {existing.version} was learned from the same images with the same parameters: nothing to do")
        report_counts(existing.tags, existing.labelled_of_tags, existing.unlabelled_images, report)
        _report_unmeasured(request, existing, report)
        warn_again(request, existing, storage, report)
        return TrainResult(existing.version, trained=False)
    here = offered_here(providers, report) if training.net else (CPU,)
    sight = sight_of(training.net, request.height, request.width, storage, here)
    path = Path(request.labelled)
    read: list[frozenset[bytes]] = []
    labelled = read_features(
        *(path, training.labelled_sha256, request.tags, sight, storage, report),
        keep=lambda images: read.append(hashes_of(images)),
    )
    if training.reviews:
        labelled = replace(labelled, tags=training.reviews.tags)
    report(f"read {len(labelled.labels):,} labelled images of {len(labelled.tags)} tags from {request.labelled}")
    of_tags = images_of_tags(labelled)
    report_counts(labelled.tags, of_tags, labelled.unlabelled, report)
    if request.test and request.tags is None:
        refuse_other_classes(Path(request.test), labelled.tags)
    # Before the long part, so that a file that cannot be used is reported at once.
    yardstick = read_yardstick(request.test, request.other, labelled.tags, sight, storage, report)
    learned = count_learned(labelled, yardstick.test, report)
    probe = probe_training(request, len(labelled.labels), storage, report)
    background = _background(training, labelled, storage, report)
    reviewed = embed_reviewed(training.reviews, sight, storage, report) if training.reviews else None
    if reviewed:
        yardstick = yardstick.without(reviewed.embeddings, report)
        way = choose_way(request, labelled, background, reviewed, report)
        request, reviewed, background = way.applied(request, reviewed, background)
    lesson = make_lesson(
        request,
        labelled,
        background,
        reviewed,
        has_none=training.has_none,
        whitening=_whitening(training, labelled, storage, report),
    )
    embed_seconds = labelled.embed_seconds + yardstick.embed_seconds
    seconds = {"load": round(time.monotonic() - started - embed_seconds, 1)}
    if embed_seconds:
        seconds["embed"] = round(embed_seconds, 1)
    fitted = fit_heads(request, lesson, identity, storage, connect_spark, report)
    seconds |= fitted.seconds
    fitted_at = time.monotonic()
    classifier = fitted.classifier
    if training.net:
        whole = compose_model(sight.graph, classifier.onnx_model, _metadata(labelled.tags, training))
        classifier = replace(classifier, onnx_model=whole)
    gallery = Gallery()
    held_out = measure_held_out(fitted, lesson, labelled, request, gallery)
    test, other = yardstick.measure(fitted.classifier, gallery)
    figures = _Figures(held_out, test, other, _metrics(fitted.classifier, labelled, held_out, test))
    seconds["measure"] = round(time.monotonic() - fitted_at, 1)
    card = _card(training, labelled, background, classifier, figures, seconds)
    card = card.replaced(
        probe=probe,
        background_held_back=measure_background(fitted, lesson, card.background),
        reviews=_review_use(training, reviewed, background),
        net_reviews=training.net.reviews if training.net else (),
        labelled_of_tags=of_tags,
        unlabelled_images=labelled.unlabelled,
        learned_test_images=learned,
    )
    _keep_pictures(request, training.labelled_sha256, storage, *read)
    publish_model(card, classifier.onnx_model, render_report(card, gallery), storage)
    Training(model=card.version).save(storage, layout.training_file(identity))
    report(f"published {card.version}: " + ", ".join(f"{name} {value:g}" for name, value in card.metrics.items()))
    return TrainResult(card.version, trained=True)


def _keep_pictures(
    request: TrainRequest, labelled_sha256: str, storage: Storage, known: frozenset[bytes] | None = None
) -> None:
    """Keep which pictures the labelled set has, unless they are kept, so that none of them measures the model."""
    size = request.height, request.width
    path = pictures_file(labelled_sha256, *size, preparation(*size))
    if not storage.exists(path):
        found = known or hashes_of(read_labelled(Path(request.labelled), request.tags, *size).images)
        keep_pictures(path, found, storage)


def _training_id(
    request: TrainRequest,
    labelled_sha256: str,
    net: NetCard | None = None,
    *,
    has_none: bool = False,
    reviews: Reviews | None = None,
) -> str:
    """Hash everything that determines a model's votes, but not the card's figures or the files' paths.

    What came later is included only if it is not what the original did: see ``docs/adr/0017-identities.md``.
    """
    decisive: dict[str, object] = {
        "data": labelled_sha256,
        "height": request.height,
        "name": request.model_name,
        "spark": version("pyspark"),
        "tags": request.tags,
        "width": request.width,
        **request.parameters,
        **_partitions(request, net),
    }
    if request.head != "forest":
        decisive["head"] = request.head
    if net:
        decisive["net"] = net.version
    if reviews:
        # Of the log, only the words that teach: a word that changes nothing gives no other model.
        decisive["reviews"] = [
            reviews.corpus.digest,
            reviews.teaching.sha256,
            reviews.tags,
            has_none,
            review_weight.RULE,
        ]
    if whitening_background := _whitened_by(request, net, has_none=has_none, reviews=reviews):
        decisive["whitening"] = [whitening_background, *whitening.RULE]
    if net and net.background_sha256 and has_none:
        decisive["background"] = [net.background_sha256, none.SURE, none.OFTEN, none.SELDOM]
        if request.family.most_background is not None:
            decisive["most_background"] = request.family.most_background
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _partitions(request: TrainRequest, net: NetCard | None) -> dict[str, int]:
    """Return what says how the images are split among Spark's tasks, which decides what a forest's bagging draws."""
    return {"partitions": request.family.most_partitions} if net else {"partition_values": PARTITION_VALUES}


def _existing_model(training: str, storage: Storage) -> ModelCard | None:
    if not storage.exists(layout.training_file(training)):
        return None
    try:
        model = Training.load(storage, layout.training_file(training)).model
        read_model(storage, model)
        return ModelCard.load(storage, layout.card_file(model))
    except (MissingError, CorruptError):  # if it is trained again, it is also published again
        return None


def _report_unmeasured(request: TrainRequest, card: ModelCard, report: Callable[[str], None]) -> None:
    """Report which requested figures are missing on the existing card, which is never rewritten."""
    for file, figures in ((request.test, card.test), (request.other, card.other)):
        if file and (figures is None or figures.sha256 != file_sha256(Path(file))):
            report(f"its card has no figures on {file}, and a card is never changed: train under another name for them")


def _whitened_by(request: TrainRequest, net: NetCard | None, *, has_none: bool, reviews: Reviews | None) -> str | None:
    """Return the hash of the background that prepares embeddings, if they are few; None if nothing prepares them.

    A head with none learns from the background itself how embeddings vary. How much reviews count is chosen for
    embeddings as they are.
    """
    if net is None or has_none or reviews or not request.family.whitens_few:
        return None
    return net.background_sha256 or None


def _whitening(
    training: _Training, labelled: LabelledFeatures, storage: Storage, report: Callable[[str], None]
) -> whitening.Whitening | None:
    """Return how embeddings are prepared; None if the head learns from them as they are."""
    request, net = training.request, training.net
    if net is None or len(labelled.labels) > whitening.MOST_LABELLED:
        return None
    if not _whitened_by(request, net, has_none=training.has_none, reviews=training.reviews):
        return None
    report(
        f"whitening the embeddings by the background of {net.version}: {len(labelled.labels):,} labelled images are few"
    )
    return whitening.whitening_by(read_background(storage, net))


def _background(
    training: _Training, labelled: LabelledFeatures, storage: Storage, report: Callable[[str], None]
) -> none.Chosen | None:
    """Return the pictures that teach "none of the tags"; None if the model does not learn it."""
    net = training.net
    if net is None or not net.background_sha256 or not training.has_none:
        return None
    chosen = none.choose_background(read_background(storage, net), labelled, net.version)
    if (most := training.request.family.most_background) is not None:
        chosen = chosen.sample(most * len(labelled.labels), training.request.seed)
    report(
        f"learning none of the tags from {len(chosen.embeddings):,} general pictures; left out as tags: "
        f"{len(chosen.left_out_by_name)} classes by name, {len(chosen.left_out_by_look)} by look"
    )
    return chosen


def _review_use(training: _Training, reviewed: Reviewed | None, background: none.Chosen | None) -> ReviewUse | None:
    if training.reviews is None or reviewed is None:
        return None
    had_background = training.has_none and training.net is not None and bool(training.net.background_sha256)
    return training.reviews.use(weight=reviewed.weight, replaced_background=had_background and background is None)


def _metadata(tags: tuple[str, ...], training: _Training) -> dict[str, str]:
    """Return the metadata of a model that sees through a net; they are part of its hash."""
    assert training.net is not None  # noqa: S101 - for the type checker
    return {**model_metadata(tags), "features": training.net.version, "none": json.dumps(training.has_none)}


def _metrics(
    head: Classifier, labelled: LabelledFeatures, held_out: Evaluation | None, test: Evaluation | None
) -> dict[str, float]:
    """Return the main figures: test accuracies in percent, whatever the confidence."""
    winner, _ = winners(head_votes(head.onnx_model, labelled.values))
    metrics = {"training_accuracy": round(100.0 * float((winner == labelled.labels).mean()), 2)}
    if held_out:
        metrics["held_out_accuracy"] = held_out.accuracy
    if test:
        metrics |= {"test_accuracy": test.accuracy, "test_images": float(test.images)}
    return metrics


def _card(
    training: _Training,
    labelled: LabelledFeatures,
    background: none.Chosen | None,
    classifier: Classifier,
    figures: _Figures,
    seconds: dict[str, float],
) -> ModelCard:
    request, net = training.request, training.net
    use = None
    if net and background:
        use = BackgroundUse(
            net=net.version,
            sha256=net.background_sha256,
            images=len(background.embeddings),
            left_out_by_name=background.left_out_by_name,
            left_out_by_look=background.left_out_by_look,
        )
    return ModelCard(
        version=model_version(request.model_name, classifier.onnx_model),
        tags=labelled.tags,
        trees=classifier.total,
        output=classifier.output,
        features=net.version if net else PIXELS,
        head=request.head,
        none=training.has_none,
        background=use,
        height=request.height,
        width=request.width,
        preparation=preparation(request.height, request.width),
        labelled_set=labelled.path.name,
        labelled_sha256=labelled.sha256,
        labelled_images=len(labelled.labels),
        licence=request.licence,
        parameters={**classifier.parameters, **_partitions(request, net)},
        metrics=figures.metrics,
        libraries={name: version(name) for name in ("pyspark", "onnx", "onnxruntime", "numpy", "pillow")},
        seconds=seconds,
        created=now(),
        held_out=figures.held_out,
        test=figures.test,
        other=figures.other,
    )
