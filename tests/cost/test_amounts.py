"""Dollars keep their interval and print as many digits as matter."""

from __future__ import annotations

import pytest

from vlm_tune.cost import Cost
from vlm_tune.cost.amounts import dollars


def test_a_multiple_keeps_interval_and_origin() -> None:
    cost = Cost(usd=0.01, low=0.009, high=0.012, n=98, basis="a bill").times(1000)
    assert (cost.usd, cost.low, cost.high, cost.n) == pytest.approx((10, 9, 12, 98))
    assert cost.basis == "1,000 x a bill"
    assert str(cost) == "$10.00 [9.00, 12.00]"
    assert str(Cost.exact(3, basis="given")) == "$3.00"


@pytest.mark.parametrize("value", [0.000001234, 0.0123, 0.999, 1.0, 99.5, 123456.7])
def test_amounts_are_printed_to_three_digits_at_least(value: float) -> None:
    assert float(dollars(value)[1:].replace(",", "")) == pytest.approx(value, rel=0.005)
