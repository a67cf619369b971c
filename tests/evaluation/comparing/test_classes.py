"""Class by class: counted by hand, corrected by Holm, and with several classes a photo."""

from __future__ import annotations

import pytest

from tests.evaluation.scored import many_labels, scored
from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.statistics import mcnemar_exact


def test_each_class_has_its_own_wins_and_losses() -> None:
    truth = {f"{at}": ("crack", "dent")[at % 2] for at in range(40)}
    classes = ["crack", "dent", "never"]
    wrong = {"0": "dent", "2": "never", "4": "dent", "1": "crack"}
    tuned = Evaluation.from_answers("tuned", truth=truth, answers=truth, classes=classes)
    base = Evaluation.from_answers("base", truth=truth, answers=truth | wrong, classes=classes)
    crack, dent = Comparison(candidate=tuned, reference=base).class_deltas
    assert (crack.label, crack.counts.wins, crack.counts.losses, crack.counts.n) == ("crack", 3, 0, 20)
    assert (dent.label, dent.counts.wins, dent.counts.n) == ("dent", 1, 20)
    assert crack.counts.p_value == mcnemar_exact(3, 0)
    assert crack.adjusted_p == min(1.0, 2 * crack.counts.p_value)
    assert crack.verdict == "not_established"


def test_the_wins_of_all_classes_are_the_wins() -> None:
    comparison = Comparison(candidate=scored("tuned", seed=1), reference=scored("base", skill=0.5, seed=2))
    deltas = comparison.class_deltas
    assert sum(delta.counts.wins for delta in deltas) == comparison.wins
    assert sum(delta.counts.n for delta in deltas) == comparison.n
    assert all(delta.verdict == "better" for delta in deltas if delta.adjusted_p < 0.05)
    assert [delta.adjusted_p for delta in deltas] >= [delta.counts.p_value for delta in deltas]


def test_of_several_classes_each_photo_decides_about_each() -> None:
    tuned, base = many_labels("tuned", flips=0.02, seed=1), many_labels("base", flips=0.3, seed=2)
    deltas = Comparison(candidate=tuned, reference=base).class_deltas
    assert [delta.counts.n for delta in deltas] == [120, 120, 120]
    counts = tuned.class_counts()[0]
    assert deltas[0].counts.candidate.value == pytest.approx((counts[0, 0] + counts[1, 1]) / 120)
    assert all(delta.verdict == "better" for delta in deltas)


def test_words_that_are_no_class_are_right_about_none() -> None:
    truth = {"1": ["crack"], "2": []}
    named = {"classes": ["crack", "dent"], "multi_label": True}
    sure = Evaluation.from_answers("sure", truth=truth, answers={"1": ["crack"], "2": []}, **named)
    lost = Evaluation.from_answers("lost", truth=truth, answers={"1": "well", "2": "hm"}, **named)
    (crack,) = Comparison(candidate=sure, reference=lost).class_deltas
    assert (crack.counts.wins, crack.counts.losses) == (2, 0)


def test_groups_go_with_each_class() -> None:
    comparison = Comparison(candidate=scored("a", seed=1, twins=True), reference=scored("b", seed=2, twins=True))
    assert comparison.clustered
    methods = {delta.counts.difference.method for delta in comparison.class_deltas}
    assert methods == {"Tango score 95%, clustered by group"}
