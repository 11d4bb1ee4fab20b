"""The net that ships: what its card says is so, and an embedding depends on its picture alone."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow.parquet as pq
import pytest
from hatchling.builders.wheel import WheelBuilder

from tinytags_tasks.parts import PROJECT_ROOT

NET = Path(str(resources.files("tinytags_tasks.nets") / "general32"))


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads((NET / "card.json").read_text())


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(NET / "net.onnx", options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def background(card: dict[str, Any]) -> tuple[npt.NDArray[np.int8], list[dict[str, Any]]]:
    table = pq.read_table(NET / card["background"]["file"])
    embeddings = np.stack([np.frombuffer(row, np.int8) for row in table["embedding"].to_pylist()])
    return embeddings, table.select(["class", "kinds", "wnid"]).to_pylist()


def _pictures(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth patches of colour: noise alone would hardly move an embedding."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 4, 4, 3))
    smooth = coarse.repeat(8, axis=1).repeat(8, axis=2) + draw.integers(-20, 21, (count, 32, 32, 3))
    return smooth.clip(0, 255).astype(np.uint8)


def _embed(session: onnxruntime.InferenceSession, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return session.run(["embedding"], {"pixels": pixels})[0]


@pytest.mark.parametrize("part", ["net", "background"])
def test_the_card_names_each_file_and_its_sha256(card: dict[str, Any], part: str) -> None:
    content = (NET / card[part]["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == card[part]["sha256"]
    assert len(content) == card[part]["bytes"]


def test_the_files_are_small_enough_for_a_package() -> None:
    assert (NET / "net.onnx").stat().st_size <= 3_000_000
    assert (NET / "background.parquet").stat().st_size <= 6_000_000


def test_a_wheel_contains_the_net_its_card_and_its_background() -> None:
    packaged = {included.distribution_path for included in WheelBuilder(str(PROJECT_ROOT)).recurse_included_files()}
    folder = "tinytags_tasks/nets/general32"
    assert {f"{folder}/{name}" for name in ("net.onnx", "card.json", "background.parquet")} <= packaged


def test_pixels_go_in_and_embeddings_come_out(session: onnxruntime.InferenceSession) -> None:
    ((pixels,), (embedding,)) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape[1:]) == ("pixels", "tensor(uint8)", [32, 32, 3])
    assert (embedding.name, embedding.type, embedding.shape[1:]) == ("embedding", "tensor(float)", [256])
    assert isinstance(pixels.shape[0], str), "the number of images must be free"


@pytest.mark.parametrize("count", [0, 1, 3, 257])
def test_a_batch_may_have_any_size(session: onnxruntime.InferenceSession, count: int) -> None:
    assert _embed(session, _pictures(count)).shape == (count, 256)


def test_embeddings_are_finite_and_differ_from_picture_to_picture(session: onnxruntime.InferenceSession) -> None:
    embeddings = _embed(session, _pictures(64))
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    assert len(np.unique(embeddings, axis=0)) == 64
    assert (embeddings.std(axis=0) > 0).mean() > 0.9, "most numbers of an embedding should carry something"


@pytest.mark.parametrize("shade", [0, 255])
def test_a_picture_of_one_colour_has_a_finite_embedding(session: onnxruntime.InferenceSession, shade: int) -> None:
    assert np.isfinite(_embed(session, np.full((1, 32, 32, 3), shade, np.uint8))).all()


def test_a_picture_has_the_same_embedding_alone_and_in_a_batch(session: onnxruntime.InferenceSession) -> None:
    pictures = _pictures(33)
    together = _embed(session, pictures)
    alone = np.concatenate([_embed(session, picture[None]) for picture in pictures])
    np.testing.assert_array_equal(together, alone)


def test_the_number_of_threads_changes_nothing(session: onnxruntime.InferenceSession) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    other = onnxruntime.InferenceSession(NET / "net.onnx", options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(_embed(session, _pictures(40)), _embed(other, _pictures(40)))


def test_int8_stores_an_embedding_without_loss(card: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    embeddings, scale = _embed(session, _pictures(64)), np.float32(card["embedding"]["scale"])
    stored = np.rint(embeddings / scale).astype(np.int8)
    assert stored.min() >= 0
    np.testing.assert_allclose(stored * scale, embeddings, rtol=1e-6)


def test_rows_and_columns_are_not_swapped_without_notice(session: onnxruntime.InferenceSession) -> None:
    pictures = _pictures(8)
    assert not np.array_equal(_embed(session, pictures), _embed(session, pictures.swapaxes(1, 2).copy()))


def test_the_background_names_what_each_picture_shows(
    card: dict[str, Any], background: tuple[npt.NDArray[np.int8], list[dict[str, Any]]]
) -> None:
    embeddings, rows = background
    assert embeddings.shape == (card["background"]["pictures"], 256)
    assert (embeddings >= 0).all()
    assert embeddings.any(axis=1).all(), "an embedding of zeros alone says nothing"
    assert all(row["class"] and row["wnid"] for row in rows)
    assert len({row["wnid"] for row in rows}) == card["background"]["classes"]


@pytest.mark.parametrize(("kind", "shown"), [("dog", "Chihuahua"), ("cat", "tabby"), ("car", "convertible")])
def test_a_class_is_found_by_its_everyday_name(
    background: tuple[npt.NDArray[np.int8], list[dict[str, Any]]], kind: str, shown: str
) -> None:
    found = {row["class"].split(",")[0] for row in background[1] if kind in row["kinds"]}
    assert shown in found
    assert "banana" not in found


def test_the_card_says_where_the_pictures_come_from_and_on_what_terms(card: dict[str, Any]) -> None:
    names = " ".join(source["name"] for source in card["data"])
    assert "CIFAR-10" in names
    assert "Tiny-ImageNet" in names
    assert all(source["terms"] for source in card["data"])
    assert "withdrawn" in next(source["terms"] for source in card["data"] if "CIFAR-10" in source["name"])
    assert "research" in next(source["terms"] for source in card["data"] if "Tiny-ImageNet" in source["name"])


def test_nothing_in_the_package_asks_for_torch() -> None:
    package = Path(str(resources.files("tinytags_tasks")))
    importers = [
        path.relative_to(package)
        for path in package.rglob("*.py")
        if "import torch" in path.read_text() and path.parent != NET.parent / "recipe"
    ]
    assert importers == []
