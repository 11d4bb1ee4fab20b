"""Single images of a corpus, read from its shards by ranges of bytes: as few reads as sensible."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage

LARGEST_GAP_BYTES = 256 * 1024
"""Images no further apart than this are read at once: another read would take as long as these bytes, or longer."""

LARGEST_RANGE_BYTES = 8 * 2**20
"""The most bytes that are read at once, so that memory does not grow with the number of images."""

_READERS = 4


@dataclass(frozen=True)
class ImageRange:
    """Bytes of a shard that are read at once, and where each image begins in them, by position."""

    path: str
    offset: int
    length: int
    images: Mapping[int, int]


def image_ranges(
    corpus: Corpus, positions: Iterable[int], largest_gap_bytes: int = LARGEST_GAP_BYTES
) -> Iterator[ImageRange]:
    """Yield the reads for images, in the order of their positions: as few as possible without reading much in between.

    Parameters
    ----------
    corpus
        The corpus.
    positions
        Positions in it, in any order.
    largest_gap_bytes
        Images no further apart than this are read at once.
    """
    shard, begin, end = -1, 0, 0
    images: dict[int, int] = {}
    partition = corpus.partition
    for position in sorted(positions):
        number, offset = partition.place(position)
        at = offset * corpus.image_bytes
        is_far = at - end > largest_gap_bytes or at + corpus.image_bytes - begin > LARGEST_RANGE_BYTES
        if images and (number != shard or is_far):
            yield ImageRange(layout.shard_file(corpus.name, shard), begin, end - begin, images)
            images = {}
        if not images:
            shard, begin = number, at
        images[position] = at - begin
        end = at + corpus.image_bytes
    if images:
        yield ImageRange(layout.shard_file(corpus.name, shard), begin, end - begin, images)


def read_images(corpus: Corpus, positions: Iterable[int], storage: Storage) -> Iterator[tuple[int, memoryview]]:
    """Yield images' positions, ascending, and their bytes; a few reads are ahead, so memory does not grow with them.

    The bytes are not checked: the manifest has a hash of a whole block only.

    Raises
    ------
    MissingError, CorruptError
        If a shard is missing, or cannot be read.
    """

    def read(one: ImageRange) -> bytes:
        try:
            return storage.read(one.path, one.offset, one.length)
        except (MissingError, CorruptError) as error:
            raise type(error)(
                f"{error}; write the shard again with `tinytags ingest {corpus.name} --redo "
                f"{layout.path_number(one.path)}`"
            ) from error

    ahead: deque[tuple[ImageRange, Future[bytes]]] = deque()

    def first() -> Iterator[tuple[int, memoryview]]:
        one, answer = ahead.popleft()
        stored = memoryview(answer.result())
        for position, at in one.images.items():
            yield position, stored[at : at + corpus.image_bytes]

    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for one in image_ranges(corpus, positions):
                ahead.append((one, pool.submit(read, one)))
                if len(ahead) > _READERS:
                    yield from first()
            while ahead:
                yield from first()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
