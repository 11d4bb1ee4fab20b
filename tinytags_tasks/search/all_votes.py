"""All votes of a picture: a run stores those of the tag that won, so its model is asked again, for this picture alone.

A model takes some milliseconds for a picture once it is open. One is asked at a time, in a thread of its own, so that
neither a large model nor a store that does not answer holds up pages: these then say why the votes are not there.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TinyTagsError
from tinytags_tasks.nets.running import open_session
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.waiting import Waiting
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.votes import confidence, winners

PATIENCE_SECONDS = 0.8
"""How long a page waits for them: to open a model for the first time may take longer."""

MOST_MODEL_BYTES = 64 * 2**20
"""The largest model that is asked."""

MOST_WAITING = 8
"""Pictures that wait for their turn, at most."""

NONE = "none of the tags"

_KEPT_MODELS = 2
_KEPT_PICTURES = 2_000
_TOLERANCE = 0.5
_LATER = "they are being computed: load the page again in a moment"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Share:
    """A tag's votes: how many of ``total``."""

    tag: str
    votes: float
    total: int
    is_percent: bool


class NotKnownError(FinalError):
    """Why votes are not shown, in plain words."""


class AllVotes:
    """Asks models for all votes of pictures."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="votes")
        self._lock = threading.Lock()
        self._models: LRUCache[str, tuple[ModelCard, Any]] = LRUCache(_KEPT_MODELS)
        self._known: LRUCache[tuple[str, str], tuple[Share, ...]] = LRUCache(_KEPT_PICTURES)
        self._asked: dict[tuple[str, str], Future[tuple[Share, ...]]] = {}

    def of(self, image: TaggedImage, open_storage: Callable[[], Storage], waiting: Waiting) -> tuple[Share, ...]:
        """Return the votes of all tags, most first, as the model that tagged an image gives them now.

        Parameters
        ----------
        image
            With its pixels.
        open_storage
            Returns the store that has the model.
        waiting
            Bounds how many pages wait.

        Raises
        ------
        NotKnownError
            If they are not known; the message says why.
        """
        if image.image is None:
            raise NotKnownError("the picture cannot be read")
        key = str(image.values["model"]), image.id
        with self._lock:
            known: tuple[Share, ...] | None = self._known.get(key)
            if known is not None:
                return known
            asked = self._asked.get(key)
            is_new = asked is None
            if asked is None:
                if len(self._asked) >= MOST_WAITING:
                    raise NotKnownError(_LATER)
                asked = self._asked[key] = self._pool.submit(self._ask, image, image.image, open_storage)
        if is_new:  # without the lock: of one that is done already, this keeps the votes at once
            asked.add_done_callback(lambda done: self._keep(key, done))
        with waiting.seconds(PATIENCE_SECONDS) as patience:
            wait([asked], timeout=patience)
        if not asked.done():
            raise NotKnownError(_LATER)
        try:
            return asked.result()
        except MissingError as error:
            raise NotKnownError("the model is not in the store any more") from error
        except NotKnownError:
            raise
        except TinyTagsError as error:
            raise NotKnownError("the model cannot be asked at the moment") from error

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep(self, key: tuple[str, str], done: "Future[tuple[Share, ...]]") -> None:
        with self._lock:
            self._asked.pop(key, None)
            if not done.cancelled() and done.exception() is None:
                self._known[key] = done.result()

    def _ask(self, image: TaggedImage, pixels: Pixels, open_storage: Callable[[], Storage]) -> tuple[Share, ...]:
        card, session = self._model(str(image.values["model"]), open_storage)
        try:
            (votes,) = session.run(["votes"], {"pixels": pixels.reshape(1, -1)})
        except Exception as error:  # ONNX Runtime has no errors of its own that could be named
            raise CorruptError(f"model {card.version} cannot be asked for a picture ({error})") from error
        names = [*card.tags, NONE][: len(card.tags) + card.none]
        _check(votes, names, card, image)
        order = np.argsort(-votes[0], kind="stable")
        return tuple(
            Share(names[index], float(votes[0, index]), card.trees, card.output != "votes") for index in order.tolist()
        )

    def _model(self, version: str, open_storage: Callable[[], Storage]) -> tuple[ModelCard, Any]:
        """Open a model, once: a version is a hash, so its bytes never change. Only the one thread is here."""
        found: tuple[ModelCard, Any] | None = self._models.get(version)
        if found is None:
            storage, path = open_storage(), layout.model_file(version)
            size = storage.sizes(layout.model_folder(version)).get(layout.file_name(path), 0)
            if size > MOST_MODEL_BYTES:
                raise NotKnownError("the model is too large to be asked for one picture")
            card = ModelCard.load(storage, layout.card_file(version))
            found = self._models[version] = card, open_session(read_model(storage, version), path)
        return found


def _check(votes: npt.NDArray[np.float32], names: list[str], card: ModelCard, image: TaggedImage) -> None:
    """Refuse votes that do not give what the run stored: the page must not show two truths."""
    if votes.shape != (1, len(names)) or not abs(float(votes.sum()) - card.trees) < _TOLERANCE:
        raise CorruptError(f"model {card.version}: its votes do not add up to {card.trees}")
    winner, won = winners(votes)
    stored = int(image.values["confidence"] or 0)
    if names[int(winner[0])] != image.values["tag"] or abs(int(confidence(won, card.trees)[0]) - stored) > 1:
        raise NotKnownError("what the model says of this picture now is not what the run stored")
