"""Leaving out is exact: the closed form gives what refitting gives, and nobody hears of his own."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_tune.audit.classifiers import K, LeastSquares, folds_of, logistic, nearest, votes


def rows(n: int = 40, width: int = 6, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    vectors = rng.normal(size=(n, width)) + 2.0 * np.eye(width)[labels]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("units", [np.arange(40), np.arange(40) // 4])
def test_least_squares_left_out_is_the_fit_without_the_unit(units: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = rows()
    targets = np.eye(3)[labels]
    monkeypatch.setattr("vlm_tune.audit.classifiers.PENALTIES", (0.01,))
    found = LeastSquares(vectors, units).scores(targets)
    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    ridge = 0.01 * (centred**2).sum()
    for unit in np.unique(units)[:5]:
        fit, held = units != unit, units == unit
        # Ridge with a constant that is not penalised, solved anew.
        design = np.hstack([wide[fit], np.ones((fit.sum(), 1))])
        penalty = ridge * np.eye(design.shape[1])
        penalty[-1, -1] = 0
        solved = np.linalg.solve(design.T @ design + penalty, design.T @ targets[fit])
        assert np.allclose(found[held], np.hstack([wide[held], np.ones((held.sum(), 1))]) @ solved, atol=1e-6)


def test_a_photo_does_not_hear_its_own_label() -> None:
    vectors, labels = rows()
    units = np.arange(40)
    targets, changed = np.eye(3)[labels], np.eye(3)[labels]
    changed[7] = [0, 0, 1]
    squares = LeastSquares(vectors, units)
    near = nearest(vectors, units)
    assert np.allclose(votes(near, targets)[7], votes(near, changed)[7])
    assert np.abs(squares.scores(targets)[7] - squares.scores(changed)[7]).max() < 1e-6


def test_neighbours_are_of_other_units_and_as_many_as_there_are() -> None:
    vectors, labels = rows(12)
    units = np.arange(12) // 4
    near = nearest(vectors, units)
    assert near.shape == (12, K)
    for place, others in enumerate(near.tolist()):
        there = [other for other in others if other >= 0]
        assert len(there) == 8
        assert all(units[other] != units[place] for other in there)
    shares = np.exp(votes(near, np.eye(3)[labels]))
    assert np.allclose(shares.sum(axis=1), 1)


def test_folds_keep_units_together_and_depend_on_nothing_but_the_ids() -> None:
    units = np.repeat(np.arange(10), 3)
    ids = [f"{at * 7919 % 31}".encode() for at in range(30)]
    folds = folds_of(units, ids, 5)
    assert np.bincount(folds).tolist() == [6] * 5
    assert all(len(set(folds[units == unit].tolist())) == 1 for unit in range(10))
    turned = folds_of(units[::-1], ids[::-1], 5)
    assert (turned[::-1] == folds).all()
    assert folds_of(np.zeros(4, int), ids[:4], 5).tolist() == [0] * 4


def test_logistic_regression_answers_out_of_fold_and_survives_a_class_that_is_missing() -> None:
    vectors, labels = rows(60)
    folds = np.arange(60) % 5
    scores = logistic(vectors, labels, 3, folds)
    assert (scores.argmax(axis=1) == labels).mean() > 0.6
    changed = labels.copy()
    changed[folds == 0] = 2
    assert np.allclose(logistic(vectors, changed, 3, folds)[folds == 0], scores[folds == 0])
    lonely = np.zeros(60, int)
    assert (logistic(vectors, lonely, 3, folds) == 0).all()
