"""One run's review in this process: which pictures come next, for whom they are kept, and what has been said.

The review log is the only thing that lasts. What is kept for whom is known to this process alone (there is one search
process), so a restart forgets that and nothing else. Looks made elsewhere are seen when the log is read again.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import Drawn, next_pictures
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.precision import PrecisionTable, measure
from tinytags_tasks.review.takedowns import taken_down
from tinytags_tasks.review.words import say
from tinytags_tasks.search.review_keywords import PictureKeywords
from tinytags_tasks.search.review_places import drawn_at, frame_of_tag
from tinytags_tasks.search.review_sets import BY_HAND, Chosen, ReviewSets
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import counting_words, last_request, of_version, shared_log
from tinytags_tasks.store.review_records import OPINIONS, Verdict, Why, Word
from tinytags_tasks.store.run_records import Run

KEPT_SECONDS = 600.0
"""How long a picture is kept for somebody who says nothing; anything that they do begins this time again."""

REREAD_SECONDS = 3.0
"""How old what is known of the log may be, before it is read again in the background."""

BATCH = 60
"""Pictures that are drawn at once."""

LOW = 30
"""With fewer pictures drawn and kept for nobody, the next ones are drawn in the background."""

MOST_SEATS = 1_000
"""Seats whose looks can be taken back one by one; of older ones, the log knows the person's last look."""

_OPINIONS = pa.array([str(verdict) for verdict in OPINIONS])


@dataclass
class _Kept:
    """A picture that is kept for a seat."""

    seat: str
    drawn: Drawn
    until: float


class ReviewSession:
    """The review of one run, by any number of people at once.

    A *seat* is one page at which somebody sits: no two seats get the same picture.

    Parameters
    ----------
    run, corpus, frame
        The run, its corpus, and the pictures from which its reviews are drawn.
    storage
        The store.
    pool
        Draws and reads in the background.
    clock
        Returns seconds.
    """

    def __init__(
        self,
        run: Run,
        corpus: Corpus,
        frame: Frame,
        *,
        storage: Storage,
        pool: Executor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run = run
        self.corpus = corpus
        self.frame = frame
        self._storage = storage
        self._pool = pool
        self._clock = clock
        self._log = shared_log(corpus.name, storage)
        self._keywords = PictureKeywords(corpus, storage)
        self._sets = ReviewSets(run, storage)
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._ready: deque[Drawn] = deque()
        self._kept: dict[int, _Kept] = {}
        self._looked_at: set[int] = set()
        self._down: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._journal: list[tuple[int, bool]] = []
        self._numbers: OrderedDict[str, list[int]] = OrderedDict()
        self._read_at = float("-inf")
        self._is_busy = False
        self._measured: PrecisionTable | None = None
        self.read_log()

    @property
    def looks(self) -> int:
        """How many pictures somebody has looked at for this run."""
        return len(self._looked_at)

    @property
    def is_in_use(self) -> bool:
        """Whether a picture is kept for somebody."""
        with self._lock:
            self._release()
            return bool(self._kept)

    def chosen(self, name: str) -> Chosen:
        """Return a set of pictures that somebody sent to review.

        Raises
        ------
        BadInputError, MissingError
            As :meth:`~tinytags_tasks.search.review_sets.ReviewSets.get`.
        """
        return self._sets.get(name)

    def looks_at(self, chosen: str) -> int:
        """Return how many pictures of a set need no look any more; without a name, the looks at the run."""
        if not chosen:
            return self.looks
        positions = self._sets.get(chosen).pictures
        with self._lock:
            return sum(position in self._looked_at or _has(self._down, position) for position in positions)

    def keyword(self, position: int) -> str:
        """Return the keyword of a picture that was drawn; empty if it has none."""
        return self._keywords.get(position)

    def words(self) -> pa.Table:
        """Return the words on this version of the corpus, read now."""
        return of_version(self._log.read(), self.corpus.digest)

    def precision(self) -> PrecisionTable:
        """Return what the looks until now say of the run."""
        words = self.words()
        found = self._measured
        if found is None or found.last != last_request(words):
            found = measure(self.frame, words)
            self._measured = found
        return found

    def take(self, seat: str, count: int, chosen: str = "") -> list[Drawn]:
        """Return the pictures that are kept for a seat, the next one first: ``count`` if there are as many.

        With the name of a set, they are of that set.
        """
        self._refresh()
        if chosen:
            return self._take_chosen(seat, self._sets.get(chosen).pictures, count)
        found = self._top_up(seat, count)
        if len(found) < count:
            self._draw(BATCH)
            found = self._top_up(seat, count)
        return found

    def _take_chosen(self, seat: str, pictures: Mapping[int, Drawn], count: int) -> list[Drawn]:
        with self._lock:
            shown = {position: picture for position, picture in pictures.items() if not _has(self._down, position)}
            own = [kept.drawn for kept in self._renewed(seat) if kept.drawn.position in shown]
            self._release()
            more = self._free([*shown.values()])[: max(0, count - len(own))]
            positions = {picture.position for picture in more}
            self._ready = deque(picture for picture in self._ready if picture.position not in positions)
            self._keep(seat, more)
        with self._drawing:  # one thread at a time reads keywords
            self._keywords.read(more)
        return [*own, *more][:count]

    def take_of_tag(self, seat: str, tag: str, count: int) -> list[Drawn]:
        """Return pictures that the run gave a tag, and keep them for a seat; those that it has come first."""
        with self._lock:
            own = [kept.drawn for kept in self._renewed(seat) if kept.drawn.tag == tag][:count]
            self._release()
        if len(own) < count:
            with self._drawing:
                with self._lock:
                    taken = set(self._kept)
                drawn = next_pictures(
                    frame_of_tag(self.frame, tag),
                    self.words(),
                    count=count - len(own),
                    taken=taken,
                )
                with self._lock:
                    drawn = self._free(drawn)
                    # Those that were drawn for anybody are still free: a wall may have them.
                    positions = {picture.position for picture in drawn}
                    self._ready = deque(picture for picture in self._ready if picture.position not in positions)
                    self._keep(seat, drawn)
                self._keywords.read(drawn)
            own += drawn
        return own

    def drawn(self, position: int, why: str = "", chosen: str = "") -> Drawn:
        """Return what the run says of a picture that was drawn.

        Parameters
        ----------
        position
            Of the picture.
        why
            Why it was drawn, as the page that shows it says: asked only if this process does not know, because it was
            started after that page was made.
        chosen
            The set in which it was shown, if it was in one.

        Raises
        ------
        BadInputError
            If the picture cannot have been drawn.
        """
        if not 0 <= position < self.corpus.images:
            raise BadInputError(
                f"position {position} is not in corpus {self.corpus.name}, which has {self.corpus.images:,} images"
            )
        if chosen:
            if picture := self._sets.get(chosen).pictures.get(position):
                return picture
            raise BadInputError(f"position {position} is not in selection {chosen}")
        with self._lock:
            if kept := self._kept.get(position):
                return kept.drawn
        return drawn_at(self.frame, position, why)

    def say(self, seat: str, words: Sequence[Word], *, by: str) -> int:
        """Save words on pictures that a seat was shown, and return the number of their request.

        Raises
        ------
        BadInputError
            If the corpus is another version by now, or a word is not valid.
        """
        present = load_corpus(self.corpus.name, self._storage)  # read now: the pictures may be others by now
        number = say(present, words, by=by, run=self.run.name, storage=self._storage)
        with self._lock:
            for word in words:
                is_opinion = word.verdict in OPINIONS
                self._note(word.position, is_opinion)
                if is_opinion:
                    self._kept.pop(word.position, None)
            self._remember(seat, words, number)
            self._renewed(seat)
        return number

    def undo(self, seat: str, number: int, *, by: str, chosen: str = "") -> tuple[list[Drawn], bool]:
        """Take back all that a person said in one request; its pictures are kept for the seat again.

        Those that cannot be shown where the seat is, in a set or outside of it, are kept for nobody.

        Returns
        -------
        list of Drawn
            The pictures.
        bool
            Whether readers saw any of it.

        Raises
        ------
        BadInputError
            If this person did not say anything of this run in that request, or has taken it back already.
        """
        said = self._said(number, by)
        undoing = [
            Word(row["position"], Verdict.UNDO, undoes=number, why=Why(row["why"]), is_public=row["is_public"])
            for row in said
        ]
        again = self._as_drawn(said, chosen)
        with self._lock:
            others = [kept.drawn for kept in self._kept.values() if kept.seat == seat]
            for picture in others:
                del self._kept[picture.position]
            # Before the log has it: from then on, they could be drawn for somebody else.
            again = [picture for picture in again if picture.position not in self._kept]
            self._keep(seat, again)  # first, so that they are shown next
            self._keep(seat, others)
        try:
            self.say(seat, undoing, by=by)
        except BaseException:
            with self._lock:
                for picture in again:
                    self._kept.pop(picture.position, None)
            raise
        return again, any(row["is_public"] for row in said)

    def last_number(self, seat: str, by: str) -> int:
        """Return the number of the last request that :meth:`undo` can take back; 0 if there is none.

        It is the seat's own. Only at a seat that said nothing it is the person's last one, so that after a restart they
        can still go back.
        """
        with self._lock:
            if numbers := self._numbers.get(seat):
                return numbers[-1]
            others = {number for numbers in self._numbers.values() for number in numbers}
        rows = self._rows(pc.field("by") == by)
        is_opinion = pc.is_in(rows.column("verdict"), value_set=_OPINIONS)
        said = zip(*(rows.filter(is_opinion)[name].to_pylist() for name in ("number", "position")), strict=True)
        undone = set(zip(rows["undoes"].to_pylist(), rows["position"].to_pylist(), strict=True))
        return max((number for number, _ in set(said) - undone if number not in others), default=0)

    def read_log(self) -> None:
        """Read what was said elsewhere."""
        with self._lock:
            noted = len(self._journal)
        words = self.words()
        own = counting_words(words.filter(pc.equal(words.column("run"), self.run.name)))
        looked_at = set(own.column("position").to_pylist())
        down = taken_down(self.corpus, self._storage)
        with self._lock:
            self._looked_at, self._down = looked_at, down
            later, self._journal = self._journal[noted:], []
            for position, is_opinion in later:
                self._note(position, is_opinion)
            ready = [picture for picture in self._ready if picture.position not in self._looked_at]
            self._ready = deque(picture for picture in ready if not _has(down, picture.position))
            self._read_at = self._clock()

    def _rows(self, condition: pc.Expression) -> pa.Table:
        return self.words().filter(condition & (pc.field("run") == self.run.name))

    def _said(self, number: int, by: str) -> list[dict[str, Any]]:
        rows = self._rows((pc.field("by") == by) & ((pc.field("number") == number) | (pc.field("undoes") == number)))
        said = [row for row in rows.to_pylist() if row["number"] == number and row["verdict"] in OPINIONS]
        undone = {row["position"] for row in rows.to_pylist() if row["undoes"] == number}
        said = [row for row in said if row["position"] not in undone]
        if not said:
            raise BadInputError(f"request {number} has no look of {by} at run {self.run.name} that could be taken back")
        return said

    def _as_drawn(self, rows: Sequence[Mapping[str, Any]], chosen: str) -> list[Drawn]:
        if chosen:
            pictures = self._sets.get(chosen).pictures
            return [pictures[row["position"]] for row in rows if row["position"] in pictures]
        found = []
        for row in rows:
            with suppress(BadInputError):  # somebody chose it by hand: it is not among what is drawn
                found.append(drawn_at(self.frame, row["position"], row["why"]))
        return found

    def _note(self, position: int, is_opinion: bool) -> None:
        """Count a look that was just made or taken back; the lock is held."""
        self._journal.append((position, is_opinion))
        if is_opinion:
            self._looked_at.add(position)
        else:
            self._looked_at.discard(position)

    def _remember(self, seat: str, words: Sequence[Word], number: int) -> None:
        """Remember the number of a seat's request, or forget that of one taken back; the lock is held."""
        numbers = self._numbers.setdefault(seat, [])
        self._numbers.move_to_end(seat)
        for word in words:
            if word.verdict is Verdict.UNDO and word.undoes in numbers:
                numbers.remove(word.undoes)
        if any(word.verdict in OPINIONS for word in words):
            numbers.append(number)
        if len(self._numbers) > MOST_SEATS:
            self._numbers.popitem(last=False)

    def _renewed(self, seat: str) -> list[_Kept]:
        """Return what is kept for a seat, for some time more; the lock is held."""
        own = [kept for kept in self._kept.values() if kept.seat == seat]
        for kept in own:
            kept.until = self._clock() + KEPT_SECONDS
        return own

    def _keep(self, seat: str, pictures: Sequence[Drawn]) -> None:
        """Keep pictures for a seat, after those that it has; the lock is held."""
        until = self._clock() + KEPT_SECONDS
        for picture in pictures:
            self._kept[picture.position] = _Kept(seat, picture, until)

    def _top_up(self, seat: str, count: int) -> list[Drawn]:
        with self._lock:
            own = self._renewed(seat)
            self._release()
            while len(own) < count and self._ready:
                self._keep(seat, self._free([self._ready.popleft()]))
                own = [kept for kept in self._kept.values() if kept.seat == seat]
            return [kept.drawn for kept in own[:count]]

    def _release(self) -> None:
        """Give what was kept for too long to others; the lock is held."""
        now = self._clock()
        for kept in [kept for kept in self._kept.values() if kept.until <= now]:
            del self._kept[kept.drawn.position]
            if kept.drawn.stratum != BY_HAND:
                self._ready.appendleft(kept.drawn)

    def _free(self, pictures: Sequence[Drawn]) -> list[Drawn]:
        """Return pictures that are kept for nobody, and at which nobody looked; the lock is held."""
        return [
            picture
            for picture in pictures
            if picture.position not in self._kept and picture.position not in self._looked_at
        ]

    def _draw(self, count: int) -> None:
        """Draw pictures for anybody."""
        with self._drawing:
            with self._lock:
                if len(self._ready) >= LOW:
                    return
                taken = set(self._kept) | {picture.position for picture in self._ready}
            drawn = next_pictures(self.frame, self.words(), count=count, taken=taken)
            self._keywords.read(drawn)
            with self._lock:
                self._ready.extend(self._free(drawn))  # without those that were kept or looked at meanwhile

    def _refresh(self) -> None:
        """Read the log and draw in the background, if it is time for that."""
        with self._lock:
            is_due = self._clock() - self._read_at > REREAD_SECONDS or len(self._ready) < LOW
            if self._is_busy or not is_due:
                return
            self._is_busy = True
        self._pool.submit(self._work)

    def _work(self) -> None:
        try:
            if self._clock() - self._read_at > REREAD_SECONDS:
                self.read_log()
            self._draw(BATCH)
        finally:
            self._is_busy = False


def _has(positions: npt.NDArray[np.int64], position: int) -> bool:
    """Return whether a position is among others, which ascend."""
    at = int(np.searchsorted(positions, position))
    return at < len(positions) and int(positions[at]) == position
