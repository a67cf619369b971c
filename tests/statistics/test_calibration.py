"""Brier score, calibration error, Spiegelhalter's test and temperature against scikit-learn, statsmodels and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import kstest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from statsmodels.discrete.discrete_model import Logit

from vlm_tune.statistics import brier, calibration_error, fit_temperature, spiegelhalter_z


def draw(n: int, *, heat: float = 1.0, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return log-probabilities of three classes, and the truth drawn from them at a temperature."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((n, 3))
    p = np.exp(log_softmax(logits / heat, axis=1))
    truth = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return log_softmax(logits, axis=1), truth.clip(0, 2)


def test_brier_is_that_of_scikit_learn() -> None:
    log, truth = draw(50)
    p, one_hot = np.exp(log), np.eye(3)[truth]
    theirs = brier_score_loss(truth, p, labels=[0, 1, 2], scale_by_half=False)
    assert brier(p, one_hot).mean() == pytest.approx(theirs)
    binary = brier(np.stack([1 - p[:, 0], p[:, 0]], axis=1), np.stack([truth != 0, truth == 0], axis=1))
    assert binary.mean() == pytest.approx(2 * brier_score_loss(truth == 0, p[:, 0]))


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    log, truth = draw(400)
    sure, right = np.exp(log).max(axis=1), log.argmax(axis=1) == truth
    found = calibration_error(sure, right)
    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    assert [one.confidence for one in found.bins] == pytest.approx(list(confidence))
    assert [one.right / one.n for one in found.bins] == pytest.approx(list(accuracy))
    weights = [one.n for one in found.bins]
    assert found.value == pytest.approx(np.average(np.abs(accuracy - confidence), weights=weights))
    assert sum(weights) == found.n == 400


def test_a_perfect_model_shows_the_published_error_at_98() -> None:
    """Five hundredths on average at n = 98 with ten bins, for confidences as one meets them."""
    sure = np.random.default_rng(0).uniform(0.35, 1.0, 98)
    found = calibration_error(sure, [True] * 98)
    assert 0.045 < found.expected < 0.09
    assert found.expected < found.high < 0.15
    assert found.p_value < 0.01


def test_the_null_is_binomial_in_each_bin() -> None:
    found = calibration_error([0.8] * 100, [1] * 80 + [0] * 20)
    gap = np.abs(np.random.default_rng(5).binomial(100, 0.8, 20_000) / 100 - 0.8)
    assert found.expected == pytest.approx(gap.mean(), abs=0.003)
    assert found.high == pytest.approx(np.quantile(gap, 0.95), abs=0.011)
    assert found.bins[0].band == pytest.approx((0.72, 0.87), abs=0.015)
    assert found.p_value == 1


def test_spiegelhalters_z_is_standard_normal_for_a_calibrated_model() -> None:
    values = []
    for seed in range(300):
        log, truth = draw(100, seed=seed)
        values.append(spiegelhalter_z(np.exp(log), np.eye(3)[truth])[1])
    assert kstest(values, "norm").pvalue > 0.01
    log, truth = draw(300, heat=2.0)
    assert spiegelhalter_z(np.exp(log), np.eye(3)[truth])[1] > 5


def test_spiegelhalters_z_of_two_classes_is_the_published_one() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, 60)
    y = rng.random(60) < p
    published = np.sum((y - p) * (1 - 2 * p)) / math.sqrt(np.sum((1 - 2 * p) ** 2 * p * (1 - p)))
    both = np.stack([1 - p, p], axis=1), np.stack([~y, y], axis=1)
    assert spiegelhalter_z(*both)[1] == pytest.approx(published)
    assert spiegelhalter_z(p[:, None], y[:, None], exclusive=False)[1] == pytest.approx(published)
    assert spiegelhalter_z([[1.0, 0.0]], [[1, 0]])[1] == 0


def test_the_temperature_minimises_the_log_loss() -> None:
    log, truth = draw(300, heat=2.0)

    def loss(temperature: float) -> float:
        return float(log_loss(truth, np.exp(log_softmax(log / temperature, axis=1)), labels=[0, 1, 2]))

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-7})
    found = fit_temperature(log, truth)
    assert found.value == pytest.approx(best.x, rel=1e-4)
    assert found.low < 2.0 < found.high
    # Both ends are as unlikely as the interval's level says.
    for end in (found.low, found.high):
        assert 2 * 300 * (loss(end) - best.fun) == pytest.approx(1.959964**2, rel=1e-4)


def test_of_two_classes_it_is_logistic_regression_without_a_constant() -> None:
    rng = np.random.default_rng(2)
    log, truth = draw(200, seed=4)
    two, hit = log[:, :2], rng.random(200) < 0.3 + 0.4 * (log[:, 1] > log[:, 0])
    fitted = Logit(hit.astype(float), two[:, 1] - two[:, 0]).fit(disp=0)
    assert 1 / fit_temperature(two, hit.astype(int)).value == pytest.approx(float(fitted.params[0]), rel=1e-4)
    assert truth.shape == (200,)


def test_twins_do_not_make_the_temperature_surer() -> None:
    log, truth = draw(80, heat=1.5)
    alone = fit_temperature(log, truth)
    twins = fit_temperature(np.repeat(log, 2, axis=0), np.repeat(truth, 2), groups=np.repeat(np.arange(80), 2))
    assert twins.value == pytest.approx(alone.value)
    assert (twins.low, twins.high) == pytest.approx((alone.low, alone.high), rel=0.05)


def test_answers_without_a_mistake_have_no_temperature_but_an_end() -> None:
    found = fit_temperature(np.log([[0.6, 0.4]] * 20), [0] * 20)
    assert found.value == pytest.approx(1 / 50)


@pytest.mark.parametrize(
    "call",
    [
        lambda: brier([[0.1, 0.9]], [[1, 0], [0, 1]]),
        lambda: calibration_error([], []),
        lambda: calibration_error([1.2], [1]),
        lambda: calibration_error([0.5, 0.5], [1]),
        lambda: fit_temperature(np.zeros((0, 2)), []),
        lambda: fit_temperature([[0.0, 1.0]], [0, 1]),
    ],
)
def test_what_does_not_fit_is_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]
