"""Calibration of an evaluation, beside what a calibrated model would show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.evaluation.scored import many_labels, scored
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Calibration, Temperature
from vlm_tune.evaluation.probabilities import probabilities
from vlm_tune.statistics import brier, calibration_error


@pytest.fixture(scope="module")
def sharp() -> Calibration:
    return Calibration(scored("tuned", 400, skill=2, sharp=4))


def test_the_numbers_are_those_of_the_statistics(sharp: Calibration) -> None:
    found = probabilities(sharp.evaluation)
    assert sharp.error == calibration_error(found.confidence, found.right)
    assert sharp.brier.value == pytest.approx(brier(found.classes, found.truth).mean())
    assert sharp.expected_brier == pytest.approx(np.mean(1 - (found.classes**2).sum(axis=1)))
    assert sharp.p_value < 1e-6
    assert sharp.n_without == 0


def test_too_sure_and_not_sure_enough_are_told(sharp: Calibration) -> None:
    assert sharp.sentence.endswith("it is too sure of itself.")
    shy = Calibration(scored("tuned", 400, skill=3, sharp=0.2))
    assert shy.sentence.endswith("it is not sure enough of itself.")
    assert "a perfectly calibrated model would show" in shy.sentence


def test_a_temperature_of_other_photos_helps(sharp: Calibration) -> None:
    fitted = Temperature.fit(scored("tuned", 600, skill=2, sharp=4, seed=7, photos="validation"))
    tempered = Calibration(sharp.evaluation, temperature=fitted)
    assert fitted.value.low > 1.5
    assert tempered.error.value < sharp.error.value / 2
    assert tempered.brier.value < sharp.brier.value
    # The answers are the same.
    assert tempered.to_dict()["error"]["n"] == sharp.error.n
    with pytest.raises(EvaluationError, match="fitted on these very photos"):
        Calibration(sharp.evaluation, temperature=Temperature.fit(sharp.evaluation))


def test_several_classes_are_decisions_of_their_own() -> None:
    found = Calibration(many_labels("tuned", 100))
    assert found.error.n == 300
    assert found.brier.n == 100
    assert found.brier.high < 3


def test_groups_widen_the_brier_score() -> None:
    one, other = (Calibration(scored("tuned", twins=twins)).brier for twins in (False, True))
    assert other.value == one.value
    assert other.method != one.method


def test_it_shows_and_draws_itself(sharp: Calibration, capsys: pytest.CaptureFixture[str]) -> None:
    sharp.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "90% to 100%" in shown
    assert "Brier score" in shown
    assert sharp.frame()["n"].sum() == 400
    assert isinstance(sharp.plot(), Figure)
    json.dumps(sharp.to_dict(), allow_nan=False)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(EvaluationError, match="gave no probabilities"):
        Calibration(scored("Gemini", with_scores=False))
    with pytest.raises(EvaluationError, match="bins must be"):
        Calibration(scored("tuned"), bins=0)
