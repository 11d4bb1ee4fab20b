"""A request as Solr's filters.

What a reader writes goes to Solr as parameters that Solr never parses as a query (``{!terms ... v=$tags}``); only
checked numbers appear in the text of a query.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinytags_tasks.derived_fields import split_words
from tinytags_tasks.document_fields import LOOK_FIELDS, document_field
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.solr_reader import Parameters

CONFIDENCE = document_field("confidence").solr_name

BY_TAG = "by_tag"
BY_CONFIDENCE = "by_confidence"
ASKED = (BY_TAG, BY_CONFIDENCE, "by_block", "by_keyword", "by_word", "by_corpus")
"""Names of the filters that readers ask for, by which counts can leave them out."""

_RUN_AGAIN = "a new run of the corpus with `tinytags run` brings that"
LACKING = {
    "word": f"what is published was indexed before keywords could be searched by word: ask for a whole keyword; "
    f"{_RUN_AGAIN}",
    "shuffle": f"what is published was indexed before there were random orders: choose another order; {_RUN_AGAIN}",
    **{
        name: f"what is published was indexed before TinyTags noted how pictures look, so that none can stand for "
        f"those like it; {_RUN_AGAIN}"
        for name in LOOK_FIELDS
    },
}
"""What is said if what is published lacks a field that is searched by."""

_EVERYTHING = {"everything": "*:*"}


@dataclass(frozen=True)
class Filter:
    """A filter: its query, and the parameters that the query refers to.

    Attributes
    ----------
    name
        One of :data:`ASKED`; empty for what readers cannot change.
    """

    name: str
    query: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What it leaves follows from this alone."""
        return self.query, *sorted(self.parameters.items())


def make_filters(request: SearchRequest, hidden: Hidden, lacking: frozenset[str] = frozenset()) -> tuple[Filter, ...]:
    """Return the filters of a request, and those of what is hidden.

    Parameters
    ----------
    request
        What a reader asks for.
    hidden
        Pictures that are not found.
    lacking
        Fields that do not exist in what is published.

    Raises
    ------
    BadInputError
        If the request needs one of these. Without the field ``keyword``, no picture has one, so none is found.
    """
    return (*_of_request(request, lacking), *_of_hidden(hidden))


def solr_filters(filters: tuple[Filter, ...]) -> Parameters:
    """Return filters as parameters of Solr's ``/select``."""
    parameters: Parameters = {}
    for each in filters:
        parameters.update(each.parameters)
    # Otherwise Solr puts another parameter in the place of a ${name} in a tag or keyword.
    return {**parameters, "fq": [each.query for each in filters], "expandMacros": "false"}


def refuse_lacking(field_name: str, lacking: frozenset[str]) -> None:
    """Refuse a search by a field that what is published lacks.

    Raises
    ------
    BadInputError
        If so.
    """
    if field_name in lacking:
        raise BadInputError(LACKING[field_name])


def _of_request(request: SearchRequest, lacking: frozenset[str]) -> Iterator[Filter]:
    if request.tags:
        # A line end separates tags: no printable tag has one, but a comma may well be part of a tag.
        names: dict[str, str | int] = {"tags": "\n".join(request.tags)}
        yield Filter(BY_TAG, rf'{{!terms tag={BY_TAG} f=tag separator="\n" v=$tags}}', names)
    if request.without_tags:
        query = f"{{!bool tag={BY_TAG} must=$everything must_not=$without_tags}}"
        listed = r'{!terms f=tag separator="\n" v=$without_tags_names}'
        names = {"without_tags": listed, "without_tags_names": "\n".join(request.without_tags)}
        yield Filter(BY_TAG, query, {**_EVERYTHING, **names})
    if request.min_confidence > 0 or request.max_confidence < 100:
        high = "*" if request.max_confidence == 100 else f"{request.max_confidence:d}"
        yield Filter(BY_CONFIDENCE, f"{{!tag={BY_CONFIDENCE}}}{CONFIDENCE}:[{request.min_confidence:d} TO {high}]")
    if request.block is not None:
        yield Filter("by_block", "{!term tag=by_block f=block v=$block}", {"block": request.block})
    if request.keyword:
        is_there = "keyword" not in lacking
        query = "{!term tag=by_keyword f=keyword v=$keyword}" if is_there else "{!tag=by_keyword}-*:*"
        yield Filter("by_keyword", query, {"keyword": request.keyword})
    if request.corpora:
        names = {"corpora": "\n".join(request.corpora)}
        yield Filter("by_corpus", r'{!terms tag=by_corpus f=corpus separator="\n" v=$corpora}', names)
    if request.words or request.without_words:
        refuse_lacking("word", lacking)
        yield from _of_words(request)
    if request.is_one_of_alike:
        for name in LOOK_FIELDS:
            refuse_lacking(name, lacking)
            yield Filter("", f"{{!collapse field={name} nullPolicy=expand max={CONFIDENCE}}}")


def _of_words(request: SearchRequest) -> Iterator[Filter]:
    for number, word in enumerate(request.words):
        for part, (parser, value) in enumerate(_terms(word)):
            name = f"word_{number}_{part}"
            yield Filter("by_word", f"{{!{parser} tag=by_word f=word v=${name}}}", {name: value})
    if not request.without_words:
        return
    parameters: dict[str, str | int] = {**_EVERYTHING}
    for number, word in enumerate(request.without_words):
        terms = _terms(word)
        for part, (parser, value) in enumerate(terms):
            parameters[f"no_{number}_{part}"] = f"{{!{parser} f=word v=$no_{number}_{part}_word}}"
            parameters[f"no_{number}_{part}_word"] = value
        parameters[f"no_{number}"] = f"{{!bool {' '.join(f'must=$no_{number}_{part}' for part in range(len(terms)))}}}"
    excluded = " ".join(f"must_not=$no_{number}" for number in range(len(request.without_words)))
    yield Filter("by_word", f"{{!bool tag=by_word must=$everything {excluded}}}", parameters)


def _terms(word: str) -> list[tuple[str, str]]:
    """Return what a word asks for, as Solr's query parsers and their values; a part of it may be a beginning."""
    parts = split_words(word.removesuffix("*"))
    last = "prefix" if word.endswith("*") else "term"
    return [*(("term", part) for part in parts[:-1]), (last, parts[-1])]


def _of_hidden(hidden: Hidden) -> Iterator[Filter]:
    if hidden.pending_ids:
        # Not cached in Solr: it differs with every picture that is taken down, and is gone soon.
        ids = {"hidden": "{!terms f=id v=$hidden_ids}", "hidden_ids": ",".join(hidden.pending_ids)}
        yield Filter("", "{!bool cache=false must=$everything must_not=$hidden}", {**_EVERYTHING, **ids})
    if hidden.least:
        least = {corpus: {tag: (low, 100) for tag, low in lowest.items()} for corpus, lowest in hidden.least.items()}
        yield _in_ranges("least", least, is_exact=False)
    if hidden.between is not None:
        yield _in_ranges("between", hidden.between, is_exact=True)


# Solr's own parsers fail if one of the collections lacks the field; this one of Lucene's finds nothing there.
_BY_PEOPLE = f'<PointRangeQuery fieldName="corrected" type="long" lowerTerm="{-(2**63):d}" upperTerm="{2**63 - 1:d}"/>'


def _in_ranges(prefix: str, ranges: Mapping[str, Mapping[str, tuple[int, int]]], *, is_exact: bool) -> Filter:
    """Return the filter that leaves each corpus' tags in certain ranges of confidence.

    Parameters
    ----------
    prefix
        How the names of its parameters begin.
    ranges
        By corpus, of each tag the lowest and the highest confidence.
    is_exact
        Whether what a person said, and all of corpora that are not named, is left out; otherwise that is left, too.
    """
    parameters: dict[str, str | int] = {}
    people = f"{prefix}_people"
    parameters[people] = f"{{!xmlparser v=${people}_xml}}"
    parameters[f"{people}_xml"] = _BY_PEOPLE
    choices = []
    if not is_exact:
        parameters[f"{prefix}_any"] = "*:*"
        parameters[f"{prefix}_corpora"] = f"{{!terms f=corpus v=${prefix}_corpora_names}}"
        parameters[f"{prefix}_corpora_names"] = ",".join(ranges)
        parameters[f"{prefix}_others"] = f"{{!bool must=${prefix}_any must_not=${prefix}_corpora}}"
        choices = [f"should=${prefix}_others", f"should=${people}"]
    for number, (corpus, of_tags) in enumerate(sorted(ranges.items())):
        by_range: dict[tuple[int, int], list[str]] = {}
        for tag, (low, high) in of_tags.items():
            by_range.setdefault((low, high), []).append(tag)
        own = f"{prefix}_{number}_corpus"
        parameters[own] = f"{{!term f=corpus v=${own}_name}}"
        parameters[f"{own}_name"] = corpus
        for (low, high), tags in sorted(by_range.items()):
            name = f"{prefix}_{number}_{low:d}" if high == 100 else f"{prefix}_{number}_{low:d}_{high:d}"
            parameters[name] = f"{{!bool must=${own} must=${name}_range must=${name}_tags}}"
            parameters[f"{name}_range"] = f"{CONFIDENCE}:[{low:d} TO {'*' if high == 100 else f'{high:d}'}]"
            parameters[f"{name}_tags"] = rf'{{!terms f=tag separator="\n" v=${name}_names}}'
            parameters[f"{name}_names"] = "\n".join(tags)
            choices.append(f"should=${name}")
    if not choices:
        return Filter("", "-*:*")
    query = " ".join(choices)
    return Filter("", f"{{!bool {query} must_not=${people}}}" if is_exact else f"{{!bool {query}}}", parameters)
