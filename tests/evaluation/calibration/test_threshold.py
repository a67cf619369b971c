"""Deciding alone."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.evaluation.scored import many_labels, scored
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Evaluation, RiskCoverage
from vlm_tune.statistics import clopper_pearson, wilson


@pytest.fixture(scope="module")
def validation() -> RiskCoverage:
    return RiskCoverage(scored("tuned", 900, skill=2.4, sharp=3, photos="validation"))


@pytest.fixture(scope="module")
def test() -> Evaluation:
    return scored("tuned", 400, skill=2.4, sharp=3, seed=5)


def test_a_threshold_is_chosen_on_one_split_and_measured_on_another(validation: RiskCoverage, test: Evaluation) -> None:
    threshold = validation.threshold_for(accuracy=0.95)
    assert threshold.value is not None
    assert threshold.found.least >= 0.95
    assert "New photos reach 95 % with 95 % confidence." in threshold.sentence
    point = threshold.applied(test)
    alone = threshold.decides(test)
    right = np.array([one.label for one in test.predictions]) == np.array(list(test.truths.values()))
    assert point.alone == wilson(int(alone.sum()), 400)
    assert point.accuracy == wilson(int(right[alone].sum()), int(alone.sum()))
    assert point.accuracy.high > 0.95
    assert not point.same_photos
    assert "decided alone" in point.sentence


def test_more_accuracy_leaves_less_to_decide(validation: RiskCoverage) -> None:
    shares = [validation.threshold_for(accuracy=wanted).found.num_above for wanted in (0.85, 0.9, 0.95, 0.99)]
    assert shares == sorted(shares, reverse=True)
    bold = validation.threshold_for(accuracy=0.95, level=None)
    assert bold.found.num_above >= shares[2]
    assert bold.sentence.endswith("Nothing is promised for other photos.")


def test_too_few_photos_establish_nothing(test: Evaluation) -> None:
    few = RiskCoverage(scored("tuned", 40, skill=8))
    threshold = few.threshold_for(accuracy=0.95)
    assert threshold.value is None
    assert threshold.sentence == (
        "No threshold is shown to reach 95 % on 40 photos, at the least 59 photos without a mistake: tuned decides "
        "nothing alone."
    )
    point = threshold.applied(test)
    assert (point.alone.value, point.accuracy.n) == (0, 0)
    assert point.sentence == "None of the photos is decided alone."


def test_the_photos_it_was_chosen_on_flatter_it(validation: RiskCoverage) -> None:
    point = validation.threshold_for(accuracy=0.9).applied(validation.evaluation)
    assert point.same_photos
    assert "measure it on others" in point.sentence


def test_of_photos_that_belong_together_one_counts() -> None:
    twins = RiskCoverage(scored("tuned", 900, skill=2.4, photos="validation", twins=True))
    assert twins.threshold_for(accuracy=0.9).n == 450


def test_what_is_not_said_is_not_decided() -> None:
    evaluation = scored("tuned", 20)
    columns = evaluation.table.column_names
    scores = evaluation.table["scores"].to_pylist()
    table = evaluation.table.set_column(columns.index("scores"), "scores", [[None, *scores[1:]]])
    curve = RiskCoverage(Evaluation.restore(table, evaluation.about()))
    assert curve.frame()["num_alone"].iloc[-1] == 19
    bold = curve.threshold_for(accuracy=0.5, level=None)
    assert not bold.decides(curve.evaluation)[0]


def test_the_curve_is_counted_from_the_surest_on(validation: RiskCoverage) -> None:
    frame = validation.frame()
    last = frame.iloc[-1]
    assert last["alone"] == 1
    assert last["accuracy"] == pytest.approx(validation.evaluation.accuracy.value)
    exact = clopper_pearson(round(last["accuracy"] * 900), 900)
    assert (last["low"], last["high"]) == pytest.approx((exact.low, exact.high))
    assert frame["confidence"].is_monotonic_decreasing


def test_several_classes_are_as_sure_as_the_least(capsys: pytest.CaptureFixture[str]) -> None:
    curve = RiskCoverage(many_labels("tuned", 200, flips=0.01))
    assert curve.frame()["accuracy"].iloc[-1] == pytest.approx(curve.evaluation.accuracy.value)
    curve.show()
    assert "the surest answers" in capsys.readouterr().out


def test_it_draws_itself(validation: RiskCoverage) -> None:
    threshold = validation.threshold_for(accuracy=0.95)
    for at in (None, threshold):
        assert isinstance(validation.plot(at), Figure)


def test_what_is_no_accuracy_is_refused(validation: RiskCoverage) -> None:
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        validation.threshold_for(accuracy=95)
