"""The learning curve's section: figure, table and sentences, with the scoreboard's systems as lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_tune.evaluation import Evaluation
from vlm_tune.experiments import CurvePoint, FailedPoint, LearningCurve
from vlm_tune.records import Money
from vlm_tune.report import Report
from vlm_tune.statistics import wilson

Three = tuple[Evaluation, Evaluation, Evaluation]


def curve_of(damage: Three) -> LearningCurve:
    """Points that were asked about the photos of the three systems."""
    rival = damage[1]
    points = []
    for size, right in {25: 52, 50: 62, 100: 70, 200: 78, 319: 86}.items():
        for seed in (0, 1):
            said = {key: truth if at < right + seed else "no" for at, (key, truth) in enumerate(rival.truths.items())}
            answers = Evaluation.from_answers("tuned", truth=rival.truths, answers=said, classes=rival.classes)
            cost, trained = Money(usd=0.004 * size, basis="rent"), wilson(size, size)
            points.append(CurvePoint.of(answers, size=size, seed=seed, train_accuracy=trained, cost=cost, seconds=90))
    failed = (FailedPoint(size=319, seed=2, error="cuda:0 ran out of <memory>"),)
    return LearningCurve(points=points, classes=rival.classes, chance=1 / 3, name="Qwen3-VL-8B", failed=failed)


def test_the_section_has_the_figure_the_table_and_the_forecast(
    damage: Three, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    curve = curve_of(damage)
    page = read(Report(damage, sections=[curve]).save(tmp_path / "report.html"))
    for words in (
        "How much data is enough",
        "10 trainings on growing parts of the training photos, each asked about the same 98 test photos",
        "Qwen3-VL-8B by number of training images: n = 98 test images",
        "rival, 82.7 % [74.0, 88.9]",
        "forecast with 95 % band",
        "Missing: 319 images, seed 2: failed: cuda:0 ran out of <memory>.",
        "From 25 to 319 images, a doubling brought +9.4 points",
        curve.forecast(638).sentence,
        curve.marginal_value(319).sentence,
        "88.3 % [80.4, 93.2]100.0 %+11.7 [+6.6, +19.6]",
        "1 min 30 s$1.28",
        f"As often right as rival: {curve.images_needed(81 / 98).sentence}",
    ):
        assert words in page.words, words
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["learning_curve"]
    assert len(data["points"]) == 10
    assert [one["n"] for one in data["forecasts"]] == [638, 1276]
    assert "rightness" not in data["points"][0]


def test_systems_on_other_photos_are_no_lines(damage: Three, tmp_path: Path, read: Callable[[Path], Any]) -> None:
    truth = dict(list(damage[1].truths.items())[:50])
    other = Evaluation.from_answers("elsewhere", truth=truth, answers=truth, classes=damage[1].classes)
    page = read(Report([other], sections=[curve_of(damage)]).save(tmp_path / "report.html"))
    assert "elsewhere, 100" not in page.words
    assert "How much data is enough" in page.words


def test_a_curve_without_a_forecast_says_why(damage: Three, tmp_path: Path, read: Callable[[Path], Any]) -> None:
    page = read(Report(damage, sections=[curve_of(damage).until(50)]).save(tmp_path / "report.html"))
    assert "No forecast: a forecast needs at least 4 sizes" in page.words
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["learning_curve"]
    assert data["forecasts"] == []
    assert data["no_forecast"].startswith("a forecast needs at least 4 sizes")
