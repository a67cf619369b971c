"""Planning a test set."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import power
from vlm_tune.statistics import mcnemar_power, sample_size_for_power


def test_the_published_experiment_was_too_small() -> None:
    plan = power(98, difference=6 / 98, discordance=14 / 98)
    assert plan.power == mcnemar_power(98, difference=6 / 98, discordance=14 / 98)
    assert plan.images_needed == sample_size_for_power(difference=6 / 98, discordance=14 / 98)
    assert plan.detectable == pytest.approx(0.11, abs=0.005)
    assert plan.sentence == (
        "98 test images establish a difference of 6.12 points with probability 27%, if the two disagree on 14% of "
        f"them. For 80% it takes {plan.images_needed}."
    )


def test_no_number_shows_a_difference_of_nothing() -> None:
    plan = power(98, difference=0.0, discordance=0.2)
    assert plan.images_needed is None
    assert plan.sentence.endswith("No number of images is enough.")


def test_power_rises_with_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    plan = power(98, difference=0.1, discordance=0.2)
    values = list(plan.frame([50, 100, 200, 400])["power"])
    assert values == sorted(values)
    plan.show()
    assert "For 80% it takes" in " ".join(capsys.readouterr().out.split())
    assert isinstance(plan.plot(), Figure)


@pytest.mark.parametrize(
    ("n", "options"),
    [
        (98, {"difference": 0.3, "discordance": 0.2}),
        (0, {"difference": 0.1, "discordance": 0.2}),
        (98, {"difference": 0.1, "discordance": 0.2, "goal": 1.0}),
        (98, {"difference": 0.1, "discordance": 0.2, "alpha": 0.0}),
    ],
)
def test_impossible_plans_are_refused(n: int, options: dict[str, float]) -> None:
    with pytest.raises(EvaluationError):
        power(n, **options)
