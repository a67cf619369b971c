"""A temperature fitted to an evaluation."""

from __future__ import annotations

import pytest

from tests.evaluation.scored import many_labels, scored
from vlm_tune.evaluation import Temperature
from vlm_tune.evaluation.probabilities import probabilities
from vlm_tune.statistics import fit_temperature


def test_it_is_that_of_the_statistics() -> None:
    evaluation = scored("tuned", sharp=3, photos="validation")
    found = probabilities(evaluation)
    fitted = Temperature.fit(evaluation)
    assert fitted.value == fit_temperature(found.log_scores, found.truth.argmax(axis=1))
    assert (fitted.fitted_on, fitted.system) == ("validation", "tuned")
    assert str(fitted).startswith(f"T = {fitted.value.value:.3g} [")
    assert Temperature.model_validate_json(fitted.model_dump_json()) == fitted


def test_sharper_by_three_is_hotter_by_three() -> None:
    plain, sharp = (Temperature.fit(scored("tuned", sharp=sharp)).value for sharp in (1.0, 3.0))
    assert sharp.value == pytest.approx(3 * plain.value)
    assert sharp.low == pytest.approx(3 * plain.low)


def test_twins_make_it_less_sure() -> None:
    plain, paired = (Temperature.fit(scored("tuned", twins=twins)).value for twins in (False, True))
    assert paired.value == plain.value
    assert paired.method.endswith("clustered by group")


def test_the_classes_of_one_photo_belong_together() -> None:
    fitted = Temperature.fit(many_labels("tuned", 100))
    assert fitted.value.n == 300
    assert fitted.value.method.endswith("clustered by group")
