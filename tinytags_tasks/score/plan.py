"""The planning step: which run a corpus, a model and a threshold make, and what is left to do in it."""

import hashlib
import json
from dataclasses import dataclass, field

from tinytags_tasks import layout
from tinytags_tasks.blocks import group_blocks
from tinytags_tasks.configsets import FOUNDING_CONFIGSET, current_configset, keep_configset
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.records import Corpus, ModelCard, Run, now
from tinytags_tasks.settings import Thumbnails, load_settings
from tinytags_tasks.storage import Storage


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
        Accuracy in percent from which an image is kept.
    blocks_per_task
        Blocks that one mapped task takes; 0 chooses.
    thumbnails
        Where the run's documents have their images; as TINYTAGS_THUMBNAILS says, unless told.
    """

    corpus: str
    model: str
    threshold: int = 40
    blocks_per_task: int = 0
    thumbnails: Thumbnails = field(default_factory=lambda: load_settings().thumbnails)

    def __post_init__(self) -> None:
        """Refuse a threshold that is no percentage.

        Raises
        ------
        BadInputError
            When it is out of range.
        """
        if not 0 <= self.threshold <= 100:
            raise BadInputError(f"threshold is {self.threshold}: it is a percentage, 0 to 100")


@dataclass(frozen=True)
class PlanResult:
    """The run, and its blocks in the groups that mapped tasks take."""

    run: str
    groups: list[tuple[int, ...]]


def run(request: PlanRequest, *, storage: Storage) -> PlanResult:
    """Write the run's record, unless it stands, and return its blocks in groups.

    The run's name is a hash of what decides its content (the corpus' bytes, the model, the threshold, where the images
    are, the configset), so planning the same again finds the same run, with all that is committed in it. Another
    configset makes another run, with a collection of its own.

    Raises
    ------
    MissingError
        When there is no such corpus or model, or the checkout has no configset.
    BadInputError
        When the model does not fit the corpus.
    """
    corpus = Corpus.load(storage, layout.corpus_file(request.corpus))
    card = ModelCard.load(storage, layout.card_file(request.model))
    _refuse_misfit(corpus, card)
    configset = current_configset()
    # Runs from before there was this choice, or another configset, keep their names.
    in_store = [request.thumbnails] if request.thumbnails == "store" else []
    later_configset = [configset.name] if configset.name != FOUNDING_CONFIGSET else []
    decisive = json.dumps([corpus.digest, card.version, request.threshold, *in_store, *later_configset])
    name = f"{corpus.name}-{hashlib.sha256(decisive.encode()).hexdigest()[:12]}"
    path = layout.run_file(name)
    if not storage.exists(path):
        keep_configset(configset, storage)
        Run(
            name=name,
            corpus=corpus.name,
            corpus_digest=corpus.digest,
            description="; ".join(filter(None, (corpus.description, preparation_note(corpus, card)))),
            model=card.version,
            threshold=request.threshold,
            thumbnails=request.thumbnails,
            images=corpus.images,
            blocks=corpus.partition.blocks,
            collection=layout.collection_name(name),
            created=now(),
            configset=configset.name,
        ).save(storage, path, overwrite=False)
    return PlanResult(name, group_blocks(range(corpus.partition.blocks), request.blocks_per_task))


def _refuse_misfit(corpus: Corpus, card: ModelCard) -> None:
    for what, ours, theirs in (
        ("image size", (corpus.height, corpus.width, corpus.channels), (card.height, card.width, card.channels)),
        ("pixel order", corpus.pixel_order, card.pixel_order),
    ):
        if ours != theirs:
            raise BadInputError(
                f"model {card.version} does not fit corpus {corpus.name}: its {what} is {theirs}, the corpus' {ours}; "
                "train on images prepared as the corpus is"
            )


def preparation_note(corpus: Corpus, card: ModelCard) -> str:
    """Return what to know when a corpus' images were prepared otherwise than those that a model learned from.

    How a picture was prepared is part of what a model learned, so this is shown wherever the run is. Empty when both
    are the same, or the model's is not known.
    """
    if not card.preparation or card.preparation == corpus.preparation:
        return ""
    return f"its images: {corpus.preparation}; those that the model learned from: {card.preparation}"


def latest_model(storage: Storage) -> str:
    """Return the version of the model that was published last.

    Raises
    ------
    MissingError
        When none is.
    """
    cards = [ModelCard.load(storage, layout.card_file(version)) for version in storage.names(layout.MODELS)]
    if not cards:
        raise MissingError("no model is published yet: make one with `tinytags train`")
    return max(cards, key=lambda card: (card.created, card.version)).version
