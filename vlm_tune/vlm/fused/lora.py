"""Frozen linear layers and their adapters as one operation, which keeps its input once.

PEFT computes an adapted layer as W x + s B (A x) in separate steps, casts x to float32 for each adapter and keeps
every copy. Here the layers that read the same x (query, key and value) are one product with the stacked frozen
weights, their A are one product, and the backward pass needs x and A x only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Stacked"]


@dataclass(frozen=True)
class _Adapter:
    """One LoRA adapter: which rows of the output it adds to, its matrices and its scale."""

    rows: slice
    a: nn.Parameter
    b: nn.Parameter
    scale: float


class Stacked:
    """Linear layers with the same input as one; adapters that PEFT put on them are found anew at every call.

    The layers' weights become views of one stacked tensor: values, names and memory stay what they were.

    Args:
        layers: Linear layers, or what PEFT made of them.

    Attributes:
        widths: How many outputs each layer has.
    """

    def __init__(self, *layers: nn.Module) -> None:
        self._layers = layers
        bases = [_base(layer) for layer in layers]
        self._weight, self._bias = _stack([base.weight for base in bases]), None
        if bases[0].bias is not None:
            self._bias = _stack([base.bias for base in bases])
        self.widths = [base.out_features for base in bases]
        ends = itertools.accumulate(self.widths, initial=0)
        self._rows = [slice(start, end) for start, end in itertools.pairwise(ends)]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the layers' outputs behind one another, of shape (tokens, sum of outputs)."""
        adapters = [
            _Adapter(rows, *found)
            for layer, rows in zip(self._layers, self._rows, strict=True)
            if (found := _lora(layer)) is not None
        ]
        if not adapters:
            return functional.linear(x, self._weight, self._bias)
        # Scaled and cast here, where autograd brings the gradients back to the float32 parameters.
        if len({one.scale for one in adapters}) == 1:
            a = torch.cat([one.a for one in adapters]) * adapters[0].scale
        else:
            a = torch.cat([one.a * one.scale for one in adapters])
        b = [one.b.to(x.dtype) for one in adapters]
        rows = tuple(one.rows for one in adapters)
        out: Tensor = _LoRALinear.apply(x, self._weight, self._bias, rows, a.to(x.dtype), *b)
        return out


class _LoRALinear(torch.autograd.Function):
    """y = x W^T + bias; y[:, rows_i] += (x A_i^T) B_i^T; W frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Sequence[slice],
        a: Tensor,
        *b: Tensor,
    ) -> Tensor:
        y = functional.linear(x, weight, bias)
        low = x @ a.T
        for its_rows, one, part in zip(rows, b, _parts(low, b), strict=True):
            y[:, its_rows].addmm_(part, one.T)
        ctx.rows = rows
        ctx.save_for_backward(x, weight, a, low, *b)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, low, *b = ctx.saved_tensors
        grad_low = torch.empty_like(low)
        grad_b = []
        for rows, one, part, target in zip(ctx.rows, b, _parts(low, b), _parts(grad_low, b), strict=True):
            torch.mm(grad[:, rows], one, out=target)
            grad_b.append(grad[:, rows].T @ part)
        # In place: torch.addmm would copy its first argument.
        grad_x = (grad @ weight).addmm_(grad_low, a) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, None, grad_low.T @ x, *grad_b


def _parts(low: Tensor, b: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.split(low, [one.shape[1] for one in b], dim=1)


def _base(layer: nn.Module) -> nn.Linear:
    found = getattr(layer, "base_layer", layer)
    if not isinstance(found, nn.Linear):
        raise TypeError(f"{type(found).__name__} is no linear layer")
    return found


def _lora(layer: Any) -> tuple[nn.Parameter, nn.Parameter, float] | None:
    if not hasattr(layer, "lora_A") or layer.disable_adapters:
        return None
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name])


def _stack(parameters: Sequence[Tensor]) -> Tensor:
    first = parameters[0].detach()
    if len(parameters) == 1:
        return first
    begins = itertools.accumulate((one.nbytes for one in parameters), initial=first.data_ptr())
    storage = first.untyped_storage().data_ptr()
    if all(
        one.data_ptr() == begin and one.untyped_storage().data_ptr() == storage
        for one, begin in zip(parameters, begins, strict=False)
    ):
        # Another forward pass has stacked them: they must not be in memory twice.
        return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())
    whole = torch.cat([parameter.detach() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = whole[start : start + len(parameter)]
        start += len(parameter)
    return whole
