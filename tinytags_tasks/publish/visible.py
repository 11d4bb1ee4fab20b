"""Which documents readers see: filters for Solr from the thresholds of a publication, and from a stated precision.

Nothing that a person wrote is part of a query's text: tags are values of parameters, and numbers were parsed.
"""

from collections import defaultdict
from collections.abc import Mapping

from tinytags_tasks.document_fields import document_field
from tinytags_tasks.review.precision import PrecisionTable
from tinytags_tasks.store.corrections import CORRECTED_COLUMN

Parameters = dict[str, str]
"""Parameters of Solr's ``/select``; the first is the filter."""

_CONFIDENCE = document_field("confidence").solr_name
_EVERYTHING, _NOTHING = "*:*", "-*:*"


def visible_filter(thresholds: Mapping[str, int] | None, *, has_corrections: bool = True) -> tuple[str, Parameters]:
    """Return the filter of the documents that readers see under a publication, and the parameters that it refers to.

    Parameters
    ----------
    thresholds
        The lowest confidence of each tag, in percent; None shows everything.
    has_corrections
        Whether documents have the field of corrections. What a person said is shown whatever the thresholds.
    """
    if thresholds is None:
        return _EVERYTHING, {}
    ranges = {tag: (threshold, 100) for tag, threshold in thresholds.items()}
    return _confidence_filter("visible", ranges, _corrected(has_corrections))


def precision_filter(
    table: PrecisionTable, least: float, most: float = 100.0, *, has_corrections: bool = True
) -> tuple[str, Parameters]:
    """Return the filter of the documents whose stated precision is in a range, and the parameters that it refers to.

    Documents whose tag a person said are found too if the range reaches 100 %.

    Parameters
    ----------
    table
        The live run's measured precision; if nothing was measured, nothing is found.
    least, most
        In percent, both included.
    has_corrections
        As in :func:`visible_filter`.
    """
    ranges: dict[str, tuple[int, int]] = {}
    for tag in table.curves:
        stated = (table.precision_of(tag, confidence) for confidence in range(101))
        found = [at for at, each in enumerate(stated) if each is not None and least <= each.percent <= most]
        if found:  # it never falls, so these follow each other
            ranges[tag] = (found[0], found[-1])
    return _confidence_filter("precise", ranges, _corrected(has_corrections) if most >= 100 else [])


def _corrected(has_corrections: bool) -> list[str]:
    return [f"{CORRECTED_COLUMN}:[1 TO *]"] if has_corrections else []


def _confidence_filter(name: str, ranges: Mapping[str, tuple[int, int]], others: list[str]) -> tuple[str, Parameters]:
    """Return a filter of tags with confidences in a range of their own; tags with the same range are one clause."""
    tags = defaultdict(list)
    for tag, bounds in sorted(ranges.items()):
        tags[bounds].append(tag)
    parameters: Parameters = {}
    clauses = []
    for place, ((low, high), alike) in enumerate(sorted(tags.items())):
        own = f"{name}_{place}"
        parameters[own] = f"{{!bool filter=${own}_range filter=${own}_tags}}"
        parameters[f"{own}_range"] = f"{_CONFIDENCE}:[{int(low)} TO {int(high)}]"
        # A line end separates tags: no printable tag has one, but a comma may well be part of a tag.
        parameters[f"{own}_tags"] = rf'{{!terms f=tag separator="\n" v=${own}_values}}'
        parameters[f"{own}_values"] = "\n".join(alike)
        clauses.append(own)
    for place, query in enumerate(others):
        parameters[f"{name}_other_{place}"] = query
        clauses.append(f"{name}_other_{place}")
    if not clauses:
        return _NOTHING, {}
    return f"{{!bool {' '.join(f'should=${clause}' for clause in clauses)}}}", parameters
