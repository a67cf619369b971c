"""How rounding is measured."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_tune.training.merging.proving import MAX_ULPS, Rounding, ulps


def test_rounding_is_measured_in_units_in_the_last_place() -> None:
    exact = torch.tensor([1.0 + 2**-8, -3.0, 0.0], dtype=torch.float64)
    assert ulps(exact.bfloat16(), exact) == pytest.approx(0.5)
    assert ulps(torch.tensor([1.0 + 2**-7, -3.0, 0.0]).bfloat16(), exact) == pytest.approx(0.5)
    assert ulps(torch.tensor([1.0 + 2**-6, -3.0, 0.0]).bfloat16(), exact) == pytest.approx(1.5)


@settings(max_examples=300)
@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_one_rounding_is_within_the_bound_whatever_the_numbers(values: list[float], dtype: torch.dtype) -> None:
    exact = torch.tensor(values, dtype=torch.float64)
    assert ulps(exact.to(dtype), exact) <= MAX_ULPS


def test_the_bound_tells_one_rounding_from_two() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = (0.02 * torch.randn(100_000, generator=draw)).bfloat16()
    delta = 0.01 * torch.randn(100_000, generator=draw).double()
    exact = weight.double() + delta
    assert ulps(exact.bfloat16(), exact) <= MAX_ULPS
    # As PEFT does on a bfloat16 model: the update is rounded, and the sum is.
    assert ulps(weight + delta.bfloat16(), exact) > 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_infinitely_far_off(value: float) -> None:
    exact = torch.ones(3, dtype=torch.float64)
    assert ulps(torch.tensor([1.0, value, 1.0]).bfloat16(), exact) == math.inf


def test_nothing_is_lost_of_an_update_that_is_none() -> None:
    assert Rounding(max_ulps=0.0, kept=0.0, wanted=0.0, moved=False).retained == 1
    assert Rounding(max_ulps=0.5, kept=1.0, wanted=4.0, moved=True).retained == 0.25
