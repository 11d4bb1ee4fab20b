"""Published models, which never change: storing, listing, describing and comparing them."""

import hashlib
from collections.abc import Callable, Sequence

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.near_names import choices
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.model_figures import describe_figures
from tinytags_tasks.store.model_records import PIXELS, BackgroundUse, ModelCard, ReviewUse
from tinytags_tasks.store.protocol import Storage, temporary_name
from tinytags_tasks.store.record import load_readable, now_after

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""The Content-Security-Policy under which a report is served: it holds its own style and pictures, and no script."""

_REMEDY = "train or import the same model again, which writes this file again, or restore it from a copy"


def model_version(name: str, onnx_model: bytes) -> str:
    """Return the version of a model: its name and the hash of its bytes."""
    return f"{layout.checked_name(name, 'model')}-{_content_hash(onnx_model)}"


def _content_hash(onnx_model: bytes) -> str:
    return hashlib.sha256(onnx_model).hexdigest()[:12]


def read_model(storage: Storage, version: str) -> bytes:
    """Return a published model's ONNX file, after comparing its hash with the version.

    Raises
    ------
    MissingError
        If the file does not exist.
    CorruptError
        If its bytes differ from those that were published.
    """
    path = layout.model_file(version)
    try:
        stored = storage.read(path)
    except MissingError as error:
        raise MissingError(f"{path}: does not exist; {_REMEDY}") from error
    except CorruptError as error:
        raise CorruptError(f"{path}: cannot be read ({error}); {_REMEDY}") from error
    expected, found = version.rpartition("-")[2], _content_hash(stored)
    if found != expected:
        raise CorruptError(
            f"{path}: is not the model that was published: its sha256 should begin with {expected}, but begins with "
            f"{found}; {_REMEDY}"
        )
    return stored


def restore_model(storage: Storage, version: str, onnx_model: bytes) -> bool:
    """Write a model's file again if it is missing or damaged and these are its bytes; return whether it was written."""
    if _content_hash(onnx_model) != version.rpartition("-")[2]:
        return False
    try:
        read_model(storage, version)
    except (MissingError, CorruptError):
        return storage.write(layout.model_file(version), onnx_model)
    return False


def publish_model(card: ModelCard, onnx_model: bytes, report: str, storage: Storage) -> bool:
    """Store a complete model folder under its final name in one atomic step.

    Parameters
    ----------
    card
        The model's card.
    onnx_model
        The model's ONNX file; the card's version contains its hash.
    report
        The card as an HTML page.
    storage
        The store.

    Returns
    -------
    bool
        False if the model existed already. It and its card are then left unchanged, except that a missing or damaged
        file is written again.
    """
    lease = layout.model_lease_file(card.version)
    with Leases(storage).wait_for(lease, f"model {card.version}"):
        storage.delete_leftovers(lease)
        return _publish(card, onnx_model, report, storage)


def _publish(card: ModelCard, onnx_model: bytes, report: str, storage: Storage) -> bool:
    """Publish a model while holding its lease."""
    folder = layout.model_folder(card.version)
    storage.delete_leftovers(folder)
    temporary = temporary_name(folder)
    for path, content in (
        (layout.model_file(card.version), onnx_model),
        (layout.report_file(card.version), report.encode()),
        (layout.card_file(card.version), card.stored()),
    ):
        storage.write(f"{temporary}/{layout.file_name(path)}", content)
    published = storage.rename(temporary, folder)
    if not published:
        storage.delete(temporary)
        restore_model(storage, card.version, onnx_model)
        if not has_card(storage, card.version):
            storage.write(layout.report_file(card.version), report.encode())
            card.save(storage, layout.card_file(card.version))
    return published


def has_card(storage: Storage, version: str) -> bool:
    """Tell whether a model has a card that can be read."""
    try:
        ModelCard.load(storage, layout.card_file(version))
    except (MissingError, CorruptError):
        return False
    return True


def has_none(version: str, storage: Storage) -> bool:
    """Tell whether a model knows "none of the tags"; False if its card cannot be read, which others report."""
    try:
        return ModelCard.load(storage, layout.card_file(version)).none
    except (MissingError, CorruptError):
        return False


def list_models(storage: Storage, *, on_damage: Callable[[str], None] | None = None) -> list[ModelCard]:
    """Return the cards of all models, latest last.

    Parameters
    ----------
    storage
        The store.
    on_damage
        Called for each card that cannot be read, with what is wrong and the remedy; the others are returned. None
        raises this as an error.

    Raises
    ------
    FinalError
        If a card cannot be read and ``on_damage`` is None.
    """
    cards = load_readable(storage.names(layout.MODELS), lambda version: _card(storage, version), on_damage)
    return sorted(cards, key=lambda card: (card.created, card.version))


def time_of_next(storage: Storage) -> str:
    """Return when a model is made that is made now: after all others, whatever the clock says."""
    return now_after(card.created for card in list_models(storage, on_damage=lambda problem: None))


def _card(storage: Storage, version: str) -> ModelCard:
    path = layout.card_file(version)
    try:
        return ModelCard.load(storage, path)
    except MissingError as error:
        raise MissingError(f"{path}: does not exist; {ModelCard.remedy(path)}") from error


def load_card(storage: Storage, version: str) -> ModelCard:
    """Return a model's card; the beginning of its version is enough if it is unique.

    Raises
    ------
    MissingError
        If there is no such model.
    BadInputError
        If several versions begin with it.
    """
    return _card(storage, find_version(storage, version))


def find_version(storage: Storage, beginning: str) -> str:
    """Return the only version that begins with a text, or is it; see :func:`load_card`."""
    found = [name for name in storage.names(layout.MODELS) if name.startswith(beginning)]
    if beginning in found:
        found = [beginning]
    if not found:
        known = choices(beginning, storage.names(layout.MODELS))
        raise MissingError(f"{beginning}: no such model; `tinytags models list` lists the models ({known})")
    if len(found) > 1:
        raise BadInputError(
            f"{beginning}: {len(found)} models begin with it ({', '.join(found[:5])}); give more characters"
        )
    return found[0]


def load_report(storage: Storage, version: str) -> str:
    """Return a model's report in HTML.

    Raises
    ------
    MissingError
        If the model has no report.
    """
    try:
        return storage.read(layout.report_file(version)).decode()
    except MissingError as error:
        raise MissingError(
            f"model {version} has no report: a version of TinyTags without reports published it"
        ) from error


def misfit(card: ModelCard, corpus: Corpus) -> str:
    """Return why a model cannot tag a corpus' images; empty if it can."""
    for what, ours, theirs in (
        ("image size", (card.height, card.width, card.channels), (corpus.height, corpus.width, corpus.channels)),
        ("pixel order", card.pixel_order, corpus.pixel_order),
    ):
        if ours != theirs:
            return f"its {what} is {ours}, but that of the corpus is {theirs}"
    return ""


def describe_model(card: ModelCard) -> dict[str, str]:
    """Return what is known about a model, as text by heading; headings without a value are left out."""
    return describe_origin(card) | describe_figures(card)


def describe_origin(card: ModelCard) -> dict[str, str]:
    """Return what a model is and how it was made, as text by heading; headings without a value are left out."""
    size = f"{card.height}x{card.width}"
    described = {
        "created": card.created,
        "output": f"votes of {card.trees} trees" if card.output == "votes" else card.output,
        "features": PIXELS if card.features == PIXELS else f"embeddings by net {card.features}",
        "head": "" if card.features == PIXELS else card.head,
        "tags": f"{len(card.tags)}: {', '.join(card.tags)}",
        "none": "knows images that show none of its tags: they are counted, and never kept" if card.none else "",
        **_describe_background(card.background),
        "images": f"{size}, {card.preparation}" if card.preparation else size,
        "imported from": card.origin,
        "learned from": f"{card.labelled_images:,} images of {card.labelled_set}" if card.labelled_set else "",
        "images of each tag": _counts(card),
        "left out": f"{card.unlabelled_images:,} images without a label" if card.unlabelled_images else "",
        "test images that it learned from": f"{card.learned_test_images:,}" if card.learned_test_images else "",
        **_describe_reviews(card.reviews, card.tags),
        "its net learned from reviews": "; ".join(map(str, card.net_reviews)),
        "licence": card.licence,
        **{name.replace("_", " "): str(value) for name, value in card.parameters.items()},
    }
    return {heading: text for heading, text in described.items() if text}


def _counts(card: ModelCard) -> str:
    return ", ".join(f"{tag} {count:,}" for tag, count in zip(card.tags, card.labelled_of_tags, strict=False))


def _describe_background(background: BackgroundUse | None) -> dict[str, str]:
    """Return what taught a model "none", and which classes of it were left out."""
    if background is None:
        return {}
    described = {"learned none from": f"{background.images:,} general pictures that came with net {background.net}"}
    for why, classes in (
        ("they name a tag", background.left_out_by_name),
        ("a tag was found in them", background.left_out_by_look),
    ):
        described[f"left out of these, because {why}"] = ", ".join(classes)
    return described


def _describe_reviews(use: ReviewUse | None, tags: Sequence[str]) -> dict[str, str]:
    """Return what a model learned from people's words."""
    if use is None:
        return {}
    counts = [f"{tag} {count:,}" for tag, count in zip(tags, use.of_tags, strict=True) if count]
    if use.none:
        counts.append(f"none {use.none:,}")
    described = {
        "learned from reviews": f"{use.words:,} pictures of corpus {use.corpus} (up to request {use.upto}): "
        f"{', '.join(counts)}; each counts {use.weight:g} times"
        f"{', and no general pictures' if use.replaced_background else ''}",
        "tags from reviews alone": ", ".join(use.new_tags),
        "tags in reviews that were not learned": ", ".join(f"{tag} {count}" for tag, count in use.other_tags.items()),
    }
    return {heading: text for heading, text in described.items() if text}


def compare_models(one: ModelCard, other: ModelCard) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Compare two models, heading by heading.

    Returns
    -------
    tuple
        Rows of a heading, the first model's text and the second's; and remarks on differences that make the models or
        their figures incomparable.
    """
    ours, theirs = describe_model(one), describe_model(other)
    rows = [(heading, ours.get(heading, ""), theirs.get(heading, "")) for heading in dict.fromkeys([*ours, *theirs])]
    remarks = [
        f"their {what} differ: one cannot replace the other"
        for what, differ in (
            ("tags", one.tags != other.tags),
            ("image sizes", (one.height, one.width) != (other.height, other.width)),
        )
        if differ
    ]
    if one.none != other.none:
        knowing = one if one.none else other
        remarks.append(
            f"only {knowing.version} knows none of the tags: it keeps no image whose first choice that is, and its "
            "accuracy counts such a choice as wrong"
        )
    for what, first, second in (
        ("test sets", one.test, other.test),
        ("images of other things", one.other, other.other),
    ):
        if first and second and first.sha256 != second.sha256:
            remarks.append(f"their {what} differ: figures on them cannot be compared")
    return rows, remarks
