"""Carrying people's words over to another version of their corpus, whose pictures may stand at other positions.

Words name the version of the corpus that they were said of, and do not count on another one. Each picture is looked for
at its old position first, then by its content everywhere. What was carried over is words of the new version like any
other, in the log; a record says up to which number the log was looked through.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import FinalError, MissingError
from tinytags_tasks.review.words import WORDS_AT_ONCE, picture_hashes
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
from tinytags_tasks.store.review_records import OPINIONS, SHOWING, CarriedWords, Verdict, Why, Word, picture_hash
from tinytags_tasks.store.run_records import Run

_Word = dict[str, Any]
"""A row of a review log."""

_Said = tuple[_Word, ...]
"""The words of one kind on one picture that count together, in the order of saying."""

_KINDS = ((SHOWING, True), (OPINIONS, True), (OPINIONS, False))
"""Which words hide each other: the latest of each kind counts, and public ones count by themselves."""

_SAME = ("verdict", "tag", "by", "run", "why", "shown_tag")
"""Columns in which a word that was carried over is the same as before."""

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
    found = list(_said_of_others(words, corpus.digest, _KINDS))
    at_place = _find_by_position(corpus, [word for _, (*_, word) in found], storage)
    lost = {word["picture"] for _, (*_, word) in found if word["position"] not in at_place.get(word["picture"], ())}
    lost.discard(picture_hash(bytes(corpus.image_bytes)))  # what could not be read is no picture
    by_content = _find_by_content(corpus, lost, storage, report) if lost else {}
    missing: list[tuple[int, str]] = []
    placed: list[tuple[int, _Said]] = []
    for kind, said in found:
        word = said[-1]
        stands_still = word["position"] in at_place.get(word["picture"], ())
        places = [word["position"]] if stands_still else by_content.get(word["picture"], [])
        if not places:
            missing.append((word["position"], " ".join(filter(None, (word["verdict"], word["tag"])))))
        placed += [(kind, tuple({**each, "position": place} for each in said)) for place in places]
    # Somebody may have spoken while all images were searched, so the log is read again at the last moment.
    chosen, there = _choose(placed, of_version(log.read(), corpus.digest))
    _append(corpus, chosen, storage, report)
    CarriedWords(corpus=corpus.name, corpus_digest=corpus.digest, upto=upto).save(
        storage, layout.carried_words_file(corpus.name, corpus.digest)
    )
    return CarryResult(len(chosen), there, tuple(missing))


def _choose(placed: Sequence[tuple[int, _Said]], here: pa.Table) -> tuple[list[_Word], int]:
    """Return the words to record, in the order of saying, and how many were there already.

    Parameters
    ----------
    placed
        What was said, of which kind and with new positions, by the last word's number.
    here
        The words on this version.
    """
    said_here = _said_here(here, {said[-1]["position"] for _, said in placed})
    taken_down = set(takedowns(here).column("position").to_pylist())
    chosen: dict[tuple[int, int], _Said] = {}
    there = 0
    for kind, said in placed:
        word = said[-1]
        key = kind, word["position"]
        earlier = chosen.get(key)
        later = [each for each in said_here.get(key, ()) if each["number"] > said[0]["number"]]
        if later and later[-1]["number"] > word["number"] and not _is_beginning(later, said):
            there += len(said)
        elif word["verdict"] == Verdict.RESTORE and earlier and earlier[-1]["corpus_digest"] == word["corpus_digest"]:
            continue  # of the same picture at another position of that version, which is taken down
        else:  # what was said comes by number: a later word wins
            chosen[key] = said[len(later) :] if _is_beginning(later, said) else said
    void = [
        key
        for key, (*_, word) in chosen.items()
        if word["verdict"] == Verdict.RESTORE and word["position"] not in taken_down
    ]
    for key in void:
        del chosen[key]
    rows = [word for said in chosen.values() for word in said]
    return sorted(rows, key=lambda word: int(word["number"])), there + len(void)


def _is_beginning(later: Sequence[_Word], said: _Said) -> bool:
    """Tell whether the words on a picture are only the first of those to record: whoever recorded them was killed."""
    pairs = zip(later, said, strict=False)
    return len(later) < len(said) and all(one[name] == other[name] for one, other in pairs for name in _SAME)


def _uncarried(words: pa.Table, corpus: str, digest: str, storage: Storage) -> list[_Word]:
    """Return the take-downs that count on other versions of a corpus, and that no one looked for in this one."""
    if not len(words):
        return []
    try:
        upto = CarriedWords.load(storage, layout.carried_words_file(corpus, digest)).upto
    except MissingError:
        upto = 0
    found = (word for _, (*_, word) in _said_of_others(words, digest, [_KINDS[0]]))
    return [word for word in found if word["verdict"] == Verdict.TAKEDOWN and word["number"] > upto]


def _said_of_others(
    words: pa.Table, here: str, kinds: Iterable[tuple[Sequence[Verdict], bool]]
) -> Iterator[tuple[int, _Said]]:
    """Yield the words that count on versions other than ``here``, with the numbers of their kinds, by the last's."""
    found: list[tuple[int, _Said]] = []
    for digest in words.column("corpus_digest").unique().to_pylist():
        if digest == here:
            continue
        own = of_version(words, digest)
        for verdicts, is_public in kinds:
            undoes = pc.equal(own.column("verdict"), str(Verdict.UNDO))
            concerned = own.filter(pc.or_(undoes, pc.equal(own.column("is_public"), is_public)))
            kind = _KINDS.index((verdicts, is_public))
            is_shown_tag = (verdicts, is_public) == (OPINIONS, True)
            if is_shown_tag:
                found += [(kind, said) for said in _deciding(concerned)]
            else:
                found += [(kind, (word,)) for word in counting_words(concerned, verdicts).to_pylist()]
    return iter(sorted(found, key=lambda each: each[1][-1]["number"]))


def _deciding(words: pa.Table) -> Iterator[_Said]:
    """Yield for each picture the opinions that decide what is shown: the last that says it, and "no cat" since then.

    "No cat" says nothing of what is called a dog. Of a picture whose tag no person said, it counts for each tag: which
    of them the model gives it is another matter with each run.
    """
    deciding: dict[int, list[_Word]] = {}
    for word in standing_words(words).to_pylist():
        said = deciding.setdefault(word["position"], [])
        if word["verdict"] != Verdict.WRONG:
            said[:] = [word]
        elif not _is_void(word, said):
            said.append(word)
    return (tuple(said) for said in deciding.values())


def _is_void(wrong: _Word, said: Sequence[_Word]) -> bool:
    """Tell whether "no cat" changes nothing after what was said before."""
    if said and said[0]["verdict"] == Verdict.NONE:
        return True
    if said and said[0]["verdict"] == Verdict.TAG:
        return len(said) > 1 or bool(said[0]["tag"] != wrong["tag"])
    return any(each["tag"] == wrong["tag"] for each in said)


def _find_by_position(corpus: Corpus, words: Sequence[_Word], storage: Storage) -> dict[bytes, set[int]]:
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
        first = corpus.partition.first_of_shard(shard)
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


def _said_here(words: pa.Table, positions: Collection[int]) -> dict[tuple[int, int], list[_Word]]:
    """Return the words of each kind on each position, in the order of saying, whether they count or were taken back."""
    chosen = pa.array(list(positions), pa.int64())
    words = words.filter(pc.is_in(words.column("position"), value_set=chosen))
    said: dict[tuple[int, int], list[_Word]] = {}
    for word in words.select(["position", "is_public", "number", *_SAME]).to_pylist():
        for kind, (verdicts, is_public) in enumerate(_KINDS):
            if word["verdict"] in verdicts and word["is_public"] == is_public:
                said.setdefault((kind, word["position"]), []).append(word)
    return said


def _append(corpus: Corpus, rows: list[_Word], storage: Storage, report: Callable[[str], None]) -> None:
    """Commit words for this version of the corpus, as those who said them, those on one picture in their order."""
    counted: Counter[int] = Counter()
    turns: list[int] = []  # how many earlier words there are on the same picture
    for row in rows:
        turns.append(counted[row["position"]])
        counted[row["position"]] += 1
    rows = [{**row, "turn": turn} for row, turn in zip(rows, turns, strict=True)]

    def request(row: _Word) -> tuple[int, str, str]:
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


def _word(row: _Word) -> Word:
    fields = {name: row[name] for name in Word.__dataclass_fields__}
    return Word(**{**fields, "verdict": Verdict(row["verdict"]), "why": Why(row["why"])})
