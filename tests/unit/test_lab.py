"""The lab: Spark's parameters, tried in scikit-learn on a sample, and the best ones saved."""

from pathlib import Path

import numpy as np
import pytest

from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.lab import LabRequest, search_parameters
from tinytags_tasks.train.parameters import TrainRequest, read_parameters
from tinytags_tasks.train.sample_forest import SampleForest, bin_places


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> str:
    """Drawn shapes, scaled to 8x8."""
    path = tmp_path_factory.mktemp("lab") / "labelled.parquet"
    ((images, labels),) = draw_pictures(300, seed=3, batch=300)
    write_labelled_parquet(path, images, labels, SHAPES)
    return str(path)


def request_of(labelled: str, **changes: object) -> LabRequest:
    training = TrainRequest(labelled, height=8, width=8, features="pixels", head="forest")
    return LabRequest(training, **{"sample": 200, "trees": (2, 6), "depth": (2, 6), "folds": 2, **changes})


def without_seconds(findings):
    return [(each.training, each.accuracy, each.deviation, each.kept, each.precision) for each in findings]


def test_each_value_is_tried_with_each_and_the_best_comes_first(labelled):
    spoken: list[str] = []
    findings = search_parameters(request_of(labelled), report=spoken.append)
    tried = {(each.training.trees, each.training.depth) for each in findings}
    assert tried == {(2, 2), (2, 6), (6, 2), (6, 6)}
    assert [each.accuracy for each in findings] == sorted((each.accuracy for each in findings), reverse=True)
    assert findings[0].training.depth == 6
    assert spoken[-1].startswith("8 of 8 forests, about 0 s left")


def test_the_same_request_finds_the_same(labelled):
    again = [without_seconds(search_parameters(request_of(labelled), report=lambda line: None)) for _ in range(2)]
    assert again[0] == again[1]


def test_the_chosen_parameters_are_what_training_reads(labelled, tmp_path):
    out = tmp_path / "chosen.toml"
    findings = search_parameters(request_of(labelled, out=str(out)), report=lambda line: None)
    assert read_parameters(out) == findings[0].training.parameters
    assert f"# chosen by `tinytags lab` among 4 on 200 images of {Path(labelled).name}" in out.read_text()


def test_a_set_at_an_address_is_as_good_as_one_here_and_is_called_by_its_address(labelled, tmp_path, put):
    put("/sets/labelled.parquet", Path(labelled).read_bytes())
    told: list[str] = []
    there = request_of("memory://sets/labelled.parquet", out=str(tmp_path / "chosen.toml"))
    found, here = (search_parameters(request, report=told.append) for request in (there, request_of(labelled)))
    assert [each.accuracy for each in found] == [each.accuracy for each in here]
    assert any("train with `tinytags train memory://sets/labelled.parquet --features" in line for line in told)
    with pytest.raises(BadInputError, match=r"^memory://sets/labelled\.parquet: a tag has \d+ images in the sample"):
        search_parameters(request_of("memory://sets/labelled.parquet", folds=50, sample=100), report=told.append)


def test_figures_are_percentages_of_the_sample(labelled):
    for finding in search_parameters(request_of(labelled, trees=(1,)), report=lambda line: None):
        assert 0 <= finding.accuracy <= 100
        assert finding.kept == 100.0  # one tree is always sure
        assert finding.precision == pytest.approx(finding.accuracy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "folds are 1: at least two are needed"),
        ({"sample": 3}, "sample is 3: it must be 4 or more for 2 folds"),
        ({"trees": ()}, "trees: give one value or more to try"),
        ({"depth": (6, 99)}, "depth is 99: it must be 1 to 30"),
        ({"bins": (1,)}, "bins is 1: it must be 2 to 65536"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_a_file_is_read(changes, message):
    with pytest.raises(BadInputError, match=message):
        request_of("none.parquet", **changes)


def test_a_tag_with_fewer_images_than_folds_is_told(labelled):
    with pytest.raises(BadInputError, match=r"a tag has \d+ images in the sample, fewer than the 50 folds"):
        search_parameters(request_of(labelled, sample=100, folds=50), report=lambda line: None)


# The same bins as MLlib's


def test_values_that_fit_into_the_bins_keep_their_order_and_lose_nothing():
    images = np.array([[3, 0], [9, 0], [200, 7]], dtype=np.uint8)
    places = bin_places(images, 50)
    assert places[0, [3, 9, 200]].tolist() == [0, 1, 2]
    assert places[1, [0, 7]].tolist() == [0, 1]


@pytest.mark.parametrize("bins", [2, 10, 50])
def test_bins_hold_equally_many_images(bins):
    images = np.random.default_rng(1).normal(128, 30, (20_000, 1)).clip(0, 255).astype(np.uint8)
    binned = bin_places(images, bins)[0, images[:, 0]]
    counts = np.bincount(binned, minlength=bins)
    assert len(counts) == bins
    assert counts.sum() == 20_000
    assert counts.max() < 20_000 / bins + np.bincount(images[:, 0]).max()


@pytest.mark.parametrize("bins", [2, 7, 255, 256, 1_000])
def test_a_greater_value_is_never_in_a_lower_bin(bins):
    images = np.random.default_rng(2).integers(0, 256, (500, 3), dtype=np.uint8)
    places = bin_places(images, bins)
    assert (np.diff(places.astype(int), axis=1) >= 0).all()
    assert places.max() < bins


def test_votes_are_those_of_the_trees_one_each():
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (300, 12), dtype=np.uint8)
    labels = np.where(images[:, 0] < 100, 2, 4)  # tags that are not numbered from 0, and one in between without images
    votes = (
        SampleForest(TrainRequest("x", trees=9, depth=4, features="pixels", head="forest"), tags=6)
        .fit(images, labels)
        .votes(images)
    )
    assert votes.shape == (300, 6)
    assert (votes.sum(axis=1) == 9).all()
    assert votes[:, [0, 1, 3, 5]].sum() == 0
    assert (votes.argmax(axis=1) == labels).mean() > 0.95
