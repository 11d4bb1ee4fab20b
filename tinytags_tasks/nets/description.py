"""What is known about a net, as text for people."""

from tinytags_tasks.store.net_records import NetCard

CIFAR10_FIGURE = "CIFAR-10 test, logistic"
"""The figure by which nets are compared in a list: the share that a logistic head on its embeddings gets right."""


def cifar10(card: NetCard) -> str:
    """Return the figure that nets are compared by, in percent; empty if it was not measured."""
    share = card.figures.get(CIFAR10_FIGURE)
    return "" if share is None else f"{100 * share:.1f} %"


def background(card: NetCard) -> str:
    """Return how large a net's background is; empty if it has none."""
    if not card.background_sha256:
        return ""
    return f"{card.background_images:,} pictures of {card.background_classes:,} classes"


def describe_net(card: NetCard) -> dict[str, str]:
    """Return everything on a net's card, as text by heading; headings without a value are left out."""
    several = len(card.data) > 1
    described = {
        "created": card.created,
        "origin": card.origin,
        "pictures": f"{card.height}x{card.width}; others are resized to that inside the graph",
        "embedding": f"{card.dimensions} whole numbers, each times {card.scale:.6g}",
        "arithmetic": card.arithmetic,
        "preparation": card.preparation,
        **{f"data {number}" if several else "data": text for number, text in enumerate(card.data, start=1)},
        "fine-tuned with reviews": "; ".join(map(str, card.reviews)),
        "licence": card.licence,
        "background": background(card),
        "background's sha256": card.background_sha256,
    }
    for name, value in card.parameters.items():
        described.setdefault(name.replace("_", " "), str(value))
    described |= {f"figure: {name}": f"{value:g}" for name, value in card.figures.items()}
    return {heading: text for heading, text in described.items() if text}
