"""People's words that are applied while an audit compares: what they changed is compared again, not called wrong."""

import time
from collections.abc import Callable, Mapping, Sequence

from tinytags_tasks.correct.apply import is_only_corrected
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord

_LOOKS, _LOOK_SECONDS = 4, 1.0
"""How often, and how far apart, blocks are looked at whose words may be being applied: documents precede records."""


def problems_that_stay(
    problems: Mapping[int, str],
    records: Sequence[BlockRecord],
    read_blocks: Callable[[], RunBlocks],
    compare: Callable[[Sequence[BlockRecord]], dict[int, str]],
) -> dict[int, str]:
    """Return the problems of blocks that are not due to words that were applied while the blocks were compared.

    Parameters
    ----------
    problems
        What is wrong with blocks, by number.
    records
        The blocks' records when they were compared.
    read_blocks
        Returns the run's blocks by the words as they are now.
    compare
        Compares blocks again, by their present records.
    """
    left = dict(problems)
    before = {record.block: record for record in records}
    for _ in range(_LOOKS):
        blocks = read_blocks()
        later = read_ledger(blocks.storage, blocks.run, [block for block in left if block in before])
        spoken_of = [record for record in later if is_only_corrected(before[record.block], record)]
        if not spoken_of and not blocks.pending(later):
            break
        if not spoken_of:
            time.sleep(_LOOK_SECONDS)
            continue
        before |= {record.block: record for record in spoken_of}
        again = compare(spoken_of)
        left = {block: problem for block, problem in left.items() if block not in {one.block for one in spoken_of}}
        left |= again
    return left
