"""The planning step: creates the run of a corpus, a model and a threshold, and divides its blocks into groups."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tinytags_tasks.blocks import group_blocks
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.nets.catalogue import load_net_card
from tinytags_tasks.nets.shipped import shipped_card
from tinytags_tasks.nets.vectors import choose_vectors
from tinytags_tasks.review.carry import refuse_uncarried
from tinytags_tasks.score.take_over import earlier_run
from tinytags_tasks.settings import Similar, Thumbnails, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import current_configset, keep_configset
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.models import list_models, load_card, misfit
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now_after
from tinytags_tasks.store.run_identity import make_run, run_name
from tinytags_tasks.store.run_records import Run

_MOST_BYTES_IN_SOLR = 32 * 1024
"""Solr reads and copies stored values whenever it merges segments: larger images would be most of its work."""


@dataclass(frozen=True)
class PlanRequest:
    """One pass of a model over a corpus.

    Attributes
    ----------
    corpus
        The corpus' name.
    model
        The model's version.
    threshold
        The lowest confidence, in percent, with which an image is kept.
    blocks_per_task
        Blocks per mapped task; 0 lets TinyTags choose.
    most_groups
        How many mapped tasks there may be at most, whatever ``blocks_per_task`` is; None means any number.
    thumbnails
        Where the images of the run's documents are kept; default: TINYTAGS_THUMBNAILS. Images of more than
        32 KB are kept in the store.
    similar
        Whether they get vectors, so that similar pictures can be found; default: TINYTAGS_SIMILAR.
    """

    corpus: str
    model: str
    threshold: int = 40
    blocks_per_task: int = 0
    most_groups: int | None = None
    thumbnails: Thumbnails = field(default_factory=lambda: load_settings().thumbnails)
    similar: Similar = field(default_factory=lambda: load_settings().similar)

    def __post_init__(self) -> None:
        """Refuse a threshold that is not a percentage.

        Raises
        ------
        BadInputError
            If it is out of range.
        """
        if not 0 <= self.threshold <= 100:
            raise BadInputError(f"threshold is {self.threshold}: it is a percentage, 0 to 100")


@dataclass(frozen=True)
class PlanResult:
    """The run, and its blocks in groups, one group per mapped task."""

    run: str
    groups: list[tuple[int, ...]]


def plan_run(request: PlanRequest, *, storage: Storage, report: Callable[[str], None] = print) -> PlanResult:
    """Write the run's record, unless it exists, and return its blocks in groups.

    The run's name contains a hash of everything that determines its content (the corpus' bytes, the model, the
    threshold, where the images are kept, the configset, the net of its vectors). Planning the same again therefore
    finds the same run and all that is committed in it. A different configset makes a different run, with its own
    collection.

    Raises
    ------
    MissingError
        If there is no such corpus or model, the store lacks the net whose embeddings the model reads, or the checkout
        has no configset.
    BadInputError
        If the model does not fit the corpus, or vectors are asked for and there is no net to make them.
    FinalError
        If pictures were taken down of another version of the corpus, and that was not carried over to this one.
    """
    corpus = load_corpus(request.corpus, storage)
    refuse_uncarried(corpus, storage)
    card = load_card(storage, request.model)
    if reason := misfit(card, corpus):
        raise BadInputError(
            f"model {card.version} does not fit corpus {corpus.name}: {reason}; "
            "train on images that are prepared like the corpus"
        )
    if card.features != PIXELS:
        try:
            load_net_card(storage, card.features)
        except MissingError as error:
            raise MissingError(
                f"model {card.version} reads embeddings by a net that is not in the store ({error}); import or train "
                "the same net again with `tinytags nets import` or `tinytags nets train`"
            ) from error
    configset = current_configset()
    similar = choose_vectors(request.similar, corpus, card, storage, report)
    thumbnails = _thumbnails(request, corpus, report)
    run = make_run(corpus, card, request.threshold, thumbnails, configset.name, similar)
    if request.similar == "auto" and card.features == PIXELS:
        other = run_name(corpus, card.version, request.threshold, thumbnails, configset.name, _other_vectors(similar))
        run = _planned_before(run, other, storage, report)
    path = layout.run_file(run.name)
    if not storage.exists(path):
        keep_configset(configset, storage)
        known = list_runs(storage, on_damage=lambda problem: None)  # another run's damage is not this one's
        run = run.replaced(created=now_after(each.created for each in known))
        if earlier := earlier_run(run, corpus, known):
            run = run.replaced(earlier=earlier.name)
            new_images, new_blocks = run.images - earlier.images, run.blocks - earlier.blocks
            report(
                f"run {run.name}: {earlier.images:,} images in {earlier.blocks:,} blocks were planned for run "
                f"{earlier.name}, {new_images:,} images in {new_blocks:,} blocks are new"
            )
        run.save(storage, path, overwrite=False)
    groups = group_blocks(range(corpus.partition.blocks), request.blocks_per_task, request.most_groups)
    return PlanResult(run.name, groups)


def _thumbnails(request: PlanRequest, corpus: Corpus, report: Callable[[str], None]) -> Thumbnails:
    """Return where the images of the run's documents are kept: large ones stay in the store."""
    if request.thumbnails == "solr" and corpus.image_bytes > _MOST_BYTES_IN_SOLR:
        report(f"images of corpus {corpus.name} have {corpus.image_bytes:,} bytes, so they are kept in the store only")
        return "store"
    return request.thumbnails


def _other_vectors(similar: str) -> str:
    """Return the net whose embeddings would be a run's vectors if the store had other ones; empty if none would."""
    return "" if similar else shipped_card().version


def _planned_before(run: Run, other: str, storage: Storage, report: Callable[[str], None]) -> Run:
    """Return a run as it was planned when the store had other embeddings, so that these do not decide what a run is."""
    if storage.exists(layout.run_file(run.name)) or not storage.exists(layout.run_file(other)):
        return run
    found = Run.load(storage, layout.run_file(other))
    if found.pruned:
        return run
    has, option = ("with", "off") if found.similar else ("without", "on")
    report(f"run {found.name} was planned {has} vectors, and is taken; --similar {option} plans another")
    return found


def latest_model(corpus: str, storage: Storage, *, report: Callable[[str], None] = print) -> str:
    """Return the version of the latest model that fits a corpus' images; damaged cards are reported.

    Raises
    ------
    MissingError
        If there is no such model, or no such corpus.
    CorruptError
        If no card can be read.
    """
    damaged: list[str] = []
    cards = list_models(storage, on_damage=damaged.append)
    if not cards and damaged:
        raise CorruptError(f"no model's card can be read: {damaged[0]}")
    if not cards:
        raise MissingError("no model has been published yet: make one with `tinytags train`")
    for problem in damaged:
        report(f"a model is not considered: {problem}")
    images = load_corpus(corpus, storage)
    fitting = [card for card in cards if not misfit(card, images)]
    if not fitting:
        raise MissingError(
            f"no model fits corpus {corpus}: of the latest, {cards[-1].version}, {misfit(cards[-1], images)}; make one "
            f"with `tinytags train LABELLED --height {images.height} --width {images.width}`"
        )
    return fitting[-1].version
