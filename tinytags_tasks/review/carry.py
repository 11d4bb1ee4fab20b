"""Carrying people's words over to another version of their corpus, whose pictures may stand at other positions.

Words name the version of the corpus that they were said of, and do not count on another one. Each picture is looked for
at its old position first, then by its content everywhere. What was carried over is words of the new version like any
other, in the log; a record says up to which number the log was looked through.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import FinalError, MissingError
from tinytags_tasks.review.words import WORDS_AT_ONCE, picture_hash, picture_hashes
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import (
    ReviewLog,
    append_words,
    counting_words,
    of_version,
    standing_words,
    takedowns,
)
from tinytags_tasks.store.review_records import OPINIONS, SHOWING, CarriedWords, Verdict, Why, Word
from tinytags_tasks.store.run_records import Run

_KINDS = ((SHOWING, True), (OPINIONS, True), (OPINIONS, False))
"""Which words hide each other: the latest of each kind counts, and public ones count by themselves."""

_MOST_NAMED = 20
_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class CarryResult:
    """The state of the words on other versions of a corpus.

    Attributes
    ----------
    carried
        How many words were recorded for this version.
    there
        How many were there already, or were followed by a later word.
    missing
        The words whose picture this version does not have, by their old position.
    """

    carried: int
    there: int
    missing: tuple[tuple[int, str], ...]


def refuse_uncarried(corpus: Corpus, storage: Storage) -> None:
    """Refuse to go on while pictures were taken down of another version of a corpus, and no one carried that over.

    Raises
    ------
    FinalError
        If there are any.
    """
    words = ReviewLog(corpus.name, storage).read()
    if found := len(_uncarried(words, corpus.name, corpus.digest, storage)):
        raise FinalError(
            f"{found:,} pictures were taken down of another version of corpus {corpus.name}, whose source has "
            f"changed since: find them in this version with `tinytags reviews carry {corpus.name}`, then try again"
        )


def refuse_shown_again(run: Run, storage: Storage) -> None:
    """Refuse to show a run of any version of its corpus whose documents have pictures that were taken down of another.

    That version may be gone, so whether it has such a picture cannot be looked up: the hashes must be taken down there.

    Raises
    ------
    FinalError
        If there are any.
    """
    words = ReviewLog(run.corpus, storage).read()
    uncarried = _uncarried(words, run.corpus, run.corpus_digest, storage)
    if not uncarried:
        return
    taken_down = set(takedowns(of_version(words, run.corpus_digest)).column("picture").to_pylist())
    if shown := sum(word["picture"] not in taken_down for word in uncarried):
        path = layout.corpus_file(run.corpus)
        is_present = storage.exists(path) and Corpus.load(storage, path).digest == run.corpus_digest
        remedy = (
            f"find them in this version with `tinytags reviews carry {run.corpus}`, then try again"
            if is_present
            else f"publish a run of the present version with `tinytags run {run.corpus}`"
        )
        raise FinalError(
            f"run {run.name} may show {shown:,} pictures again that were taken down of another version of corpus "
            f"{run.corpus} than the one it is of: {remedy}"
        )


def carry_words(corpus: Corpus, *, storage: Storage, report: Callable[[str], None] = print) -> CarryResult:
    """Record for this version of a corpus what people said of the same pictures in other versions.

    Only the words that count are carried over, under the names of those who said them, those on one picture in their
    order. A word of this version that is later stays decisive. A picture that stood at one position and now stands at
    several gets the word at each. Of a picture that stood at several and was taken down at one of them, that counts.
    Carrying over again records nothing twice.

    Raises
    ------
    MissingError, CorruptError
        If a shard or the log cannot be read.
    TransientError
        If the store does not answer.
    """
    log = ReviewLog(corpus.name, storage)
    words = log.read()
    upto = log.last
    found = list(_words_on_others(words, corpus.digest, _KINDS))
    at_place = _find_by_position(corpus, [word for _, word in found], storage)
    lost = {word["picture"] for _, word in found if word["position"] not in at_place.get(word["picture"], ())}
    lost.discard(picture_hash(bytes(corpus.image_bytes)))  # what could not be read is no picture
    by_content = _find_by_content(corpus, lost, storage, report) if lost else {}
    missing: list[tuple[int, str]] = []
    placed: list[tuple[int, dict[str, Any]]] = []
    for kind, word in found:
        stands_still = word["position"] in at_place.get(word["picture"], ())
        places = [word["position"]] if stands_still else by_content.get(word["picture"], [])
        if not places:
            missing.append((word["position"], " ".join(filter(None, (word["verdict"], word["tag"])))))
        placed += [(kind, {**word, "position": place}) for place in places]
    # Somebody may have spoken while all images were searched, so the log is read again at the last moment.
    chosen, there = _choose(placed, of_version(log.read(), corpus.digest))
    _append(corpus, chosen, storage, report)
    CarriedWords(corpus=corpus.name, corpus_digest=corpus.digest, upto=upto).save(
        storage, layout.carried_words_file(corpus.name, corpus.digest)
    )
    return CarryResult(len(chosen), there, tuple(missing))


def _choose(placed: Iterable[tuple[int, dict[str, Any]]], here: pa.Table) -> tuple[list[dict[str, Any]], int]:
    """Return the words to record, in the order of saying, and how many were there already.

    Parameters
    ----------
    placed
        Words with their kinds and new positions, by their numbers.
    here
        The words on this version.
    """
    latest = _latest_here(here)
    taken_down = set(takedowns(here).column("position").to_pylist())
    chosen: dict[tuple[int, int], dict[str, Any]] = {}
    there = 0
    for kind, word in placed:
        key = kind, word["position"]
        earlier = chosen.get(key)
        if latest.get(key, 0) > word["number"]:
            there += 1
        elif word["verdict"] == Verdict.RESTORE and earlier and earlier["corpus_digest"] == word["corpus_digest"]:
            continue  # of the same picture at another position of that version, which is taken down
        else:
            chosen[key] = word  # words come by number: a later one wins
    void = [
        key for key, word in chosen.items() if word["verdict"] == Verdict.RESTORE and word["position"] not in taken_down
    ]
    for key in void:
        del chosen[key]
    return sorted(chosen.values(), key=lambda word: int(word["number"])), there + len(void)


def _uncarried(words: pa.Table, corpus: str, digest: str, storage: Storage) -> list[dict[str, Any]]:
    """Return the take-downs that count on other versions of a corpus, and that no one looked for in this one."""
    if not len(words):
        return []
    try:
        upto = CarriedWords.load(storage, layout.carried_words_file(corpus, digest)).upto
    except MissingError:
        upto = 0
    found = (word for _, word in _words_on_others(words, digest, [_KINDS[0]]))
    return [word for word in found if word["verdict"] == Verdict.TAKEDOWN and word["number"] > upto]


def _words_on_others(
    words: pa.Table, here: str, kinds: Iterable[tuple[Sequence[Verdict], bool]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the words that count on versions other than ``here``, with the numbers of their kinds, in their order."""
    found: list[tuple[int, dict[str, Any]]] = []
    for digest in words.column("corpus_digest").unique().to_pylist():
        if digest == here:
            continue
        own = of_version(words, digest)
        for verdicts, is_public in kinds:
            undoes = pc.equal(own.column("verdict"), str(Verdict.UNDO))
            concerned = own.filter(pc.or_(undoes, pc.equal(own.column("is_public"), is_public)))
            kind = _KINDS.index((verdicts, is_public))
            is_shown_tag = (verdicts, is_public) == (OPINIONS, True)
            counting = _deciding(concerned) if is_shown_tag else counting_words(concerned, verdicts).to_pylist()
            found += [(kind, word) for word in counting]
    return iter(sorted(found, key=lambda each: each[1]["number"]))


def _deciding(words: pa.Table) -> Iterable[dict[str, Any]]:
    """Return for each picture the opinion that decides what is shown: not "no cat" of one that is called a dog."""
    deciding: dict[int, dict[str, Any]] = {}
    for word in standing_words(words).to_pylist():
        earlier = deciding.get(word["position"])
        is_void = earlier is not None and (
            earlier["verdict"] == Verdict.NONE or (earlier["verdict"] == Verdict.TAG and earlier["tag"] != word["tag"])
        )
        if word["verdict"] != Verdict.WRONG or not is_void:
            deciding[word["position"]] = word
    return deciding.values()


def _find_by_position(corpus: Corpus, words: Sequence[dict[str, Any]], storage: Storage) -> dict[bytes, set[int]]:
    """Return the positions at which pictures still stand, of those where words were said of them."""
    found: dict[bytes, set[int]] = {}
    positions = {word["position"] for word in words if word["position"] < corpus.images}
    for position, picture in picture_hashes(corpus, positions, storage):
        found.setdefault(picture, set()).add(position)
    return found


def _find_by_content(
    corpus: Corpus, pictures: set[bytes], storage: Storage, report: Callable[[str], None]
) -> dict[bytes, list[int]]:
    """Return all positions of pictures, by one pass over the shards; memory does not grow with the corpus."""
    found: dict[bytes, list[int]] = {}
    started = reported = time.monotonic()
    report(f"{len(pictures):,} pictures moved or are gone: looking for them in all {corpus.images:,} images")
    for shard in range(corpus.partition.shards):
        first = shard * corpus.shard_images
        here = range(first, first + corpus.partition.images_in_shard(shard))
        for position, picture in picture_hashes(corpus, here, storage):
            if picture in pictures:
                found.setdefault(picture, []).append(position)
            if position % 1_000 == 0 and (time_now := time.monotonic()) - reported > _REPORT_SECONDS:
                reported = time_now
                left = (time_now - started) * (corpus.images - position) / max(position, 1)
                report(
                    f"looked at {position:,} of {corpus.images:,} images, found {len(found):,} of {len(pictures):,} "
                    f"pictures; about {left:,.0f} s left"
                )
    return found


def _latest_here(words: pa.Table) -> dict[tuple[int, int], int]:
    """Return the number of the last word of each kind on each position, whether it still counts or was taken back."""
    latest: dict[tuple[int, int], int] = {}
    columns = words.select(["position", "verdict", "is_public", "number"]).to_pydict()
    for position, verdict, is_public, number in zip(*columns.values(), strict=True):
        for kind, (verdicts, wanted) in enumerate(_KINDS):
            if verdict in verdicts and is_public == wanted:
                latest[kind, position] = max(number, latest.get((kind, position), 0))
    return latest


def _append(corpus: Corpus, rows: list[dict[str, Any]], storage: Storage, report: Callable[[str], None]) -> None:
    """Commit words for this version of the corpus, as those who said them, those on one picture in their order."""
    counted: Counter[int] = Counter()
    turns: list[int] = []  # how many earlier words there are on the same picture
    for row in rows:
        turns.append(counted[row["position"]])
        counted[row["position"]] += 1
    rows = [{**row, "turn": turn} for row, turn in zip(rows, turns, strict=True)]

    def request(row: dict[str, Any]) -> tuple[int, str, str]:
        return int(row["turn"]), str(row["by"]), str(row["run"])

    done = 0
    for (_, by, run), group in groupby(sorted(rows, key=request), key=request):
        words = [_word(row) for row in group]
        for first in range(0, len(words), WORDS_AT_ONCE):
            chunk = words[first : first + WORDS_AT_ONCE]
            append_words(corpus, chunk, by=by, run=run, storage=storage)
            done += len(chunk)
            if len(rows) > WORDS_AT_ONCE:
                report(f"{done:,} of {len(rows):,} words are carried over")


def _word(row: dict[str, Any]) -> Word:
    fields = {name: row[name] for name in Word.__dataclass_fields__}
    return Word(**{**fields, "verdict": Verdict(row["verdict"]), "why": Why(row["why"])})
