"""What the API answers with."""

from collections.abc import Iterable
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field

from tinytags_tasks.corpus.places import SourcePlace
from tinytags_tasks.search.address import report_address
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRun
from tinytags_tasks.search.measured import Measured
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.view import stated_precision
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.run_records import Run


class StatedPrecision(BaseModel):
    """What an image's tag and confidence have meant, as measured by reviews, in percent, with its 95 % interval."""

    percent: float
    low: float
    high: float


class Image(BaseModel):
    """A published image."""

    id: str = Field(description="corpus and position, which identify it permanently")
    corpus: str
    position: int = Field(description="its number in its corpus, from 0")
    block: int
    tag: str
    confidence: int = Field(description="the model's share of votes for the tag, in percent")
    votes: int
    keyword: str | None = Field(description="what the corpus' source called it")
    model: str = Field(description="the version of the model that chose the tag")
    corrected: int | None = Field(description="the request by which a person decided the tag; null if the model did")
    precision: StatedPrecision | None = Field(description="null if it was not measured, or a person decided the tag")
    picture: str = Field(description="the address of the picture as a PNG, on this server")

    @classmethod
    def of(cls, image: TaggedImage, measured: Measured, base: str, run: str = "") -> "Image":
        """Return an image as the API says it.

        Parameters
        ----------
        base
            What is before the API's addresses behind a proxy.
        run
            The run that was chosen; empty if that is what is live.
        """
        stated = stated_precision(image, measured)
        values = image.values
        chosen = f"?{urlencode({'run': run})}" if run else ""
        return cls(
            id=image.id,
            corpus=image.corpus,
            position=image.position,
            block=image.block,
            tag=str(values["tag"]),
            confidence=int(values["confidence"] or 0),
            votes=int(values["votes"] or 0),
            keyword=None if values.get("keyword") is None else str(values["keyword"]),
            model=str(values["model"]),
            corrected=None if values.get("corrected") is None else int(values["corrected"] or 0),
            precision=stated and StatedPrecision(percent=stated.percent, low=stated.low, high=stated.high),
            picture=f"{base}/api/v1/images/{quote(image.id, safe=':')}.png{chosen}",
        )


class ImageFile(BaseModel):
    """Where an image was in the files that its corpus was read from."""

    source: str = Field(description="the corpus' source")
    path: str = Field(description="the file, as the source names it")
    member: str | None = Field(description="what the file calls the image, if it is a tar")
    number: int = Field(description="which of the file's images it is, from 0")


class ImageDetails(Image):
    """A published image, and where it comes from."""

    file: ImageFile | None = Field(description="null if it is not known")

    @classmethod
    def with_place(cls, image: Image, place: SourcePlace | None) -> "ImageDetails":
        """Return an image with its place."""
        return cls(**image.model_dump(), file=image_file(place))


def image_file(place: SourcePlace | None) -> ImageFile | None:
    """Return a place as the API says it."""
    if place is None:
        return None
    return ImageFile(source=place.source, path=place.path, member=place.member or None, number=place.number)


class SearchAnswer(BaseModel):
    """One page of what was found."""

    total: int = Field(description="images found, on all pages")
    images: list[Image]
    next_cursor: str | None = Field(description="of the next page; null on the last one")
    previous_cursor: str | None = Field(description="of the page before; null on the first one")
    moved: bool = Field(description="whether something was published since the cursor's page: this one is of it")

    @classmethod
    def of(cls, page: SearchPage, measured: Measured, base: str, run: str = "") -> "SearchAnswer":
        """Return a page as the API says it."""
        return cls(
            total=page.total,
            images=[Image.of(image, measured, base, run) for image in page.images],
            next_cursor=page.next_cursor,
            previous_cursor=page.previous_cursor,
            moved=page.moved,
        )


class TagCount(BaseModel):
    """How many images have a tag."""

    tag: str
    images: int


class ConfidenceCount(BaseModel):
    """How many images have a confidence."""

    confidence: int
    images: int


class Facets(BaseModel):
    """Counts of what was found, for choosing further."""

    total: int
    tags: list[TagCount] = Field(description="whichever tags were asked for")
    confidences: list[ConfidenceCount] = Field(description="whatever confidence was asked for")
    models: list[str] = Field(description="of everything that is published")
    corpora: list[str] = Field(description="of everything that is published")

    @classmethod
    def of(cls, page: SearchPage) -> "Facets":
        """Return a page's counts as the API says them."""
        return cls(
            total=page.total,
            tags=tag_counts(page),
            confidences=[
                ConfidenceCount(confidence=percent, images=count)
                for percent, count in sorted(page.confidence_counts.items())
            ],
            models=list(page.models),
            corpora=list(page.corpora),
        )


def tag_counts(page: SearchPage) -> list[TagCount]:
    """Return a page's counts of tags."""
    return [TagCount(tag=tag, images=count) for tag, count in sorted(page.tag_counts.items())]


class Tags(BaseModel):
    """All tags of what is live."""

    total: int = Field(description="images with any tag")
    tags: list[TagCount]


class Model(BaseModel):
    """A published model."""

    version: str
    tags: list[str]
    features: str = Field(description="the net whose embeddings its head sees, or pixels")
    head: str
    knows_none: bool = Field(description="whether it can say that an image shows none of its tags")
    labelled_images: int = Field(description="images that it learned from")
    created: str
    is_live: bool
    report: str = Field(description="the address of its report, on this server")

    @classmethod
    def of(cls, card: ModelCard, live: Iterable[LiveRun], base: str) -> "Model":
        """Return a model as the API says it."""
        return cls(
            version=card.version,
            tags=list(card.tags),
            features=card.features,
            head=card.head,
            knows_none=card.none,
            labelled_images=card.labelled_images,
            created=card.created,
            is_live=any(one.run.model == card.version for one in live),
            report=f"{base}{report_address(card.version)}",
        )


class Models(BaseModel):
    """One page of models, the newest first."""

    models: list[Model]
    next_cursor: str | None


class RunSummary(BaseModel):
    """One pass of one model over one corpus."""

    name: str
    corpus: str
    model: str
    threshold: int = Field(description="the lowest confidence that was kept, in percent")
    images: int = Field(description="of its corpus")
    blocks: int
    created: str
    is_live: bool
    is_pruned: bool = Field(description="whether its documents were dropped to make room")

    @classmethod
    def of(cls, run: Run, live: Iterable[LiveRun]) -> "RunSummary":
        """Return a run as the API says it."""
        return cls(
            name=run.name,
            corpus=run.corpus,
            model=run.model,
            threshold=run.threshold,
            images=run.images,
            blocks=run.blocks,
            created=run.created,
            is_live=any(one.run.name == run.name for one in live),
            is_pruned=bool(run.pruned),
        )


class Runs(BaseModel):
    """One page of runs, the newest first."""

    runs: list[RunSummary]
    next_cursor: str | None


class Health(BaseModel):
    """Whether the process lives, or can answer searches."""

    status: str
