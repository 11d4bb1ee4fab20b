"""Sessions: on the providers that were chosen and no others, with one clear line where that cannot be."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from small_nets import patches, small_card, small_net

from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.nets import running
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import CPU, CUDA, choose_providers, embed, offered_here, open_session
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings


@pytest.fixture
def offers(monkeypatch):
    """Return a function that makes ONNX Runtime offer these providers."""

    def offer(*providers: str) -> None:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))

    return offer


@pytest.fixture
def graph() -> bytes:
    net = small_net()
    return embedding_graph(net, small_card(net), 8, 8)


# Choosing providers


@pytest.mark.parametrize("setting", [None, "", " , "])
def test_a_gpu_comes_first_where_there_is_one_and_the_cpu_does_the_rest(offers, setting):
    offers("TensorrtExecutionProvider", CUDA, CPU)
    assert choose_providers(setting) == (CUDA, CPU)
    offers("AzureExecutionProvider", CPU)
    assert choose_providers(setting) == (CPU,)


def test_the_setting_decides_in_its_own_order(offers):
    offers("TensorrtExecutionProvider", CUDA, CPU)
    assert choose_providers(CPU) == (CPU,)
    assert choose_providers(f"TensorrtExecutionProvider, {CUDA},{CPU}") == ("TensorrtExecutionProvider", CUDA, CPU)


def test_a_driver_without_the_gpu_passes_the_setting_on_to_workers_that_have_it(offers):
    offers("AzureExecutionProvider", CPU)
    assert choose_providers(f"{CUDA},{CPU}") == (CUDA, CPU)


def test_a_name_that_onnx_runtime_knows_on_no_machine_is_told_with_those_it_knows(offers):
    offers(CUDA, CPU)
    with pytest.raises(BadInputError, match=rf"knows no CUDAProvider; it knows .*{CUDA}.*: set TINYTAGS_ONNX_PROVIDER"):
        choose_providers(f"CUDAProvider,{CPU}")


@pytest.mark.parametrize("chosen", [(CUDA, CPU), (CUDA,)])
def test_a_driver_without_the_gpu_runs_its_own_nets_on_the_processor_and_says_so(offers, chosen):
    offers("AzureExecutionProvider", CPU)
    told = []
    assert offered_here(chosen, told.append) == (CPU,)
    assert told == [f"ONNX Runtime offers no {CUDA} on this machine, which runs nets on {CPU}"]


def test_a_driver_with_the_gpu_uses_it_and_says_nothing(offers):
    offers(CUDA, CPU)
    told = []
    assert offered_here((CUDA, CPU), told.append) == (CUDA, CPU)
    assert told == []


def test_the_environment_sets_it(monkeypatch, offers):
    offers(CUDA, CPU)
    monkeypatch.delenv("TINYTAGS_ONNX_PROVIDERS", raising=False)
    assert Runtime(load_settings()).onnx_providers == (CUDA, CPU)
    monkeypatch.setenv("TINYTAGS_ONNX_PROVIDERS", CPU)
    assert Runtime(load_settings()).onnx_providers == (CPU,)


# Opening sessions


def test_a_session_runs_on_the_processor_unless_told_otherwise(graph):
    assert open_session(graph, "net.onnx").get_providers() == [CPU]


def test_a_session_gets_the_providers_and_threads_that_were_asked_for(monkeypatch, offers, graph):
    offers(CUDA, CPU)
    asked = []

    def session(onnx, options, providers):
        asked.append((onnx, options.intra_op_num_threads, providers))
        return SimpleNamespace(get_providers=lambda: providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    open_session(graph, "net.onnx", (CUDA, CPU), threads=4)
    assert asked == [(graph, 4, [CUDA, CPU])]


def test_a_worker_without_the_gpu_of_the_driver_says_so(offers, graph):
    offers(CPU)
    with pytest.raises(BadInputError, match=rf"offers no {CUDA} on this machine"):
        open_session(graph, "net.onnx", (CUDA, CPU))


def test_a_gpu_that_is_offered_but_does_not_start_is_told_rather_than_replaced_by_the_processor(
    monkeypatch, offers, graph
):
    offers(CUDA, CPU)
    fallen_back = SimpleNamespace(get_providers=lambda: [CPU])  # what ONNX Runtime does where a library is missing
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda onnx, options, providers: fallen_back)
    with pytest.raises(
        BadInputError, match=rf"net\.onnx: ONNX Runtime could not start {CUDA} .*set TINYTAGS_ONNX_PROVIDERS={CPU}"
    ):
        open_session(graph, "net.onnx", (CUDA, CPU))


@pytest.mark.parametrize("content", [b"", b"not a graph", small_net()[:-50]])
def test_a_file_that_is_no_graph_is_told_with_its_path_and_the_remedy(content):
    with pytest.raises(CorruptError, match=r"nets/a/net\.onnx: ONNX Runtime cannot use it \(.*; train or import"):
        open_session(content, "nets/a/net.onnx")


# Embedding


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 20])
def test_batches_give_what_all_pictures_at_once_give(monkeypatch, graph, count):
    pixels, session = patches(20, 8, 8), open_session(graph, "net.onnx")
    (at_once,) = session.run(["embedding"], {"pixels": pixels})
    monkeypatch.setattr(running, "BATCH", 7)
    found = embed(session, pixels[:count])
    assert (found.dtype, found.shape) == (np.int8, (count, 4))
    np.testing.assert_array_equal(found, at_once[:count])


@pytest.mark.parametrize(("providers", "batches"), [((CPU,), [7, 7, 6]), ((CUDA, CPU), [15, 5])])
def test_a_gpu_gets_more_pictures_at_a_time(monkeypatch, providers, batches):
    monkeypatch.setattr(running, "BATCH", 7)
    monkeypatch.setattr(running, "GPU_BATCH", 15)
    seen = []

    def run(outputs, inputs):
        seen.append(len(inputs["pixels"]))
        return [np.ones((seen[-1], 4), dtype=np.int8)]

    outputs = [SimpleNamespace(shape=["images", 4])]
    session = SimpleNamespace(get_providers=lambda: list(providers), get_outputs=lambda: outputs, run=run)
    assert embed(session, patches(20, 8, 8)).sum() == 80
    assert seen == batches
