"""What a labelled set holds: how many images each tag has, how many have none, and how many are test images, too."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from tinytags_tasks.train.features import LabelledFeatures

_MOST_SHOWN = 50
_MOST_NUMBERS = 5


def images_of_tags(labelled: LabelledFeatures) -> tuple[int, ...]:
    """Return how many labelled images each tag has, in the order of the tags."""
    return tuple(np.bincount(labelled.labels, minlength=len(labelled.tags)).tolist())


def report_counts(tags: Sequence[str], counts: Sequence[int], unlabelled: int, report: Callable[[str], None]) -> None:
    """Report the tags that a model learned with a count each, those without images, and how many images have no label.

    Tags that only reviews name have no count.
    """
    known = [f"{tag} {count:,}" for tag, count in zip(tags, counts, strict=False) if count]
    if known:
        rest = f" and {len(known) - _MOST_SHOWN:,} more" if len(known) > _MOST_SHOWN else ""
        report(f"labelled images of each tag: {', '.join(known[:_MOST_SHOWN])}{rest}")
    if lacking := [tag for tag, count in zip(tags, counts, strict=False) if not count]:
        rest = f" and {len(lacking) - _MOST_SHOWN:,} more" if len(lacking) > _MOST_SHOWN else ""
        report(f"no labelled image shows {', '.join(lacking[:_MOST_SHOWN])}{rest}")
    if unlabelled:
        report(f"left out because they have no label (-1): {unlabelled:,} images")


def count_learned(labelled: LabelledFeatures, test: LabelledFeatures | None, report: Callable[[str], None]) -> int:
    """Return how many test images are also labelled images, and warn of them: they look the same to the model."""
    if test is None:
        return 0
    known: dict[bytes, set[int]] = {}
    for each, label in zip(_hashes(labelled.values), labelled.labels.tolist(), strict=True):
        known.setdefault(each, set()).add(label)
    tested = zip(_hashes(test.values), test.labels.tolist(), strict=True)
    found = {number: label in known[each] for number, (each, label) in enumerate(tested) if each in known}
    if found:
        others = sum(not has_its_tag for has_its_tag in found.values())
        contradicted = f", {others:,} of them with another tag there" if others else ""
        numbers = ", ".join(map(str, islice(found, _MOST_NUMBERS)))
        report(
            f"warning: {len(found):,} of the {len(test.labels):,} test images are also among the labelled images"
            f"{contradicted}: the model has learned from them, so its test accuracy says too much. Take them out of "
            f"{test.path}: counted from 0 among its images with a label, the first are {numbers}"
        )
    return len(found)


def _hashes(values: npt.NDArray[np.generic]) -> Iterator[bytes]:
    return (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in values)
