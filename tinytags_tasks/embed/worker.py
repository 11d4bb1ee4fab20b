"""What a Spark worker does with the blocks of one Spark task.

Workers import this module again in every session. It does not import Spark's client, which would double the time.
"""

from collections.abc import Sequence

from tinytags_tasks.embed.block import BlockTask, embed_block
from tinytags_tasks.outcomes import Outcome, outcomes_of
from tinytags_tasks.store import layout
from tinytags_tasks.store.embedding_files import unembedded
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import StoreAddress

_AT_ONCE = 2
"""How many blocks a worker has in hand: while the net runs on one, the other is read or written."""


def embed_tasks(
    tasks: Sequence[BlockTask], address: StoreAddress, providers: tuple[str, ...], *, is_retried: bool
) -> list[Outcome]:
    """Embed and commit each block separately; return failures instead of raising them, so that the others continue.

    Parameters
    ----------
    tasks
        Blocks of one corpus.
    address
        The store.
    providers
        ONNX Runtime's execution providers.
    is_retried
        Whether another worker died while embedding these blocks; if so, what it committed is kept, and what it was
        writing is deleted.
    """
    committed: set[int] = set()
    if is_retried:
        sources, storage, net = [task.source for task in tasks], open_store(address), tasks[0].net
        storage.delete_leftovers(*(layout.embeddings_file(one.corpus, net, one.block) for one in sources))
        left = unembedded(sources, net, storage)
        committed = {source.block for source in sources} - {source.block for source in left}

    def work(task: BlockTask) -> None:
        if task.source.block not in committed:
            embed_block(task, address, providers)

    return outcomes_of(tasks, lambda task: task.source.block, work, _AT_ONCE)
