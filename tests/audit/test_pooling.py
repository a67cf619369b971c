"""Bayes' rule is kept to, weights follow worth, and the rate of errors is found."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_tune.audit.pooling import Floats, Integers, heat, log_softmax, pool


def drawn(
    n: int, *, rate: float, sharpness: float = 4.0, size: int = 3, seed: int = 0
) -> tuple[Floats, Integers, Integers]:
    """True classes, labels with errors at a rate, and scores that know the true classes more or less."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, size, n)
    labels = np.where(rng.random(n) < rate, (true + rng.integers(1, size, n)) % size, true)
    scores = rng.normal(size=(n, size)) + sharpness * np.eye(size)[true]
    return scores, true, labels


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_rate_of_errors_is_found_and_odds_are_what_comes_true(rate: float) -> None:
    scores, true, labels = drawn(4000, rate=rate, sharpness=3.0)
    pooled = pool([scores], labels)
    assert pooled.error_rate == pytest.approx(rate, abs=0.015)
    suspicion = 1 / (1 + np.exp(-pooled.log_odds(labels)))
    # Calibrated: of what is said to be wrong with 20 to 80 %, about that share is.
    middle = (suspicion > 0.2) & (suspicion < 0.8)
    assert (true != labels)[middle].mean() == pytest.approx(suspicion[middle].mean(), abs=0.08)
    assert suspicion.sum() == pytest.approx((true != labels).sum(), rel=0.1)


def test_an_opinion_that_knows_nothing_gets_hardly_any_weight() -> None:
    scores, _, labels = drawn(600, rate=0.05)
    noise = np.random.default_rng(1).normal(size=scores.shape)
    pooled = pool([scores, noise], labels)
    assert np.ptp(pooled.weights[1] * noise) < 0.1 * np.ptp(pooled.weights[0] * scores)


def test_the_same_opinion_twice_does_not_count_twice() -> None:
    scores, _, labels = drawn(600, rate=0.05)
    once, twice = pool([scores], labels), pool([scores, scores], labels)
    assert 0.6 < twice.weights.sum() / once.weights[0] < 1.2


def test_errors_from_one_class_to_another_are_learnt() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 900)
    labels = np.where((true == 0) & (rng.random(900) < 0.3), 1, true)
    scores = rng.normal(size=(900, 3)) + 2.5 * np.eye(3)[true]
    pooled = pool([scores], labels)
    # A label 1 may well have been a 0; a label 2 was hardly ever one.
    assert pooled.channel[labels == 1][0, 0] == pytest.approx(np.log(0.3), abs=0.3)
    assert pooled.channel[labels == 2][0, 0] < np.log(0.03)


def test_a_label_that_annotators_disputed_says_less_and_a_copy_with_another_label_speaks() -> None:
    scores, _, labels = drawn(300, rate=0.05, sharpness=1.0)
    doubtful = int(np.flatnonzero(scores.argmax(axis=1) != labels)[0])
    margin, copied = np.ones(300), np.zeros((300, 3), bool)
    margin[doubtful] = 0.0
    copied[doubtful, scores[doubtful].argmax()] = True
    plain = pool([scores], labels).log_odds(labels)[doubtful]
    assert pool([scores], labels, margin=margin).log_odds(labels)[doubtful] > plain + 1
    assert pool([scores], labels, copied=copied).log_odds(labels)[doubtful] > plain + 1


def test_the_log_odds_fall_apart_into_the_weights_of_evidence() -> None:
    scores, _, labels = drawn(200, rate=0.1)
    other = np.random.default_rng(3).normal(size=scores.shape)
    pooled = pool([scores, other], labels)
    terms = np.tensordot(pooled.weights, np.stack([scores, other]), 1) + pooled.channel
    assert np.allclose(log_softmax(terms), pooled.posterior, atol=1e-6)


def test_no_opinion_leaves_the_label_alone() -> None:
    labels = np.arange(60) % 3
    pooled = pool([np.zeros((60, 3))], labels)
    assert (pooled.log_odds(labels) < 0).all()


def test_heat_is_one_where_scores_are_true_log_probabilities() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 5000)
    labels = np.array([rng.choice(3, p=share) for share in shares])
    assert heat(np.log(shares), labels) == pytest.approx(1.0, abs=0.06)
    assert heat(4 * np.log(shares), labels) == pytest.approx(0.25, abs=0.02)
