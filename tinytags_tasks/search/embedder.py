"""Embeds pictures that readers hand in: decoded and embedded like the corpus' own, and never stored.

A picture is decoded in a process apart, as everything else that a stranger made. One is decoded at a time, and one
embedded: that bounds the memory, and a net takes some milliseconds.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from tinytags_tasks.corpus.pictures.decoder import PictureDecoder, target_of
from tinytags_tasks.corpus.pictures.prepare import Target
from tinytags_tasks.errors import BadInputError, MissingError, TransientError
from tinytags_tasks.nets.catalogue import load_net_card, read_net
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.protocol import Storage

MOST_PICTURE_BYTES = 10 * 2**20
"""The largest file that a reader may hand in."""

MOST_AT_ONCE = 4
"""Pictures that are under way at most, those that wait for their turn included; others are refused for the moment."""

_KEPT_NETS = 2
_MOST_PIXELS = 50_000_000
_TOO_MANY = "too many pictures are being compared right now: try again in a moment"


class Embedder:
    """Embeds pictures for the search page, one after another."""

    def __init__(self) -> None:
        self._handed_in = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._under_way = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._decoding = threading.Lock()
        self._embedding = threading.Lock()
        self._decoder: tuple[Target, PictureDecoder] | None = None
        self._sessions: LRUCache[tuple[str, int, int], Any] = LRUCache(_KEPT_NETS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the few places for pictures in memory; take it before a request's body is read.

        Raises
        ------
        BusyError
            If all are taken.
        """
        if not self._handed_in.acquire(blocking=False):
            raise BusyError(_TOO_MANY)
        try:
            yield
        finally:
            self._handed_in.release()

    def embed(self, encoded: bytes, net: str, corpus: Corpus, storage: Storage) -> Embeddings:
        """Return a picture's embedding, int8 of shape (dimensions,).

        Parameters
        ----------
        encoded
            A JPEG, PNG or WebP file.
        net
            The net's version.
        corpus
            The corpus whose pictures it is compared with: it is prepared like these.
        storage
            The store that has the net.

        Raises
        ------
        BadInputError
            If it is too large, or no picture.
        MissingError, CorruptError
            If the store does not have the net's file.
        BusyError
            If too many others wait.
        """
        if len(encoded) > MOST_PICTURE_BYTES:
            raise BadInputError(
                f"the picture has more than {MOST_PICTURE_BYTES / 2**20:.0f} MB: make it smaller, 200 pixels are plenty"
            )
        if not self._under_way.acquire(blocking=False):
            raise BusyError(_TOO_MANY)
        try:
            with self._decoding:
                target = target_of(corpus.preparation, corpus.height, corpus.width)
                bound = min(target.most_pixels, _MOST_PIXELS)
                pixels = self._decode(encoded, replace(target, most_pixels=bound))
            with self._embedding:
                embedding: Embeddings = embed(self._session(net, corpus, storage), pixels)[0]
                return embedding
        finally:
            self._under_way.release()

    def close(self) -> None:
        """End the decoder's process."""
        with self._decoding:
            self._forget_decoder()

    def _decode(self, encoded: bytes, target: Target) -> npt.NDArray[np.uint8]:
        if self._decoder is None or self._decoder[0] != target:
            self._forget_decoder()
            self._decoder = target, PictureDecoder(target, 1, is_apart=True)
        try:
            pixels, reasons = self._decoder[1].decode([encoded])
        except TransientError as error:
            self._forget_decoder()
            raise BadInputError(f"the picture cannot be decoded ({error})") from error
        if reasons:
            raise BadInputError(f"the picture cannot be read: {reasons[0]}")
        return pixels.reshape(1, -1)

    def _forget_decoder(self) -> None:
        if self._decoder is not None:
            self._decoder[1].close()
            self._decoder = None

    def _session(self, net: str, corpus: Corpus, storage: Storage) -> Any:  # noqa: ANN401 - onnxruntime has no types
        key = net, corpus.height, corpus.width
        session = self._sessions.get(key)
        if session is None:
            try:
                card, onnx = load_net_card(storage, net), read_net(storage, net)
            except MissingError as error:
                raise MissingError(f"pictures cannot be compared: {error}") from error
            session = open_session(embedding_graph(onnx, card, corpus.height, corpus.width), layout.net_file(net))
            self._sessions[key] = session  # a version is a hash, so its bytes never change
        return session
