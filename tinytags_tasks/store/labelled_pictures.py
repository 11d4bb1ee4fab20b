"""Which pictures a labelled set has, so that those of a corpus that are also there are recognized by their content.

A model is nearly always right on what it learned from, so no figure of its precision may come from there.
"""

import hashlib
import io
import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_records import PICTURE_BYTES, picture_hash

_COLUMN = "picture"
_SHA256_KEY = b"tinytags.pictures_sha256"


def pictures_file(labelled_sha256: str, height: int, width: int, preparation: str) -> str:
    """Return the path of the hashes of a labelled set's pictures, as they look after preparation."""
    decisive = json.dumps([labelled_sha256, height, width, preparation])
    return layout.labelled_pictures_file(hashlib.sha256(decisive.encode()).hexdigest()[:16])


def hashes_of(images: npt.NDArray[np.uint8]) -> frozenset[bytes]:
    """Return how words name images, uint8, shape (images, height, width, 3)."""
    return frozenset(picture_hash(np.ascontiguousarray(image).data) for image in images)


def keep_pictures(path: str, pictures: frozenset[bytes], storage: Storage) -> None:
    """Store the hashes of a labelled set's pictures."""
    hashes = sorted(pictures)
    column = pa.array(hashes, pa.binary(PICTURE_BYTES))
    schema = pa.schema([(_COLUMN, column.type)], metadata={_SHA256_KEY: _sha256(hashes)})
    sink = io.BytesIO()
    pq.write_table(pa.table([column], schema=schema), sink, compression="zstd", use_dictionary=False)
    storage.delete_leftovers(path)
    storage.write(path, sink.getvalue())


def labelled_pictures(card: ModelCard, storage: Storage) -> frozenset[bytes]:
    """Return how words name the pictures of the labelled set that a model learned from.

    None are known of a model that was imported, or that an older TinyTags trained: training it again keeps them.

    Raises
    ------
    CorruptError
        If what was kept is damaged.
    TransientError
        If the store does not answer.
    """
    if not card.labelled_sha256:
        return frozenset()
    path = pictures_file(card.labelled_sha256, card.height, card.width, card.preparation)
    try:
        stored = storage.read(path)
    except MissingError:
        return frozenset()
    try:
        table = read_parquet(stored)
        hashes = table.column(_COLUMN).to_pylist()
        is_whole = table.schema.metadata[_SHA256_KEY] == _sha256(hashes)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {_remedy(card)}") from error
    if not is_whole:
        raise CorruptError(f"{path}: damaged (its sha256 differs); {_remedy(card)}")
    return frozenset(hashes)


def _sha256(hashes: list[bytes]) -> bytes:
    return hashlib.sha256(b"".join(hashes)).hexdigest().encode()


def _remedy(card: ModelCard) -> str:
    return f"delete it, then train model {card.version} again, which writes it"
