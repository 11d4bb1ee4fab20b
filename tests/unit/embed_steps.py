"""Embedding the small corpus, for tests."""

from pathlib import Path

import numpy as np
import pytest
from faulty_storage import FaultyStorage, files_under
from small_nets import MEANS_NET, publish_means_net
from small_run import BLOCKS, CORPUS, SparkHere, address_of, make_corpus, quiet

from tinytags_tasks.embed.step import EmbedRequest, EmbedResult, embed_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embeddings
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import Storage

ALL = tuple(range(BLOCKS))


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path / "store")
    make_corpus(storage)
    publish_means_net(storage)
    return storage


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinytags_tasks.store.block_lease._POLL_SECONDS", 0.02)


def embed(storage: Storage, spark: SparkHere | None = None, report=quiet, **request: object) -> EmbedResult:
    inner = storage.inner if isinstance(storage, FaultyStorage) else storage
    return embed_blocks(
        EmbedRequest(CORPUS, **{"net": MEANS_NET, **request}),
        storage=storage,
        address=address_of(inner),
        connect_spark=spark or SparkHere(),
        report=report,
    )


def path_of(block: int) -> str:
    return layout.embeddings_file(CORPUS, MEANS_NET, block)


def stored(storage: Storage) -> np.ndarray:
    """Return the embeddings of the whole corpus, each block checked; nothing else may be in the folder."""
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    found = [read_embeddings(storage, source, MEANS_NET)[0] for source in block_sources(storage, corpus, ALL)]
    names = [layout.file_name(path_of(block)) for block in ALL]
    assert sorted(files_under(storage.root / layout.embeddings_folder(CORPUS, MEANS_NET))) == names
    return np.concatenate(found)
