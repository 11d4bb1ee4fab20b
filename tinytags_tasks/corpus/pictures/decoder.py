"""Decodes encoded pictures in batches, in processes of its own.

A decoder process is a fresh interpreter that imports only this module, whatever its parent is: an Airflow task (a
forked process with threads, whose ``__main__`` is Airflow), a notebook, a script. Parent and process communicate over
the standard streams, so the process ends with its parent, even if the parent is killed.

::

    request   uint32 pictures, uint32 size of each, then their bytes
    answer    uint32 size of a JSON object, the object (reason by place), then uint8 (pictures, height, width, 3)
"""

import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast, get_args

import numpy as np
import numpy.typing as npt
import PIL

from tinytags_tasks.corpus.pictures.prepare import Filter, Resize, Target, prepare_pictures
from tinytags_tasks.corpus.reader import Batch
from tinytags_tasks.errors import TransientError
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.secrecy import is_secret

MOST_BATCH_IMAGES = 1_024
MOST_BATCH_BYTES = 32_000_000
"""The most bytes of a batch, encoded or decoded; but a batch has at least one picture."""

_MOST_TASK_PICTURES = 256
_MOST_WORKERS = 16
_BATCHES_AHEAD = 2

_FEW_BYTES = 2_000_000
"""Encoded bytes that are decoded before processes are started; starting them takes as long as decoding these."""

_PARENT_CHECK_SECONDS = 5


class PictureDecoder:
    """Decodes pictures of a corpus on all cores.

    The processes start once the calling process has decoded a few megabytes, and end with :meth:`close`, or with the
    calling process.

    Parameters
    ----------
    target
        The size that pictures are brought to, and how.
    workers
        How many processes to start; 1 decodes in the calling process. None starts one per core, at most 16.
    is_apart
        Whether even the first pictures, and those of one worker, are decoded in a process of their own, so that a
        picture from a stranger can end no other process.
    """

    def __init__(self, target: Target, workers: int | None = None, *, is_apart: bool = False) -> None:
        self._target = target
        self._workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
        self._is_apart = is_apart
        self._bytes_before_start = _FEW_BYTES
        self._threads: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._started: list[_Worker] = []

    @property
    def preparation(self) -> str:
        """How images are prepared, for manifests and model cards."""
        way = _way(self._target)
        return f"JPEG/PNG/WebP decoded by Pillow {PIL.__version__}, upright, transparent parts white, {way}"

    @property
    def most_batch_images(self) -> int:
        """The most images that a batch may have."""
        return max(1, min(MOST_BATCH_IMAGES, MOST_BATCH_BYTES // self._target.image_bytes))

    def decode(self, encoded: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        """Decode pictures.

        Parameters
        ----------
        encoded
            Picture files.

        Returns
        -------
        tuple
            uint8, shape (pictures, height, width, 3), zeros where decoding failed; and the reasons by index.

        Raises
        ------
        TransientError
            If a decoder process died.
        """
        return self._begin(encoded).result()

    def decode_batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches with their pixels, in their order, while the next ones are read and decoded.

        Parameters
        ----------
        batches
            Batches with ``encoded``, and the reasons for pictures that could not be read; iterated in a thread.

        Raises
        ------
        TransientError
            If a decoder process died.
        """
        decoding: deque[tuple[Batch, _Decoding]] = deque()
        for batch in prefetch(batches, 1):
            decoding.append((batch, self._begin(batch.encoded)))
            if len(decoding) > _BATCHES_AHEAD:
                yield _decoded(*decoding.popleft())
        while decoding:
            yield _decoded(*decoding.popleft())

    def _begin(self, encoded: Sequence[bytes]) -> "_Decoding":
        shape = (len(encoded), self._target.height, self._target.width, 3)
        if self._threads is None:
            self._bytes_before_start -= sum(map(len, encoded))
            if not self._is_apart and (self._workers == 1 or self._bytes_before_start >= 0):
                pixels, reasons = prepare_pictures(encoded, self._target)
                done: Future[dict[int, str]] = Future()
                done.set_result(reasons)
                return _Decoding(np.frombuffer(bytearray(pixels), dtype=np.uint8).reshape(shape), [(0, done)])
            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="picture-decoder")
            for _ in range(self._workers):
                self._started.append(_Worker(self._target))
                self._idle.put(self._started[-1])
        decoding = _Decoding(np.empty(shape, dtype=np.uint8), [])
        step = max(1, min(_MOST_TASK_PICTURES, -(-len(encoded) // self._workers)))
        for start in range(0, len(encoded), step):
            part = encoded[start : start + step]
            place = decoding.pixels[start : start + len(part)]
            decoding.parts.append((start, self._threads.submit(self._decode_part, part, place)))
        return decoding

    def _decode_part(self, encoded: Sequence[bytes], pixels: npt.NDArray[np.uint8]) -> dict[int, str]:
        worker = self._idle.get()
        try:
            return worker.decode(encoded, pixels)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes; pictures that they are decoding are lost."""
        for worker in self._started:
            worker.kill()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for worker in self._started:
            worker.close()
        self._started.clear()
        self._idle = queue.SimpleQueue()
        self._threads = None


def _way(target: Target) -> str:
    size = f"{target.width}x{target.height}"
    return {
        "crop": f"middle cut out, {target.filter} filter to {size}",
        "fit": f"whole picture between black bars, {target.filter} filter to {size}",
        "none": f"only pictures of {size}",
    }[target.resize]


def target_of(preparation: str, height: int, width: int) -> Target:
    """Return how the pictures of a corpus were prepared, as far as its record says so; the defaults if it does not.

    Parameters
    ----------
    preparation
        What :attr:`PictureDecoder.preparation` said when the corpus was ingested, or something else.
    height, width
        The size of its pictures in pixels.
    """
    ways = [Target(height, width, resize, filter_) for resize in ("crop", "fit") for filter_ in get_args(Filter)]
    return next((target for target in ways if preparation.endswith(_way(target))), Target(height, width))


@dataclass(eq=False)
class _Decoding:
    """Pictures that are being decoded, in parts: where each part begins, and its reasons."""

    pixels: npt.NDArray[np.uint8]
    parts: list[tuple[int, Future[dict[int, str]]]]

    def result(self) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
        reasons = {start + place: reason for start, part in self.parts for place, reason in part.result().items()}
        return self.pixels, reasons


def _decoded(batch: Batch, decoding: _Decoding) -> Batch:
    pixels, reasons = decoding.result()
    undecodable = {batch.first + place: reason for place, reason in reasons.items()}
    return replace(batch, pixels=pixels, unreadable={**undecodable, **batch.unreadable})


def _harmless_variables() -> dict[str, str]:
    """Return the environment without its secrets: a decoder reads pictures of strangers, and needs none."""
    return {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("TINYTAGS_") or is_secret(name, value))
    }


class _Worker:
    """A decoder process."""

    def __init__(self, target: Target) -> None:
        program = "from tinytags_tasks.corpus.pictures.decoder import decode_for_parent; decode_for_parent()"
        shape = (str(target.height), str(target.width), target.resize, target.filter, str(target.most_pixels))
        home = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, *shape],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**_harmless_variables(), "PYTHONPATH": path},
            )
        except OSError as error:
            raise TransientError(
                f"a picture decoder cannot be started ({error}); free some memory, then try again"
            ) from error
        self._requests = cast("BinaryIO", self._process.stdin)
        self._answers = cast("BinaryIO", self._process.stdout)

    def decode(self, encoded: Sequence[bytes], pixels: npt.NDArray[np.uint8]) -> dict[int, str]:
        """Decode pictures into ``pixels`` and return the reasons by index."""
        sizes = [len(picture) for picture in encoded]
        try:
            self._requests.write(struct.pack(f"<{1 + len(sizes)}I", len(sizes), *sizes))
            self._requests.write(b"".join(encoded))
            self._requests.flush()
            (size,) = struct.unpack("<I", _read_whole(self._answers, 4))
            reasons = json.loads(_read_whole(self._answers, size))
            if self._answers.readinto(pixels.data.cast("B")) != pixels.nbytes:  # type: ignore[attr-defined]
                raise EOFError("the answer is truncated")
        except (OSError, EOFError, ValueError) as error:
            self.kill()  # the next request would read the rest of this answer
            raise TransientError(
                f"a picture decoder ended with exit code {self._process.wait()} over {len(encoded):,} pictures of "
                f"{sum(sizes):,} bytes; if memory was short, free some, then try again"
            ) from error
        return {int(place): reason for place, reason in reasons.items()}

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.wait()
        for stream in (self._requests, self._answers):
            with suppress(BrokenPipeError):  # unsent requests: nobody waits for their answers
                stream.close()


def _read_whole(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the stream ends")
    return content


def decode_for_parent() -> None:
    """Decode what the parent process sends until it closes the stream: the main function of a decoder process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which decides
    warnings.simplefilter("ignore")  # from Pillow, about pictures that are reported as unreadable or are fine
    height, width, resize, filter_name, most_pixels = sys.argv[1:]
    target = Target(int(height), int(width), cast(Resize, resize), cast(Filter, filter_name), int(most_pixels))
    parent = os.getppid()
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may be printed between the answers
    try:
        while _next_request(requests, parent):
            (pictures,) = struct.unpack("<I", _read_whole(requests, 4))
            sizes = struct.unpack(f"<{pictures}I", _read_whole(requests, 4 * pictures))
            encoded = [_read_whole(requests, size) for size in sizes]
            pixels, reasons = prepare_pictures(encoded, target)
            message = json.dumps(reasons).encode()
            answers.write(struct.pack("<I", len(message)) + message)
            answers.write(pixels)
            answers.flush()
    except (EOFError, BrokenPipeError):
        os._exit(1)  # the parent is gone: nobody reads an error


def _next_request(requests: BinaryIO, parent: int) -> bool:
    """Wait for a request; False if the parent is gone, even if a process forked from it holds the pipe open."""
    while os.getppid() == parent:
        if select.select([requests], [], [], _PARENT_CHECK_SECONDS)[0]:
            return bool(requests.peek(1))  # type: ignore[attr-defined]
    return False
