"""Images that documents leave in the store: few reads, the right bytes, and a reason where there are none."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import BLOCKS_PER_SHARD, CORPUS, SHARD_IMAGES, VOTES, make_corpus, pictures

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.search import stored_images as module
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.stored_images import CONNECTIONS, StoredImages
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage


class Watched(LocalStorage):
    """Records what is read, and how many reads are in progress at once."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int, int | None]] = []
        self.now = self.most_at_once = 0
        self.lock = threading.Lock()
        self.gate: threading.Event | None = None

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        with self.lock:
            self.reads.append((path, offset, length))
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
        try:
            if self.gate:
                self.gate.wait(10)
            return super().read(path, offset, length)
        finally:
            with self.lock:
                self.now -= 1

    def shard_reads(self) -> list[tuple[str, int, int | None]]:
        return [read for read in self.reads if read[0].endswith(".bin")]


@pytest.fixture
def storage(tmp_path: Path) -> Watched:
    storage = Watched(tmp_path / "store")
    make_corpus(storage)
    storage.reads.clear()
    return storage


@pytest.fixture
def stored(storage: Watched) -> Iterator[StoredImages]:
    stored = StoredImages(lambda: storage)
    yield stored
    if storage.gate:
        storage.gate.set()


def tagged(position: int, **changes: object) -> TaggedImage:
    shard, at = divmod(position, SHARD_IMAGES)
    held = min(SHARD_IMAGES, len(VOTES) - shard * SHARD_IMAGES)
    in_shard = next(number for number in range(BLOCKS_PER_SHARD) if at < (number + 1) * held // BLOCKS_PER_SHARD)
    values = {
        "id": f"{CORPUS}:{position}",
        "corpus": CORPUS,
        "block": shard * BLOCKS_PER_SHARD + in_shard,
        "position": position,
    }
    return TaggedImage(values | changes, is_in_store=True)


def assert_shown(images: tuple[TaggedImage, ...], positions: list[int]) -> None:
    assert [image.position for image in images] == positions
    for image in images:
        assert image.missing == ""
        assert image.image is not None
        np.testing.assert_array_equal(image.image, pictures()[image.position])


def test_each_image_gets_its_own_pixels_in_the_pages_order(stored: StoredImages) -> None:
    positions = [10, 0, 6, 5, 3, 9]
    assert_shown(stored.complete([tagged(position) for position in positions]), positions)


def test_images_that_documents_carry_are_left_as_they_are(storage: Watched, stored: StoredImages) -> None:
    carried = replace(tagged(0), is_in_store=False, image=np.ones((32, 32, 3), np.uint8))
    assert stored.complete([carried]) == (carried,)
    mixed = stored.complete([carried, tagged(4)])
    assert mixed[0] is carried
    assert_shown(mixed[1:], [4])
    assert len(storage.shard_reads()) == 1


def test_a_page_without_images_of_the_store_does_not_open_it() -> None:
    def refuse() -> LocalStorage:
        raise AssertionError("opened")

    assert StoredImages(refuse).complete([]) == ()


def test_images_that_lie_close_are_read_at_once(storage: Watched, stored: StoredImages) -> None:
    stored.complete([tagged(position) for position in range(len(VOTES))])
    assert storage.shard_reads() == [
        (layout.shard_file(CORPUS, 0), 0, 6 * 3072),
        (layout.shard_file(CORPUS, 1), 0, 5 * 3072),
    ]


def test_images_that_lie_far_apart_are_read_by_themselves(
    storage: Watched, stored: StoredImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_GAP_BYTES", 3072)
    images = stored.complete([tagged(position) for position in (0, 2, 5)])
    assert_shown(images, [0, 2, 5])
    path = layout.shard_file(CORPUS, 0)
    assert sorted(storage.shard_reads()) == [(path, 0, 3 * 3072), (path, 5 * 3072, 3072)]


def test_what_was_read_is_not_read_again(storage: Watched, stored: StoredImages) -> None:
    stored.complete([tagged(position) for position in (0, 7)])
    storage.reads.clear()
    assert_shown(stored.complete([tagged(position) for position in (7, 0)]), [7, 0])
    assert [path for path, _, _ in storage.reads] == [layout.corpus_file(CORPUS)]


def test_only_so_much_is_kept(stored: StoredImages, storage: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_IMAGE_BYTES", 2 * 3072)
    few = StoredImages(lambda: storage)
    few.complete([tagged(position) for position in (0, 1, 2)])
    storage.reads.clear()
    few.complete([tagged(2)])
    assert storage.shard_reads() == []
    few.complete([tagged(0)])
    assert len(storage.shard_reads()) == 1


def test_a_corpus_ingested_anew_is_not_shown_from_what_was_kept(storage: Watched, stored: StoredImages) -> None:
    stored.complete([tagged(0)])
    path = layout.corpus_file(CORPUS)
    Corpus.load(storage, path).replaced(digest="another").save(storage, path)
    storage.reads.clear()
    stored.complete([tagged(0)])
    assert len(storage.shard_reads()) == 1


def test_a_store_that_is_away_is_the_reason(storage: Watched) -> None:
    def away() -> LocalStorage:
        raise EngineDownError("HDFS does not answer; start it with `tinytags up`")

    (image,) = StoredImages(away).complete([tagged(0)])
    assert image.image is None
    assert image.missing == "HDFS does not answer; start it with `tinytags up`"


def test_a_corpus_that_was_removed_is_the_reason_and_others_are_shown(storage: Watched, stored: StoredImages) -> None:
    gone, shown = stored.complete([tagged(0, corpus="gone", id="gone:0"), tagged(1)])
    assert "corpora/gone/corpus.json: no such file in the store" in gone.missing
    assert_shown((shown,), [1])


def test_a_lost_shard_is_the_reason_for_its_own_images_only(storage: Watched, stored: StoredImages) -> None:
    storage.delete(layout.shard_file(CORPUS, 1))
    shown, lost = stored.complete([tagged(1), tagged(8)])
    assert_shown((shown,), [1])
    assert "00001.bin: no such file" in lost.missing


def test_a_document_of_another_cut_of_the_corpus_shows_no_wrong_picture(stored: StoredImages) -> None:
    moved, beyond = stored.complete([tagged(0, block=4), tagged(2, block=77)])
    assert "not the one that was indexed" in moved.missing
    assert "block 77 is out of range" in beyond.missing
    assert moved.image is beyond.image is None


def test_a_store_that_does_not_answer_costs_the_page_its_pictures_only(
    storage: Watched, stored: StoredImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    storage.gate = threading.Event()
    (image,) = stored.complete([tagged(0)])
    assert image.missing == "the store did not answer within 0.05 s"


def test_pages_share_few_connections(storage: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_GAP_BYTES", -1)
    stored = StoredImages(lambda: storage)
    page = [tagged(position) for position in range(len(VOTES))]
    threads = [threading.Thread(target=stored.complete, args=(page,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(storage.shard_reads()) >= len(VOTES)
    assert storage.most_at_once <= CONNECTIONS


def test_a_fault_of_ours_is_not_hidden_as_a_missing_picture() -> None:
    def broken() -> LocalStorage:
        raise TypeError("ours")

    with pytest.raises(TypeError, match="ours"):
        StoredImages(broken).complete([tagged(0)])


def test_an_image_larger_than_the_cache_is_shown_all_the_same(
    storage: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_IMAGE_BYTES", 3071)
    assert_shown(StoredImages(lambda: storage).complete([tagged(4)]), [4])
