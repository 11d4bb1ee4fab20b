"""Finds the published pictures that look most like one of them, or like one that a reader hands in.

Pictures look alike if their embeddings by the same net point in the same direction. Solr looks for the nearest ones
among those that the reader's filters leave: the filters come first, so that a page is full wherever enough are left.
An embedding of zeros alone has no direction: nothing looks like it.
"""

import json
import time
from collections.abc import Sequence

from tinytags_tasks.document_fields import VECTOR_FIELD, VECTOR_NUMBERS
from tinytags_tasks.errors import MissingError
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import read_document, read_fields
from tinytags_tasks.search.live import LiveRun
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Prepared, is_asked_for
from tinytags_tasks.search.solr_filters import Filter, make_filters, solr_filters
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.store import layout
from tinytags_tasks.store.embedding_files import Embeddings

LOOKED_AT = 200
"""How many of the nearest pictures Solr looks for at least: the more, the surer are the first ten."""


def similar_to(context: PageContext, request: SearchRequest) -> SearchPage:
    """Return the pictures that look most like the one with the id ``request.similar_to``, the most alike first.

    The request's filters apply, not its sort and cursor. A page holds ``request.rows`` pictures, and is the only one.

    Raises
    ------
    BadInputError
        If that is no document's id.
    MissingError
        If the picture is not published, or what is published has no vectors.
    EngineDownError
        If Solr does not answer.
    """
    started = time.monotonic()
    corpus, _ = layout.read_document_id(request.similar_to)

    def search() -> SearchPage:
        asked = context.searches.prepare(request)
        own = _run_of(corpus, asked.runs)
        hidden = asked.hidden
        if request.has_precision:  # the picture itself need not have what is asked for
            hidden = context.searches.hidden(SearchRequest(run=request.run))
        vector = _stored_vector(context, own, request.similar_to, hidden)
        return _nearest(context, asked, own.run.similar, vector, started)

    return context.searches.in_what_is_live(request, search)


def similar_to_picture(context: PageContext, request: SearchRequest, encoded: bytes) -> SearchPage:
    """Return the published pictures that look most like one that a reader hands in; that one is not stored.

    Parameters
    ----------
    context
        The search page's.
    request
        Filters and rows, as for :func:`similar_to`.
    encoded
        A JPEG, PNG or WebP file of at most :data:`~tinytags_tasks.search.embedder.MOST_PICTURE_BYTES`.

    Raises
    ------
    BadInputError
        If it is no such file.
    MissingError
        If what is published has no vectors, or the net is not in the store.
    TransientError
        If too many others hand in pictures, or Solr does not answer.
    """
    started = time.monotonic()

    def search() -> SearchPage:
        asked = context.searches.prepare(request)
        for live in _asked_for(asked):
            net, corpus = live.run.similar, live.corpus
            if net and corpus is not None:
                vector = as_vector(context.embedder.embed(encoded, net, corpus, context.runtime.storage))
                return _nearest(context, asked, net, vector, started)
        raise _without_vectors("what is published")

    return context.searches.in_what_is_live(request, search)


def as_vector(embedding: Embeddings) -> list[int]:
    """Return an embedding as Solr takes it: filled up with zeros, which changes no angle."""
    return [*embedding.tolist(), *[0] * (VECTOR_NUMBERS - len(embedding))]


def _run_of(corpus: str, runs: Sequence[LiveRun]) -> LiveRun:
    """Return the run of a corpus, which has vectors."""
    for live in runs:
        if live.run.corpus == corpus:
            if not live.run.similar:
                raise _without_vectors(f"run {live.run.name}")
            return live
    raise MissingError(f"corpus {corpus!r} is not published")


def _asked_for(asked: Prepared) -> list[LiveRun]:
    return [live for live in asked.runs if is_asked_for(live, asked.request)]


def _without_vectors(what: str) -> MissingError:
    return MissingError(
        f"{what} has no vectors to compare pictures by: make a new run with `tinytags run CORPUS --similar on`"
    )


def _stored_vector(context: PageContext, live: LiveRun, document_id: str, hidden: Hidden) -> Sequence[int]:
    parameters: Parameters = {
        **solr_filters(make_filters(SearchRequest(), hidden)),
        "q": "{!term f=id v=$id}",
        "id": document_id,
        "fl": f"corpus,position,{VECTOR_FIELD}",
        "collection": live.run.collection,
    }
    documents = ask_solr(context.settings, parameters)["response"]["docs"]
    if not documents or hidden.hides(live.run.corpus, int(documents[0]["position"])):
        raise MissingError(f"picture {document_id} is not published")
    vector = documents[0].get(VECTOR_FIELD)
    if not isinstance(vector, list) or len(vector) != VECTOR_NUMBERS:
        raise _without_vectors(f"picture {document_id}")
    return [int(number) for number in vector]


def _nearest(
    context: PageContext,
    asked: Prepared,
    net: str,
    vector: Sequence[int],
    started: float,
) -> SearchPage:
    """Return the pictures that are nearest to a vector by a net, of the runs that have vectors by it."""
    request, hidden = asked.request, asked.hidden
    runs = [live.run for live in _asked_for(asked) if live.run.similar == net]
    if not runs:
        raise _without_vectors(f"what is published of {', '.join(request.corpora) or 'any corpus'}")
    left_out = (live.run.corpus for live in _asked_for(asked) if live.run.similar != net)
    filters = make_filters(request, hidden)
    if request.similar_to:
        itself = {"everything": "*:*", "itself": "{!term f=id v=$similar_to}", "similar_to": request.similar_to}
        filters += (Filter("", "{!bool cache=false must=$everything must_not=$itself}", itself),)
    parameters: Parameters = {
        **solr_filters(filters),
        "rows": request.rows,
        "fl": ",".join(read_fields(request.with_pixels)),
        # The filters come before the search for neighbours, except for the one that leaves one of alike pictures.
        "q": f"{{!knn f={VECTOR_FIELD} topK={max(LOOKED_AT, request.rows):d} v=$vector}}",
        "vector": json.dumps(list(vector)),
        "sort": "score desc, id asc",
        "collection": ",".join(run.collection for run in runs),
    }
    answer = ask_solr(context.settings, parameters)
    images = hidden.leave_out(read_document(document, request.with_pixels) for document in answer["response"]["docs"])
    return SearchPage(
        total=len(images),
        images=images,
        tag_counts={},
        confidence_counts={},
        models=(),
        corpora=tuple(dict.fromkeys(run.corpus for run in runs)),
        next_cursor=None,
        seconds=time.monotonic() - started,
        request=request,
        collections=tuple(run.collection for run in runs),
        left_out=(*asked.left_out, *left_out),
    )
