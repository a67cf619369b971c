"""What leakage is worth: known differences, known intervals, and silence where there is too little to tell."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Evaluation
from vlm_tune.evaluation.inflation import leakage_inflation

CLASSES = ("crack", "dent")


def evaluation(name: str, right: dict[str, int], *, n: int = 100, failed: int = 0) -> Evaluation:
    """`l*` and `c*` are leaked and clean photos; the first so many of each are answered right."""
    truth = {f"{kind}{at}": "dent" for kind in "lc" for at in range(n)}
    answers = {key: "dent" if int(key[1:]) < right[key[0]] else "crack" for key in truth}
    answers = {key: answer for key, answer in answers.items() if int(key[1:]) < n - failed}
    return Evaluation.from_answers(name, truth=truth, answers=answers, classes=CLASSES)


LEAKED = [f"l{at}" for at in range(100)]


def test_the_gap_of_one_model_has_newcombes_interval() -> None:
    gap = leakage_inflation(evaluation("tuned", {"l": 98, "c": 80}), LEAKED).tuned
    low, high = confint_proportions_2indep(98, 100, 80, 100, method="newcomb", compare="diff")
    assert gap.difference.value == pytest.approx(0.18)
    assert (gap.difference.low, gap.difference.high) == pytest.approx((low, high), abs=1e-6)
    assert (gap.leaked.n, gap.clean.n) == (100, 100)


def test_leakage_is_what_the_outside_model_does_not_share() -> None:
    tuned, outside = evaluation("tuned", {"l": 98, "c": 80}), evaluation("api", {"l": 85, "c": 82})
    found = leakage_inflation(tuned, LEAKED, reference=outside)
    assert found.inflation is not None
    assert found.inflation.value == pytest.approx(0.18 - 0.03)
    assert found.inflation.low > 0
    assert found.inflation.method == "MOVER of Tango score 95%"
    assert found.sentence.startswith("tuned scores +18.0 points [")
    assert "Leakage is worth +15.0 points" in found.sentence
    same = leakage_inflation(tuned, LEAKED, reference=tuned)
    assert same.inflation is not None
    assert same.inflation.value == 0
    assert "which is not established" in same.sentence


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(150):
        truth = {f"{kind}{at}": "dent" for kind, size in (("l", 20), ("c", 60)) for at in range(size)}
        hard = {key: rng.random() < 0.3 for key in truth}

        def ask(known: float, truth: dict[str, str] = truth, hard: dict[str, bool] = hard) -> Evaluation:
            chance = {"l": known, "c": 0.0}
            right = {key: not hard[key] or rng.random() < chance[key[0]] for key in truth}
            answers = {key: "dent" if right[key] != (rng.random() < 0.1) else "crack" for key in truth}
            return Evaluation.from_answers("m", truth=truth, answers=answers, classes=CLASSES)

        found = leakage_inflation(ask(0.8), [key for key in truth if key[0] == "l"], reference=ask(0.0)).inflation
        assert found is not None
        # Of the hard 30 % the tuned model knows 80 % by heart; each answer flips with probability 0.1.
        hits += found.low <= 0.3 * 0.8 * 0.8 <= found.high
    assert 135 <= hits <= 150


def test_too_few_photos_tell_nothing_and_it_says_so() -> None:
    tuned, outside = evaluation("tuned", {"l": 98, "c": 80}), evaluation("api", {"l": 85, "c": 82})
    found = leakage_inflation(tuned, LEAKED[:4], reference=outside)
    assert found.inflation is None
    assert not found.enough
    assert found.sentence == "Not enough leaked photos to tell: 4, and at least 10 are needed."


def test_failed_photos_are_left_out() -> None:
    found = leakage_inflation(evaluation("tuned", {"l": 98, "c": 80}, failed=5), LEAKED)
    assert (found.tuned.leaked.n, found.tuned.clean.n) == (95, 95)


def test_a_resolved_test_split_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"answered no leaked photo; evaluate on the test split as it was before"):
        leakage_inflation(evaluation("tuned", {"l": 98, "c": 80}), ["elsewhere"])
    with pytest.raises(EvaluationError, match="answered no clean photo"):
        leakage_inflation(evaluation("tuned", {"l": 98, "c": 80}), [*LEAKED, *(f"c{at}" for at in range(100))])


def test_it_shows_and_frames_both_models(capsys: pytest.CaptureFixture[str]) -> None:
    tuned, outside = evaluation("tuned[/]", {"l": 98, "c": 80}), evaluation("api", {"l": 85, "c": 82})
    found = leakage_inflation(tuned, LEAKED, reference=outside)
    found.show()
    said = " ".join(capsys.readouterr().out.split())
    assert "tuned[/]" in said
    assert "+18.0 points" in said
    frame = found.frame()
    assert list(frame.index) == ["tuned[/]", "api"]
    assert frame.loc["api", "difference"] == pytest.approx(0.03)
