"""Luck with photos and seeds is allowed for as often as it is said to be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm_tune.experiments.luck import best_of_many, difference_over_seeds
from vlm_tune.statistics import wilson

SEEDS, PHOTOS = 3, 60


def answers(
    generator: np.random.Generator,
    *,
    ease: NDArray[np.float64],
    gap: float = 0.0,
    of_seeds: float,
    of_rest: float,
    own: float,
) -> NDArray[np.bool_]:
    """Draw right answers: photos are easy or not, for all and for this setting, and each seed has its luck."""
    mine = ease + generator.normal(0, own, len(ease)) + gap
    luck = generator.normal(0, of_seeds, (SEEDS, 1)) + generator.normal(0, of_rest, (SEEDS, len(ease)))
    return np.asarray(mine + luck > 0, dtype=bool)


@pytest.mark.parametrize(("of_seeds", "of_rest", "own"), [(0.1, 0.5, 0.5), (0.5, 0.5, 0.5), (0.0, 0.1, 1.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(of_seeds: float, of_rest: float, own: float) -> None:
    generator, held = np.random.default_rng(1), 0
    for _ in range(200):
        ease = generator.normal(1.5, 2, PHOTOS)
        first, second = (answers(generator, ease=ease, of_seeds=of_seeds, of_rest=of_rest, own=own) for _ in range(2))
        found = difference_over_seeds(first.tolist(), second.tolist())
        held += found.low <= 0 <= found.high
    assert held >= 184


def test_a_winner_chosen_by_the_same_photos_is_seldom_called_better_for_nothing() -> None:
    generator, plain, allowed = np.random.default_rng(2), 0, 0
    for _ in range(150):
        ease = generator.normal(0.8, 0.5, PHOTOS)
        # What a setting knows about each photo is its own; a seed changes little: photos alone make the winner.
        mine = ease + generator.normal(0, 1.5, (20, PHOTOS))
        right = mine[:, None, :] + generator.normal(0, 0.1, (20, SEEDS + 1, PHOTOS)) > 0
        winner = 1 + int(np.argmax(right[1:, 0].mean(axis=1)))
        pair = right[winner, 1:].tolist(), right[0, 1:].tolist()
        plain += difference_over_seeds(*pair).low > 0
        allowed += difference_over_seeds(*pair, num_compared=20).low > 0
    assert plain > 15
    assert allowed <= 8


def test_allowing_for_a_choice_never_narrows_the_interval() -> None:
    generator, wider = np.random.default_rng(4), 0
    for _ in range(60):
        ease = generator.normal(1, 1.2, PHOTOS)
        first, second = (answers(generator, ease=ease, of_seeds=0.2, of_rest=0.7, own=0.3) for _ in range(2))
        alone = difference_over_seeds(first.tolist(), second.tolist())
        chosen = difference_over_seeds(first.tolist(), second.tolist(), num_compared=12)
        assert chosen.low <= alone.low and alone.high <= chosen.high
        wider += chosen.low < alone.low
    assert wider


def test_a_difference_that_is_there_is_found() -> None:
    generator = np.random.default_rng(3)
    ease = generator.normal(0.5, 1, 400)
    better = answers(generator, ease=ease, gap=1.0, of_seeds=0.05, of_rest=0.3, own=0.3)
    found = difference_over_seeds(
        better.tolist(), answers(generator, ease=ease, of_seeds=0.05, of_rest=0.3, own=0.3).tolist(), num_compared=20
    )
    assert found.low > 0.05
    assert found.n == 400


def test_seeds_that_agree_are_no_certainty() -> None:
    same = [[True, False] * 20] * 3
    found = difference_over_seeds(same, same)
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.02


@pytest.mark.parametrize(
    ("first", "second"),
    [([[True, False]], [[True, False]]), ([[True], [False]], [[True], [False]]), ([[1, 0]] * 2, [[1, 0, 1]] * 2)],
)
def test_what_cannot_be_paired_is_refused(first: list[list[bool]], second: list[list[bool]]) -> None:
    with pytest.raises(ValueError, match="two tables of the same seeds and photos"):
        difference_over_seeds(first, second)


def test_the_best_of_many_is_worth_less_than_it_looks() -> None:
    generator = np.random.default_rng(0)
    looks, corrected = [], []
    for _ in range(30):
        right = generator.random((15, 80)) < 0.7
        looks.append(right.mean(axis=1).max())
        corrected.append(best_of_many(right.tolist()).value)
    # All are right on 70 %.
    assert np.mean(looks) > 0.76
    assert abs(np.mean(corrected) - 0.70) < 0.02


def test_what_is_best_by_far_keeps_its_accuracy() -> None:
    generator = np.random.default_rng(0)
    right = np.vstack([generator.random((10, 200)) < 0.3, generator.random((1, 200)) < 0.9])
    found, plain = best_of_many(right.tolist()), wilson(int(right[-1].sum()), 200)
    assert found.value == pytest.approx(plain.value, abs=0.005)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.005)
    assert found == best_of_many(right.tolist())
