"""Which images of a block a page shows; their pixels are read as the search page reads them."""

from tinytags_tasks.document_fields import FieldValue, Shown, describe, document_field, values_as_json
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.corrections import Corrections
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import Run

IMAGES_A_PAGE = 24

SCORED_FIELDS = {CONFIDENCE_COLUMN: "confidence"}
"""Columns of a scored file whose name is not the field's."""


def block_images(run: Run, block: int, start: int, storage: Storage) -> tuple[int, list[TaggedImage]]:
    """Return how many images of a block can be shown, and one page of them, without pixels.

    These are the images that are kept, by position; all images if the block was not scored or keeps none. What was
    taken down is never among them.

    Parameters
    ----------
    run
        The run.
    block
        The block's number.
    start
        Images before the page's first one.
    storage
        The store.

    Raises
    ------
    BadInputError
        If the run has no such block.
    MissingError, CorruptError
        If the corpus is not the one that was scored, or the scored file is damaged.
    """
    run.check_blocks([block])
    corpus = corpus_of_run(run, storage)
    check_corpus(run, corpus)
    blocks = RunBlocks(run, corpus, storage)
    try:
        table = blocks.read(block).table
    except MissingError:
        table = None
    if table is not None and table.num_rows:
        rows = table.slice(start, IMAGES_A_PAGE).to_pylist()
        return table.num_rows, [_image(run, block, **row) for row in rows]
    cut = corpus.partition.block(block)
    hidden = blocks.corrections.taken_down(cut.first, cut.images)
    positions = [position for position in range(cut.first, cut.first + cut.images) if position not in hidden]
    return len(positions), [_image(run, block, position) for position in positions[start : start + IMAGES_A_PAGE]]


def image_at(run: Run, corpus: Corpus, position: int, corrections: Corrections) -> TaggedImage:
    """Return the image at a position of a run's corpus, without pixels.

    Raises
    ------
    BadInputError
        If the corpus has no such image.
    MissingError
        If it was taken down.
    CorruptError
        If the corpus is not the one that was scored.
    """
    check_corpus(run, corpus)
    if not 0 <= position < corpus.images:
        raise BadInputError(f"position {position} is out of range: {corpus.name} has images 0 to {corpus.images - 1}")
    if corrections.taken_down(position, 1):
        raise MissingError(f"position {position}: this image of {corpus.name} was taken down")
    return _image(run, corpus.partition.block_at(position), position)


def captioned(image: TaggedImage) -> dict[str, object]:
    """Return an image as the page shows it: its values, a label, and its details in words."""
    tag, confidence = image.values.get("tag"), image.values.get("confidence")
    label = f"image {image.position}"
    if tag is not None and confidence is not None:
        label = f"{tag}, {document_field('confidence').say(confidence)}"
    details = " · ".join(words for _, words in describe(image.values, Shown.CARDS))
    return {**values_as_json(image.values), "label": label, "details": details, "missing": image.missing}


def check_corpus(run: Run, corpus: Corpus) -> None:
    """Refuse to show images of a corpus that was ingested again.

    Raises
    ------
    CorruptError
        If its digest is not the run's.
    """
    if corpus.digest != run.corpus_digest:
        raise CorruptError(
            f"{layout.corpus_file(corpus.name)}: is not the corpus that run {run.name} scored: it was ingested again, "
            "so make a new run of it"
        )


def _image(run: Run, block: int, position: int, **scored: FieldValue) -> TaggedImage:
    values = {
        "id": layout.document_id(run.corpus, position),
        "corpus": run.corpus,
        "model": run.model,
        "block": block,
        "position": position,
        **{SCORED_FIELDS.get(column, column): value for column, value in scored.items()},
    }
    return TaggedImage(values, is_in_store=True)
