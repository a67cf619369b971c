"""Sections about several systems, probabilities, thresholds and cascades; and what stands beside a head-to-head."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_tune.cost import Cost
from vlm_tune.data import Dataset
from vlm_tune.evaluation import (
    Calibration,
    Cascade,
    Comparison,
    ComparisonMatrix,
    Evaluation,
    Evaluator,
    RiskCoverage,
)
from vlm_tune.records import Example, Prediction
from vlm_tune.report import Report
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

Read = Callable[[Path], Any]
Three = tuple[Evaluation, Evaluation, Evaluation]
Sure = tuple[Evaluation, Evaluation]

CLASSES = ("crack", "dent")


@pytest.fixture(scope="module")
def sure() -> Sure:
    """On 80 photos in 40 groups: one that is wrong when unsure, and one that is often wrong and very sure."""
    task = Task(prompt="Which damage?", classes=CLASSES)
    examples = [Example(id=f"{n:02}.jpg", image=b"%d" % n, label=CLASSES[n % 2], group=f"g{n // 2}") for n in range(80)]
    data = Dataset(examples, task=task)

    def answering(name: str, wrong: int, price: float) -> Evaluation:
        def say(one: Example) -> Prediction:
            number = int(one.id[:2])
            missed = number % wrong == 0
            label = CLASSES[1 - CLASSES.index(one.label)] if missed else one.label
            share = 0.6 if missed else 0.8 + number % 20 / 100
            scores = {known: math.log(share if known == label else 1 - share) for known in CLASSES}
            latency = price * (1 + number / 100)
            return Prediction(
                example_id=one.id, outcome="answered", label=label, scores=scores, latency_s=latency, cost_usd=latency
            )

        return Evaluator(data).run(ScriptedPredictor(say, name=name))

    return answering("tuned", 10, 0.1), answering("rival", 4, 0.5)


def saved(report: Report, folder: Path, read: Read) -> tuple[Any, dict[str, Any]]:
    return read(report.save(folder / "report.html")), json.loads((folder / "report.json").read_text())


def test_a_matrix_shows_every_pair_from_both_sides(damage: Three, tmp_path: Path, read: Read) -> None:
    matrix = ComparisonMatrix(damage)
    page, data = saved(Report(damage, sections=[matrix]), tmp_path, read)
    assert matrix.sentence in page.words
    assert "-34.7 worse, p < 0.001" in page.words
    assert "+34.7 better, p < 0.001" in page.words
    assert data["matrix"] == json.loads(json.dumps(matrix.to_dict()))


def test_three_systems_are_compared_each_with_each_unasked(damage: Three, tmp_path: Path, read: Read) -> None:
    _, rival, tuned = damage
    verdict = Comparison(candidate=tuned, reference=rival)
    report = Report(damage, sections=[verdict])
    page, data = saved(report, tmp_path, read)
    assert data["matrix"] == json.loads(json.dumps(ComparisonMatrix(damage).to_dict()))
    order = [page.words.index(words) for words in (report.answer, verdict.sentence, ComparisonMatrix(damage).sentence)]
    assert order == sorted(order)
    # One that was given, with a margin of its own, takes the place of ours.
    given = ComparisonMatrix((tuned, rival), margin=0.1)
    assert Report(damage, sections=[given]).matrix is given
    page, data = saved(Report(damage, sections=[given]), tmp_path, read)
    assert data["matrix"]["margin"] == 0.1
    assert page.words.count("Cochran's Q") == saved(Report(damage), tmp_path, read)[0].words.count("Cochran's Q")


def test_there_is_no_matrix_where_systems_cannot_be_compared(damage: Three) -> None:
    base, rival, tuned = damage
    other = Evaluation.from_answers("other", truth={"1": "dent"}, answers={"1": "dent"}, classes=("crack", "dent"))
    assert Report([base, rival]).matrix is None
    assert Report([base, rival, other]).matrix is None
    assert Report([base, tuned, tuned]).matrix is None


def test_calibration_stands_beside_what_is_perfect(sure: Sure, tmp_path: Path, read: Read) -> None:
    tuned, rival = sure
    results = [Calibration(tuned), Calibration(rival)]
    page, data = saved(Report(sure, sections=results), tmp_path, read)
    for result in results:
        assert result.sentence in page.words
        assert f"{result.error.expected:.3f}, 95 % below {result.error.high:.3f}" in page.words
    assert "Is tuned right as often as it says?" in page.words
    assert "60 % to 70 %" in page.words
    assert data["calibration"]["name"] == "tuned"
    assert data["calibration_2"]["name"] == "rival"


def test_a_drawing_about_one_system_has_its_colour(sure: Sure, tmp_path: Path) -> None:
    text = Report(sure, sections=[Calibration(sure[1])]).save(tmp_path / "report.html").read_text()
    colour = text.partition(".c1 { --c: ")[2][:7]
    assert f'stroke="{colour}"' in text
    assert text.partition(".c0 { --c: ")[2][:7] != colour


def test_what_is_decided_alone_has_thresholds(sure: Sure, tmp_path: Path, read: Read) -> None:
    found = RiskCoverage(sure[0])
    page, data = saved(Report(sure, sections=[found]), tmp_path, read)
    assert "What tuned can decide alone" in page.words
    for one, wanted in zip(data["risk_coverage"]["thresholds"], (0.9, 0.95, 0.99), strict=True):
        assert one["accuracy"] == wanted
        assert found.threshold_for(accuracy=wanted).sentence in page.words
    assert data["risk_coverage"]["surest"][-1]["alone"] == 1.0


def test_a_cascade_says_what_it_asks_and_costs(sure: Sure, tmp_path: Path, read: Read) -> None:
    tuned, rival = sure
    costs = {"first_cost": Cost.exact(0.001, basis="ours"), "second_cost": Cost.exact(0.01, basis="theirs")}
    threshold = RiskCoverage(tuned).threshold_for(accuracy=0.9, level=None)
    cascade = Cascade(first=tuned, second=rival, threshold=threshold, **costs)
    page, data = saved(Report(sure, sections=[cascade]), tmp_path, read)
    for words in (cascade.sentence, threshold.sentence, cascade.asked.percent(), cascade.evaluation.headline):
        assert words in page.words
    assert str(cascade.cost and cascade.cost.times(1000)) in page.words
    assert data["cascade"]["sentence"] == cascade.sentence


def test_beside_a_head_to_head_stands_what_else_was_measured(sure: Sure, tmp_path: Path, read: Read) -> None:
    tuned, rival = sure
    comparison = Comparison(candidate=tuned, reference=rival, repeat=tuned)
    page, _ = saved(Report(sure, sections=[comparison]), tmp_path, read)
    brier, speed = comparison.brier_difference, comparison.speed_ratio
    assert brier
    assert speed
    independent = round(comparison.n / comparison.counts.design_effect)
    for words in (
        "Exact McNemar test, by group",
        f"they say as much as {independent} independent ones",
        f"{brier.value:+.3f} [{brier.low:+.3f}, {brier.high:+.3f}]",
        f"{speed.value:.3g} [{speed.low:.3g}, {speed.high:.3g}] times as fast",
        f"{comparison.cost_ratio().value:.3g} [",
        "times as dear",
        "Two runs of tunedanother answer on 0.0 % [",
    ):
        assert words in page.words, words


def test_classes_are_compared_with_holm(damage: Three, tmp_path: Path, read: Read) -> None:
    base, rival, tuned = damage
    comparison = Comparison(candidate=tuned, reference=base)
    page, data = saved(Report(damage, sections=[comparison]), tmp_path, read)
    assert "Class by class, where they differ" in page.words
    assert "Holm's correction for 3 classes" in page.words
    for delta in comparison.class_deltas:
        assert delta.counts.difference.points().replace(" points", "") in page.words
    assert [one["label"] for one in data["comparisons"][0]["class_deltas"]] == ["crack", "dent", "scratch"]
    same, _ = saved(Report([rival], sections=[Comparison(candidate=rival, reference=rival)]), tmp_path, read)
    assert "Class by class" not in same.words
