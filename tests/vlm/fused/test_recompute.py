from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlm_tune.vlm.fused.recompute import Recompute


@pytest.mark.parametrize(("share", "again"), [(0.0, []), (0.5, [0, 1]), (0.3, [0, 1]), (1.0, [0, 1, 2, 3])])
def test_the_first_layers_are_computed_again(share: float, again: list[int]) -> None:
    calls: list[int] = []

    def layer(x: Tensor, index: int) -> Tensor:
        calls.append(index)
        return x.sin()

    recompute = Recompute(share)
    start = torch.ones(3, requires_grad=True)
    x = start
    for index in range(4):
        x = recompute(layer, index / 4, x, index)
    assert calls == [0, 1, 2, 3]
    x.sum().backward()
    assert sorted(calls[4:]) == again
    assert start.grad is not None


def test_without_gradients_nothing_is_prepared_for_them() -> None:
    with torch.no_grad():
        assert not Recompute(1.0)(lambda x: x * 2, 0.0, torch.ones(3, requires_grad=True)).requires_grad
