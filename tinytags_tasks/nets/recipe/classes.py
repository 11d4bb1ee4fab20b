"""Which of Tiny-ImageNet's 200 classes show one of CIFAR-10's ten tags, and which could be argued either way."""

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
