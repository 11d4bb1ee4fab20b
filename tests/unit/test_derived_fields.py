"""What a document says of itself besides what was scored: words and the place in random orders."""

import numpy as np
import pytest

from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("guinea_pig", ("guinea", "pig")),
        ("Tabby, tabby-cat", ("tabby", "tabby", "cat")),
        ("STRASSE straße", ("strasse", "strasse")),
        ("cafe\u0301 CAF\u00c9", ("caf\u00e9", "caf\u00e9")),
        ("\ufb01sh \uff43\uff41\uff54", ("fish", "cat")),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", ("\u0939\u093f\u0928\u094d\u0926\u0940",)),
        ("C++ 2", ("c", "2")),
        ("!?", ()),
    ],
)
def test_words_are_folded_alike_whoever_writes_them(text: str, words: tuple[str, ...]) -> None:
    assert split_words(text) == words
    assert keyword_words(text) == tuple(sorted(set(words)))


def test_the_place_in_random_orders_never_changes_and_is_spread_evenly() -> None:
    places = shuffle_numbers("demo", np.arange(100_000))
    assert places[:3] == shuffle_numbers("demo", np.arange(3))
    assert shuffle_numbers("demo", np.array([0, 1, 79_302_016])) == [1890319695, 347590917, 178856600]
    assert min(places) >= 0
    assert max(places) < 2**31
    assert np.histogram(places, 10, (0, 2**31))[0] == pytest.approx(10_000, rel=0.05)
    assert shuffle_numbers("other", np.arange(3)) != places[:3]
