"""A corpus of noise whose pictures a run tagged, all verified; and draws and figures that a test can foresee."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from small_run import quiet

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.review.evidence import Evidence
from tinytags_tasks.review.frame import Frame, Stratum
from tinytags_tasks.review.precision import Estimate, PrecisionRow, PrecisionTable, TagPrecision
from tinytags_tasks.search import review_session, review_sessions
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import counting_words
from tinytags_tasks.store.review_records import Why
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

TAGS = ("cat", "dog", "Emu")
IMAGES = 200
DROPPED = "none"
CORPUS, RUN = "pets", "pets-1"


def tag_of(position: int) -> str:
    """Return the run's tag of a picture; empty for every fourth, which it dropped."""
    return ("cat", "dog", "Emu", "")[position % 4]


def make_reviewed_run(folder: Path, monkeypatch: pytest.MonkeyPatch, images: int = IMAGES) -> LocalStorage:
    """Create a store with the corpus and the run, and let reviews draw its pictures in the order of positions."""
    storage = LocalStorage(folder / "store")
    source = folder / "pets.bin"
    noise = np.random.default_rng(1).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    source.write_bytes(to_column_major(noise))
    ingest_corpus(
        CorpusDefinition(name=CORPUS, source=str(source), format="tiny-images", shard_images=150, blocks_per_shard=3),
        storage=storage,
        report=quiet,
    )
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    run = Run(
        name=RUN,
        corpus=CORPUS,
        corpus_digest=corpus.digest,
        model="forest-12ab",
        threshold=40,
        images=images,
        blocks=corpus.partition.blocks,
        collection=layout.collection_name(RUN),
        created="2026-01-01T00:00:00+00:00",
    )
    run.save(storage, layout.run_file(RUN))
    for block in range(run.blocks):
        record = BlockRecord(run=RUN, block=block, state=BlockState.VERIFIED)
        record.save(storage, layout.ledger_file(RUN, block))
    monkeypatch.setattr(review_session, "next_pictures", draw_in_order)
    monkeypatch.setattr(review_session, "measure", measure_simply)
    monkeypatch.setattr(review_sessions, "load_frame", lambda run, storage, report, **_: make_frame(run, corpus))
    return storage


def make_frame(run: Run, corpus: Corpus) -> Frame:
    """Return a frame of all pictures; every fifth is there to teach only."""
    names = [*TAGS, DROPPED]
    positions = range(corpus.images)
    sizes = Counter(tag_of(position) for position in positions)
    strata = [
        Stratum(name, tag, 40 if tag else -1, 100 if tag else -1, sizes[tag])
        for name, tag in zip(names, (*TAGS, ""), strict=True)
    ]
    return Frame(
        run=run.name,
        corpus=corpus.name,
        corpus_digest=corpus.digest,
        model=run.model,
        tags=TAGS,
        threshold=run.threshold,
        strata=tuple(strata),
        pictures=pa.table(
            {
                "stratum": pa.array([position % 4 for position in positions], pa.int32()),
                "position": pa.array(positions, pa.int64()),
                "block": pa.array([corpus.partition.block_at(position) for position in positions], pa.int32()),
                "confidence": pa.array([70 if tag_of(position) else -1 for position in positions], pa.int16()),
                "order": pa.array([-1 if position % 5 == 4 else position // 4 for position in positions], pa.int32()),
                "spread": pa.array([-1] * corpus.images, pa.int32()),
            }
        ),
        counts={tag: (0,) * 101 for tag in TAGS},
    )


def draw_in_order(
    frame: Frame,
    words: pa.Table,
    *,
    count: int,
    taken: Collection[int] = (),
    exclude: Collection[int] = (),
    **_: object,
) -> list[Drawn]:
    """Return the first pictures that nobody looked at or is looking at."""
    own = words.filter(pc.equal(words.column("run"), frame.run))
    gone = {*counting_words(own).column("position").to_pylist(), *taken, *exclude}
    return [
        Drawn(
            position=row["position"],
            block=row["block"],
            tag=frame.strata[row["stratum"]].tag,
            confidence=row["confidence"],
            why=Why.TEACH if row["order"] < 0 else Why.MEASURE,
            stratum=frame.strata[row["stratum"]].name,
            chance=0.5,
        )
        for row in frame.pictures.to_pylist()
        if row["position"] not in gone
    ][:count]


def measure_simply(frame: Frame, words: pa.Table, *, exclude: Collection[int] = ()) -> PrecisionTable:
    """Return the plain share of looks at each tag that say that it is right."""
    looked = counting_words(words).to_pylist()
    tags, rows = [], []
    for tag in frame.tags:
        own = [row for row in looked if row["shown_tag"] == tag and row["why"] == Why.MEASURE]
        right = sum(row["verdict"] == "tag" and row["tag"] == tag for row in own)
        share = 100 * right / len(own) if own else None
        estimate = None if share is None else Estimate(share, max(0, share - 10), min(100, share + 10))
        tags.append(TagPrecision(tag, 50, len(own), right, estimate, None))
        bounds = (None, None) if estimate is None else (estimate.low, estimate.high)
        rows.append(PrecisionRow(tag, 40, 100, 50, len(own), right, share, *bounds, share))
    seen = [tag.precision for tag in tags if tag.precision]
    return PrecisionTable(
        run=frame.run,
        corpus=frame.corpus,
        corpus_digest=frame.corpus_digest,
        model=frame.model,
        threshold=frame.threshold,
        recall_overall=None,
        evidence=cast(Evidence, None),
        last=max((row["number"] for row in words.to_pylist()), default=0),
        looks=sum(tag.looks for tag in tags),
        dropped_looks=0,
        unclear=0,
        rows=tuple(rows),
        tags=tuple(tags),
        overall=seen[0] if seen else None,
        curves={},
    )
