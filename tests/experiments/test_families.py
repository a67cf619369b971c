"""The families recover curves of their own kind, and never leave their bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm_tune.experiments.families import FAMILIES, FamilyName, fit_family, fit_many

SIZES = np.array([25.0, 50.0, 100.0, 200.0, 400.0])
TRUTHS: dict[FamilyName, NDArray[np.float64]] = {
    "pow3": 0.06 + 1.8 * SIZES**-0.55,
    "pow4": 0.04 + 40.0 * (SIZES + 60.0) ** -1.1,
    "exponential": 0.11 + 0.4 * np.exp(-0.009 * SIZES),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_curve_of_the_family_is_found_again_and_continued(family: FamilyName) -> None:
    fit = fit_family(family, SIZES, TRUTHS[family], np.ones(5))
    assert fit.misfit < 1e-9
    assert [fit.error(n) for n in SIZES] == pytest.approx(TRUTHS[family], abs=1e-5)
    farther = {"pow3": 0.06 + 1.8 * 1600**-0.55, "pow4": 0.04 + 40 * 1660**-1.1, "exponential": 0.11}
    assert fit.error(1600) == pytest.approx(farther[family], abs=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fit_of_many_is_nearly_the_fit_of_one(family: FamilyName) -> None:
    errors = np.stack([TRUTHS["pow3"], TRUTHS["exponential"] + [0.01, -0.01, 0.0, 0.01, -0.01]])
    weights = np.array([4.0, 5.0, 6.0, 8.0, 11.0])
    many = fit_many(family, SIZES, errors, weights)
    for place, error in enumerate(errors):
        fine = fit_family(family, SIZES, error, weights)
        assert fine.misfit <= many.misfit[place] + 1e-12
        assert many.error(SIZES)[place] == pytest.approx([fine.error(n) for n in SIZES], abs=0.01)


def test_the_closed_form_is_what_bounded_least_squares_finds() -> None:
    from scipy.optimize import nnls

    generator = np.random.default_rng(0)
    errors = generator.uniform(0, 0.6, (40, 5))
    weights = generator.uniform(1, 9, 5)
    many = fit_many("pow3", SIZES, errors, weights)
    for place, error in enumerate(errors):
        design = np.column_stack([np.ones(5), SIZES ** -many.b[place]])
        root = np.sqrt(weights)
        (c, a), _ = nnls(design * root[:, None], error * root)
        assert (many.c[place], many.a[place]) == (pytest.approx(c, abs=1e-8), pytest.approx(a, rel=1e-6, abs=1e-6))


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.sampled_from(FAMILIES))
def test_no_fit_leaves_its_bounds_or_lets_the_error_rise(errors: list[float], family: FamilyName) -> None:
    fits = fit_many(family, SIZES, np.array([errors]), np.ones(5))
    assert fits.c[0] >= 0
    assert fits.a[0] >= 0
    assert fits.b[0] > 0
    assert fits.d[0] >= 0
    along = fits.error(np.geomspace(25, 1600, 50))[0]
    assert np.all(np.diff(along) <= 1e-12)
    assert np.all((along >= 0) & (along <= 1))
    assert fits.fall(100.0)[0] >= 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fall_is_the_slope(family: FamilyName) -> None:
    fits = fit_many(family, SIZES, TRUTHS["pow3"][None, :], np.ones(5))
    before, after = fits.error(np.array([299.9, 300.1]))[0]
    assert fits.fall(300.0)[0] == pytest.approx((before - after) / 0.2, rel=1e-4)


def test_weights_count() -> None:
    errors = np.array([0.5, 0.5, 0.2, 0.2, 0.2])
    light = fit_family("exponential", SIZES, errors, np.array([1.0, 1, 1, 1, 1]))
    heavy = fit_family("exponential", SIZES, errors, np.array([1.0, 1000, 1, 1, 1]))
    assert abs(heavy.error(50) - 0.5) < abs(light.error(50) - 0.5)
