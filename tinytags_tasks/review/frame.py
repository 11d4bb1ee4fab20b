"""The pictures from which a run's reviews are drawn: per stratum its size, and the first pictures in a fixed order."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pyarrow as pa

from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run


@dataclass(frozen=True)
class Stratum:
    """Pictures of a run that are alike: those of one tag in one band of confidence, or those that the run dropped.

    Attributes
    ----------
    name
        Such as ``cat 80-100``, ``none`` or ``below``.
    tag
        Their tag; empty if the run dropped them.
    low, high
        The lowest and the highest confidence, in percent, both included; -1 if the run dropped them.
    images
        How many they are.
    """

    name: str
    tag: str
    low: int
    high: int
    images: int


@dataclass(frozen=True, eq=False)
class Frame:
    """A run's strata, and of each the first pictures in the order of their permanent random numbers.

    Attributes
    ----------
    run, corpus, corpus_digest, model
        Whose pictures they are.
    tags
        The model's tags.
    threshold
        The run's threshold, in percent.
    strata
        Those with pictures; dropped ones last.
    pictures
        Columns ``stratum`` (index into :attr:`strata`), ``position``, ``block``, ``confidence`` (-1 if dropped),
        ``order`` (place in the stratum's random order, from 0; -1 if it is here to teach only).
    counts
        For each tag, how many images it has at each confidence from 0 to 100.
    """

    run: str
    corpus: str
    corpus_digest: str
    model: str
    tags: tuple[str, ...]
    threshold: int
    strata: tuple[Stratum, ...]
    pictures: pa.Table = field(repr=False)
    counts: dict[str, tuple[int, ...]] = field(repr=False)


def load_frame(
    run: Run, storage: Storage, report: Callable[[str], None] = print, *, exclude: Collection[int] = ()
) -> Frame:
    """Return a run's frame, after making it if it is missing, or the run's scored files have changed since.

    Parameters
    ----------
    run, storage
        The run, all of whose blocks are scored.
    report
        Called with a line of progress now and then.
    exclude
        Positions that the run's model learned from.

    Raises
    ------
    BadInputError
        If a block is not scored.
    """
    raise NotImplementedError
