"""Tags as people write them and as documents have them: case and Unicode's forms make no difference."""

from collections.abc import Iterable
from dataclasses import replace

from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.tags import tag_form


def match_tags(request: SearchRequest, known: Iterable[str]) -> SearchRequest:
    """Return a request with the tags that documents have in the place of those that somebody wrote.

    A tag that no document has stays as it is: it finds nothing, and people see what they wrote.

    Raises
    ------
    BadInputError
        If documents have them in so many forms that they are too many for one search.
    """
    by_form: dict[str, list[str]] = {}
    for tag in known:
        by_form.setdefault(tag_form(tag), []).append(tag)

    def match(tags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for tag in tags for name in by_form.get(tag_form(tag), [tag])))

    return replace(request, tags=match(request.tags), without_tags=match(request.without_tags))
