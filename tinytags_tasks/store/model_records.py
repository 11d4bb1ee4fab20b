"""Records of a model: its card, with its figures, and the training that made it."""

from typing import Literal

from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import PIXEL_ORDER
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.record import Part, Record


class ThresholdFigures(Part):
    """What is kept at a threshold of confidence, of images whose tags are known.

    Attributes
    ----------
    threshold
        The lowest confidence at which an image is kept, in percent: the winning tag's share of the image's votes.
    votes
        The fewest votes for the winning tag that reach the threshold.
    kept, right
        How many images are kept, and how many of these get the right tag.
    precision
        For each tag, the percentage of the kept images with this tag that have it rightly. None if no image gets it.
    recall
        For each tag, the percentage of the images with this tag that are kept and get it. None if there are none.
    """

    threshold: int
    votes: int
    kept: int
    right: int
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]


class ConfidenceBand(Part):
    """The images whose winning tag has a confidence in one band.

    Attributes
    ----------
    confidence
        Where the band begins, in percent. It ends where the next one begins; the last includes 100 %.
    images, right
        How many images, and how many of these get the right tag.
    mean_confidence
        Of these images, in percent; 0 if there are none.
    """

    confidence: int
    images: int
    right: int
    mean_confidence: float


class Evaluation(Part):
    """A model's figures on images whose tags are known.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    images, accuracy
        How many images, and the percentage whose winning tag is right, whatever its confidence.
    confusion
        How many images have which right tag (row) and which winning tag (column). The last column is "none of the
        tags" if the model has it.
    thresholds
        What is kept at each threshold of confidence.
    reliability
        How often the winning tag is right in each band of confidence; images of "none" are in no band. Empty in cards
        from before it was measured.
    """

    labelled_set: str
    sha256: str
    images: int
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    thresholds: tuple[ThresholdFigures, ...]
    reliability: tuple[ConfidenceBand, ...] = ()

    @property
    def none(self) -> int:
        """How many images the model calls none of the tags, although each shows one."""
        return sum(row[len(self.confusion)] for row in self.confusion if len(row) > len(self.confusion))

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error, in percent; None if it was not measured.

        The mean distance, over all images with a tag, between a band's mean confidence and its share of right tags;
        see Guo et al., "On Calibration of Modern Neural Networks", 2017.
        """
        images = sum(band.images for band in self.reliability)
        if not images:
            return None
        distances = (abs(100.0 * band.right - band.images * band.mean_confidence) for band in self.reliability)
        return round(sum(distances) / images, 2)


class OtherFigures(Part):
    """What is tagged at a threshold of confidence, of images that may show other things.

    Attributes
    ----------
    threshold, votes
        As in :class:`ThresholdFigures`.
    tagged_without_tag
        How many images that show none of the tags get a tag.
    tagged_with_tag, right
        How many images that show a tag get any tag, and how many get the right one.
    """

    threshold: int
    votes: int
    tagged_without_tag: int
    tagged_with_tag: int
    right: int

    @property
    def tagged(self) -> int:
        """How many images get a tag."""
        return self.tagged_without_tag + self.tagged_with_tag


class OtherEvaluation(Part):
    """A model's figures on images that mostly show none of its tags, as in a corpus.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    without_tag, with_tag, left_out
        How many images show no tag, how many show one, and how many are not counted because their tag is arguable.
    thresholds
        What is tagged at each threshold of confidence.
    none_without_tag, none_with_tag
        How many images of no tag, and how many of a tag, the model calls none of the tags. None if it cannot.
    auroc
        How well the best tag's votes separate images of a tag from images of no tag: the probability that, of one of
        each, the image of a tag has more. None if there are none of either, or if it was not measured.
    """

    labelled_set: str
    sha256: str
    without_tag: int
    with_tag: int
    left_out: int
    thresholds: tuple[OtherFigures, ...]
    none_without_tag: int | None = None
    none_with_tag: int | None = None
    auroc: float | None = None

    def below_without_tag(self, figures: OtherFigures) -> int:
        """Return how many images of no tag are below a threshold, without those that the model calls none."""
        return self.without_tag - (self.none_without_tag or 0) - figures.tagged_without_tag


Output = Literal["votes", "probabilities"]
"""A model's kind of output: votes of trees, or probabilities in percent."""


PIXELS = "pixels"
"""The features of a model that reads pixels, as the original system did, and not a net's embeddings."""


class BackgroundUse(Part):
    """The general pictures that taught a model what none of its tags looks like.

    Attributes
    ----------
    net, sha256
        The net that they came with, and their file's hash.
    images
        How many the model learned from.
    left_out_by_name, left_out_by_look
        Classes that were left out because they name one of the tags, or because the tags' own head finds it in them.
    """

    net: str
    sha256: str
    images: int
    left_out_by_name: tuple[str, ...] = ()
    left_out_by_look: tuple[str, ...] = ()


class ReviewUse(Part):
    """What people said of a corpus' pictures, as far as a model learned from it.

    Attributes
    ----------
    corpus, corpus_digest
        The corpus, and its version.
    upto
        The number of the last request of its review log that was read.
    words
        How many pictures the model learned from: those said to show one of its tags, or none of them.
    weight
        How many times as much as a labelled picture each of them counts.
    replaced_background
        Whether they took the place of the net's background.
    positions_sha256
        Hash of their positions, see :func:`tinytags_tasks.store.lessons.positions_sha256`.
    of_tags, none
        How many were said to show each of the model's tags, and how many to show none.
    new_tags
        Which of the model's tags are not in the labelled set.
    other_tags
        Tags that the model lacks, each with the number of pictures said to show it.
    """

    corpus: str
    corpus_digest: str
    upto: int
    words: int
    weight: float
    replaced_background: bool
    positions_sha256: str
    of_tags: tuple[int, ...]
    none: int
    new_tags: tuple[str, ...] = ()
    other_tags: dict[str, int]


DIFFERENT_LOOKS = 0.9
"""From this AUROC of a probe on, two sets of pictures count as prepared in different ways."""


class Probe(Part):
    """How well a simple classifier separates a model's labelled images from a corpus by their preparation alone.

    Attributes
    ----------
    corpus, corpus_digest
        The corpus' name and digest.
    labelled_images, corpus_images
        How many images were sampled from each.
    auroc
        Of the classifier, on images that it has not seen: 0.5 if both are prepared alike, 1 if each image shows where
        it comes from.
    """

    corpus: str
    corpus_digest: str
    labelled_images: int
    corpus_images: int
    auroc: float

    @property
    def warning(self) -> str:
        """What the result means and what to do about it; empty if the preparations do not differ."""
        if self.auroc < DIFFERENT_LOOKS:
            return ""
        return (
            f"the labelled images and those of corpus {self.corpus} were prepared in different ways: compression, "
            f"sharpness and the detail of colours alone tell them apart (AUROC {self.auroc:.2f}), so expect more wrong "
            "tags than on the test set; use labelled images of the corpus itself, or compress and resize both alike"
        )


class ModelCard(Record):
    """A published model: how it was made, and its figures.

    Attributes
    ----------
    version, tags
        Its name and content hash, and its tags in the order of its output.
    trees
        The sum of an image's votes: a forest's number of trees, or 100 if the output is probabilities in percent.
    output
        See :data:`Output`.
    features
        What its head reads: the version of the net whose embeddings it learned from, or ``pixels``.
    head
        The family of its head: ``forest`` or ``logistic``; a forest in cards from before there was a choice.
    none
        Whether the last column of its output is "none of the tags".
    background
        What taught it "none"; None if nothing did.
    height, width, channels, pixel_order, preparation
        The images that it expects.
    origin
        The file that it was imported from; empty if it was trained by TinyTags.
    labelled_set, labelled_sha256, labelled_images
        The labelled set that it was trained on.
    labelled_of_tags, unlabelled_images
        How many of its images each tag has, and how many were left out because they have no label; empty and 0 in
        cards from before they were counted.
    learned_test_images
        How many images of the test set are also in the labelled set.
    licence
        Licence of the labelled set.
    parameters, metrics, libraries, seconds, created
        How it was made, and its main figures.
    held_out
        Figures of a model that was trained with the same parameters on a part of the labelled set, on the rest of it.
    test, other
        Figures on a test set, and on images that may show other things.
    background_held_back
        Figures on the part of the background that it did not learn from.
    probe
        How different the preparation of the corpus is for which it was trained; None if it was trained for none.
    reviews
        What it learned from people's words; None if it learned from the labelled set alone.
    net_reviews
        What its net learned from people's words.
    """

    version: str
    tags: tuple[str, ...]
    trees: int
    output: Output = "votes"
    features: str = PIXELS
    head: str = "forest"
    none: bool = False
    background: BackgroundUse | None = None
    height: int
    width: int
    channels: int = 3
    pixel_order: str = PIXEL_ORDER
    preparation: str
    origin: str = ""
    labelled_set: str
    labelled_sha256: str
    labelled_images: int
    labelled_of_tags: tuple[int, ...] = ()
    unlabelled_images: int = 0
    learned_test_images: int = 0
    licence: str = ""
    parameters: dict[str, int | float | str]
    metrics: dict[str, float]
    libraries: dict[str, str]
    seconds: dict[str, float]
    created: str
    held_out: Evaluation | None = None
    test: Evaluation | None = None
    other: OtherEvaluation | None = None
    background_held_back: OtherEvaluation | None = None
    probe: Probe | None = None
    reviews: ReviewUse | None = None
    net_reviews: tuple[NetReviews, ...] = ()

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the commands that write a card again."""
        return "train or import the same model again with `tinytags train` or `tinytags models import`"

    @property
    def figures(self) -> dict[str, object]:
        """The contents of the asset event of a new model."""
        return {"model": self.version, "labelled_images": self.labelled_images, "tags": list(self.tags)}


class Training(Record):
    """Which model was trained on one labelled set with one set of parameters."""

    model: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes it again."""
        return "train again with the same parameters, with `tinytags train`"


class LastTraining(Record):
    """How the last model for a corpus was trained, so that it can learn again when people have said more.

    Attributes
    ----------
    model
        The model.
    request
        The fields of its training's request.
    """

    model: str
    request: dict[str, str | int | bool | tuple[str, ...] | None]

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes it again."""
        return f"train for the corpus again, with `tinytags train LABELLED --corpus {layout.path_name(path)}`"
