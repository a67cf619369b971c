"""Brier difference, speed and cost: paired by id, and only where something was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.evaluation.scored import CLASSES, many_labels, scored
from vlm_tune.cost import Cost
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Comparison, Evaluation


def test_better_probabilities_have_a_lower_brier_score() -> None:
    tuned, base = scored("tuned", skill=3, seed=1), scored("base", skill=0.3, seed=2)
    found = Comparison(candidate=tuned, reference=base).brier_difference
    assert found is not None
    assert found.high < 0
    scores = []
    for side in (tuned, base):
        truths = list(side.truths.values())
        p = np.exp([[one.scores[label] for label in CLASSES] for one in side.predictions if one.scores])
        scores.append(((p - np.array([[label == truth for label in CLASSES] for truth in truths])) ** 2).sum(axis=1))
    assert found.value == pytest.approx((scores[0] - scores[1]).mean())


def test_the_order_of_the_classes_does_not_matter() -> None:
    tuned, base = scored("tuned", seed=1), scored("base", seed=2)
    turned = scored("base", seed=2, classes=CLASSES[::-1])
    one, other = (Comparison(candidate=tuned, reference=side).brier_difference for side in (base, turned))
    assert one is not None
    assert other is not None
    assert other.value == pytest.approx(one.value)


def test_several_classes_have_a_brier_score_too() -> None:
    found = Comparison(candidate=many_labels("a", flips=0.02), reference=many_labels("b", flips=0.3)).brier_difference
    assert found is not None
    assert found.high < 0


def test_without_probabilities_there_is_none() -> None:
    silent = scored("Gemini", with_scores=False)
    assert Comparison(candidate=scored("tuned"), reference=silent).brier_difference is None


def test_a_system_ten_times_as_fast() -> None:
    slow = scored("slow", seed=1)
    column = slow.table.column_names.index("latency_s")
    seconds = slow.table["latency_s"].to_numpy()
    quick = Evaluation.restore(slow.table.set_column(column, "latency_s", [seconds / 10]), slow.about() | {"name": "q"})
    found = Comparison(candidate=quick, reference=slow).speed_ratio
    assert found is not None
    assert found.value == pytest.approx(10)
    assert 9 < found.low < 10 < found.high < 11
    # In batches of ten the same times say less.
    batched = np.repeat(seconds.reshape(-1, 10).mean(axis=1), 10) / 10
    table = slow.table.set_column(column, "latency_s", [batched])
    few = Comparison(candidate=Evaluation.restore(table, quick.about()), reference=slow).speed_ratio
    assert few is not None
    assert few.n == 200
    assert "clustered by group" in few.method


def test_what_was_not_timed_has_no_ratio() -> None:
    truth = {"1": "dent", "2": "dent"}
    side = Evaluation.from_answers("by hand", truth=truth, answers=truth, classes=["crack", "dent"])
    comparison = Comparison(candidate=side, reference=side)
    assert comparison.speed_ratio is None
    with pytest.raises(EvaluationError, match="by hand: what an image costs was not measured"):
        comparison.cost_ratio()


def test_what_was_measured_is_shown_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison(candidate=scored("cheap", cost=0.001, seed=1), reference=scored("dear", cost=0.02, seed=2))
    comparison.show()
    shown = " ".join(capsys.readouterr().out.split())
    brier, cost = comparison.brier_difference, comparison.cost_ratio()
    assert brier is not None
    assert f"{brier.value:+.3f} [{brier.low:+.3f}, {brier.high:+.3f}] (n=200); below 0 is better" in shown
    assert f"One image: {cost.value:.3g} [{cost.low:.3g}, {cost.high:.3g}] times as dear (n=200)." in shown


def test_cost_as_measured_and_as_given() -> None:
    comparison = Comparison(candidate=scored("cheap", cost=0.001, seed=1), reference=scored("dear", cost=0.02, seed=2))
    found = comparison.cost_ratio()
    assert found.low < 0.05 < found.high
    assert math.isclose(found.value, 0.05, rel_tol=0.1)
    exact = comparison.cost_ratio(candidate=Cost.exact(0.01, basis="x"), reference=Cost.exact(0.02, basis="y"))
    assert (exact.low, exact.value, exact.high) == (0.5, 0.5, 0.5)
    with pytest.raises(EvaluationError, match="lie above zero"):
        comparison.cost_ratio(candidate=Cost.exact(0.0, basis="free"))
