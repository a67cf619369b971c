"""A point says what was right, refuses what cannot be, and survives a file."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from vlm_tune.errors import EvaluationError
from vlm_tune.experiments import CurvePoint
from vlm_tune.records import Estimate, Money


def test_accuracy_has_its_wilson_interval_and_the_gap_is_to_training() -> None:
    trained = Estimate(value=1.0, low=0.96, high=1.0, n=100, method="Wilson 95%")
    point = CurvePoint(size=100, seed=0, right=87, n_test=98, train_accuracy=trained)
    assert str(point.accuracy) == "0.888 [0.810, 0.936] (n=98)"
    assert point.gap == pytest.approx(1 - 87 / 98)
    assert CurvePoint(size=100, seed=0, right=87, n_test=98).gap is None


def test_a_point_of_answers_counts_them() -> None:
    point = CurvePoint.of_answers([True, False, True], size=10, seed=3, test_set="abc")
    assert (point.right, point.n_test, point.rightness, point.test_set) == (2, 3, (True, False, True), "abc")
    paid = CurvePoint.of_answers([True], size=10, seed=3, cost=Money(usd=1, basis="a bill"), seconds=2.0)
    assert (paid.cost, paid.seconds) == (Money(usd=1, basis="a bill"), 2.0)


def test_rightness_is_packed_in_a_file_and_comes_back() -> None:
    point = CurvePoint.of_answers([True, False, True], size=10, seed=3)
    assert '"rightness":"101"' in point.model_dump_json()
    assert CurvePoint.model_validate_json(point.model_dump_json()) == point


def test_more_right_than_there_are_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"the point at 25 images, seed 1 has 99 of 98 .* impossible"):
        CurvePoint(size=25, seed=1, right=99, n_test=98)


def test_rightness_that_contradicts_the_counts_is_refused() -> None:
    with pytest.raises(EvaluationError, match="1 of 3 test images right, but its rightness says 2 of 3"):
        CurvePoint(size=25, seed=1, right=1, n_test=3, rightness=(True, False, True))


@pytest.mark.parametrize(
    "update",
    [
        {"seconds": math.nan},
        {"cost": {"usd": math.nan, "basis": ""}},
        {"cost": {"usd": math.inf, "basis": ""}},
        {"train_accuracy": {"value": math.nan, "low": 0, "high": 1, "n": 9, "method": ""}},
        {"right": math.nan},
        {"size": math.nan},
        {"rightness": "1x"},
        {"size": 0},
        {"n_test": 0},
    ],
    ids=lambda update: str(update)[:40],
)
def test_what_is_no_number_is_refused(update: dict[str, object]) -> None:
    with pytest.raises((EvaluationError, ValidationError)):
        CurvePoint.model_validate({"size": 25, "seed": 0, "right": 1, "n_test": 2, **update})


def test_money_is_kept() -> None:
    point = CurvePoint(size=25, seed=0, right=1, n_test=2, cost=Money(usd=0.5, basis="a bill"), seconds=3.0)
    assert CurvePoint.model_validate_json(point.model_dump_json()).cost == Money(usd=0.5, basis="a bill")
