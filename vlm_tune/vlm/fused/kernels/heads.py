"""Query, key and value heads out of one row, normalised and rotated on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Heads"]


# Not specialised on the steps: layouts vary, and each would be compiled anew.
@triton.jit(do_not_specialize=["input_step", "output_step", "grad_step", "grad_head"])  # type: ignore[untyped-decorator]
def _turned(  # type: ignore[no-untyped-def]
    inputs, weights, cosines, sines, outputs, grads, input_step, output_step, grad_step, grad_head, eps,
    heads: tl.constexpr, width: tl.constexpr, all_heads: tl.constexpr, all_columns: tl.constexpr,
    norm: tl.constexpr, backward: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = width // 2
    head, column = tl.arange(0, all_heads)[:, None], tl.arange(0, all_columns)[None, :]
    inside = (head < heads) & (column < half)
    place = head * width + column
    # Both halves of a head turn by the same angles.
    cos = tl.load(cosines + token * width + column, mask=column < half, other=0).to(tl.float32)
    sin = tl.load(sines + token * width + column, mask=column < half, other=0).to(tl.float32)
    if norm or not backward:
        first = tl.load(inputs + token * input_step + place, mask=inside, other=0).to(tl.float32)
        second = tl.load(inputs + token * input_step + place + half, mask=inside, other=0).to(tl.float32)
    if norm:
        square = tl.sum(first * first, 1) + tl.sum(second * second, 1)
        scale = tl.rsqrt(square / width + eps)[:, None]
        first *= scale
        second *= scale
        weight1 = tl.load(weights + column, mask=column < half, other=0).to(tl.float32)
        weight2 = tl.load(weights + column + half, mask=column < half, other=0).to(tl.float32)
    if backward:
        grad = grads + token * grad_step + head * grad_head + column
        above = tl.load(grad, mask=inside, other=0).to(tl.float32)
        below = tl.load(grad + half, mask=inside, other=0).to(tl.float32)
        one, other = above * cos + below * sin, below * cos - above * sin
        if norm:
            one, other = one * weight1, other * weight2
            along = ((tl.sum(one * first, 1) + tl.sum(other * second, 1)) / width)[:, None]
            one, other = scale * (one - first * along), scale * (other - second * along)
    else:
        if norm:
            first, second = first * weight1, second * weight2
        one, other = first * cos - second * sin, second * cos + first * sin
    tl.store(outputs + token * output_step + place, one.to(outputs.dtype.element_ty), mask=inside)
    tl.store(outputs + token * output_step + place + half, other.to(outputs.dtype.element_ty), mask=inside)


class Heads(torch.autograd.Function):
    """Query and key normalised, if there are weights, and rotated; values as they are. The weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        weights: Sequence[Tensor | None],
        cos: Tensor,
        sin: Tensor,
        counts: Sequence[int],
        eps: float,
    ) -> tuple[Tensor, ...]:
        """Take the heads behind one another, of shape (tokens, heads * width)."""
        ctx.counts, ctx.eps, ctx.weights = counts, eps, weights
        ctx.save_for_backward(qkv if weights[0] is not None else None, cos, sin)
        ctx.shape, ctx.dtype = qkv.shape, qkv.dtype
        query, key, value = _parts(qkv, counts, cos.shape[1])
        turned = []
        for part, weight in zip((query, key), weights, strict=True):
            turned.append(torch.empty(part.shape, dtype=part.dtype, device=part.device))
            _turn(part, turned[-1], part, weight, cos, sin, eps, backward=False)
        return *turned, value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of all heads, each written straight to where the product before expects it."""
        qkv, cos, sin = ctx.saved_tensors
        out = torch.empty(ctx.shape, dtype=ctx.dtype, device=cos.device)
        places = _parts(out, ctx.counts, cos.shape[1])
        sources = places if qkv is None else _parts(qkv, ctx.counts, cos.shape[1])
        for source, place, grad, weight in zip(sources, places, grads, ctx.weights, strict=False):
            _turn(source, place, grad, weight, cos, sin, ctx.eps, backward=True)
        places[2].copy_(grads[2])
        return out, None, None, None, None, None


def _parts(row: Tensor, counts: Sequence[int], width: int) -> list[Tensor]:
    parts = torch.split(row, [count * width for count in counts], dim=1)
    return [part.view(len(row), -1, width) for part in parts]


def _turn(
    x: Tensor, out: Tensor, grad: Tensor, weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, *, backward: bool
) -> None:
    tokens, heads, width = x.shape
    if grad.stride(2) != 1:
        grad = grad.contiguous()
    _turned[(tokens,)](
        x, x if weight is None else weight, cos, sin, out, grad,
        x.stride(0), out.stride(0), grad.stride(0), grad.stride(1), eps,
        heads, width, triton.next_power_of_2(heads), triton.next_power_of_2(width // 2),
        weight is not None, backward, num_warps=4,
    )  # fmt: skip
