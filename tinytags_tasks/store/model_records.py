"""What is written down of a model: its card, with its figures, and the training that made it."""

from typing import Literal

from tinytags_tasks.store.corpus_records import PIXEL_ORDER
from tinytags_tasks.store.record import Part, Record


class ThresholdFigures(Part):
    """What is kept from a threshold of confidence up, on images whose tags are known.

    Attributes
    ----------
    threshold
        The least confidence, in percent: the winning tag's share of an image's votes.
    votes
        The fewest votes for the winner that reach it.
    kept, right
        How many images are kept, and how many of these get their own tag.
    precision
        For each tag, in percent: of the kept images that get it, those whose tag it is. None where no image gets it.
    recall
        For each tag, in percent: of all images whose tag it is, those that are kept and get it. None where none has it.
    """

    threshold: int
    votes: int
    kept: int
    right: int
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]


class Evaluation(Part):
    """A model's figures on images whose tags are known.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    images, accuracy
        How many, and the percentage whose winning tag is right, whatever its confidence.
    confusion
        Images by their own tag (row) and the winning tag (column).
    thresholds
        What is kept from each threshold of confidence up.
    """

    labelled_set: str
    sha256: str
    images: int
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    thresholds: tuple[ThresholdFigures, ...]


class OtherFigures(Part):
    """What is kept from a threshold of confidence up, on images of other things.

    Attributes
    ----------
    threshold, votes
        As in :class:`ThresholdFigures`.
    tagged_without_tag
        Images that show none of the tags, but get one.
    tagged_with_tag, right
        Images of a tag that get any tag, and those that get theirs.
    """

    threshold: int
    votes: int
    tagged_without_tag: int
    tagged_with_tag: int
    right: int

    @property
    def tagged(self) -> int:
        """Images that get a tag."""
        return self.tagged_without_tag + self.tagged_with_tag


class OtherEvaluation(Part):
    """A model's figures on images most of which show none of its tags, as in a corpus.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    without_tag, with_tag, left_out
        Images of no tag, of a tag, and those whose right tag is arguable, which are not counted.
    thresholds
        What is tagged from each threshold of confidence up.
    """

    labelled_set: str
    sha256: str
    without_tag: int
    with_tag: int
    left_out: int
    thresholds: tuple[OtherFigures, ...]


Output = Literal["votes", "probabilities"]
"""What a model's output is: votes of trees, or probabilities in percent."""


class ModelCard(Record):
    """A published model: how it was made, and its figures.

    Attributes
    ----------
    version, tags
        Name and content hash; the tags in the order of the model's output.
    trees
        What an image's votes add up to: a forest's trees, or 100 where the output is probabilities in percent.
    output
        See :data:`Output`.
    height, width, channels, pixel_order, preparation
        The images that it takes.
    origin
        The file it was imported from; empty where it was learned here.
    labelled_set, labelled_sha256, labelled_images
        What it was learned from.
    licence
        Licence of the labelled set.
    parameters, metrics, libraries, seconds, created
        How it was made, and its main figures.
    held_out
        Figures of a model learned with the same parameters from a part of the labelled set, on the rest of it.
    test, other
        Figures on a test set, and on images of other things.
    """

    version: str
    tags: tuple[str, ...]
    trees: int
    output: Output = "votes"
    height: int
    width: int
    channels: int = 3
    pixel_order: str = PIXEL_ORDER
    preparation: str
    origin: str = ""
    labelled_set: str
    labelled_sha256: str
    labelled_images: int
    licence: str = ""
    parameters: dict[str, int | float | str]
    metrics: dict[str, float]
    libraries: dict[str, str]
    seconds: dict[str, float]
    created: str
    held_out: Evaluation | None = None
    test: Evaluation | None = None
    other: OtherEvaluation | None = None

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the commands that write a card again."""
        return "train or import the same model again with `tinytags train` or `tinytags models import`"

    @property
    def figures(self) -> dict[str, object]:
        """What the asset event of a new model says."""
        return {"model": self.version, "labelled_images": self.labelled_images, "tags": list(self.tags)}


class Training(Record):
    """Which model one labelled set and one set of parameters gave."""

    model: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes it again."""
        return "train again with the same parameters, with `tinytags train`"
