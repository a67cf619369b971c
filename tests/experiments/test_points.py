"""A point says what was right, refuses what cannot be, and survives a file."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.experiments import CurvePoint, FailedPoint
from vlm_tune.records import Estimate, Money, Prediction
from vlm_tune.testing import ScriptedPredictor, tiny_dataset


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


TRUTH = {"1.jpg": "dent", "2.jpg": "crack", "3.jpg": "dent", "4.jpg": "crack"}


def evaluation(answers: dict[str, str], truth: dict[str, str] = TRUTH) -> Evaluation:
    return Evaluation.from_answers("tuned", truth=truth, answers=answers, classes=["crack", "dent"])


def test_a_point_of_an_evaluation_counts_its_answers_in_their_order() -> None:
    said = {"1.jpg": "dent", "2.jpg": "dent", "3.jpg": "a dent, perhaps", "4.jpg": "crack"}
    point = CurvePoint.of(evaluation(said), size=25, seed=1, seconds=3.0)
    assert (point.size, point.seed, point.right, point.n_test, point.seconds) == (25, 1, 2, 4, 3.0)
    assert point.rightness == (True, False, False, True)


def test_evaluations_of_the_same_images_have_the_same_test_set() -> None:
    one, other = (
        CurvePoint.of(evaluation(dict.fromkeys(TRUTH, label)), size=25, seed=0) for label in ("dent", "crack")
    )
    assert one.test_set == other.test_set
    others = [
        {**TRUTH, "4.jpg": "dent"},
        dict(reversed(TRUTH.items())),
        {key: TRUTH[key] for key in ("1.jpg", "2.jpg", "3.jpg")},
    ]
    for truth in others:
        assert CurvePoint.of(evaluation(truth, truth), size=25, seed=0).test_set != one.test_set


def test_a_missing_answer_is_left_out_and_too_many_are_refused() -> None:
    data = tiny_dataset(8, split=False)

    def says(missing: int) -> Evaluation:
        lost = set(data.ids[:missing])
        answer = ScriptedPredictor(
            lambda one: Prediction(example_id=one.id, outcome="failed", error="x") if one.id in lost else one.label,
            name="tuned",
        )
        return Evaluator(data).run(answer)

    point = CurvePoint.of(says(1), size=25, seed=0)
    assert (point.right, point.n_test) == (23, 23)
    with pytest.raises(EvaluationError, match="2 of 24 examples are missing"):
        CurvePoint.of(says(2), size=25, seed=0)


def test_several_classes_are_right_when_all_are_named_and_no_other() -> None:
    truth = {"1.jpg": ["crack", "dent"], "2.jpg": [], "3.jpg": ["dent"]}
    said = {"1.jpg": "dent, crack", "2.jpg": "none", "3.jpg": "crack, dent"}
    several = Evaluation.from_answers("x", truth=truth, answers=said, classes=["crack", "dent"], multi_label=True)
    assert CurvePoint.of(several, size=25, seed=0).rightness == (True, True, False)


def test_points_and_failures_are_told_in_words() -> None:
    trained = Estimate(value=1.0, low=0.99, high=1.0, n=319, method="Wilson 95%")
    cost = Money(usd=1.0, basis="rent")
    point = CurvePoint(size=1319, seed=2, right=87, n_test=98, train_accuracy=trained, cost=cost, seconds=480.4)
    assert point.sentence == (
        "1,319 images, seed 2: 88.8 % [81.0, 93.6] of 98 test images, 100.0 % of 319 training images, 480 s, $1.00"
    )
    assert (
        CurvePoint(size=25, seed=0, right=0, n_test=98).sentence
        == "25 images, seed 0: 0.0 % [0.0, 3.8] of 98 test images"
    )
    assert FailedPoint(size=400, seed=1, error="no memory").sentence == "400 images, seed 1: failed: no memory"
