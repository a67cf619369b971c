"""Floating-point operations of training, and the time they take on each path.

A multiplication and an addition count as two. The adapters' products and the last layer's logits on the answer's few
tokens are left out: together they stay under 2 % of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlm_tune.training.planning.blocks import Block
    from vlm_tune.training.planning.memory import Layout
    from vlm_tune.training.planning.sizes import Sizes

__all__ = ["Work", "efficiency", "seconds_per_pass", "work"]

_FUSED_FROZEN, _FUSED_ADAPTED = 0.70, 0.62
"""Share of the matrix-product rate that the fused path reaches: measured 0.70 to 0.77 and 0.64 on an H200, Qwen3-VL-8B,
with the vision tower frozen and adapted."""

_STOCK = {"qwen3_vl": 0.30, "lfm2_vl": 0.13}
_STOCK_ELSE = 0.25
"""The same of stock training: measured 0.26 to 0.39 with Qwen3-VL-8B and 0.15 with LFM2-VL-3B."""

_DEQUANTIZED = 0.97
"""Share of the speed that is left when weights are made from four bits for every product. Measured on an H200,
Qwen3-VL-8B in passes of four photos: 6.9 samples/s against 7.1 on the stock path."""

_LAUNCH_S = {True: 0.0037, False: 0.008}
"""Seconds per attention layer and pass, nothing recomputed, below which the processor cannot keep a GPU busy: fused and
stock path. Measured beside an H200, Qwen3-VL-8B in passes of one and two photos: 3.6 to 3.8 ms fused, and 9 ms stock
with a 4-bit base; the stock figure for 16 bits lies below that."""

_LAUNCH_CONV = 0.25
"""Of that, what a layer without attention takes: LFM2-VL-3B did a pass of 16 photos in at most 52 ms."""


@dataclass(frozen=True)
class Work:
    """Operations of one example.

    Attributes:
        once: Done once in the whole training: looking at a photo with frozen eyes.
        each: Done in every epoch.
        again: Part of `each` that recomputes what checkpointing has forgotten.
    """

    once: float
    each: float
    again: float = 0.0


def work(sizes: Sizes, layout: Layout) -> Work:
    """Return the operations of one example: forward, backward, and what is recomputed.

    A frozen model still needs the gradient of every activation behind the first adapter, but none of its weights: the
    backward pass costs as much as the forward pass, not twice as much (2N and 2N operations per token, N the parameters
    it goes through). Attention adds 4 S^2 x (heads x head width) per layer forward, half of it where it is causal, and
    2.5 times that backward (Dao et al. 2022, arXiv 2205.14135).
    """
    lengths = sizes.lengths
    patches = lengths.patches if sizes.fused else lengths.padded_patches
    images = max(1.0, patches / max(lengths.patches, 1.0)) * lengths.image_tokens
    seen, seen_mixing = 2 * _weights(sizes.vision) * patches, 4 * patches**2 * _mixing(sizes.vision)
    projected = 2 * _weights(sizes.projector) * images
    read = 2 * _weights(_of_all_tokens(sizes)) * lengths.tokens * sizes.sequences
    read_mixing = 2 * lengths.tokens**2 * _mixing(sizes.language) * sizes.sequences
    if not sizes.fused:
        seen, seen_mixing, projected = (one * sizes.sequences for one in (seen, seen_mixing, projected))
    look = seen + seen_mixing + projected
    each = 2 * read + 3.5 * read_mixing
    if "vision" in sizes.regions:
        each += seen + 2.5 * seen_mixing
    if {"vision", "projector"} & set(sizes.regions):
        each += projected
    again = layout.checkpointed * (read + read_mixing + (seen + seen_mixing if "vision" in sizes.regions else 0.0))
    once, each = (look, each) if sizes.sees_once else (0.0, look + each)
    return Work(once=once, each=each + again, again=again)


def efficiency(sizes: Sizes) -> float:
    """Return the share of a card's matrix-product rate that training reaches."""
    if sizes.fused:
        share = _FUSED_FROZEN if sizes.sees_once else _FUSED_ADAPTED
    else:
        share = _STOCK.get(sizes.family, _STOCK_ELSE)
    return share * (_DEQUANTIZED if sizes.quantized else 1.0)


def seconds_per_pass(sizes: Sizes, layout: Layout, flops: float) -> float:
    """Return the time of one forward and backward pass over a micro batch.

    Args:
        sizes: Model and data.
        layout: How a step is cut.
        flops: The card's matrix products, in operations per second.
    """
    computing = layout.micro_batch_size * work(sizes, layout).each / (flops * efficiency(sizes))
    blocks = sizes.language + (() if sizes.sees_once else sizes.vision)
    layers = sum(1.0 if block.queries else _LAUNCH_CONV for block in blocks)
    # A forward pass is about a third of what is launched.
    return max(computing, layers * _LAUNCH_S[sizes.fused] * (1 + layout.checkpointed / 3))


def _of_all_tokens(sizes: Sizes) -> tuple[Block, ...]:
    """Return the language model's layers but those that the fused way computes for the answers only."""
    last = max((index for index, block in enumerate(sizes.language) if block.queries), default=len(sizes.language) - 1)
    return sizes.language[: last + 1] if sizes.fused else sizes.language


def _weights(blocks: tuple[Block, ...]) -> int:
    return sum(block.weights for block in blocks)


def _mixing(blocks: tuple[Block, ...]) -> int:
    return sum(block.queries for block in blocks)
