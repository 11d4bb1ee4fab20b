"""Nets in the store, which never change: publishing, finding and reading them."""

import hashlib
from collections.abc import Callable

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, explained
from tinytags_tasks.near_names import choices
from tinytags_tasks.nets.background import Background, parse_background
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_background, shipped_card, shipped_net
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage, temporary_name
from tinytags_tasks.store.record import load_readable, now_after


def net_version(name: str, net: bytes) -> str:
    """Return the version of a net: its name and the hash of its bytes."""
    return f"{layout.checked_name(name, 'net')}-{hashlib.sha256(net).hexdigest()[:12]}"


def net_name(version: str) -> str:
    """Return the name in a net's version."""
    return version.rpartition("-")[0]


def publish_net(card: NetCard, net: bytes, background: bytes | None, storage: Storage) -> bool:
    """Store a complete folder of a net under its final name in one atomic step.

    Parameters
    ----------
    card
        The net's card.
    net
        Its ONNX file, with the normalised interface; the card's version contains its hash.
    background
        The Parquet file of its background, whose hash the card contains; None if it has none.
    storage
        The store.

    Returns
    -------
    bool
        False if the net existed already. It, its card and its background are then left unchanged, except that a
        missing or damaged file is written again.
    """
    lease = layout.net_lease_file(card.version)
    with Leases(storage).wait_for(lease, f"net {card.version}"):
        storage.delete_leftovers(lease)
        return _publish(card, net, background, storage)


def _publish(card: NetCard, net: bytes, background: bytes | None, storage: Storage) -> bool:
    """Publish a net while holding its lease."""
    folder = layout.net_folder(card.version)
    storage.delete_leftovers(folder)
    if storage.exists(folder):
        _restore(card, net, background, storage)
        return False
    temporary = temporary_name(folder)
    files = {layout.net_file(card.version): net, layout.net_card_file(card.version): card.stored()}
    if background is not None:
        files[layout.background_file(card.version)] = background
    for path, content in files.items():
        storage.write(f"{temporary}/{layout.file_name(path)}", content)
    published = storage.rename(temporary, folder)
    if not published:  # a writer that had lost its lease came first
        storage.delete(temporary)
        _restore(card, net, background, storage)
    return published


def _restore(card: NetCard, net: bytes, background: bytes | None, storage: Storage) -> None:
    """Write the files of a published net again that are missing or damaged; the card last."""
    stored = card
    try:
        stored = NetCard.load(storage, layout.net_card_file(card.version))
        has_card = True
    except (MissingError, CorruptError):
        has_card = False
    try:
        read_net(storage, card.version)
    except (MissingError, CorruptError):
        storage.write(layout.net_file(card.version), net)
    if background is not None and stored.background_sha256 == card.background_sha256:
        try:
            _read_background(storage, card)
        except (MissingError, CorruptError):
            storage.write(layout.background_file(card.version), background)
    if not has_card:
        card.save(storage, layout.net_card_file(card.version))


def read_net(storage: Storage, version: str) -> bytes:
    """Return a net's ONNX file, after comparing its hash with the version.

    Raises
    ------
    MissingError
        If the file does not exist.
    CorruptError
        If its bytes differ from those that were published.
    """
    path = layout.net_file(version)
    stored = _read(storage, path, version)
    expected, found = version.rpartition("-")[2], hashlib.sha256(stored).hexdigest()
    if not found.startswith(expected):
        raise CorruptError(
            f"{path}: is not the net that was published: its sha256 should begin with {expected}, but begins with "
            f"{found[: len(expected)]}; {remedy(version)}"
        )
    return stored


def read_background(storage: Storage, card: NetCard) -> Background:
    """Return a net's background, after comparing its hash with the card.

    Raises
    ------
    MissingError
        If the net has no background, or its file does not exist.
    CorruptError
        If its bytes differ from those that were published.
    """
    if not card.background_sha256:
        raise MissingError(f"net {card.version} has no background: train without none of the tags")
    stored = _read_background(storage, card)
    return parse_background(stored, card.dimensions, layout.background_file(card.version), remedy(card.version))


def _read_background(storage: Storage, card: NetCard) -> bytes:
    path = layout.background_file(card.version)
    stored = _read(storage, path, card.version)
    if hashlib.sha256(stored).hexdigest() != card.background_sha256:
        raise CorruptError(f"{path}: is not the background that was published; {remedy(card.version)}")
    return stored


def _read(storage: Storage, path: str, version: str) -> bytes:
    try:
        return storage.read(path)
    except MissingError as error:
        raise MissingError(f"{path}: does not exist; {remedy(version)}") from error
    except CorruptError as error:
        raise CorruptError(f"{path}: cannot be read ({error}); {remedy(version)}") from error


def check_net(storage: Storage, card: NetCard) -> None:
    """Compare a stored net's files with their hashes; the net that ships need not be stored.

    Raises
    ------
    MissingError
        If a file does not exist.
    CorruptError
        If a file is not what was published.
    """
    if not storage.exists(layout.net_folder(card.version)):
        return
    read_net(storage, card.version)
    if card.background_sha256:
        read_background(storage, card)


def remedy(version: str) -> str:
    """Return what writes a net's files again."""
    if version == shipped_card().version:
        return "this net ships with TinyTags: `tinytags train` or `tinytags embed` writes the file again"
    return f"{NetCard.remedy(version)}, or restore the file from a copy"


def list_nets(storage: Storage, *, on_damage: Callable[[str], None] | None = None) -> list[NetCard]:
    """Return the cards of all nets, latest last; the one that ships is among them, whether or not it is stored yet.

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
    stored, shipped = storage.names(layout.NETS), shipped_card()
    cards = load_readable(stored, lambda version: _card(storage, version), on_damage)
    if shipped.version not in stored:
        cards.append(shipped)
    return sorted(cards, key=lambda card: (card.created, card.version))


def time_of_next(storage: Storage) -> str:
    """Return when a net is made that is made now: after all others, whatever the clock says."""
    return now_after(card.created for card in list_nets(storage, on_damage=lambda problem: None))


def _card(storage: Storage, version: str) -> NetCard:
    """Return a stored net's card."""
    path = layout.net_card_file(version)
    try:
        return NetCard.load(storage, path)
    except MissingError as error:
        raise MissingError(f"{path}: does not exist; {remedy(version)}") from error
    except CorruptError as error:
        if version == shipped_card().version:
            raise explained(error, f"{error}; {remedy(version)}") from error
        raise


def load_net_card(storage: Storage, name_or_version: str) -> NetCard:
    """Return a net's card.

    Parameters
    ----------
    storage
        The store.
    name_or_version
        A net's version, or its beginning if that is unique; or a name, which means the latest net of that name, and for
        the net that ships, the one that this version of TinyTags ships.

    Raises
    ------
    MissingError
        If there is no such net.
    BadInputError
        If several versions begin with it.
    CorruptError
        If the card is damaged, or, where a name is given, that of any net of this name.
    """
    shipped, stored = shipped_card(), storage.names(layout.NETS)
    version = _find(name_or_version, stored, storage)
    return _card(storage, version) if version in stored else shipped


def _find(name_or_version: str, stored: list[str], storage: Storage) -> str:
    """Return the version that is meant."""
    shipped = shipped_card().version
    known = {*stored, shipped}
    if name_or_version in known:
        return name_or_version
    if name_or_version == DEFAULT_NET:
        return shipped
    if of_name := [version for version in stored if net_name(version) == name_or_version]:
        return _latest(name_or_version, of_name, storage)
    found = sorted(version for version in known if name_or_version and version.startswith(name_or_version))
    if not found:
        names = choices(name_or_version, sorted({*map(net_name, known), *known}))
        raise MissingError(f"{name_or_version}: no such net; `tinytags nets list` lists the nets ({names})")
    if len(found) > 1:
        raise BadInputError(
            f"{name_or_version}: {len(found)} nets begin with it ({', '.join(found[:5])}); give more characters"
        )
    return found[0]


def _latest(name: str, versions: list[str], storage: Storage) -> str:
    """Return the latest of the nets of a name; a net whose card is damaged could be it, so it is not passed over."""
    if len(versions) == 1:
        return versions[0]
    cards = []
    for version in versions:
        try:
            cards.append(_card(storage, version))
        except FinalError as error:
            others = ", ".join(sorted(set(versions) - {version}))
            raise explained(error, f"{error}; until then, say which net {name} means: {others}") from error
    return max(cards, key=lambda card: (card.created, card.version)).version


def net_for(name: str, storage: Storage) -> NetCard:
    """Return a net's card, as :func:`load_net_card` does, and store the net that ships if it is meant.

    What a store holds is then complete: its models and embeddings need no other version of TinyTags.
    """
    shipped = shipped_card()
    if _find(name, storage.names(layout.NETS), storage) == shipped.version and not _is_whole(storage, shipped.version):
        publish_net(shipped, shipped_net(), shipped_background(), storage)
    return load_net_card(storage, name)


def _is_whole(storage: Storage, version: str) -> bool:
    """Return whether all files of a net are in the store, undamaged; it takes no lease, unlike publishing."""
    try:
        card = NetCard.load(storage, layout.net_card_file(version))
        check_net(storage, card)
    except (MissingError, CorruptError):
        return False
    return True
