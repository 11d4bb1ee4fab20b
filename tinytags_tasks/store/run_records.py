"""Records of a run: the run itself, its blocks, publications, audits, claims, and its removal or that of a model."""

from collections.abc import Iterable
from enum import StrEnum
from typing import ClassVar, Self

from pydantic import Field

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.near_names import choices
from tinytags_tasks.settings import Thumbnails
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record


class Run(Record):
    """One pass of one model version over one corpus; its name is a hash of everything that decides its content.

    ``pruned`` is when its collection was dropped to make room; empty if the collection exists or was not created yet.
    ``configset`` is the name of the configset of its collection; empty in runs from before this was recorded.
    ``similar`` is the version of the net by whose embeddings its pictures can be compared: each document has one as its
    vector. Empty if documents have none.
    ``growth`` is the hash of the corpus' last growth when the run was planned; empty if it had not grown.
    ``earlier`` is a run of the same model and threshold on the corpus before that, whose scored files are taken over;
    it may be gone.
    """

    FORMAT: ClassVar[int] = 2

    name: str
    corpus: str
    corpus_digest: str
    description: str = ""
    model: str
    threshold: int
    thumbnails: Thumbnails = "solr"
    images: int
    blocks: int
    collection: str
    created: str
    pruned: str = ""
    configset: str = ""
    similar: str = ""
    growth: str = Field("", exclude_if=lambda growth: not growth)
    earlier: str = Field("", exclude_if=lambda earlier: not earlier)

    @property
    def written_format(self) -> int:
        """What an older TinyTags must not ignore: it would take this run's name for a wrong one."""
        return self.FORMAT if self.growth else 1

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a run's record again."""
        return f"write it again from its corpus and model with `tinytags audit {layout.path_name(path)} --repair`"

    @classmethod
    def load(cls, storage: Storage, path: str) -> Self:
        """Read a run's record; see :meth:`Record.load`. If there is no such run, the error says which there are."""
        try:
            return super().load(storage, path)
        except MissingError as error:
            name, names = layout.path_name(path), storage.names(layout.RUNS)
            if name in names:  # its record alone is missing
                raise
            known = choices(name, names)
            raise MissingError(f"{name}: no such run; `tinytags runs` lists the runs ({known})") from error

    def refuse_pruned(self) -> None:
        """Refuse to continue with single blocks of a run whose collection was dropped.

        Raises
        ------
        MissingError
            If its collection was dropped.
        """
        if self.pruned:
            raise MissingError(
                f"run {self.name}: its collection {self.collection} was dropped by `tinytags prune` ({self.pruned}); "
                f"index the whole run again with `tinytags index {self.name}`"
            )

    def check_blocks(self, blocks: Iterable[int]) -> None:
        """Refuse block numbers that the run does not have.

        Raises
        ------
        BadInputError
            If there is one; the message names the first.
        """
        if wrong := [block for block in blocks if not 0 <= block < self.blocks]:
            raise BadInputError(f"block {wrong[0]} is out of range: run {self.name} has blocks 0 to {self.blocks - 1}")


class Change(StrEnum):
    """How a corpus' collection became the one that an alias points at, or why it points at none of them any more."""

    PUBLISHED = "published"
    ROLLED_BACK = "rolled back"
    FOUND = "found"
    UNPUBLISHED = "unpublished"


class Publication(Record):
    """What became live of a corpus under an alias, when, and by which host.

    Attributes
    ----------
    change
        ``found`` is a switch that was not recorded: TinyTags was killed before it could, or something else made it.
        ``unpublished``: the corpus was taken out of the alias, or was found to be missing there.
    run
        The collection's run; empty if it does not belong to a run of this store.
    collection
        What is live of the corpus since then; empty if nothing is.
    previous
        The collection of the corpus that was live before; empty if there was none.
    thresholds
        The lowest confidence, in percent, with which readers see each tag; a tag that is missing is not shown. None
        shows every document.
    least_precision
        The measured precision, in percent, for which the thresholds were chosen; None if they were not.
    corpus
        The corpus. Empty in records from before an alias had several; it follows from the run there.
    beside
        The collections of other corpora that the alias pointed at as well, and still did afterwards.
    by
        Who took the corpus out; empty otherwise.
    """

    FORMAT: ClassVar[int] = 3

    change: Change
    run: str
    collection: str
    previous: str
    time: str
    host: str
    thresholds: dict[str, int] | None = None
    least_precision: float | None = None
    corpus: str = ""
    beside: tuple[str, ...] = ()
    by: str = ""

    @property
    def written_format(self) -> int:
        """What an older TinyTags must not ignore.

        One of format 2 would replace what other corpora have live, and one of format 1 shows what thresholds hide.
        """
        if self.beside or self.change is Change.UNPUBLISHED:
            return self.FORMAT
        return 1 if self.thresholds is None else 2

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a change again."""
        command = f"tinytags audit --alias {layout.path_name(path)} --repair"
        return f"write it again from the changes before and after it with `{command}`"


class NextPublication(Record):
    """What is about to become live under an alias; written before the alias is switched and the change recorded.

    A process that is killed in between leaves no doubt about what readers may see.

    Attributes
    ----------
    collection, thresholds, least_precision, corpus
        As in :class:`Publication`.
    """

    FORMAT: ClassVar[int] = 2

    collection: str
    thresholds: dict[str, int] | None = None
    least_precision: float | None = None
    corpus: str = ""

    @property
    def written_format(self) -> int:
        """A TinyTags of format 1 knows no thresholds, and must not show what they hide; it may read records without."""
        return 1 if self.thresholds is None else self.FORMAT

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that removes it; the next change of the alias writes it again."""
        alias = layout.path_name(path).partition(".")[0]
        return f"remove it with `tinytags audit --alias {alias} --repair`, then publish what is to be live again"


class BlockState(StrEnum):
    """The state of a block; a block without a record is planned, or embedded if the corpus holds its embeddings."""

    PLANNED = "planned"
    EMBEDDED = "embedded"
    SCORED = "scored"
    INDEXED = "indexed"
    VERIFIED = "verified"
    FAILED = "failed"


UNRECORDED = (BlockState.PLANNED, BlockState.EMBEDDED)
"""The states of a block without a record."""


class BlockRecord(Record):
    """The state of one block in one run. ``read = kept + below + none + unreadable + taken_down``, always.

    A scored file's own record has the model's counts. Once the block is indexed, the ledger's record has the counts of
    its documents, with corrections and take-downs up to the word ``corrections`` of the corpus' review log.

    Attributes
    ----------
    none
        How many images show none of the tags, by the word of the model or a person; of a model without "none", only a
        person's.
    embed_seconds
        How long the block's embeddings took when they were made; 0 if the model reads pixels.
    taken_down
        How many images were taken down; they are counted in no other way.
    corrected
        How many of the kept images have their tag from a person.
    corrections
        Number in the corpus' review log up to which its documents follow people's words; 0 before it is indexed.
    sha256
        Hash of the block's bytes in its shard.
    scored_bytes, scored_sha256
        Size and hash of its scored file; 0 and empty in that file itself, and in records from before they were added.
    checksum
        Checksum of its documents' fields; see :mod:`tinytags_tasks.store.block_documents`. Empty until indexed.
    """

    run: str
    block: int
    state: BlockState
    model: str = ""
    sha256: str = ""
    read: int = 0
    kept: int = 0
    below: int = 0
    none: int = 0
    unreadable: int = 0
    taken_down: int = 0
    corrected: int = 0
    corrections: int = 0
    kept_by_tag: dict[str, int] = Field(default_factory=dict)
    scored_bytes: int = 0
    scored_sha256: str = ""
    documents: int | None = None
    checksum: str = ""
    reason: str = ""
    host: str = ""
    attempts: int = 0
    embed_seconds: float = 0.0
    score_seconds: float = 0.0
    index_seconds: float = 0.0
    scored: str = ""
    indexed: str = ""

    @property
    def accounted(self) -> int:
        """How many of its images became something; all that were read, or the block is not as it should be."""
        return self.kept + self.below + self.none + self.unreadable + self.taken_down

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a block's record, or the scored file that holds it, again."""
        run, block = layout.path_name(path), layout.path_number(path)
        if path.endswith(".parquet"):  # the scored file
            return f"score block {block} again with `tinytags score {run} --blocks {block} --redo`, then index it"
        return f"write it again with `tinytags backfill {run} --blocks {block}`"


class Audit(Record):
    """The findings of a comparison of a run's collection with its ledger, its scored files and its corpus.

    Attributes
    ----------
    blocks, documents, sampled
        How many blocks were compared, how many documents they have, and how many of these were compared byte by byte.
    problems
        What is wrong with each block, by its number.
    input_problems
        What is wrong with the model, the shards, or records that are not of one block. Redoing blocks does not help.
    pictures_to
        Position up to which audits have read pictures in this rotation; the next audit continues there. None if this
        audit did not take part: it was limited to chosen blocks, or is from before there were rotations.
    pending
        Blocks whose documents did not follow the latest corrections and take-downs yet; they are compared with those
        that they follow.
    """

    run: str
    collection: str
    blocks: int
    documents: int
    sampled: int
    problems: dict[int, str]
    started: str
    ended: str
    input_problems: tuple[str, ...] = ()
    pictures_to: int | None = None
    pending: tuple[int, ...] = ()

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that makes a new audit, which counts instead."""
        return f"audit again with `tinytags audit {layout.path_name(path)}`"


class Claim(Record):
    """Which Dag run is tagging a corpus."""

    dag: str
    dag_run: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return what writes the claim again."""
        return "the next Dag run of this corpus claims it again"


class Removal(Record):
    """Who removed a model or run, and when.

    ``folder`` is where it was, such as ``runs/photos-0123456789ab``. ``number`` tells two removals of one name apart.
    """

    folder: str
    number: str
    by: str
    host: str
    time: str

    @property
    def line(self) -> str:
        """What was removed, for people."""
        kind, _, name = self.folder.partition("/")
        return f"{self.time}  {self.by}@{self.host} removed {kind.removesuffix('s')} {name}"

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return what to do about a damaged record: nothing needs it."""
        return "nothing needs it but people who want to know: restore it from a copy, or delete it"
