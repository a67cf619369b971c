"""The plain formulas of `ops`: what processors compute, and the reference of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["gated_conv", "gated_conv_at", "heads", "rms_norm", "swiglu"]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `ops.rms_norm`."""
    wide = x.float()
    scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (weight.float() * (wide * scale)).to(x.dtype)


def heads(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    counts: Sequence[int],
    weights: Sequence[Tensor | None] = (None, None),
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `ops.heads`."""
    width = cos.shape[1]
    parts = torch.split(qkv, [count * width for count in counts], dim=1)
    query, key, value = (part.reshape(len(qkv), -1, width) for part in parts)
    return _rotated(query, cos, sin, weights[0], eps), _rotated(key, cos, sin, weights[1], eps), value


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    wide = x.float() if weight is None else rms_norm(x.float(), weight, eps)
    first, second = wide.chunk(2, dim=-1)
    turned = wide * cos.float()[:, None] + torch.cat([-second, first], dim=-1) * sin.float()[:, None]
    return turned.to(x.dtype)


def swiglu(gate_up: Tensor) -> Tensor:
    """See `ops.swiglu`."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (gate * gate.sigmoid() * up).to(gate_up.dtype)


def gated_conv(gates: Tensor, weight: Tensor, position: Tensor) -> Tensor:
    """See `ops.gated_conv`."""
    b, c, x = gates.float().chunk(3, dim=-1)
    gated = b * x
    total = gated * weight[:, -1].float()
    for back in range(1, weight.shape[-1]):
        earlier = torch.nn.functional.pad(gated, (0, 0, back, 0))[: len(gated)]
        total = total + torch.where((position >= back)[:, None], earlier, 0.0) * weight[:, -1 - back].float()
    return (c * total).to(gates.dtype)


def gated_conv_at(gates: Tensor, weight: Tensor, places: Tensor) -> Tensor:
    """Return `ops.gated_conv` of tokens that follow others than those that stand before them.

    Args:
        gates: b, c and x behind one another, of shape (sequences, length, 3 * width).
        weight: One causal filter a channel, of shape (width, taps).
        places: Where each token, the one that it follows, and so on stand, of shape (taps, tokens).

    Returns:
        Tensor of shape (sequences, tokens, width).
    """
    b, c, x = gates.float().chunk(3, dim=-1)
    gated = b * x
    total = torch.stack([gated[:, row] * weight[:, -1 - back].float() for back, row in enumerate(places)]).sum(0)
    return (c[:, places[0]] * total).to(gates.dtype)
