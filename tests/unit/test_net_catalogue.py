"""Nets in the store: stored once and whole, found by name, checked when read; and the one that ships."""

import hashlib
import io
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from small_nets import small_card, small_net

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.nets.catalogue import (
    list_nets,
    load_net_card,
    net_for,
    net_version,
    publish_net,
    read_background,
    read_net,
)
from tinytags_tasks.nets.shipped import DEFAULT_NET, shipped_background, shipped_card, shipped_net
from tinytags_tasks.store import layout
from tinytags_tasks.store.net_records import NetCard

SHIPPED = "general32-e278f193f89b"


def background_file(pictures: int = 3, dimensions: int = 4) -> bytes:
    embeddings = np.arange(pictures * dimensions, dtype=np.int8).reshape(pictures, dimensions)
    rows = pa.array([row.tobytes() for row in embeddings], pa.binary(dimensions))
    kinds = pa.array([["fish", "animal"], *[[] for _ in range(pictures - 1)]])
    names = [f"thing {number}" for number in range(pictures)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"embedding": rows, "class": names, "kinds": kinds}), sink)
    return sink.getvalue()


def put(storage, name: str = "small", seed: int = 0, background: bytes | None = None, **changes: object) -> NetCard:
    net = small_net(seed=seed)
    if background:
        changes |= {"background_sha256": hashlib.sha256(background).hexdigest(), "background_images": 3}
    card = small_card(net, name, **changes)
    assert publish_net(card, net, background, storage)
    return card


def damage(storage, path: str, content: bytes = b"other") -> None:
    assert storage.exists(path)
    storage.write(path, content)


# Publishing


def test_a_net_is_whole_when_it_appears(storage):
    background = background_file()
    card = put(storage, background=background)
    assert files_under(storage.root) == {
        f"nets/{card.version}/net.onnx": small_net(),
        f"nets/{card.version}/net.json": card.stored(),
        f"nets/{card.version}/background.parquet": background,
    }


def test_a_net_that_stands_is_never_changed(storage):
    card = put(storage, background=background_file())
    before = files_under(storage.root)
    assert not publish_net(card.model_copy(update={"licence": "changed"}), small_net(), background_file(), storage)
    other = background_file(pictures=2)
    changed = card.model_copy(update={"background_sha256": hashlib.sha256(other).hexdigest()})
    assert not publish_net(changed, small_net(), other, storage)
    assert files_under(storage.root) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_at", range(1, 7))  # a lease, three files, the folder, and giving the lease back
def test_publishing_that_dies_leaves_all_or_nothing_and_the_next_tidies_up(storage, mode, fail_at):
    net, background = small_net(), background_file()
    card = small_card(net, background_sha256=hashlib.sha256(background).hexdigest())
    with pytest.raises(Killed):
        publish_net(card, net, background, FaultyStorage(storage, fail_at, mode, Killed))
    assert len(storage.names(f"nets/{card.version}")) in (0, 3)
    publish_net(card, net, background, storage)
    assert files_under(storage.root) == {
        f"nets/{card.version}/net.onnx": net,
        f"nets/{card.version}/net.json": card.stored(),
        f"nets/{card.version}/background.parquet": background,
    }


@pytest.mark.parametrize("file", ["net.onnx", "net.json", "background.parquet"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_file_that_is_missing_or_damaged_is_written_again_by_the_next_publishing(storage, file, how):
    card = put(storage, background=background_file())
    before = files_under(storage.root)
    path = f"nets/{card.version}/{file}"
    if how == "missing":
        storage.delete(path)
    else:
        damage(storage, path)
    assert not publish_net(card, small_net(), background_file(), storage)
    assert files_under(storage.root) == before


def test_two_that_publish_one_net_at_once_store_it_once(storage):
    net, published = small_net(), []
    card = small_card(net)
    writers = [
        threading.Thread(target=lambda: published.append(publish_net(card, net, None, storage))) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(published) == [False, True]
    assert storage.names(f"nets/{card.version}") == ["net.json", "net.onnx"]


def test_a_version_is_the_hash_of_the_nets_bytes():
    assert net_version("general32", shipped_net()) == SHIPPED
    with pytest.raises(BadInputError, match="cannot be the name of a net"):
        net_version("../a", b"x")


# Reading


def test_a_net_and_its_background_are_read_as_they_were_published(storage):
    card = put(storage, background=background_file())
    assert read_net(storage, card.version) == small_net()
    background = read_background(storage, card)
    assert background.embeddings.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert background.classes == ("thing 0", "thing 1", "thing 2")
    assert background.kinds == (("fish", "animal"), (), ())


def test_a_net_file_that_was_replaced_is_refused_with_the_remedy(storage):
    card = put(storage)
    damage(storage, layout.net_file(card.version), small_net(seed=1))
    with pytest.raises(
        CorruptError,
        match=rf"{card.version}/net\.onnx: is not the net that was published: its sha256 should begin with "
        rf"{card.version[6:]}, .*import or train the same net again",
    ):
        read_net(storage, card.version)


def test_a_net_file_that_is_gone_is_told_with_the_remedy(storage):
    card = put(storage)
    storage.delete(layout.net_file(card.version))
    with pytest.raises(MissingError, match=r"net\.onnx: does not exist; import or train the same net again"):
        read_net(storage, card.version)


def test_a_background_that_was_replaced_is_refused_and_one_that_is_not_there_is_told(storage):
    card, without = put(storage, background=background_file()), put(storage, seed=1)
    damage(storage, layout.background_file(card.version), background_file(pictures=2))
    with pytest.raises(CorruptError, match=r"background\.parquet: is not the background that was published"):
        read_background(storage, card)
    with pytest.raises(MissingError, match=f"net {without.version} has no background"):
        read_background(storage, without)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no table", id="no table"),
        pytest.param(background_file()[:-20], id="cut"),
        pytest.param(background_file(dimensions=5), id="another net's"),
        pytest.param(None, id="other columns"),
    ],
)
def test_a_background_that_is_no_table_of_embeddings_is_told(storage, content):
    if content is None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"embedding": [1, 2], "class": ["a", "b"]}), sink)
        content = sink.getvalue()
    card = put(storage, background=content)
    with pytest.raises(CorruptError, match=r"background\.parquet: not a background that can be read"):
        read_background(storage, card)


# Finding


def test_a_damaged_card_is_told_with_its_path_and_the_remedy(storage):
    card = put(storage)
    path = layout.net_card_file(card.version)
    damage(storage, path, card.stored().replace(b'"height": 8', b'"height": 9'))
    for find in (lambda: load_net_card(storage, card.version), lambda: load_net_card(storage, "small")):
        with pytest.raises(CorruptError, match=rf"{path}: damaged .*; import or train the same net again"):
            find()
    with pytest.raises(CorruptError, match=path):
        list_nets(storage)
    told = []
    other = put(storage, "other", seed=1)
    assert list_nets(storage, on_damage=told.append) == sorted([other, shipped_card()], key=lambda card: card.created)
    (problem,) = told
    assert problem.startswith(path)
    assert "import or train the same net again" in problem


def test_a_name_names_the_damaged_card_that_could_be_the_latest_and_the_versions_to_choose_from(storage):
    one, two = put(storage), put(storage, seed=1)
    path = layout.net_card_file(one.version)
    damage(storage, path)
    with pytest.raises(CorruptError, match=rf"{path}: .*; until then, say which net small means: {two.version}$"):
        load_net_card(storage, "small")
    assert load_net_card(storage, two.version) == two
    storage.delete(path)
    with pytest.raises(MissingError, match=rf"{path}: does not exist; import or train .* means: {two.version}$"):
        load_net_card(storage, "small")


def test_the_beginning_of_a_version_is_enough_if_only_one_net_begins_with_it(storage):
    one, two = put(storage, "small"), put(storage, "smaller", seed=1)
    assert load_net_card(storage, one.version) == one
    assert load_net_card(storage, one.version[:8]) == one
    assert load_net_card(storage, "smalle") == two
    with pytest.raises(BadInputError, match=rf"smal: 2 nets begin with it \({one.version}, {two.version}\); give more"):
        load_net_card(storage, "smal")
    for unknown in ("other", ""):
        with pytest.raises(MissingError, match="no such net; `tinytags nets list` lists the nets"):
            load_net_card(storage, unknown)


def test_a_name_means_the_latest_net_of_that_name_alone(storage):
    latest = put(storage, "small", created="2026-03-01T00:00:00+00:00")
    put(storage, "small", seed=1, created="2026-02-01T00:00:00+00:00")
    put(storage, "small-er", seed=2, created="2026-04-01T00:00:00+00:00")
    assert load_net_card(storage, "small") == latest


def test_nets_are_listed_in_the_order_they_were_made_with_the_one_that_ships(storage):
    assert list_nets(storage) == [shipped_card()]
    late = put(storage, created="2027-01-01T00:00:00+00:00")
    early = put(storage, seed=1, created="2025-01-01T00:00:00+00:00")
    assert list_nets(storage) == [early, shipped_card(), late]
    net_for(DEFAULT_NET, storage)
    assert list_nets(storage) == [early, shipped_card(), late]


# The net that ships


def test_the_card_of_the_net_that_ships_says_what_the_packaged_card_says():
    card = shipped_card()
    assert (card.version, card.height, card.width, card.dimensions) == (SHIPPED, 32, 32, 256)
    assert card.scale == pytest.approx(0.0997, abs=1e-4)
    assert (card.background_images, card.background_classes) == (20_000, 200)
    assert card.background_sha256 == hashlib.sha256(shipped_background()).hexdigest()
    assert card.figures["CIFAR-10 test, logistic"] > 0.9
    assert card.figures["compared: float32: CIFAR-10 test, logistic"] > 0.9
    assert card.parameters["learning: seed"] == 0
    assert "ImageNet" in card.licence
    assert "withdrawn" in card.licence
    assert "BOX" in card.preparation
    assert "JPEG" in card.preparation
    assert len(card.data) == 2
    assert NetCard.parse(card.stored(), "net.json") == card


def test_the_net_that_ships_is_found_before_it_is_stored_and_stored_once_it_is_used(storage):
    for name in (DEFAULT_NET, SHIPPED, "general32-e27"):
        assert load_net_card(storage, name) == shipped_card()
    assert storage.names(layout.NETS) == []
    assert net_for(DEFAULT_NET, storage) == shipped_card()
    assert read_net(storage, SHIPPED) == shipped_net()
    assert len(read_background(storage, shipped_card()).classes) == 20_000
    before = files_under(storage.root)
    assert net_for(SHIPPED, storage) == shipped_card()
    assert files_under(storage.root) == before


def test_its_name_means_the_one_of_this_version_even_if_there_is_a_later_one(storage):
    later = put(storage, DEFAULT_NET, created="2030-01-01T00:00:00+00:00")
    assert load_net_card(storage, DEFAULT_NET) == shipped_card()
    assert load_net_card(storage, later.version) == later
    with pytest.raises(BadInputError, match="general32-: 2 nets begin with it"):
        load_net_card(storage, "general32-")


@pytest.mark.parametrize("file", ["net.onnx", "net.json", "background.parquet"])
def test_a_damaged_file_of_the_net_that_ships_is_written_again_when_the_net_is_used(storage, file):
    net_for(DEFAULT_NET, storage)
    before = files_under(storage.root)
    damage(storage, f"nets/{SHIPPED}/{file}")
    with pytest.raises(CorruptError, match="this net ships with TinyTags: `tinytags train`"):
        load_net_card(storage, DEFAULT_NET)
        read_net(storage, SHIPPED)
        read_background(storage, shipped_card())
    assert net_for(DEFAULT_NET, storage) == shipped_card()
    assert files_under(storage.root) == before


def test_another_net_does_not_bring_the_one_that_ships_into_the_store(storage):
    card = put(storage)
    assert net_for("small", storage) == card
    assert storage.names(layout.NETS) == [card.version]
