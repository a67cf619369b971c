"""A curve forecasts with a band, says when it cannot tell, and refuses what does not belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from vlm_tune.errors import EvaluationError, ForecastError, StorageError
from vlm_tune.experiments import CurvePoint, LearningCurve
from vlm_tune.experiments.display import growth_of
from vlm_tune.plots import figure_to_svg
from vlm_tune.records import Money
from vlm_tune.statistics import wilson

RIGHT = {25: (52, 55, 49), 50: (63, 60, 61), 100: (71, 69, 73), 200: (77, 80, 78), 319: (83, 87, 85)}


def curve_of(right: Mapping[int, tuple[int, ...]], *, n_test: int = 98, usd: float | None = None) -> LearningCurve:
    points = [
        CurvePoint(
            size=size,
            seed=seed,
            right=count,
            n_test=n_test,
            cost=None if usd is None else Money(usd=0.5 + usd * size, basis="rent"),
            train_accuracy=wilson(size, size),
        )
        for size, counts in right.items()
        for seed, count in enumerate(counts)
    ]
    return LearningCurve(points=tuple(points), classes=("crack", "dent", "scratch"), chance=1 / 3)


@pytest.fixture(scope="module")
def curve() -> LearningCurve:
    return curve_of(RIGHT, usd=0.003)


def test_a_known_curve_lies_in_a_narrow_band() -> None:
    sizes = (25, 50, 100, 200, 400)
    exact = {size: (round(20_000 * (0.95 - 2 * size**-0.5)),) * 3 for size in sizes}
    band = curve_of(exact, n_test=20_000).forecast(1600).accuracy
    assert band.low <= 0.90 <= band.high
    # What is left of the width is how far the families part beyond the points.
    assert band.high - band.low < 0.08
    assert abs(band.value - 0.90) < 0.015


def test_the_band_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(30):
        ease = generator.uniform(size=98)
        right = {
            size: tuple(int(np.sum(ease > (0.08 + 2 * size**-0.5) * generator.normal(1, 0.1))) for _ in range(3))
            for size in (25, 50, 100, 200, 400)
        }
        band = curve_of(right).forecast(1600).accuracy
        held += band.low <= 0.87 <= band.high
        # A band that holds everything says nothing.
        assert band.high - band.low < 0.4
    assert held >= 26


def test_the_band_holds_the_points_and_opens_beyond_them(curve: LearningCurve) -> None:
    inside, beyond = curve.forecast(200).accuracy, curve.forecast(1276).accuracy
    assert inside.low < 78 / 98 < inside.high
    assert inside.value < beyond.value
    # Whole bands grow with the size, so that images_needed can search them.
    found = [curve.forecast(n).accuracy for n in range(25, 1276, 50)]
    for end in ("value", "low", "high"):
        assert np.all(np.diff([getattr(one, end) for one in found]) >= 0)
    assert "resampled" in beyond.method


def test_more_test_images_narrow_the_band(curve: LearningCurve) -> None:
    more = curve_of({size: tuple(10 * count for count in counts) for size, counts in RIGHT.items()}, n_test=980)
    few, many = curve.forecast(640).accuracy, more.forecast(640).accuracy
    assert many.high - many.low < 0.8 * (few.high - few.low)


def test_a_forecast_shows_itself(curve: LearningCurve, capsys: pytest.CaptureFixture[str]) -> None:
    found = curve.forecast(638)
    found.show()
    assert "With 638 training images, 2 times the largest size measured: 89." in capsys.readouterr().out
    assert "times" not in curve.forecast(100).sentence
    frame = found.frame()
    assert list(frame.index) == ["pow3", "pow4", "exponential"]
    assert frame["accuracy"].between(0.8, 1).all()


@pytest.mark.parametrize("sizes", [1, 2, 3])
def test_fewer_than_four_sizes_forecast_nothing(sizes: int) -> None:
    curve = curve_of(dict(list(RIGHT.items())[:sizes]))
    for ask in (lambda: curve.forecast(50), lambda: curve.images_needed(0.9), lambda: curve.marginal_value(50)):
        with pytest.raises(ForecastError, match=f"at least 4 sizes, and there are {sizes}"):
            ask()


def test_beyond_four_times_the_largest_size_nothing_is_said(curve: LearningCurve) -> None:
    curve.forecast(4 * 319)
    with pytest.raises(ForecastError, match=r"25 to 1,276 training images .* not of 1,277") as caught:
        curve.forecast(4 * 319 + 1)
    assert caught.value.limit == 1276


@pytest.mark.parametrize("n", [24, 0, -5, math.nan, math.inf])
def test_sizes_below_the_first_and_no_sizes_are_refused(curve: LearningCurve, n: float) -> None:
    with pytest.raises(ForecastError, match="these points tell of 25 to"):
        curve.forecast(n)  # type: ignore[arg-type]


def test_one_seed_only_is_refused() -> None:
    with pytest.raises(ForecastError, match="needs a second seed"):
        curve_of({size: counts[:1] for size, counts in RIGHT.items()}).forecast(400)


def test_a_size_that_misses_seeds_counts_for_less(curve: LearningCurve) -> None:
    some = curve_of({**RIGHT, 319: (85,)})
    few, all_seeds = some.forecast(640).accuracy, curve.forecast(640).accuracy
    assert few.value == pytest.approx(all_seeds.value, abs=0.03)
    assert few.high - few.low > all_seeds.high - all_seeds.low


def test_all_right_everywhere_is_a_flat_curve_with_a_band() -> None:
    curve = curve_of(dict.fromkeys(RIGHT, (98, 98)))
    band = curve.forecast(1276).accuracy
    assert band.value == pytest.approx(1, abs=0.02)
    assert band.high == pytest.approx(1, abs=0.01)
    assert 0.93 < band.low < 0.99
    assert curve.marginal_value(319).per_image.value == pytest.approx(0, abs=1e-4)


def test_nothing_right_anywhere_is_a_fault() -> None:
    with pytest.raises(ForecastError, match="no point has a single test image right"):
        curve_of(dict.fromkeys(RIGHT, (0, 0))).forecast(400)


def test_an_accuracy_that_falls_is_a_flat_curve_and_said_to_bend() -> None:
    falling = curve_of({25: (85, 86, 84), 50: (75, 76, 74), 100: (60, 62, 61), 200: (50, 51, 49)})
    forecast = falling.forecast(400)
    assert forecast.remarks[0].startswith("The points bend in a way that no family does")
    assert 0.4 < forecast.accuracy.value < 0.9
    assert falling.forecast(400).accuracy == forecast.accuracy


def test_images_needed_within_reach_has_a_band(curve: LearningCurve) -> None:
    found = curve.images_needed(0.80)
    assert found.verdict == "within_reach"
    assert found.images is not None
    assert found.low is not None
    assert found.high is not None
    assert 25 < found.low < found.images < found.high < 1276
    for n, end in ((found.images, "value"), (found.low, "high"), (found.high, "low")):
        assert getattr(curve.forecast(n).accuracy, end) >= 0.80
        assert getattr(curve.forecast(n - 1).accuracy, end) < 0.80
    assert found.sentence.startswith("80.0 % takes about")


def test_images_needed_cannot_tell_when_the_target_lies_in_the_band(
    curve: LearningCurve, capsys: pytest.CaptureFixture[str]
) -> None:
    found = curve.images_needed(0.90)
    assert (found.verdict, found.images, found.high) == ("cannot_tell", None, None)
    assert found.at_limit.low < 0.90 <= found.at_limit.high
    found.show()
    said = capsys.readouterr().out
    assert "Cannot tell how many images 90.0 % takes: at 1,276 images" in said


def test_images_needed_out_of_reach(curve: LearningCurve) -> None:
    found = curve.images_needed(0.999)
    assert (found.verdict, found.images, found.low) == ("out_of_reach", None, None)
    assert "not to be expected up to 1,276 images" in found.sentence


def test_a_target_that_the_first_size_reaches_takes_no_more(curve: LearningCurve) -> None:
    found = curve.images_needed(0.2)
    assert (found.verdict, found.low, found.images, found.high) == ("within_reach", 25, 25, 25)
    assert found.sentence == "20.0 % takes 25 training images or fewer [25, 25]."


@pytest.mark.parametrize("target", [math.nan, 0.0, -0.1, 1.1, 90])
def test_a_target_that_is_no_accuracy_is_refused(curve: LearningCurve, target: float) -> None:
    with pytest.raises(ForecastError, match="accuracy between 0 and 1"):
        curve.images_needed(target)


def test_one_more_image_is_worth_the_slope(curve: LearningCurve) -> None:
    value = curve.marginal_value(319)
    rise = curve.forecast(369).accuracy.value - curve.forecast(269).accuracy.value
    assert 100 * value.per_image.value == pytest.approx(rise, rel=0.4)
    assert 0 <= value.per_image.low < value.per_image.value < value.per_image.high
    assert value.usd_per_image == pytest.approx(0.003)
    assert value.per_dollar is not None
    assert value.per_dollar.value == pytest.approx(value.per_image.value / 0.003)
    assert curve.marginal_value(1000).per_image.value < value.per_image.value


def test_a_label_costs_beside_the_training(curve: LearningCurve) -> None:
    assert curve.marginal_value(319, label_usd=0.1).usd_per_image == pytest.approx(0.103)
    unpriced = curve_of(RIGHT)
    assert unpriced.marginal_value(319).per_dollar is None
    assert "not known" in unpriced.marginal_value(319).sentence
    assert unpriced.marginal_value(319, label_usd=0.1).usd_per_image == pytest.approx(0.1)
    for bad in (math.nan, -1.0):
        with pytest.raises(ForecastError, match="an amount of dollars"):
            unpriced.marginal_value(319, label_usd=bad)


def test_points_of_different_test_sets_are_refused() -> None:
    points = [CurvePoint.of_answers([True, False], size=25, seed=seed, test_set=f"set {seed}") for seed in (0, 1)]
    with pytest.raises(
        EvaluationError, match=r"25 images, seed 1 was measured on another test set \(2 images, set 1\)"
    ):
        LearningCurve(points=tuple(points), classes=("a", "b"), chance=0.5)
    longer = CurvePoint(size=50, seed=0, right=1, n_test=3, test_set="set 0")
    with pytest.raises(EvaluationError, match="another test set"):
        LearningCurve(points=(points[0], longer), classes=("a", "b"), chance=0.5)


def test_no_points_and_the_same_point_twice_are_refused() -> None:
    with pytest.raises(EvaluationError, match="needs points"):
        LearningCurve(points=(), classes=("a", "b"), chance=0.5)
    point = CurvePoint(size=25, seed=0, right=1, n_test=2)
    with pytest.raises(EvaluationError, match="there twice"):
        LearningCurve(points=(point, point), classes=("a", "b"), chance=0.5)


def test_knowing_the_images_and_not_knowing_them_agree_in_the_middle() -> None:
    generator = np.random.default_rng(0)
    points = []
    for size, counts in RIGHT.items():
        for seed, right in enumerate(counts):
            answers = np.arange(98) < right
            generator.shuffle(answers)
            points.append(CurvePoint.of_answers(answers, size=size, seed=seed))
    known = LearningCurve(points=tuple(points), classes=("a", "b", "c"), chance=1 / 3).forecast(640).accuracy
    unknown = curve_of(RIGHT).forecast(640).accuracy
    assert known.value == pytest.approx(unknown.value, abs=0.02)
    # Models that err on different images share no luck, so that less is uncertain.
    assert known.high - known.low < unknown.high - unknown.low


def test_show_has_a_row_for_each_size_and_the_forecasts(
    curve: LearningCurve, capsys: pytest.CaptureFixture[str]
) -> None:
    curve.show()
    said = " ".join(capsys.readouterr().out.split())
    assert "53.1 % [43.3, 62.6]" in said
    assert "50.0 to 56.1" in said
    assert "100.0 % (n=25) │ +46.9 [" in said
    assert "From 25 to 319 images, a doubling brought +9.2 points [" in said
    assert "With 1,276 training images, 4 times the largest size measured" in said


def test_sizes_that_are_nearly_equal_and_single_seeds_have_no_growth(capsys: pytest.CaptureFixture[str]) -> None:
    close = curve_of({100: (50, 51), 110: (52, 53), 200: (60, 61)})
    assert growth_of(close, 100) is None
    assert growth_of(close, 110) is None
    assert growth_of(close, 200) == close.growth(110, 200)
    close.until(110).show()
    assert "a doubling brought" not in capsys.readouterr().out
    single = curve_of({100: (50,), 200: (52,)})
    single.show()
    said = " ".join(capsys.readouterr().out.split())
    assert "No forecast: growth needs a second seed" in said


def test_show_says_why_there_is_no_forecast(capsys: pytest.CaptureFixture[str]) -> None:
    curve_of({25: (50, 51)}).show()
    assert "No forecast: a forecast needs at least 4 sizes" in capsys.readouterr().out


def test_the_frame_has_a_row_for_each_point(curve: LearningCurve) -> None:
    frame = curve.frame()
    assert len(frame) == 15
    assert frame["size"].is_monotonic_increasing
    assert frame.loc[0, "gap"] == pytest.approx(1 - 52 / 98)


def test_the_mean_over_seeds_has_the_interval_of_the_test_images(curve: LearningCurve) -> None:
    assert curve.accuracy_at(25).value == pytest.approx(52 / 98)
    assert curve.accuracy_at(25).n == curve.n_test == 98
    with pytest.raises(EvaluationError, match="nothing was trained on 26 images"):
        curve.accuracy_at(26)


def test_the_figure_has_the_band_chance_and_the_opponent(curve: LearningCurve) -> None:
    figure = curve.plot(against={"Gemini $3": wilson(81, 98)})
    assert isinstance(figure, Figure)
    words = figure_to_svg(figure)
    for text in ("n = 98 test images", "forecast with 95 % band", "chance, 33.3 %", "Gemini $3, 82.7 %", "1,276"):
        assert text in words
    assert "forecast" not in figure_to_svg(curve_of({25: (50, 51)}).plot())


def test_a_saved_curve_comes_back(curve: LearningCurve, tmp_path: Path) -> None:
    again = LearningCurve.load(curve.save(tmp_path / "curve.json"))
    assert again == curve
    assert again.forecast(640) == curve.forecast(640)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"kind": "cost model"}', '{"kind": "learning curve"}', '{"kind": "learning curve", "po']
)
def test_what_is_no_saved_curve_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "curve.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StorageError):
        LearningCurve.load(path)


def test_a_saved_curve_of_two_test_sets_is_refused(curve: LearningCurve, tmp_path: Path) -> None:
    path = curve.save(tmp_path / "curve.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"n_test": 98', '"n_test": 97', 1), encoding="utf-8")
    with pytest.raises(StorageError, match="another test set"):
        LearningCurve.load(path)
