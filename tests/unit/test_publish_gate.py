"""The gate: a run of too few documents, or of a model that is not precise enough, is not published."""

import publish_steps
import pytest
from publish_steps import publish
from small_run import MODEL, card

from tinytags_tasks.errors import BadInputError, FinalError, MissingError
from tinytags_tasks.publish.gate import precision_at
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.step import PublishRequest
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import Evaluation, ThresholdFigures
from tinytags_tasks.store.run_records import BlockState

indexed, stricter = publish_steps.indexed, publish_steps.stricter


def evaluation(**changes):
    figures = (
        ThresholdFigures(threshold=40, votes=4, kept=80, right=44, precision=(), recall=()),
        ThresholdFigures(threshold=60, votes=6, kept=20, right=18, precision=(), recall=()),
        ThresholdFigures(threshold=90, votes=9, kept=0, right=0, precision=(), recall=()),
    )
    fields = {"labelled_set": "", "sha256": "", "images": 100, "accuracy": 50.0, "confusion": (), "thresholds": figures}
    return Evaluation(**(fields | changes))


def test_a_run_of_enough_documents_passes_the_gate(storage, stricter, indexed, solr):
    publish(storage, indexed, solr)
    publish(storage, stricter, solr, least_documents_percent=20)
    assert solr.aliases() == {"live": stricter.collection}


def test_a_run_of_too_few_documents_is_refused_with_the_figures_and_stays_verified(storage, stricter, indexed, solr):
    publish(storage, indexed, solr)
    with pytest.raises(FinalError) as refused:
        publish(storage, stricter, solr, least_documents_percent=90)
    assert f"run {stricter.name} is verified, but not published" in str(refused.value)
    assert "2 documents, 22.2 % of the 9 that are live; the gate requires at least 90 %" in str(refused.value)
    assert f"tinytags diff {indexed.name} {stricter.name}" in str(refused.value)
    assert solr.aliases() == {"live": indexed.collection}
    assert {record.state for record in read_ledger(storage, stricter)} == {BlockState.VERIFIED}
    assert [record.collection for record in read_history("live", storage)] == [indexed.collection]


def test_the_first_run_has_nothing_to_be_compared_with(storage, indexed, solr):
    publish(storage, indexed, solr, least_documents_percent=90)
    assert solr.aliases() == {"live": indexed.collection}


def test_what_is_live_already_is_not_asked_again(storage, indexed, solr):
    publish(storage, indexed, solr)
    publish(storage, indexed, solr, least_documents_percent=101, least_precision=100)
    assert solr.aliases() == {"live": indexed.collection}


def test_a_model_that_is_precise_enough_at_the_runs_threshold_passes(storage, stricter, solr):
    card(test=evaluation()).save(storage, layout.card_file(MODEL))
    publish(storage, stricter, solr, least_precision=90)
    assert solr.aliases() == {"live": stricter.collection}


def test_a_model_that_is_not_precise_enough_is_refused_with_both_figures(storage, indexed, solr):
    card(test=evaluation()).save(storage, layout.card_file(MODEL))
    with pytest.raises(
        FinalError, match=r"precision is 55\.0 % at the run's threshold; the gate requires at least 60 %.*nothing stays"
    ):
        publish(storage, indexed, solr, least_precision=60)
    assert solr.aliases() == {}


def test_everything_that_the_gate_refuses_is_told_at_once(storage, stricter, indexed, solr):
    card(test=evaluation()).save(storage, layout.card_file(MODEL))
    publish(storage, indexed, solr)
    with pytest.raises(FinalError, match=r"22\.2 % of the 9 .* precision is 90\.0 %"):
        publish(storage, stricter, solr, least_documents_percent=50, least_precision=95)


def test_a_card_without_figures_cannot_answer_the_gate(storage, indexed, solr):
    with pytest.raises(MissingError, match=f"model {MODEL}: its card has no figures .*publish without asking"):
        publish(storage, indexed, solr, least_precision=50)
    assert solr.aliases() == {}


def test_the_precision_is_that_of_the_test_set_else_of_what_was_held_out():
    held_out = evaluation(
        thresholds=(ThresholdFigures(threshold=40, votes=4, kept=4, right=1, precision=(), recall=()),)
    )
    assert precision_at(card(test=evaluation(), held_out=held_out), 40) == 55.0
    assert precision_at(card(held_out=held_out), 40) == 25.0


def test_thresholds_that_ask_for_the_same_votes_have_the_same_precision():
    assert precision_at(card(test=evaluation()), 51) == precision_at(card(test=evaluation()), 60) == 90.0


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (70, "no precision at a confidence of 70 % (it has it at: 40 %, 60 %, 90 %)"),
        (90, "none of the 100 images that its card is based on is kept at 90 %"),
    ],
)
def test_a_figure_that_the_card_lacks_is_missing(threshold, message):
    with pytest.raises(MissingError) as caught:
        precision_at(card(test=evaluation()), threshold)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "gate",
    [
        {"least_documents_percent": -1},
        {"least_documents_percent": float("nan")},
        {"least_precision": 101},
        {"least_precision": float("inf")},
    ],
)
def test_a_gate_that_is_no_percentage_is_refused(gate):
    with pytest.raises(BadInputError, match="the gate requires"):
        PublishRequest("run", "live", **gate)
