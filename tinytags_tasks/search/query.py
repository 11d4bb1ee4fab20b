"""Searches the published documents by tag, confidence, keyword and block.

What a reader writes goes to Solr as parameters that Solr never parses as a query (``{!terms ... v=$tags}``); only
checked numbers appear in the text of a query.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tinytags_tasks.clients.solr_http import UndefinedFieldError
from tinytags_tasks.document_fields import LOOK_FIELDS, document_field
from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.search.hidden import NOTHING, Hidden
from tinytags_tasks.search.images import TaggedImage, read_document, read_fields
from tinytags_tasks.search.request import FIRST_CURSOR, MOST_TAGS, SearchRequest
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.settings import Settings

_CONFIDENCE = document_field("confidence").solr_name
SORT = f"{_CONFIDENCE} desc, position asc, id asc"


@dataclass(frozen=True, eq=False)
class SearchPage:
    """One page of what was found.

    Attributes
    ----------
    total
        Images found, on all pages.
    tag_counts
        Images by tag, whichever tags were asked for, so that another one can be chosen; empty on a cursor's later
        pages, as are the next three.
    confidence_counts
        Images by confidence, whatever minimum was asked for.
    models, corpora
        Of everything that is published.
    next_cursor, previous_cursor
        For the page after this one and for the one before it, at any depth; None where there is none.
    collections
        Solr's collections that were searched.
    moved
        Whether something was published since the page that the cursor is from, so that this page goes on in what is
        live now.
    seconds
        How long the search took.
    """

    total: int
    images: tuple[TaggedImage, ...]
    tag_counts: dict[str, int]
    confidence_counts: dict[int, int]
    models: tuple[str, ...]
    corpora: tuple[str, ...]
    next_cursor: str | None
    seconds: float
    previous_cursor: str | None = None
    collections: tuple[str, ...] = ()
    moved: bool = False


def search_images(settings: Settings, request: SearchRequest, hidden: Hidden = NOTHING) -> SearchPage:
    """Return one page of the published images that are not hidden, the most confident first.

    Raises
    ------
    EngineDownError
        If Solr does not answer.
    MissingError
        If there is no alias to search.
    BadInputError
        If Solr does not know the cursor.
    CorruptError
        If the documents are not TinyTags' own.
    """
    started = time.monotonic()
    answer = _ask_for_known_fields(settings, request, hidden)
    try:
        facets = answer.get("facets", {})
        cursor = answer.get("nextCursorMark")
        return SearchPage(
            total=answer["response"]["numFound"],
            images=hidden.leave_out(
                read_document(document, request.with_pixels) for document in answer["response"]["docs"]
            ),
            tag_counts={str(value): count for value, count in _buckets(facets, "tags")},
            confidence_counts={int(value): count for value, count in _buckets(facets, "confidences")},
            models=tuple(str(value) for value, _ in _buckets(facets, "models")),
            corpora=tuple(str(value) for value, _ in _buckets(facets, "corpora")),
            next_cursor=cursor if cursor != (request.cursor or FIRST_CURSOR) else None,
            seconds=time.monotonic() - started,
            collections=(settings.alias,),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(
            f"the alias {settings.alias!r} holds documents that TinyTags did not write ({type(error).__name__}: "
            f"{error}): set TINYTAGS_ALIAS to the alias of a TinyTags run"
        ) from error


def iterate_images(
    settings: Settings, request: SearchRequest, limit: int | None = None, hidden: Hidden = NOTHING
) -> Iterator[TaggedImage]:
    """Yield all images that a request finds, or the first ``limit``, in pages of its ``rows``.

    Raises the errors of :func:`search_images` at any page.
    """
    return islice(_all_images(settings, replace(request, start=0, cursor=None), hidden), limit)


def _all_images(settings: Settings, request: SearchRequest, hidden: Hidden) -> Iterator[TaggedImage]:
    while True:
        page = search_images(settings, request, hidden)
        yield from page.images
        if page.next_cursor is None:
            return
        request = replace(request, cursor=page.next_cursor)


def _ask_for_known_fields(settings: Settings, request: SearchRequest, hidden: Hidden) -> dict[str, Any]:
    """Ask again without a field if what is published was indexed before that field was added."""
    lacking: frozenset[str] = frozenset()
    while True:
        try:
            return ask_solr(settings, solr_parameters(request, lacking, hidden))
        except UndefinedFieldError as error:
            if error.field in lacking:
                raise
            lacking |= {error.field}


def solr_parameters(
    request: SearchRequest, lacking: frozenset[str] = frozenset(), hidden: Hidden = NOTHING
) -> Parameters:
    """Return a request as the parameters of Solr's ``/select``.

    Parameters
    ----------
    request
        What a reader asks for.
    lacking
        Fields that do not exist in what is published: nothing is found by them, and they are not counted.
    hidden
        Pictures that are not found.
    """
    filters = []
    parameters: Parameters = {
        "q": "*:*",
        "sort": SORT,
        "rows": request.rows,
        "fl": ",".join(read_fields(request.with_pixels)),
        # Otherwise Solr puts another parameter in the place of a ${name} in a tag or keyword.
        "expandMacros": "false",
    }
    if request.tags:
        # A line end separates tags: no printable tag has one, but a comma may well be part of a tag.
        filters.append(r'{!terms tag=by_tag f=tag separator="\n" v=$tags}')
        parameters["tags"] = "\n".join(request.tags)
    if request.min_confidence:
        filters.append(f"{{!tag=by_confidence}}{_CONFIDENCE}:[{request.min_confidence:d} TO *]")
    if request.block is not None:
        filters.append("{!term tag=by_block f=block v=$block}")
        parameters["block"] = request.block
    if request.keyword:
        by_keyword = "{!term tag=by_keyword f=keyword v=$keyword}"
        filters.append("{!tag=by_keyword}-*:*" if "keyword" in lacking else by_keyword)
        parameters["keyword"] = request.keyword
    if hidden.pending_ids:
        # Not cached in Solr: it differs with every picture that is taken down, and is gone soon.
        filters.append("{!bool cache=false must=$everything must_not=$hidden}")
        parameters["everything"] = "*:*"
        parameters["hidden"] = "{!terms f=id v=$hidden_ids}"
        parameters["hidden_ids"] = ",".join(hidden.pending_ids)
    if hidden.least:
        filters.append(_at_least(hidden.least, parameters))
    if request.is_one_of_alike:
        filters += _one_of_alike(lacking)
    parameters["fq"] = filters
    if request.start:
        parameters["start"] = request.start
    else:
        parameters["cursorMark"] = request.cursor or FIRST_CURSOR
    if request.cursor in (None, FIRST_CURSOR):
        parameters["json.facet"] = json.dumps(
            {name: facet for name, facet in _facets().items() if facet["field"] not in lacking}
        )
    return parameters


def _one_of_alike(lacking: frozenset[str]) -> list[str]:
    """Return the filters that leave the most confident picture of each group of near-duplicates, of each Solr shard."""
    if lacking.intersection(LOOK_FIELDS):
        raise BadInputError(
            "one of alike pictures cannot be chosen here: what is published was indexed before TinyTags noted how "
            "pictures look; a new run with `tinytags run` does"
        )
    return [f"{{!collapse field={field} nullPolicy=expand max={_CONFIDENCE}}}" for field in LOOK_FIELDS]


# Solr's own parsers fail if one of the collections lacks the field; this one of Lucene's finds nothing there.
_BY_PEOPLE = f'<PointRangeQuery fieldName="corrected" type="long" lowerTerm="{-(2**63):d}" upperTerm="{2**63 - 1:d}"/>'


def _at_least(least: Mapping[str, Mapping[str, int]], parameters: Parameters) -> str:
    """Return the filter that leaves each corpus' tags from certain confidences on; add what it needs to the parameters.

    What a person said is left, and everything of other corpora.
    """
    parameters["least_any"] = "*:*"
    parameters["least_corpora"] = "{!terms f=corpus v=$least_corpora_names}"
    parameters["least_corpora_names"] = ",".join(least)
    parameters["least_others"] = "{!bool must=$least_any must_not=$least_corpora}"
    parameters["least_people"] = "{!xmlparser v=$least_people_xml}"
    parameters["least_people_xml"] = _BY_PEOPLE
    choices = ["should=$least_others", "should=$least_people"]
    for number, (corpus, lowest) in enumerate(sorted(least.items())):
        tags: dict[int, list[str]] = {}
        for tag, confidence in lowest.items():
            tags.setdefault(confidence, []).append(tag)
        parameters[f"least_{number}_corpus"] = "{!term f=corpus v=$" + f"least_{number}_corpus_name" + "}"
        parameters[f"least_{number}_corpus_name"] = corpus
        for confidence, names in sorted(tags.items()):
            name = f"least_{number}_{confidence:d}"
            parameters[name] = f"{{!bool must=$least_{number}_corpus must=${name}_range must=${name}_tags}}"
            parameters[f"{name}_range"] = f"{_CONFIDENCE}:[{confidence:d} TO *]"
            parameters[f"{name}_tags"] = rf'{{!terms f=tag separator="\n" v=${name}_names}}'
            parameters[f"{name}_names"] = "\n".join(names)
            choices.append(f"should=${name}")
    return f"{{!bool {' '.join(choices)}}}"


def _facets() -> dict[str, dict[str, Any]]:
    every_filter = ["by_tag", "by_confidence", "by_block", "by_keyword"]
    return {
        "tags": _facet("tag", MOST_TAGS, ["by_tag"]),
        "confidences": _facet(_CONFIDENCE, 101, ["by_confidence"]),
        "models": _facet("model", 20, every_filter),
        "corpora": _facet("corpus", 20, every_filter),
    }


def _facet(field: str, limit: int, without_filters: list[str]) -> dict[str, Any]:
    domain = {"excludeTags": without_filters}
    return {"type": "terms", "field": field, "limit": limit, "sort": "index asc", "domain": domain}


def _buckets(facets: dict[str, Any], name: str) -> list[tuple[Any, int]]:
    return [(bucket["val"], bucket["count"]) for bucket in facets.get(name, {}).get("buckets", ())]
