"""Two runs of one system."""

from __future__ import annotations

import pytest

from tests.evaluation.scored import scored
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Comparison, Evaluation, run_noise
from vlm_tune.statistics import tango, wilson

TRUTH = {f"{at}": "dent" for at in range(98)}


def run(answers: dict[str, str], name: str = "Gemini") -> Evaluation:
    answered = {example_id: label for example_id, label in (TRUTH | answers).items() if label != "missing"}
    return Evaluation.from_answers(name, truth=TRUTH, answers=answered, classes=["crack", "dent", "scratch"])


def test_flips_are_counted_whether_they_matter_or_not() -> None:
    first = run({"1": "crack", "2": "crack", "3": "missing"})
    second = run({"1": "scratch", "2": "dent", "4": "crack", "5": "crack"})
    found = run_noise(first, second)
    assert found.flipped == wilson(4, 97)
    assert found.verdicts_flipped == wilson(3, 97)
    assert found.difference == tango(1, 2, 97)
    assert found.n_missing == 1
    assert found.sentence == (
        "Two runs of Gemini gave another answer on 4.1 % [1.6, 10.1] of 97 examples, and the second one's accuracy "
        "less the first one's is -1.0 points [-6.3, +3.8]."
    )
    assert list(found.frame()["n"]) == [97, 97, 97]


def test_no_flip_is_not_no_noise(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_noise(run({}), run({}))
    assert found.sentence == "Two runs of Gemini gave the same answer on all 98 examples; at most 3.8 % would change."
    found.show()
    assert "another answer" in capsys.readouterr().out


def test_it_stands_beside_the_difference(capsys: pytest.CaptureFixture[str]) -> None:
    reference = run({"1": "crack"})
    comparison = Comparison(candidate=run({}, "tuned"), reference=reference, repeat=run({"2": "crack"}))
    assert comparison.noise == run_noise(reference, run({"2": "crack"}))
    comparison.show()
    assert "Two runs of Gemini" in " ".join(capsys.readouterr().out.split())


def test_other_systems_are_no_second_run() -> None:
    with pytest.raises(EvaluationError, match="not two runs of one system"):
        run_noise(run({}), run({}, "tuned"))
    with pytest.raises(EvaluationError, match="not two runs of one system"):
        run_noise(scored("a"), scored("b"))
    with pytest.raises(EvaluationError, match="no second run of tuned and Gemini"):
        Comparison(candidate=run({}, "tuned"), reference=run({}), repeat=run({}, "other"))
    with pytest.raises(EvaluationError, match="no answered example in common"):
        run_noise(run(dict.fromkeys(TRUTH, "missing")), run({}))
