"""x + update and its RMS norm in one pass over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AddRMSNorm"]


@triton.jit  # type: ignore[untyped-decorator]
def _forward(  # type: ignore[no-untyped-def]
    inputs, updates, weights, totals, outputs, scales, eps, width, adds: tl.constexpr, block: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64) * width, tl.arange(0, block)
    inside = column < width
    x = tl.load(inputs + row + column, mask=inside, other=0).to(tl.float32)
    if adds:
        x += tl.load(updates + row + column, mask=inside, other=0).to(tl.float32)
        rounded = x.to(totals.dtype.element_ty)
        tl.store(totals + row + column, rounded, mask=inside)
        x = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    tl.store(scales + tl.program_id(0), scale)
    weight = tl.load(weights + column, mask=inside, other=0).to(tl.float32)
    tl.store(outputs + row + column, (x * scale * weight).to(outputs.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _backward(  # type: ignore[no-untyped-def]
    totals, weights, scales, grads, total_grads, outputs, width, adds: tl.constexpr, block: tl.constexpr
):
    row, column = tl.program_id(0).to(tl.int64) * width, tl.arange(0, block)
    inside = column < width
    scale = tl.load(scales + tl.program_id(0))
    x = tl.load(totals + row + column, mask=inside, other=0).to(tl.float32) * scale
    grad = tl.load(grads + row + column, mask=inside, other=0).to(tl.float32)
    grad *= tl.load(weights + column, mask=inside, other=0).to(tl.float32)
    grad = scale * (grad - x * (tl.sum(grad * x, 0) / width))
    if adds:
        grad += tl.load(total_grads + row + column, mask=inside, other=0).to(tl.float32)
    tl.store(outputs + row + column, grad.to(outputs.dtype.element_ty), mask=inside)


class AddRMSNorm(torch.autograd.Function):
    """(x + update, its RMS norm); without an update, (x, its RMS norm). The weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Take tensors of shape (tokens, width)."""
        rows, width = x.shape
        x = x.contiguous()
        total = x if update is None else torch.empty_like(x)
        out, scale = torch.empty_like(x), x.new_empty(rows, dtype=torch.float32)
        added = x if update is None else update.contiguous()
        block = triton.next_power_of_2(width)
        _forward[(rows,)](x, added, weight, total, out, scale, eps, width, update is not None, block, num_warps=8)
        ctx.save_for_backward(total, weight, scale)
        ctx.updated = update is not None
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    def backward(ctx: Any, total_grad: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and the update, which are the same."""
        total, weight, scale = ctx.saved_tensors
        result = total_grad
        if grad is not None:
            rows, width = total.shape
            result, grad = torch.empty_like(total), grad.contiguous()
            adds, beside = total_grad is not None, grad if total_grad is None else total_grad.contiguous()
            block = triton.next_power_of_2(width)
            _backward[(rows,)](total, weight, scale, grad, beside, result, width, adds, block, num_warps=8)
        return result, result if ctx.updated else None, None, None
