"""A run's frame, made from scored files of the small store."""

from pathlib import Path

import numpy as np
import pytest
from small_run import card, make_another_run, make_run, quiet, score_all

import tinytags_tasks.review.frame_making as frame_making
from tinytags_tasks.derived_fields import random_numbers
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.frame import load_frame, stored_frame
from tinytags_tasks.review.sampler import Sampler
from tinytags_tasks.review.spread import farthest_first
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lessons import positions_sha256
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ReviewUse
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run


@pytest.fixture
def run(storage: LocalStorage) -> Run:
    run = make_run(storage, threshold=50, unreadable=(1, 9))
    score_all(storage, run)
    return run


def path_of(run: Run) -> str:
    return layout.frame_file(run.corpus, run.name)


def test_every_readable_picture_is_in_one_stratum(run: Run, storage: LocalStorage) -> None:
    frame = load_frame(run, storage, quiet)

    assert {stratum.name: stratum.images for stratum in frame.strata} == {
        "cat 50-64": 1,
        "cat 90-100": 1,
        "emu 90-100": 1,
        "below": 6,
    }
    names = {
        position: frame.strata[index].name
        for position, index in zip(frame.columns["position"].tolist(), frame.columns["stratum"].tolist(), strict=True)
    }
    assert names == {0: "cat 90-100", 7: "emu 90-100", 8: "cat 50-64", **dict.fromkeys((2, 3, 4, 5, 6, 10), "below")}
    assert frame.counts["cat"][50] == frame.counts["cat"][100] == 1


def test_a_frame_is_made_once_and_read_again(run: Run, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stored_frame(run, storage) is None
    made = load_frame(run, storage, quiet)
    monkeypatch.setattr(frame_making, "make_frame", None)

    read = load_frame(run, storage, quiet)

    assert read.pictures == made.pictures
    assert (read.strata, read.counts, read.tags) == (made.strata, made.counts, made.tags)
    assert stored_frame(run, storage).pictures == made.pictures


def test_what_the_runs_model_learned_from_cannot_be_drawn(run: Run, storage: LocalStorage) -> None:
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    append_words(corpus, [Word(0, Verdict.TAG, "cat"), Word(2, Verdict.NONE)], by="ada", storage=storage)
    use = ReviewUse(
        corpus=corpus.name,
        corpus_digest=corpus.digest,
        upto=1,
        words=1,
        weight=20,
        replaced_background=False,
        positions_sha256=positions_sha256(np.array([0])),  # the model does not know none
        of_tags=(1, 0, 0),
        none=0,
        other_tags={},
    )
    card(reviews=use).save(storage, layout.card_file(run.model))

    frame = load_frame(run, storage, quiet)

    assert sorted(frame.columns["position"].tolist()) == [2, 3, 4, 5, 6, 7, 8, 10]


def test_a_damaged_frame_is_made_again(run: Run, storage: LocalStorage) -> None:
    made = load_frame(run, storage, quiet)
    storage.write(path_of(run), storage.read(path_of(run))[:-100])

    assert stored_frame(run, storage) is None
    assert load_frame(run, storage, quiet).pictures == made.pictures


def test_a_frame_is_made_again_after_the_run_was_scored_again(run: Run, storage: LocalStorage) -> None:
    load_frame(run, storage, quiet)
    scored = Path(storage.root) / layout.scored_file(run.name, 0)
    again = scored.read_bytes()
    scored.unlink()
    storage.write(layout.scored_file(run.name, 0), again)

    assert stored_frame(run, storage) is None


def test_a_kill_while_a_frame_is_written_leaves_no_half_of_it(
    run: Run, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            load_frame(run, storage, quiet)
    assert not storage.exists(path_of(run))
    assert load_frame(run, storage, quiet).strata


def test_pictures_that_were_taken_down_are_in_no_stratum(run: Run, storage: LocalStorage) -> None:
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    down = [Word(position, Verdict.TAKEDOWN, reason="asked for", is_public=True) for position in (0, 3, 8)]
    append_words(corpus, down, by="ann", storage=storage)
    append_words(corpus, [Word(8, Verdict.RESTORE, is_public=True)], by="ann", storage=storage)

    frame = load_frame(run, storage, quiet)

    assert sorted(frame.columns["position"].tolist()) == [2, 4, 5, 6, 7, 8, 10]
    assert {stratum.name: stratum.images for stratum in frame.strata}["below"] == 5


def test_a_frame_follows_what_is_taken_down_and_restored(run: Run, storage: LocalStorage) -> None:
    def sizes() -> dict[str, int]:
        return {stratum.name: stratum.images for stratum in load_frame(run, storage, quiet).strata}

    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    before = sizes()

    append_words(corpus, [Word(3, Verdict.TAKEDOWN, reason="asked for", is_public=True)], by="ann", storage=storage)
    assert stored_frame(run, storage) is not None  # a reader sees figures all the same
    assert sizes() == {**before, "below": before["below"] - 1}

    append_words(corpus, [Word(3, Verdict.RESTORE, is_public=True)], by="ann", storage=storage)
    assert sizes() == before


def test_a_run_that_is_not_completely_scored_is_refused_with_the_remedy(storage: LocalStorage) -> None:
    run = make_run(storage)
    score_all(storage, run)
    storage.delete(layout.scored_file(run.name, 3))

    with pytest.raises(BadInputError, match=rf"1 of its 6 blocks are not scored; .* `tinytags score {run.name}`"):
        load_frame(run, storage, quiet)


def test_a_run_of_another_version_of_its_corpus_is_refused(run: Run, storage: LocalStorage) -> None:
    path = layout.corpus_file(run.corpus)
    Corpus.load(storage, path).replaced(digest="f" * 64).save(storage, path)

    with pytest.raises(BadInputError, match="is of another version of corpus pets"):
        load_frame(run, storage, quiet)


def test_two_runs_of_a_corpus_draw_by_the_same_numbers(run: Run, storage: LocalStorage) -> None:
    other = make_another_run(storage, 40)
    score_all(storage, other)

    one, two = (load_frame(each, storage, quiet) for each in (run, other))

    for name in ("cat 90-100", "emu 90-100"):
        first, second = (
            frame.columns["position"][
                frame.columns["stratum"] == [stratum.name for stratum in frame.strata].index(name)
            ].tolist()
            for frame in (one, two)
        )
        assert first == second


def test_progress_says_how_long_it_takes(run: Run, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(frame_making, "_REPORT_SECONDS", 0.0)

    load_frame(run, storage, lines.append)

    assert lines[-1].startswith(f"run {run.name}: drawing from 6 of 6 blocks, about 0 s left")


def test_a_sampler_keeps_the_smallest_of_each_stratum_however_many_come() -> None:
    rng = np.random.default_rng(1)
    strata = rng.integers(0, 7, 400_000)
    positions = np.arange(len(strata))
    keys = random_numbers(9, positions)
    most = np.array([5, 0, 1000, 3, 50, 2, 100_000])
    sampler = Sampler(most)
    for part in np.array_split(positions, 40):
        sampler.add(strata[part], keys[part], part)

    found, places, _, kept = sampler.result()

    for stratum in range(7):
        own = positions[strata == stratum]
        best = own[np.argsort(keys[own])][: most[stratum]]
        assert kept[found == stratum].tolist() == best.tolist()
        assert places[found == stratum].tolist() == list(range(len(best)))


def test_spreading_out_takes_one_of_each_kind_before_a_second() -> None:
    rng = np.random.default_rng(1)
    kinds = np.repeat(np.eye(4), 10, axis=0) * 100
    embeddings = (kinds + rng.random((40, 4))).astype(np.float32)

    order = farthest_first(embeddings)

    assert sorted(order.tolist()) == list(range(40))
    assert {int(place) // 10 for place in order[:4]} == {0, 1, 2, 3}
