"""Every step between the products against its formula in float64, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.vlm.fused.helpers import relative_error
from vlm_tune.vlm.fused import ops

EPS = 1e-3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(ours: Callable[..., Tensor], formula: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Hold values, and gradients of every input, against the formula's in float64."""
    exact = [one.clone().requires_grad_() for one in inputs]
    rounded = [one.float().requires_grad_() for one in inputs]
    theirs, mine = formula(*exact), ours(*rounded)
    assert mine.dtype == torch.float32
    assert relative_error(mine.double(), theirs) < 1e-6
    direction = random(*theirs.shape, seed=99)
    wanted = torch.autograd.grad(theirs, exact, direction)
    for grad, expected in zip(torch.autograd.grad(mine, rounded, direction.float()), wanted, strict=True):
        assert relative_error(grad.double(), expected) < 1e-5


def normalised(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / ((x**2).mean(-1, keepdim=True) + EPS).sqrt()


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of a head by its angle, as complex numbers."""
    half = x.shape[-1] // 2
    numbers = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([numbers.real, numbers.imag], dim=-1)


def test_rms_norm() -> None:
    check(lambda x, weight: ops.rms_norm(x, weight, EPS), normalised, [random(7, 12), random(12, seed=1)])


def test_add_rms_norm() -> None:
    check(
        lambda x, update, weight: torch.cat(ops.add_rms_norm(x, update, weight, EPS), dim=1),
        lambda x, update, weight: torch.cat([x + update, normalised(x + update, weight)], dim=1),
        [random(7, 12), random(7, 12, seed=1), random(12, seed=2)],
    )


@pytest.mark.parametrize("normal", [False, True])
def test_heads_turn_and_are_normalised_where_they_have_a_weight(normal: bool) -> None:
    angles = random(7, 4)
    both = torch.cat([angles, angles], dim=-1)
    weights = (random(8, seed=1), random(8, seed=2)) if normal else (None, None)

    def formula(qkv: Tensor) -> Tensor:
        query, key, value = qkv.unflatten(1, (5, 8)).split([3, 1, 1], dim=1)
        query, key = (
            turned(one if weight is None else normalised(one, weight), angles)
            for one, weight in zip((query, key), weights, strict=True)
        )
        return torch.cat([query, key, value], dim=1)

    def found(qkv: Tensor) -> Tensor:
        parts = ops.heads(qkv, both.cos(), both.sin(), counts=(3, 1, 1), weights=weights, eps=EPS)
        return torch.cat(parts, dim=1)

    check(found, formula, [random(7, 5 * 8)])


def test_swiglu() -> None:
    check(ops.swiglu, lambda x: functional.silu(x[:, :6]) * x[:, 6:], [random(7, 12)])


@pytest.mark.parametrize("taps", [1, 3, 4])
def test_gated_conv_stays_within_each_sequence(taps: int) -> None:
    lengths, width = [9, 2, 1, 5], 6
    position = torch.cat([torch.arange(length) for length in lengths])

    def formula(gates: Tensor, weight: Tensor) -> Tensor:
        parts = []
        for one in gates.split(lengths):
            b, c, x = one.T.chunk(3)
            mixed = functional.conv1d(b * x, weight[:, None], padding=taps - 1, groups=width)
            parts.append((c * mixed[:, : one.shape[0]]).T)
        return torch.cat(parts)

    inputs = [random(sum(lengths), 3 * width), random(width, taps, seed=1)]
    check(lambda gates, weight: ops.gated_conv(gates, weight, position), formula, inputs)


def test_half_precision_is_rounded_once() -> None:
    angles = random(50, 4)
    both = torch.cat([angles, angles], dim=-1)
    heads, weight, gates = (one.bfloat16() for one in (random(50, 3, 8), random(8, seed=1), random(50, 12)))
    row = heads.flatten(1)
    position, filters = torch.arange(50), random(4, 3).bfloat16()
    pairs = [
        (ops.rms_norm(heads, weight, EPS), ops.rms_norm(heads.float(), weight.float(), EPS)),
        (
            ops.heads(row, both.cos(), both.sin(), counts=(1, 1, 1), weights=(weight, weight), eps=EPS)[0],
            ops.heads(row.float(), both.cos(), both.sin(), counts=(1, 1, 1), weights=(weight.float(),) * 2, eps=EPS)[0],
        ),
        (ops.swiglu(gates), ops.swiglu(gates.float())),
        (ops.gated_conv(gates, filters, position), ops.gated_conv(gates.float(), filters.float(), position)),
    ]
    for ours, wide in pairs:
        assert ours.dtype == torch.bfloat16
        assert torch.equal(ours, wide.bfloat16())
