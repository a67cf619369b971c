"""Two systems in a row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.evaluation.scored import scored
from vlm_tune.cost import Cost
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Cascade, RiskCoverage
from vlm_tune.evaluation.calibration.cascade import cost_of_both
from vlm_tune.statistics import wilson

OURS, THEIRS = Cost.exact(0.0001, basis="ours"), Cost(usd=0.001, low=0.0009, high=0.0011, n=98, basis="theirs")


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    validation = RiskCoverage(scored("tuned", 900, skill=2.4, sharp=3, photos="validation"))
    return Cascade(
        first=scored("tuned", 300, skill=2.4, sharp=3, seed=1),
        second=scored("Gemini", 300, skill=2.0, seed=2, with_scores=False, cost=0.001),
        threshold=validation.threshold_for(accuracy=0.95),
        first_cost=OURS,
        second_cost=THEIRS,
    )


def test_each_photo_has_the_answer_of_the_one_that_decides(cascade: Cascade) -> None:
    alone = cascade.threshold.decides(cascade.first)
    labels = [[one.label for one in side.predictions] for side in (cascade.evaluation, cascade.first, cascade.second)]
    for at, decided in enumerate(alone):
        assert labels[0][at] == labels[1 if decided else 2][at]
    assert cascade.evaluation.name == "tuned, then Gemini"
    assert cascade.asked == wilson(int((~alone).sum()), 300)
    both = [side.table["latency_s"].to_numpy() for side in (cascade.first, cascade.second)]
    took = np.where(alone, both[0], both[0] + both[1])
    assert cascade.evaluation.table["latency_s"].to_numpy() == pytest.approx(took)


def test_it_is_a_system_like_any_other(cascade: Cascade) -> None:
    comparison = cascade.comparison
    assert comparison.n == 300
    alone = cascade.threshold.decides(cascade.first)
    first, second = (
        np.array([one.label for one in side.predictions]) == np.array(list(side.truths.values()))
        for side in (cascade.first, cascade.second)
    )
    assert comparison.wins == int(np.sum(alone & first & ~second))
    assert comparison.losses == int(np.sum(alone & second & ~first))


def test_the_cost_is_the_first_for_all_and_the_second_for_some(cascade: Cascade) -> None:
    cost, asked = cascade.cost, cascade.asked
    assert cost is not None
    assert cost.usd == pytest.approx(0.0001 + asked.value * 0.001)
    assert cost.low < cost.usd < cost.high
    assert "ours" in cost.basis
    assert "theirs" in cost.basis
    relative = cascade.relative_cost
    assert relative is not None
    assert relative.value == pytest.approx(0.1 + asked.value)
    # The price of the API is in both, so it hardly widens their ratio.
    assert relative.high - relative.low < (cost.high - cost.low) / 0.001


def test_exact_costs_leave_the_share() -> None:
    asked = wilson(30, 100)
    cost = cost_of_both(OURS, Cost.exact(0.001, basis=""), asked)
    assert (cost.low, cost.high) == pytest.approx((0.0001 + 0.001 * asked.low, 0.0001 + 0.001 * asked.high))
    nobody = cost_of_both(OURS, THEIRS, wilson(0, 100))
    assert nobody.low == nobody.usd == OURS.usd
    assert nobody.high > OURS.usd


def test_its_curve_ends_at_the_two_alone(cascade: Cascade) -> None:
    frame = cascade.frame()
    first, last = frame.iloc[0], frame.iloc[-1]
    assert (first["asked"], last["asked"]) == (1.0, 0.0)
    assert first["accuracy"] == pytest.approx(cascade.second.accuracy.value)
    assert last["accuracy"] == pytest.approx(cascade.first.accuracy.value)
    assert last["usd"] == OURS.usd


def test_the_sentence_is_stable(cascade: Cascade) -> None:
    assert cascade.cost is not None
    thousand = cascade.cost.times(1000)
    assert cascade.sentence == (
        f"tuned decides {cascade.point.alone.percent()} alone, Gemini gets the rest: right in "
        f"{cascade.evaluation.headline}. {cascade.comparison.sentence} A thousand images cost {thousand} instead of "
        "$1.00 [0.900, 1.10]."
    )


def test_without_costs_there_is_no_price(cascade: Cascade) -> None:
    free = Cascade(first=cascade.first, second=cascade.second, threshold=cascade.threshold)
    assert free.cost is None
    assert free.relative_cost is None
    assert "usd" not in free.frame()
    assert isinstance(free.plot(), Figure)


def test_a_threshold_of_these_photos_is_told(cascade: Cascade) -> None:
    threshold = RiskCoverage(cascade.first).threshold_for(accuracy=0.9)
    flattered = Cascade(first=cascade.first, second=cascade.second, threshold=threshold)
    assert flattered.sentence.endswith("The threshold was chosen on these very photos, so this is flattered.")


def test_it_shows_and_draws_itself(cascade: Cascade, capsys: pytest.CaptureFixture[str]) -> None:
    cascade.show()
    assert "tuned, then Gemini" in capsys.readouterr().out
    assert isinstance(cascade.plot(), Figure)
    json.dumps(cascade.to_dict(), allow_nan=False)


def test_what_does_not_fit_is_refused(cascade: Cascade) -> None:
    with pytest.raises(EvaluationError, match="one of tuned, not of Gemini"):
        Cascade(first=cascade.second, second=cascade.first, threshold=cascade.threshold)
    with pytest.raises(EvaluationError, match="have other examples"):
        Cascade(first=cascade.first, second=scored("Gemini", 20), threshold=cascade.threshold)
    free = Cascade(
        first=cascade.first,
        second=cascade.second,
        threshold=cascade.threshold,
        first_cost=OURS,
        second_cost=Cost.exact(0.0, basis="a gift"),
    )
    with pytest.raises(EvaluationError, match="two costs above zero"):
        free.relative_cost
