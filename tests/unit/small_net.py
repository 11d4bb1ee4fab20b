"""A small net and a head with "none" on it, for the store of :mod:`small_run`.

The net's embedding is half of a picture's first ten values. The head gives a picture the votes that
:data:`small_run.VOTES` says: for a cat, for a dog, and, where those are for an emu, for none of the tags.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_run import CORPUS, TREES, card, make_corpus

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
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
from tinytags_tasks.store.run_records import Run

NET = "half-0123456789ab"
NET_TAGS = ("cat", "dog")
EMBED_SECONDS = 1.5

BOUNDS = ((-1.0, 32.0), (32.0, 96.0), (96.0, 200.0))
"""Values of an embedding that count for a cat, for a dog, and for none of the tags."""

NONE = (2, 7)
"""Positions whose first choice is none: it has more votes than any tag."""


def net_card() -> NetCard:
    """Return the net's card."""
    return NetCard(
        version=NET,
        height=32,
        width=32,
        dimensions=TREES,
        scale=1.0,
        arithmetic="int8",
        origin="a test",
        parameters={},
        figures={},
        created="2024-01-01T00:00:00+00:00",
    )


def make_graph(nodes: Sequence[onnx.NodeProto], name: str, inputs: tuple, outputs: tuple, constants: dict) -> bytes:
    """Return a graph of named nodes, with inputs, outputs and constants by name."""
    for node in nodes:
        node.name = node.output[0]
    graph = helper.make_graph(
        list(nodes),
        name,
        [helper.make_tensor_value_info(*inputs)],
        [helper.make_tensor_value_info(*outputs)],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def embedder() -> bytes:
    """Return the net as the pipeline uses it: ``pixels`` to ``embedding``."""
    nodes = [
        helper.make_node("Slice", ["pixels", "start", "stop", "axis"], ["first"]),
        helper.make_node("Cast", ["first"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Div", ["whole", "two"], ["half"]),
        helper.make_node("Cast", ["half"], ["embedding"], to=TensorProto.INT8),
    ]
    constants = {
        "start": np.array([0]),
        "stop": np.array([TREES]),
        "axis": np.array([1]),
        "two": np.array(2, dtype=np.int32),
    }
    pixels = ("pixels", TensorProto.UINT8, ["images", IMAGE_BYTES])
    return make_graph(nodes, "half", pixels, ("embedding", TensorProto.INT8, ["images", TREES]), constants)


def head(total: int = TREES, dimensions: int = TREES) -> bytes:
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
    constants = {"axis": np.array([1]), "share": np.array(total / TREES, dtype=np.float32)}
    for at, (low, high) in enumerate(BOUNDS):
        constants |= {f"low{at}": np.array(low, np.float32), f"high{at}": np.array(high, np.float32)}
    features = ("features", TensorProto.INT8, ["images", dimensions])
    return make_graph(nodes, "head", features, ("votes", TensorProto.FLOAT, ["images", 3]), constants)


def publish_net_model(storage: LocalStorage, *, total: int = TREES, **changes: object) -> ModelCard:
    """Publish the net's card and a model of the net and the head."""
    net_card().save(storage, layout.net_card_file(NET))
    model = compose_model(embedder(), head(total), {})
    made = card(version=model_version("small", model), tags=NET_TAGS, features=NET, none=True).replaced(**changes)
    publish_model(made, model, "", storage)
    return made


def make_net_run(storage: LocalStorage, *, threshold: int = 40, unreadable: Sequence[int] = ()) -> Run:
    """Create the corpus, the model and a run; nothing is embedded."""
    make_corpus(storage, unreadable=unreadable)
    model = publish_net_model(storage)
    return Run.load(
        storage, layout.run_file(plan_run(PlanRequest(CORPUS, model.version, threshold), storage=storage).run)
    )


def embed(storage: LocalStorage, blocks: Iterable[int] | None = None, net: str = NET) -> None:
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
