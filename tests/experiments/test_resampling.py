"""Resampled curves are as uncertain as they should be: by test images, by seeds, and by both."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import beta

from vlm_tune.experiments import CurvePoint
from vlm_tune.experiments.resampling import Measured, redrawn, resample

RIGHT = {25: (52, 55, 49), 50: (63, 60, 61), 100: (71, 69, 73), 200: (77, 80, 78)}


def measured(right: Mapping[int, tuple[int, ...]] = RIGHT, n_test: int = 98) -> Measured:
    return Measured(
        tuple(
            CurvePoint(size=size, seed=seed, right=count, n_test=n_test)
            for size, counts in right.items()
            for seed, count in enumerate(counts)
        )
    )


def by_image(counts: Mapping[int, tuple[int, ...]], *, shuffled: bool) -> Measured:
    """The same counts with known images: the same ones right as far as counts allow, or any."""
    generator = np.random.default_rng(0)
    points = []
    for size, all_right in counts.items():
        for seed, right in enumerate(all_right):
            answers = np.arange(98) < right
            if shuffled:
                generator.shuffle(answers)
            points.append(CurvePoint.of_answers(answers, size=size, seed=seed))
    return Measured(tuple(points))


def test_sizes_are_sorted_and_seeds_averaged_in_any_order() -> None:
    shuffled = Measured(tuple(reversed(measured().points)))
    assert list(shuffled.sizes) == [25, 50, 100, 200]
    assert shuffled.errors == pytest.approx(1 - np.array([52, 184 / 3, 71, 235 / 3]) / 98)
    assert shuffled.freedom == 8


@pytest.mark.parametrize("known", [False, True])
def test_the_error_at_one_point_follows_jeffreys_posterior(known: bool) -> None:
    single = {size: right[:1] for size, right in RIGHT.items()}
    errors = (by_image(single, shuffled=True) if known else measured(single)).resampled_errors(4000)
    expected = beta(98 - 52 + 0.5, 52 + 0.5)
    assert np.quantile(errors[:, 0], [0.025, 0.5, 0.975]) == pytest.approx(expected.ppf([0.025, 0.5, 0.975]), abs=0.01)


def test_a_point_without_a_mistake_is_still_uncertain() -> None:
    errors = measured({25: (98, 98)}).resampled_errors(2000)
    assert 0.015 < np.quantile(errors, 0.975) < 0.035


def test_the_images_luck_moves_all_sizes_together_when_the_same_are_hard() -> None:
    alike = by_image(RIGHT, shuffled=False).resampled_errors(1000)
    apart = by_image(RIGHT, shuffled=True).resampled_errors(1000)
    unknown = measured().resampled_errors(1000)
    by_itself = measured().resampled_errors(1000, alike=False)
    assert abs(np.corrcoef(by_itself[:, 1], by_itself[:, 2])[0, 1]) < 0.1
    assert np.sort(by_itself, axis=0) == pytest.approx(np.sort(unknown, axis=0))
    together = [float(np.corrcoef(errors[:, 1], errors[:, 2])[0, 1]) for errors in (alike, apart, unknown)]
    assert together[0] > 0.7
    assert abs(together[1]) < 0.5
    assert together[2] > 0.99


def test_seeds_that_differ_more_widen_the_curves() -> None:
    calm = resample(measured()).errors(np.array([800.0]))
    wild = resample(measured({25: (42, 65, 49), 50: (53, 70, 61), 100: (61, 79, 73), 200: (67, 88, 80)}))
    assert np.std(wild.errors(np.array([800.0]))) > 1.2 * np.std(calm)


def test_the_seeds_variance_is_the_binomial_one_when_answers_are_drawn_anew() -> None:
    generator = np.random.default_rng(0)
    drawn = {size: tuple(int(k) for k in generator.binomial(98, 0.7, 60)) for size in (25, 50, 100, 200)}
    assert measured(drawn).seed_variance == pytest.approx(1 / 98, rel=0.25)


def test_a_lack_of_fit_is_noticed_and_a_good_fit_is_not() -> None:
    hill = {25: (52, 55, 49), 50: (70, 69, 71), 100: (40, 41, 42), 200: (80, 81, 79), 400: (60, 61, 59)}
    assert measured(hill).misfit_p_value() < 0.01
    assert measured().misfit_p_value() > 0.01


def test_the_same_points_give_the_same_curves() -> None:
    first, second = (resample(measured(), draws=50).errors(np.array([400.0])) for _ in range(2))
    assert np.array_equal(first, second)


def test_two_curves_share_the_images_luck_and_not_the_seeds() -> None:
    points = by_image(RIGHT, shuffled=False)
    first, same, other = (redrawn(points, points.seed_variance, curve=number) for number in (0, 0, 1))
    assert np.array_equal(first, same)
    assert 0.1 < np.corrcoef(first[:, 1], other[:, 1])[0, 1] < 0.99
    without = (redrawn(points, 0.0, curve=number) for number in (0, 1))
    assert np.array_equal(*without)
    unknown = (redrawn(measured(), 0.0, alike=False, curve=number)[:, 1] for number in (0, 1))
    assert abs(np.corrcoef(*unknown)[0, 1]) < 0.1


def test_a_size_whose_seeds_differ_more_counts_by_itself() -> None:
    wild = measured({**RIGHT, 50: (43, 60, 81)})
    assert wild.seed_variances[1] > 2 * wild.seed_variance
    assert wild.seed_variances[[0, 2, 3]] == pytest.approx(wild.seed_variance)
    assert np.std(redrawn(wild, wild.seed_variances), axis=0)[1] > np.std(redrawn(wild, wild.seed_variance), axis=0)[1]
