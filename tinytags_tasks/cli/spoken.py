"""What commands do with a person's words: record them, bring them to readers, and print what these see then."""

import getpass
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinytags_tasks.cli.common import say
from tinytags_tasks.errors import TinyTagsError, TransientError

if TYPE_CHECKING:
    from tinytags_tasks.correct.apply import ApplyResult
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.review_records import Word


def say_and_show(corpus: "Corpus", words: "Sequence[Word]", by: str, runtime: "Runtime", outcome: str) -> None:
    """Commit words, apply them to what readers see, and print what they see now.

    Without words, what a killed command left is applied.
    """
    from tinytags_tasks.review.words import say_requests

    started = time.monotonic()
    recorded = "nothing new was recorded"
    if words:
        numbers = say_requests(corpus, words, by=by or user(), storage=runtime.storage, report=say)
        recorded = f"{len(words):,} pictures are {outcome} ({named_requests(numbers)})"
    show(corpus, recorded, started, runtime)


def show(corpus: "Corpus", recorded: str, started: float, runtime: "Runtime") -> None:
    """Apply all words to what readers see, and print what was recorded and what they see now."""
    from tinytags_tasks.publish.corrections import correct_live

    alias = runtime.settings.alias
    try:
        applied = correct_live(corpus.name, alias, storage=runtime.storage, solr=runtime.solr, report=say)
    except TinyTagsError as error:
        raise TransientError(
            f"{recorded}, but readers do not see all of it yet: {error}; run the command again to apply it"
        ) from error
    seconds = time.monotonic() - started
    print(f"{recorded}; {_seen(applied, corpus.name)}, after {seconds:.1f} s")


def refuse_unseen_version(corpus: "Corpus", runtime: "Runtime", *, on_purpose: bool) -> None:
    """Refuse positions that a person cannot have seen: those of another version of a corpus than readers see."""
    from tinytags_tasks.publish.live import live_runs
    from tinytags_tasks.review.words import refuse_another_version

    if on_purpose:
        return
    for run in live_runs(runtime.settings.alias, runtime.storage, runtime.solr, corpus=corpus.name):
        refuse_another_version(corpus, run, "; or give --unpublished if the positions are those of this one")


def named_requests(numbers: Sequence[int]) -> str:
    """Return how a message names the requests that words became."""
    if len(numbers) == 1:
        return f"request {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"requests {numbers[0]} to {numbers[-1]}"
    return f"requests {', '.join(map(str, numbers))}"


def user() -> str:
    """Return who says something if no one is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _seen(applied: "Sequence[ApplyResult]", corpus: str) -> str:
    """Return what readers see now, in words."""
    from tinytags_tasks.blocks import format_block_numbers

    if not applied:
        return f"readers see no run of this version of corpus {corpus}, so nothing changed for them"
    last = applied[-1]
    if last.waiting:
        return f"readers of run {last.run} do not see all of it yet, as another writer holds its blocks"
    if last.unfinished:
        numbers = format_block_numbers(last.unfinished)
        return (
            f"readers of run {last.run} do not see all of it yet, as its blocks {numbers} are not verified: "
            f"`tinytags backfill {last.run} --blocks {numbers}` ends that"
        )
    changed, removed = (sum(getattr(one, name) for one in applied) for name in ("changed", "removed"))
    return f"readers of run {last.run} see it: {changed:,} documents written, {removed:,} pictures without one"
