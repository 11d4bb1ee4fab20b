"""A program that does one stage's work on a whole corpus as one worker does, and prints the memory that it took.

Usage: ``stage_memory.py STORE CORPUS STAGE [RUN]``. It prints how many bytes of memory this process had at most above
what imports alone take, and the largest of its children in all.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from small_run import TAGS, TREES, SolrHere, address_of, index_all, quiet

from tinytags_tasks.corpus.definition import read_definition
from tinytags_tasks.embed.block import BlockTask as EmbedTask
from tinytags_tasks.embed.worker import embed_tasks
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.catalogue import net_for
from tinytags_tasks.nets.running import CPU
from tinytags_tasks.outcomes import Kind, Outcome
from tinytags_tasks.score.block import BlockTask as ScoreTask
from tinytags_tasks.score.worker import score_tasks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.run_records import Run


def ingest(storage: LocalStorage, name: str) -> None:
    """Decode the corpus' pictures into shards."""
    ingest_corpus(read_definition(storage.root.parent / f"{name}.toml"), storage=storage, report=quiet)


def embed(storage: LocalStorage, name: str) -> None:
    """Embed all blocks by the net that ships."""
    corpus, net = load_corpus(name, storage), net_for("general32", storage).version
    tasks = [EmbedTask(source, net) for source in block_sources(storage, corpus, range(corpus.partition.blocks))]
    refuse_failures(embed_tasks(tasks, address_of(storage), (CPU,), is_retried=False))


def score(storage: LocalStorage, name: str, run: str) -> None:
    """Score all blocks by a forest on pixels."""
    corpus, model = load_corpus(name, storage), Run.load(storage, layout.run_file(run)).model
    tasks = [
        ScoreTask(source, run, model, TAGS, TREES, 40, PIXELS, corpus.image_bytes, none=False)
        for source in block_sources(storage, corpus, range(corpus.partition.blocks))
    ]
    refuse_failures(score_tasks(tasks, address_of(storage), is_retried=False))


def index(storage: LocalStorage, name: str, run: str) -> None:
    """Make the documents of all blocks."""
    index_all(storage, Run.load(storage, layout.run_file(run)), SolrHere())


def refuse_failures(outcomes: list[Outcome]) -> None:
    """End the program with the reason if a block failed."""
    if failed := [each.reason for each in outcomes if each.kind is not Kind.COMMITTED]:
        sys.exit(failed[0])


def peak_bytes(process: psutil.Process) -> int:
    """Return how much memory a process had at most; getrusage would tell what its parent had when it began."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def watch_children(largest: list[int], has_ended: threading.Event) -> None:
    """Keep the most memory that a child had, until the stage has ended."""
    while not has_ended.wait(0.05):
        for child in psutil.Process().children():
            with suppress(OSError, IndexError):  # it ends meanwhile
                largest[0] = max(largest[0], peak_bytes(child))


STAGES: dict[str, Callable[..., None]] = {"ingest": ingest, "embed": embed, "score": score, "index": index}

if __name__ == "__main__":
    store, corpus_name, stage, *chosen = sys.argv[1:]
    at_first, largest, has_ended = peak_bytes(psutil.Process()), [0], threading.Event()
    watching = threading.Thread(target=watch_children, args=(largest, has_ended))
    watching.start()
    STAGES[stage](LocalStorage(Path(store)), corpus_name, *chosen)
    has_ended.set()
    watching.join()
    print(peak_bytes(psutil.Process()) - at_first, largest[0])
