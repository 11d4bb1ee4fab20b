"""Small nets and heads for tests: quick to run, of the same interfaces as real ones.

``small_net`` has random weights. ``means_net`` can be followed in one's head: an embedding is the mean of each colour,
halved. The half net is that of the store of :mod:`small_run`: an embedding is half of a picture's first ten values, and
its head gives a picture the votes that :data:`small_run.VOTES` says: for a cat, for a dog, and, where those are for an
emu, for none of the tags.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_run import CORPUS, TREES, card, make_corpus

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
from tinytags_tasks.nets.catalogue import net_version, publish_net
from tinytags_tasks.nets.compose import compose_model
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import embeddings_sha256, write_embeddings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version, publish_model
from tinytags_tasks.store.net_records import EmbeddedBlock, NetCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run


def onnx_file(nodes, inputs, outputs, constants, opset: int = 21) -> bytes:
    """Return an ONNX file; ``constants`` are arrays by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        outputs,
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def small_card(net: bytes, name: str = "small", **changes: object) -> NetCard:
    """Return the card of a net; unless changed, of one that :func:`small_net` returns."""
    fields: dict[str, object] = {
        "version": f"{name}-{hashlib.sha256(net).hexdigest()[:12]}",
        "height": 8,
        "width": 8,
        "dimensions": 4,
        "scale": 0.5,
        "arithmetic": "float32",
        "origin": "small.onnx",
        "parameters": {},
        "figures": {},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return NetCard(**{**fields, **changes})


# A net of random weights, a head of random weights, and pictures for them


def small_net(height: int = 8, width: int = 8, dimensions: int = 4, seed: int = 0, opset: int = 17) -> bytes:
    """Return a net with the interface of a stored one; its embeddings have both signs."""
    weights = np.random.default_rng(seed).normal(0, 0.02, (height * width * 3, dimensions)).astype(np.float32)
    return onnx_file(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["values", "weights"], ["embedding"]),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dimensions])],
        {"weights": weights},
        opset,
    )


def linear_head(dimensions: int, columns: int, seed: int = 0) -> bytes:
    """Return a head: percentages from a linear layer; its inner names are those of a net, to be told apart."""
    weights = np.random.default_rng(seed).normal(0, 0.01, (dimensions, columns)).astype(np.float32)
    return onnx_file(
        [
            helper.make_node("Cast", ["features"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["pixels", "weights"], ["embedding"]),
            helper.make_node("Softmax", ["embedding"], ["shares"], axis=1),
            helper.make_node("Mul", ["shares", "percent"], ["votes"]),
        ],
        [helper.make_tensor_value_info("features", TensorProto.INT8, ["images", dimensions])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", columns])],
        {"weights": weights, "percent": np.array(100, dtype=np.float32)},
    )


def patches(count: int, height: int = 32, width: int = 32, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return pictures of smooth patches of colour, uint8 (count, height * width * 3)."""
    draw = np.random.default_rng(seed)
    tall, wide = -(-height // 4), -(-width // 4)
    smooth = draw.integers(0, 256, (count, 4, 4, 3)).repeat(tall, axis=1).repeat(wide, axis=2)[:, :height, :width]
    noisy = smooth + draw.integers(-20, 21, (count, height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8).reshape(count, height * width * 3)


# A net that can be followed in one's head

MEANS_SIDE, MEANS_DIMENSIONS, MEANS_SCALE = 32, 3, 2.0


def means_net(side: int = MEANS_SIDE) -> bytes:
    """Return the net of means: pixels uint8 (n, side, side, 3) to embedding float32 (n, 3)."""
    return onnx_file(
        [
            helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real", "axes"], ["embedding"], keepdims=0),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", MEANS_DIMENSIONS])],
        {"axes": np.array([1, 2])},
    )


MEANS_BYTES = means_net()
MEANS_NET = net_version("means", MEANS_BYTES)


def means_card(**changes: object) -> NetCard:
    """Return the card of the net of means."""
    fields = {"height": MEANS_SIDE, "width": MEANS_SIDE, "dimensions": MEANS_DIMENSIONS, "scale": MEANS_SCALE}
    return small_card(MEANS_BYTES, "means", **{**fields, **changes})


def publish_means_net(storage: Storage) -> None:
    """Publish the net of means, as importing it does."""
    publish_net(means_card(), MEANS_BYTES, None, storage)


def means_of(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Return what the net makes of pictures, shape (images, height, width, 3), by its definition alone."""
    means = pictures.reshape(len(pictures), -1, 3).mean(axis=1, dtype=np.float64)
    return np.rint(means / MEANS_SCALE).clip(-127, 127).astype(np.int8)


# The half net, for the store of small_run

HALF_NET = "half-0123456789ab"
NET_TAGS = ("cat", "dog")
EMBED_SECONDS = 1.5

BOUNDS = ((-1.0, 32.0), (32.0, 96.0), (96.0, 200.0))
"""Values of an embedding that count for a cat, for a dog, and for none of the tags."""

NONE = (2, 7)
"""Positions whose first choice is none: it has more votes than any tag."""


def half_card() -> NetCard:
    """Return the half net's card."""
    return small_card(
        b"", version=HALF_NET, height=32, width=32, dimensions=TREES, scale=1.0, arithmetic="int8", origin="a test"
    )


def half_embedder() -> bytes:
    """Return the net as the pipeline uses it: ``pixels`` to ``embedding``."""
    nodes = [
        helper.make_node("Slice", ["pixels", "start", "stop", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Div", ["whole", "two"], ["half"]),
        helper.make_node("Cast", ["half"], ["embedding"], to=TensorProto.INT8),
    ]
    return onnx_file(
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", IMAGE_BYTES])],
        [helper.make_tensor_value_info("embedding", TensorProto.INT8, ["images", TREES])],
        {
            "start": np.array([0]),
            "stop": np.array([TREES]),
            "axis": np.array([1]),
            "two": np.array(2, dtype=np.int32),
        },
    )


def half_head(total: int = TREES, dimensions: int = TREES) -> bytes:
    """Return the head, whose votes add up to ``total``: ``features`` to ``votes``."""
    nodes = [helper.make_node("Cast", ["features"], ["real"], to=TensorProto.FLOAT)]
    for at in range(len(BOUNDS)):
        nodes += [
            helper.make_node("Greater", ["real", f"low{at}"], [f"above{at}"]),
            helper.make_node("LessOrEqual", ["real", f"high{at}"], [f"up{at}"]),
            helper.make_node("And", [f"above{at}", f"up{at}"], [f"is{at}"]),
            helper.make_node("Cast", [f"is{at}"], [f"one{at}"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"one{at}", "axis"], [f"sum{at}"], keepdims=1),
        ]
    nodes += [
        helper.make_node("Concat", ["sum0", "sum1", "sum2"], ["counts"], axis=1),
        helper.make_node("Mul", ["counts", "share"], ["votes"]),
    ]
    for node in nodes:  # a composed model names the others by what they do
        node.name = node.output[0]
    constants = {"axis": np.array([1]), "share": np.array(total / TREES, dtype=np.float32)}
    for at, (low, high) in enumerate(BOUNDS):
        constants |= {f"low{at}": np.array(low, np.float32), f"high{at}": np.array(high, np.float32)}
    return onnx_file(
        nodes,
        [helper.make_tensor_value_info("features", TensorProto.INT8, ["images", dimensions])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", len(BOUNDS)])],
        constants,
    )


def publish_net_model(storage: LocalStorage, *, total: int = TREES, **changes: object) -> ModelCard:
    """Publish the net's card and a model of the net and the head."""
    half_card().save(storage, layout.net_card_file(HALF_NET))
    model = compose_model(half_embedder(), half_head(total), {})
    made = card(version=model_version("small", model), tags=NET_TAGS, features=HALF_NET, none=True).replaced(**changes)
    publish_model(made, model, "", storage)
    return made


def make_net_run(storage: LocalStorage, *, threshold: int = 40, unreadable: Sequence[int] = ()) -> Run:
    """Create the corpus, the model and a run; nothing is embedded."""
    make_corpus(storage, unreadable=unreadable)
    model = publish_net_model(storage)
    return Run.load(
        storage, layout.run_file(plan_run(PlanRequest(CORPUS, model.version, threshold), storage=storage).run)
    )


def embed(storage: LocalStorage, blocks: Iterable[int] | None = None, net: str = HALF_NET) -> None:
    """Write the embeddings of blocks of the corpus, as embedding does."""
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    for source in block_sources(storage, corpus, range(corpus.partition.blocks) if blocks is None else blocks):
        embeddings = (read_pixels(storage, source)[:, :TREES] // 2).astype(np.int8)
        record = EmbeddedBlock(
            corpus=CORPUS,
            block=source.block,
            net=net,
            source_sha256=source.sha256,
            images=source.images,
            dimensions=TREES,
            sha256=embeddings_sha256(embeddings),
            seconds=EMBED_SECONDS,
        )
        write_embeddings(storage, embeddings, record)
