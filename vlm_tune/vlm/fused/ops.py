"""The steps between the matrix products, on packed tokens: kernels on a GPU, the plain formulas elsewhere.

Every function computes in float32 and rounds once. What is frozen during training gets no gradient on a GPU: the
norms' weights, the angles and the filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.vlm.fused import formulas

if TYPE_CHECKING:
    from torch import Tensor

    from vlm_tune.vlm.fused.branches import Branches
    from vlm_tune.vlm.fused.packing import Runs

__all__ = ["add_rms_norm", "gated_conv", "gated_conv_at", "gated_conv_of_branches", "heads", "rms_norm", "swiglu"]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) times the weight (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        x: Of shape (tokens, width).
        weight: Of shape (width,).
        eps: Added to the mean square.
    """
    if _on_gpu(x):
        from vlm_tune.vlm.fused.kernels.norm import AddRMSNorm

        normed: Tensor = AddRMSNorm.apply(x, None, weight, eps)[1]
        return normed
    return formulas.rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x + update, or x where there is none, and its `rms_norm`; both gradients come back added up."""
    if _on_gpu(x):
        from vlm_tune.vlm.fused.kernels.norm import AddRMSNorm

        total, normed = AddRMSNorm.apply(x, update, weight, eps)
        return total, normed
    total = x if update is None else x + update
    return total, formulas.rms_norm(total, weight, eps)


def heads(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    counts: Sequence[int],
    weights: Sequence[Tensor | None] = (None, None),
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value heads, the first two turned by their position (Su et al. 2021, arXiv 2104.09864).

    Args:
        qkv: The heads behind one another, of shape (tokens, heads * width).
        cos: Cosines of shape (tokens, width), both halves alike.
        sin: Sines of the same shape.
        counts: How many query, key and value heads there are.
        weights: Of shape (width,) for query and key: each head goes through `rms_norm` before it turns.
        eps: For that norm.

    Returns:
        Three tensors of shape (tokens, heads, width).
    """
    if _on_gpu(qkv):
        from vlm_tune.vlm.fused.kernels.heads import Heads

        query, key, value = Heads.apply(qkv, weights, cos.contiguous(), sin.contiguous(), counts, eps)
        return query, key, value
    return formulas.heads(qkv, cos, sin, counts=counts, weights=weights, eps=eps)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up, both of them halves of the last dimension (Shazeer 2020, arXiv 2002.05202).

    On a GPU the backward pass overwrites the argument, which only its maker may hold.
    """
    if _on_gpu(gate_up):
        from vlm_tune.vlm.fused.kernels.swiglu import SwiGLU

        product: Tensor = SwiGLU.apply(gate_up)
        return product
    return formulas.swiglu(gate_up)


def gated_conv(gates: Tensor, weight: Tensor, position: Tensor) -> Tensor:
    """Return LFM2's short convolution c * conv(b * x) of packed sequences.

    Args:
        gates: b, c and x behind one another, of shape (tokens, 3 * width).
        weight: One causal filter a channel, of shape (width, taps).
        position: Place of each token in its own sequence: the filter does not reach beyond the first.
    """
    if _on_gpu(gates):
        from vlm_tune.vlm.fused.kernels.conv import GatedConv

        mixed: Tensor = GatedConv.apply(gates, weight, position)
        return mixed
    return formulas.gated_conv(gates, weight, position)


def gated_conv_of_branches(out: Tensor, gates: Tensor, weight: Tensor, runs: Runs, branches: Branches) -> None:
    """Overwrite what `gated_conv` has made of the sequences' trees by what follows from the nodes before them.

    Args:
        out: What `gated_conv` returned, of shape (tokens, width).
        gates: As there.
        weight: As there.
        runs: How the tokens are divided into sequences.
        branches: The tree that the last tokens of every sequence are.
    """
    at = 0
    for count, length in runs:
        here = slice(at, at + count * length)
        apart, made = gates[here].view(count, length, -1), out[here].view(count, length, -1)
        before = branches.before(weight.shape[-1]) + length - len(branches)
        if _on_gpu(gates):
            from vlm_tune.vlm.fused.kernels.conv import gated_conv_at

            gated_conv_at(apart, weight, before, made)
        else:
            made[:, length - len(branches) :] = formulas.gated_conv_at(apart, weight, before)
        at = here.stop


def gated_conv_at(gates: Tensor, weight: Tensor, places: Tensor) -> Tensor:
    """Return `gated_conv` of tokens that follow others than those that stand before them.

    Args:
        gates: b, c and x behind one another, of shape (rows, 3 * width).
        weight: As there.
        places: The rows of each token, of the one that it follows, and so on, of shape (taps, tokens).

    Returns:
        Tensor of shape (tokens, width).
    """
    if _on_gpu(gates):
        from vlm_tune.vlm.fused.kernels.conv import gated_conv_at

        out = gates.new_empty(1, len(gates), gates.shape[1] // 3)
        gated_conv_at(gates[None], weight, places, out)
        return out[0, places[0]]
    return formulas.gated_conv_at(gates[None], weight, places)[0]


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda
