"""Runs ONNX graphs: on a processor, or on a GPU where ONNX Runtime offers one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError
from tinytags_tasks.store.block_files import BATCH_BYTES
from tinytags_tasks.store.embedding_files import Embeddings

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

BATCH = 100
"""Pictures that a net embeds at a time: what a processor computes of more does not stay in its cache."""

GPU_BATCH = 1_000
"""The same on a GPU, which fewer pictures would leave idle."""


def choose_providers(setting: str | None) -> tuple[str, ...]:
    """Return the execution providers that Spark's workers use, first choice first.

    Whether a worker offers them is checked where it opens a session: only the workers may have the GPU.

    Parameters
    ----------
    setting
        ``TINYTAGS_ONNX_PROVIDERS``: names with commas between; empty or None takes CUDA if ONNX Runtime offers it here,
        and the CPU for the rest.

    Raises
    ------
    BadInputError
        If ONNX Runtime knows no provider of one of these names, on any machine.
    """
    chosen = tuple(name.strip() for name in (setting or "").split(",") if name.strip())
    if not chosen:
        return (CUDA, CPU) if CUDA in onnxruntime.get_available_providers() else (CPU,)
    known = onnxruntime.get_all_providers()
    if unknown := [name for name in chosen if name not in known]:
        raise BadInputError(
            f"ONNX Runtime knows no {', '.join(unknown)}; it knows {', '.join(known)}: set TINYTAGS_ONNX_PROVIDERS to "
            "some of these"
        )
    return chosen


def offered_here(providers: Sequence[str], report: Callable[[str], None]) -> tuple[str, ...]:
    """Return those of the workers' providers that this process can use, or the CPU if it can use none of them.

    Parameters
    ----------
    providers
        What the workers use, first choice first.
    report
        Told what is missing here: a net then runs slower on this machine than on the workers.
    """
    available = onnxruntime.get_available_providers()
    here = tuple(name for name in providers if name in available) or (CPU,)
    if missing := [name for name in providers if name not in available]:
        report(f"ONNX Runtime offers no {', '.join(missing)} on this machine, which runs nets on {', '.join(here)}")
    return here


def _refuse_unavailable(providers: Sequence[str]) -> None:
    available = onnxruntime.get_available_providers()
    if missing := [name for name in providers if name not in available]:
        raise BadInputError(
            f"ONNX Runtime offers no {', '.join(missing)} on this machine; it offers {', '.join(available)}: "
            "set TINYTAGS_ONNX_PROVIDERS to some of these, or install the package that brings it (onnxruntime-gpu)"
        )


def open_session(onnx: bytes, where: str, providers: Sequence[str] = (CPU,), threads: int = 1) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open a graph.

    Parameters
    ----------
    onnx
        The ONNX file's content.
    where
        Its path, for messages.
    providers
        The execution providers, first choice first.
    threads
        How many threads run it; 0 takes all cores.

    Raises
    ------
    BadInputError
        If a provider is not there, or cannot be used: nothing falls back to another one in silence.
    CorruptError
        If ONNX Runtime cannot read the graph.
    """
    _refuse_unavailable(providers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=list(providers))
    except Exception as error:  # its exceptions have no common base class
        raise CorruptError(
            f"{where}: ONNX Runtime cannot use it ({str(error).strip()}); train or import another one"
        ) from error
    if unused := [name for name in providers if name not in session.get_providers()]:
        raise BadInputError(
            f"{where}: ONNX Runtime could not start {', '.join(unused)} (its own message is in the log: a driver or a "
            f"library is missing); mend that, or set TINYTAGS_ONNX_PROVIDERS={CPU}"
        )
    return session


def pictures_at_once(session: Any, image_bytes: int) -> int:  # noqa: ANN401 - onnxruntime has no types
    """Return how many pictures a session embeds at a time: fewer if they are large."""
    batch = BATCH if session.get_providers()[0] == CPU else GPU_BATCH
    return max(1, min(batch, BATCH_BYTES // max(1, image_bytes)))


def embed(session: Any, pixels: npt.NDArray[np.uint8]) -> Embeddings:  # noqa: ANN401
    """Return the embeddings of pictures.

    Parameters
    ----------
    session
        A session of a graph of :func:`~tinytags_tasks.nets.graph.embedding_graph`.
    pixels
        uint8, shape (images, height * width * 3), row-major HWC.

    Returns
    -------
    numpy.ndarray
        int8, shape (images, dimensions).

    Raises
    ------
    FinalError
        If ONNX Runtime fails, for want of memory for example.
    """
    batch = pictures_at_once(session, pixels.shape[1])
    embeddings = np.empty((len(pixels), session.get_outputs()[0].shape[1]), dtype=np.int8)
    for start in range(0, len(pixels), batch):
        try:
            (embeddings[start : start + batch],) = session.run(["embedding"], {"pixels": pixels[start : start + batch]})
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise FinalError(
                f"the net cannot embed {batch:,} pictures at a time ({str(error).strip()[:300]}); free some memory, or "
                f"set TINYTAGS_ONNX_PROVIDERS={CPU}"
            ) from error
    return embeddings
