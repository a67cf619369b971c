"""Runs each kernel on the CPU in Triton's interpreter and compares values and gradients with the formulas."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import torch

from vlm_tune.vlm.fused import formulas
from vlm_tune.vlm.fused.kernels.conv import GatedConv, gated_conv_at
from vlm_tune.vlm.fused.kernels.heads import Heads
from vlm_tune.vlm.fused.kernels.norm import AddRMSNorm
from vlm_tune.vlm.fused.kernels.swiglu import SwiGLU

EPS = 1e-6


def compare(
    name: str, kernel: Callable[..., object], formula: Callable[..., object], inputs: Sequence[torch.Tensor]
) -> None:
    found = values(kernel, inputs)
    expected = values(formula, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    sys.stdout.write(f"{name}\n")


def values(function: Callable[..., object], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    # Non-leaf copies: the backward of SwiGLU writes into its argument.
    leaves = [one.clone().requires_grad_() for one in inputs]
    outputs = function(*[leaf * 1 for leaf in leaves])
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    kept = [output.detach().clone() for output in outputs]
    generator = torch.Generator().manual_seed(1)
    loss = sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs)
    return kept + list(torch.autograd.grad(loss, leaves))


def compare_convolution_at() -> None:
    gates, filters, places = torch.randn(2, 9, 30), torch.randn(10, 3), torch.tensor([[7, 8], [6, 3], [5, 2]])
    out = torch.zeros(2, 9, 10)
    gated_conv_at(gates, filters, places, out)
    torch.testing.assert_close(out[:, 7:], formulas.gated_conv_at(gates, filters, places), rtol=1e-5, atol=1e-5)
    if out[:, :7].any():
        raise AssertionError("other rows were written")
    sys.stdout.write("gated_conv_at\n")


def main() -> None:
    torch.manual_seed(0)
    compare_convolution_at()
    x, update, weight = torch.randn(5, 48), torch.randn(5, 48), torch.randn(48)
    compare(
        "add_rms_norm",
        lambda x, update: AddRMSNorm.apply(x, update, weight, EPS),
        lambda x, update: (x + update, formulas.rms_norm(x + update, weight, EPS)),
        [x, update],
    )
    compare(
        "rms_norm",
        lambda x: AddRMSNorm.apply(x, None, weight, EPS)[1],
        lambda x: formulas.rms_norm(x, weight, EPS),
        [x],
    )
    angles, norms = torch.randn(6, 6).repeat(1, 2), (torch.randn(12), torch.randn(12))
    cos, sin = angles.cos(), angles.sin()
    for name, weights in (("heads", (None, None)), ("norm_heads", norms)):
        compare(
            name,
            lambda x, weights=weights: Heads.apply(x, weights, cos, sin, (3, 1, 1), EPS),
            lambda x, weights=weights: formulas.heads(x, cos, sin, counts=(3, 1, 1), weights=weights, eps=EPS),
            [torch.randn(6, 5 * 12)],
        )
    compare("swiglu", SwiGLU.apply, formulas.swiglu, [torch.randn(3, 2 * 20)])
    filters, position = torch.randn(10, 3), torch.tensor([0, 1, 2, 3, 0, 1, 0, 1, 2])
    compare(
        "gated_conv",
        lambda x: GatedConv.apply(x, filters, position),
        lambda x: formulas.gated_conv(x, filters, position),
        [torch.randn(9, 30)],
    )


if __name__ == "__main__":
    main()
