"""silu(gate) * up; the backward pass works in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SwiGLU"]

_COLUMNS = 2048
"""Columns that one program works on."""


@triton.jit  # type: ignore[untyped-decorator]
def _swiglu(inputs, grads, outputs, width, backward: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    place = row * 2 * width + column
    gate = tl.load(inputs + place, mask=inside, other=0).to(tl.float32)
    up = tl.load(inputs + place + width, mask=inside, other=0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    if backward:
        grad = tl.load(grads + row * width + column, mask=inside, other=0).to(tl.float32)
        of_gate = grad * up * sigmoid * (1 + gate * (1 - sigmoid))
        tl.store(outputs + place, of_gate.to(outputs.dtype.element_ty), mask=inside)
        tl.store(outputs + place + width, (grad * gate * sigmoid).to(outputs.dtype.element_ty), mask=inside)
    else:
        tl.store(outputs + row * width + column, (gate * sigmoid * up).to(outputs.dtype.element_ty), mask=inside)


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up, the two being halves of the last dimension."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """Take gate and up behind one another, of shape (tokens, 2 * width)."""
        ctx.save_for_backward(gate_up)
        out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
        _launch(gate_up, gate_up, out, backward=False)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the gradient in the place of gate and up, the largest activation of a layer."""
        gate_up: Tensor = ctx.saved_tensors[0]
        _launch(gate_up, grad.contiguous(), gate_up, backward=True)
        return gate_up


def _launch(gate_up: Tensor, grad: Tensor, out: Tensor, *, backward: bool) -> None:
    rows, width = len(gate_up), gate_up.shape[1] // 2
    _swiglu[rows, triton.cdiv(width, _COLUMNS)](gate_up, grad, out, width, backward, _COLUMNS, num_warps=8)
