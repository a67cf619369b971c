"""LFM2's short gated convolution of packed sequences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GatedConv", "gated_conv_at"]

_COLUMNS = 1024
"""Columns that one program works on."""


@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _gated_conv(  # type: ignore[no-untyped-def]
    inputs, filters, positions, grads, outputs, tokens, width,
    taps: tl.constexpr, backward: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    token, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    here = inputs + token * 3 * width + column
    b = tl.load(here, mask=inside, other=0).to(tl.float32)
    c = tl.load(here + width, mask=inside, other=0).to(tl.float32)
    x = tl.load(here + 2 * width, mask=inside, other=0).to(tl.float32)
    position = tl.load(positions + token).to(tl.int32)
    total = tl.zeros([block], dtype=tl.float32)
    to_gated = tl.zeros([block], dtype=tl.float32)
    for back in tl.static_range(taps):
        tap = tl.load(filters + column * taps + taps - 1 - back, mask=inside, other=0).to(tl.float32)
        reaches = inside & (tl.full([block], back, tl.int32) <= position)
        before = here - back * 3 * width
        b_before = tl.load(before, mask=reaches, other=0).to(tl.float32)
        total += tap * b_before * tl.load(before + 2 * width, mask=reaches, other=0).to(tl.float32)
        if backward:
            # What later tokens of the same sequence took from here.
            after = tl.minimum(token + back, tokens - 1)
            its_position = tl.where(token + back < tokens, tl.load(positions + after).to(tl.int32), -1)
            reached = inside & (tl.full([block], back, tl.int32) <= its_position)
            c_after = tl.load(here + back * 3 * width + width, mask=reached, other=0).to(tl.float32)
            grad_after = tl.load(grads + (token + back) * width + column, mask=reached, other=0).to(tl.float32)
            to_gated += tap * c_after * grad_after
    if backward:
        grad = tl.load(grads + token * width + column, mask=inside, other=0).to(tl.float32)
        out = outputs + token * 3 * width + column
        tl.store(out, (to_gated * x).to(outputs.dtype.element_ty), mask=inside)
        tl.store(out + width, (grad * total).to(outputs.dtype.element_ty), mask=inside)
        tl.store(out + 2 * width, (to_gated * b).to(outputs.dtype.element_ty), mask=inside)
    else:
        tl.store(outputs + token * width + column, (c * total).to(outputs.dtype.element_ty), mask=inside)


class GatedConv(torch.autograd.Function):
    """c * conv(b * x); the filter is frozen, and does not reach beyond the first token of a sequence."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, position: Tensor) -> Tensor:
        """Take b, c and x behind one another, of shape (tokens, 3 * width)."""
        ctx.save_for_backward(gates, weight, position)
        out = gates.new_empty(len(gates), gates.shape[1] // 3)
        _launch(gates, weight, position, gates, out, backward=False)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of all three."""
        gates, weight, position = ctx.saved_tensors
        out = torch.empty_like(gates)
        _launch(gates, weight, position, grad.contiguous(), out, backward=True)
        return out, None, None


def _launch(gates: Tensor, weight: Tensor, position: Tensor, grad: Tensor, out: Tensor, *, backward: bool) -> None:
    tokens, width = len(gates), gates.shape[1] // 3
    grid = (tokens, triton.cdiv(width, _COLUMNS))
    _gated_conv[grid](gates, weight, position, grad, out, tokens, width, weight.shape[-1], backward, _COLUMNS)


@triton.jit(do_not_specialize=["length", "nodes"])  # type: ignore[untyped-decorator]
def _gated_conv_at(  # type: ignore[no-untyped-def]
    inputs, filters, places, outputs, length, nodes, width, taps: tl.constexpr, block: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    sequence, node = row // nodes, row % nodes
    total = tl.zeros([block], dtype=tl.float32)
    for back in tl.static_range(taps):
        there = inputs + (sequence * length + tl.load(places + back * nodes + node)) * 3 * width + column
        b = tl.load(there, mask=inside, other=0).to(tl.float32)
        x = tl.load(there + 2 * width, mask=inside, other=0).to(tl.float32)
        tap = tl.load(filters + column * taps + taps - 1 - back, mask=inside, other=0).to(tl.float32)
        total += tap * b * x
    here = sequence * length + tl.load(places + node)
    c = tl.load(inputs + here * 3 * width + width + column, mask=inside, other=0).to(tl.float32)
    tl.store(outputs + here * width + column, (c * total).to(outputs.dtype.element_ty), mask=inside)


def gated_conv_at(gates: Tensor, weight: Tensor, places: Tensor, out: Tensor) -> None:
    """Compute `formulas.gated_conv_at` of contiguous tensors and write it where its tokens stand.

    Args:
        gates: Of shape (sequences, length, 3 * width).
        weight: Of shape (width, taps).
        places: Of shape (taps, tokens), in int64.
        out: Of shape (sequences, length, width).
    """
    count, length, width = out.shape
    grid = (count * places.shape[1], triton.cdiv(width, _COLUMNS))
    _gated_conv_at[grid](gates, weight, places, out, length, places.shape[1], width, weight.shape[-1], _COLUMNS)
