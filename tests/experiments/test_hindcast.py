"""A forecast made from the smaller sizes alone is held against what the larger one gave."""

from __future__ import annotations

import pytest

from vlm_tune.errors import EvaluationError, ForecastError
from vlm_tune.experiments import CurvePoint, FailedPoint, LearningCurve
from vlm_tune.plots import figure_to_svg

RIGHT = {25: (52, 55, 49), 50: (63, 60, 61), 100: (71, 69, 73), 200: (77, 80, 78), 400: (83, 87, 85)}


def curve_of(right: dict[int, tuple[int, ...]]) -> LearningCurve:
    points = [
        CurvePoint(size=size, seed=seed, right=count, n_test=98)
        for size, counts in right.items()
        for seed, count in enumerate(counts)
    ]
    failed = (FailedPoint(size=400, seed=3, error="memory ran out"),)
    return LearningCurve(
        points=tuple(points), classes=("crack", "dent", "scratch"), chance=1 / 3, name="tiny", failed=failed
    )


def test_the_curve_until_a_size_knows_nothing_of_the_larger_ones() -> None:
    curve = curve_of(RIGHT)
    earlier = curve.until(399)
    assert earlier.sizes == (25, 50, 100, 200)
    assert (earlier.failed, earlier.name, earlier.chance) == ((), "tiny", curve.chance)
    assert curve.until(400) == curve
    with pytest.raises(EvaluationError, match="nothing was trained on 24 images or fewer"):
        curve.until(24)


def test_the_largest_size_is_foretold_by_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    curve = curve_of(RIGHT)
    found = curve.hindcast()
    assert found.forecast == curve.until(200).forecast(400)
    assert found.measured == curve.accuracy_at(400)
    assert found.sizes == (25, 50, 100, 200)
    assert found.held
    found.show()
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("From 25 to 200 images, ")
    assert "was expected of 400; measured: 86.7 % [78.6, 92.1], inside the band." in said


def test_what_is_measured_does_not_change_what_was_foretold() -> None:
    collapsed = curve_of({**RIGHT, 400: (30, 31, 29)})
    assert collapsed.hindcast().forecast == curve_of(RIGHT).hindcast().forecast
    assert not collapsed.hindcast().held
    assert "outside the band" in collapsed.hindcast().sentence


def test_too_few_smaller_sizes_and_too_far_a_size_are_refused() -> None:
    curve = curve_of(RIGHT)
    with pytest.raises(ForecastError, match="at least 4 sizes, and there are 3"):
        curve.hindcast(200)
    with pytest.raises(ForecastError, match="not of 900"):
        curve_of({**RIGHT, 400: (80, 81), 900: (90, 91)}).until(900).model_copy(
            update={"points": tuple(p for p in curve_of({**RIGHT, 900: (90, 91)}).points if p.size != 400)}
        ).hindcast()
    with pytest.raises(EvaluationError, match="nothing was trained on 300"):
        curve.hindcast(300)


def test_the_figure_shows_the_points_that_the_band_knows_nothing_of() -> None:
    words = figure_to_svg(curve_of(RIGHT).plot(until=200))
    assert "the same, unknown to the forecast" in words
    assert "unknown" not in figure_to_svg(curve_of(RIGHT).plot())
