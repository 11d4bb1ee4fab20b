"""Which net's embeddings become the vectors of a run's documents, by which similar pictures are found."""

from collections.abc import Callable

from tinytags_tasks.document_fields import VECTOR_NUMBERS
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.nets.catalogue import load_net_card
from tinytags_tasks.nets.shipped import shipped_card
from tinytags_tasks.settings import Similar
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import PIXELS, ModelCard
from tinytags_tasks.store.protocol import Storage

MOST_IMAGES = 1_000_000
"""The largest corpus whose documents get vectors without being asked to: what they cost is in ``docs/adr/0030``."""


def choose_vectors(
    similar: Similar, corpus: Corpus, card: ModelCard, storage: Storage, report: Callable[[str], None]
) -> str:
    """Return the version of the net whose embeddings are a run's vectors; empty if it has none, and say why.

    A model on embeddings lends its net; for a model on pixels, the shipped net's embeddings are taken if the corpus has
    them.

    Raises
    ------
    BadInputError
        If vectors are asked for, and there can be none.
    """
    if similar == "off":
        return ""
    if similar == "auto" and corpus.images > MOST_IMAGES:
        report(
            f"similar pictures cannot be found in this run: corpus {corpus.name} has more than {MOST_IMAGES:,} images; "
            "--similar on gives them vectors all the same"
        )
        return ""
    net = shipped_card().version if card.features == PIXELS else card.features
    reason = _reason_against(net, corpus, card, storage)
    if not reason:
        return net
    if similar == "on":
        raise BadInputError(f"similar pictures cannot be found with this model: {reason}")
    report(f"similar pictures cannot be found in this run: {reason}")
    return ""


def _reason_against(net: str, corpus: Corpus, card: ModelCard, storage: Storage) -> str:
    """Return why a net's embeddings cannot be vectors; empty if they can."""
    if card.features == PIXELS:
        embedded = {layout.embedding_file_name(block) for block in range(corpus.partition.blocks)}
        if not embedded <= set(storage.names(layout.embeddings_folder(corpus.name, net))):
            return (
                f"model {card.version} reads pixels, and the corpus has no embeddings; make them first with "
                f"`tinytags embed {corpus.name} --net {net}`"
            )
    try:
        dimensions = load_net_card(storage, net).dimensions
    except (MissingError, CorruptError) as error:
        return str(error)
    if dimensions > VECTOR_NUMBERS:
        return f"an embedding by net {net} has {dimensions:,} numbers, and a vector {VECTOR_NUMBERS}"
    return ""
