"""Tags are matched whatever their case and their form in Unicode."""

from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.tag_names import match_tags


def test_tags_are_matched_in_any_case_and_form() -> None:
    known = ("cat", "Hot Dog", "caf\u00e9", "STRASSE", "Cat")
    asked = SearchRequest(tags=("CAT", "hot dog", "CAFE\u0301", "stra\u00dfe"), without_tags=("unicorn",))
    found = match_tags(asked, known)
    assert found.tags == ("cat", "Cat", "Hot Dog", "caf\u00e9", "STRASSE")
    assert found.without_tags == ("unicorn",)
