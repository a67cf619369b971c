"""What the points say by themselves: growth per doubling and the gap to training, each with its interval."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_tune.errors import EvaluationError, ForecastError
from vlm_tune.experiments import CurvePoint, LearningCurve
from vlm_tune.statistics import wilson

RIGHT = {25: (52, 55, 49), 50: (63, 60, 61), 100: (71, 69, 73), 200: (77, 80, 78)}


def curve_of(
    right: dict[int, tuple[int, ...]] = RIGHT, *, n_test: int = 98, trained: int | None = None
) -> LearningCurve:
    points = [
        CurvePoint(
            size=size,
            seed=seed,
            right=count,
            n_test=n_test,
            train_accuracy=None if trained is None else wilson(trained * size // 100, size),
        )
        for size, counts in right.items()
        for seed, count in enumerate(counts)
    ]
    return LearningCurve(points=tuple(points), classes=("crack", "dent", "scratch"), chance=1 / 3)


def test_growth_is_the_difference_over_the_doublings() -> None:
    growth = curve_of().growth()
    assert growth.value == pytest.approx(((77 + 80 + 78) - (52 + 55 + 49)) / 3 / 98 / 3)
    assert 0.04 < growth.low < growth.value < growth.high < 0.14
    assert (growth.n, growth.method) == (98, "resampled test images and seeds, 95%")
    step = curve_of().growth(100, 200)
    assert step.value == pytest.approx((77 + 80 + 78 - 71 - 69 - 73) / 3 / 98)
    # One doubling is less sure than the mean of three.
    assert step.high - step.low > growth.high - growth.low


def test_growth_of_other_seeds_and_images_lies_in_the_interval_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(60):
        ease = generator.uniform(size=98)
        points = [
            CurvePoint.of_answers(ease > error * generator.normal(1, 0.1), size=size, seed=seed)
            for size, error in ((50, 0.4), (200, 0.2))
            for seed in range(3)
        ]
        found = LearningCurve(points=tuple(points), classes=("a", "b"), chance=0.5).growth()
        held += found.low <= 0.1 <= found.high
        assert found.high - found.low < 0.25
    assert held >= 53


def test_growth_is_refused_where_nothing_was_measured_or_luck_cannot_be_told() -> None:
    with pytest.raises(ForecastError, match="nothing was trained on 30 images"):
        curve_of().growth(30, 100)
    with pytest.raises(ForecastError, match="from a smaller size to a larger one, not from 100 to 50"):
        curve_of().growth(100, 50)
    with pytest.raises(ForecastError, match="not from 25 to 25"):
        curve_of({25: (52, 50)}).growth()
    with pytest.raises(ForecastError, match="needs a second seed"):
        curve_of({25: (52,), 50: (60,)}).growth()


def test_the_gap_has_newcombes_interval() -> None:
    # Newcombe (1998), table II, (a): 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    trained = wilson(56, 70)
    point = CurvePoint(size=70, seed=0, right=48, n_test=80, train_accuracy=trained)
    gap = LearningCurve(points=(point,), classes=("a", "b"), chance=0.5).gap_at(70)
    assert gap is not None
    assert gap.value == pytest.approx(0.2)
    assert (gap.low, gap.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert gap.method == "Newcombe 95%"


def test_the_gap_is_of_the_means_over_the_seeds() -> None:
    gap = curve_of(trained=100).gap_at(200)
    assert gap is not None
    assert gap.value == pytest.approx(1 - (77 + 80 + 78) / 3 / 98)
    assert curve_of().gap_at(200) is None
    # A seed whose training accuracy is not known says nothing of the gap.
    some = CurvePoint(size=200, seed=3, right=10, n_test=98)
    curve = curve_of(trained=100)
    assert curve.model_copy(update={"points": (*curve.points, some)}).gap_at(200) == gap
    with pytest.raises(EvaluationError, match="nothing was trained on 30"):
        curve_of().gap_at(30)


def answers(error: float, size: int, ease: np.ndarray, generator: np.random.Generator) -> list[CurvePoint]:
    return [
        CurvePoint.of_answers(ease > error * generator.normal(1, 0.1), size=size, seed=seed, test_set="one")
        for seed in range(3)
    ]


def test_the_gain_over_another_curve_is_paired_by_image_and_as_sure_as_it_says() -> None:
    generator, held, widths = np.random.default_rng(6), 0, []
    for _ in range(60):
        ease = generator.uniform(size=98)
        plain, mixed = (
            LearningCurve(
                points=[*answers(error, 50, ease, generator), *answers(error / 2, 200, ease, generator)],
                classes=("a", "b"),
                chance=0.5,
            )
            for error in (0.4, 0.3)
        )
        gain = mixed.gain_over(plain, 200)
        held += gain.low <= 0.05 <= gain.high
        widths.append(gain.high - gain.low)
    assert held >= 53
    # Two independent accuracies of 98 images differ by 0.22 either way.
    assert np.mean(widths) < 0.2
    backwards = plain.gain_over(mixed, 200)
    assert backwards.value == pytest.approx(-gain.value)


def test_a_gain_is_rather_too_unsure_where_it_is_not_known_which_images_were_right() -> None:
    better = curve_of({size: tuple(count + 5 for count in counts) for size, counts in RIGHT.items()})
    gain = better.gain_over(curve_of(), 100)
    # Two accuracies of other images: 1.96 sqrt(2 p (1 - p) / 98) at p = 0.75 either way, and the luck of the seeds.
    assert gain.high - gain.low > 2 * 1.96 * (2 * 0.75 * 0.25 / 98) ** 0.5


def test_a_gain_needs_the_same_test_images_the_size_and_seeds() -> None:
    curve = curve_of()
    assert curve.gain_over(curve, 100).value == 0
    with pytest.raises(EvaluationError, match="measured on other test images"):
        curve.gain_over(curve_of(n_test=99), 100)
    with pytest.raises(EvaluationError, match="nothing was trained on 100 images"):
        curve.gain_over(curve.until(50), 100)
    with pytest.raises(ForecastError, match="second seed"):
        curve.gain_over(curve_of({100: (70,)}), 100)
