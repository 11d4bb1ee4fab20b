"""Single documents of what readers can search: by their ids, and those beside a position.

As in a search, what a reader writes never becomes part of a query's text.
"""

from collections.abc import Sequence
from typing import Any

from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage, foreign_documents, read_document, read_fields
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.solr_filters import make_filters, solr_filters
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.settings import Settings

MOST_IDS = 1_000
"""Documents that are asked for at once, at most."""

NEAR_POSITIONS = 2_000
"""How far from a position its neighbours are looked for: a limit keeps Solr from sorting a whole corpus."""

FAR_POSITIONS = 100_000
"""How far they are looked for if there are none near."""


def find_documents(
    settings: Settings, ids: Sequence[str], hidden: Hidden, *, with_pixels: bool, collection: str = ""
) -> dict[str, TaggedImage]:
    """Return the documents with these ids that readers may see, by id.

    Parameters
    ----------
    settings
        The settings.
    ids
        Their ids.
    hidden
        What readers do not see.
    with_pixels
        Whether they come with the pixels that Solr has.
    collection
        Where to look; empty looks in what is live.

    Raises
    ------
    EngineDownError, MissingError, FinalError
        As :func:`~tinytags_tasks.search.solr_reader.ask_solr`.
    CorruptError
        If the documents are not TinyTags' own.
    """
    found: dict[str, TaggedImage] = {}
    for start in range(0, len(ids), MOST_IDS):
        some = ids[start : start + MOST_IDS]
        parameters: Parameters = {
            "q": "{!terms f=id v=$ids}",
            "ids": ",".join(some),
            "rows": len(some),
            "fl": ",".join(read_fields(with_pixels)),
            "expandMacros": "false",
        }
        images = _read(settings, parameters, hidden, with_pixels, collection)
        found |= {image.id: image for image in images}
    return found


def neighbours(
    settings: Settings, corpus: str, position: int, most: int, hidden: Hidden, collection: str = ""
) -> tuple[list[TaggedImage], list[TaggedImage]]:
    """Return the images before and after a position of a corpus that readers may see, both by position.

    Parameters
    ----------
    settings
        The settings.
    corpus
        The corpus' name, which was checked.
    position
        The position.
    most
        How many of either side, at most.
    hidden, collection
        As for :func:`find_documents`.

    Raises
    ------
    EngineDownError, MissingError, FinalError, CorruptError
        As :func:`find_documents`.
    """
    filters = solr_filters(make_filters(SearchRequest(corpora=(corpus,)), hidden))

    def beside(positions: str, order: str) -> list[TaggedImage]:
        parameters: Parameters = {
            **filters,
            "q": f"position:{positions}",
            "sort": f"position {order}",
            # The filters leave out no more than some of the pictures that were taken down.
            "rows": 4 * most,
            "fl": ",".join(read_fields(False)),
        }
        return _read(settings, parameters, hidden, False, collection)[:most]

    def before(far: int) -> list[TaggedImage]:
        return beside(f"[{max(0, position - far):d} TO {position - 1:d}]", "desc") if position else []

    def after(far: int) -> list[TaggedImage]:
        return beside(f"[{position + 1:d} TO {position + far:d}]", "asc")

    nearest = before(NEAR_POSITIONS) or (before(FAR_POSITIONS) if position > NEAR_POSITIONS else [])
    return nearest[::-1], after(NEAR_POSITIONS) or after(FAR_POSITIONS)


def _read(
    settings: Settings, parameters: Parameters, hidden: Hidden, with_pixels: bool, collection: str
) -> list[TaggedImage]:
    if collection:
        parameters["collection"] = collection
    answer: dict[str, Any] = ask_solr(settings, parameters)
    try:
        images = [read_document(document, with_pixels) for document in answer["response"]["docs"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise foreign_documents(f"the alias {settings.alias!r}", error) from error
    return [image for image in images if hidden.shows(image)]
