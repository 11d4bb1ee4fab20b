"""Which classes of general pictures show one of the tags, and which could be argued either way.

For CIFAR-10's ten tags and Tiny-ImageNet's 200 classes a person decided; else names decide.
"""

import re

from tinytags_tasks.nets.recipe.kinds import kinds_of

TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NONE = len(TAGS)
UNKNOWN = -1

_SHOWN: dict[str, tuple[str, ...]] = {
    "automobile": (
        "n02814533",
        "n03100240",
        "n03670208",
        "n04285008",
    ),  # beach wagon, convertible, limousine, sports car
    "bird": ("n01855672", "n02002724", "n02056570", "n02058221"),  # goose, black stork, king penguin, albatross
    "cat": ("n02123045", "n02123394", "n02124075"),  # tabby, Persian, Egyptian
    "dog": ("n02085620", "n02094433", "n02099601", "n02099712", "n02106662", "n02113799"),  # six breeds
    "frog": ("n01641577", "n01644900"),  # bullfrog, tailed frog
    "ship": ("n03662601",),  # lifeboat
    "truck": ("n03796401",),  # moving van
}
_ARGUABLE: frozenset[str] = frozenset(
    {
        "n02125311",  # cougar
        "n02129165",  # lion
        "n02395406",  # hog
        "n02403003",  # ox
        "n02410509",  # bison
        "n02415577",  # bighorn
        "n02423022",  # gazelle
        "n02437312",  # Arabian camel
        "n02917067",  # bullet train
        "n03393912",  # freight car
        "n03444034",  # go-kart
        "n03447447",  # gondola
        "n03977966",  # police van
        "n04146614",  # school bus
        "n04399382",  # teddy
        "n04465501",  # tractor
        "n04487081",  # trolleybus
        "n06596364",  # comic book
    }
)


def tag_of(wnid: str) -> int:
    """Return the tag that a Tiny-ImageNet class shows: 0 to 9, ``NONE``, or ``UNKNOWN`` where it can be argued."""
    if wnid in _ARGUABLE:
        return UNKNOWN
    return next((TAGS.index(tag) for tag, wnids in _SHOWN.items() if wnid in wnids), NONE)


def tag_shown_by(class_id: str, names: str, tags: tuple[str, ...]) -> int:
    """Return the tag that a class of general pictures shows: its number, ``len(tags)`` for none, or ``UNKNOWN``.

    Parameters
    ----------
    class_id
        The class' folder or name; WordNet's ids are looked up in :mod:`.kinds`.
    names
        What the class is called, with commas between.
    tags
        The labelled set's tags.
    """
    if tags == TAGS and re.fullmatch(r"n\d{8}", class_id):
        return tag_of(class_id)
    wanted = [tag.strip().lower() for tag in tags]
    called = [name.strip().lower() for name in names.split(",")]
    for name in called:
        if name in wanted:
            return wanted.index(name)
    words = {word for name in called for word in re.findall(r"[a-z]+", name)} | set(kinds_of(class_id))
    return UNKNOWN if words & set(wanted) else len(tags)
