"""The fields of a document that follow from its keyword, its place and its picture."""

import numpy as np

from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.document_fields import LOOK_FIELDS
from tinytags_tasks.look import looks


def derived_values(corpus: str, position: int, image: np.ndarray, keyword: str = "") -> dict[str, object]:
    """Return them as Solr does; ``image`` has shape (height, width, 3)."""
    found = looks(image.reshape(1, -1), image.shape[1])[0].tolist()
    words = {"keyword": keyword, "word": list(keyword_words(keyword))} if keyword else {}
    return {
        "shuffle": shuffle_numbers(corpus, np.array([position]))[0],
        **dict(zip(LOOK_FIELDS, found, strict=True)),
        **words,
    }
