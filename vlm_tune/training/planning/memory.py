"""Peak memory of training, byte by byte from the widths of the layers.

What is counted is what autograd keeps for the backward pass, which tests compare with what it does keep. Two paths
differ in it. The stock one (TRL and PEFT on transformers, under autocast) keeps a float32 copy of each norm's input, a
copy of its input for every adapter, and all three parts of a gated mlp. The fused one keeps each of these once and
recomputes what is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vlm_tune.training.planning.blocks import Block
from vlm_tune.training.planning.sizes import Sizes

__all__ = [
    "CONTEXT_BYTES",
    "SLACK",
    "Layout",
    "Memory",
    "answering",
    "peak",
    "room_for_photos",
]

CONTEXT_BYTES = 0.6e9
"""What the driver and its libraries take of a GPU."""

SLACK = 0.04
"""Share by which the allocator takes more than is asked for, of everything but the weights."""

_TRAINED_BYTES = 16
"""Bytes per trained parameter: value, gradient and AdamW's two moments, each in float32."""


@dataclass(frozen=True)
class Layout:
    """How an optimizer step is cut into passes.

    Attributes:
        micro_batch_size: Examples per forward and backward pass on one GPU.
        checkpointed: Share of each tower's layers, the first ones, that are recomputed in the backward pass.
    """

    micro_batch_size: int
    checkpointed: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes, by what takes it.

    Attributes:
        weights: The base model.
        adapters: What is trained, with gradients and optimizer.
        activations: Kept for the backward pass of one micro batch, and the most it takes besides.
        photos: All photos, looked at or cut into patches, where they are kept on the GPU.
    """

    weights: float
    adapters: float
    activations: float
    photos: float = 0.0

    @property
    def allocated(self) -> float:
        """The sum: what `torch.cuda.max_memory_allocated` shows."""
        return self.weights + self.beside_weights

    @property
    def beside_weights(self) -> float:
        """The sum without the base model."""
        return self.adapters + self.activations + self.photos

    @property
    def needed(self) -> float:
        """What a GPU must have: the sum, the driver's part and what the allocator wastes."""
        return self.allocated + SLACK * self.beside_weights + CONTEXT_BYTES


def peak(sizes: Sizes, layout: Layout, *, photos: bool = False) -> Memory:
    """Return the peak memory of training.

    Args:
        sizes: Model and data.
        layout: How a step is cut.
        photos: Whether all photos are kept on the GPU.
    """
    copies = sizes.bytes_per_value if sizes.bytes_per_value < 4 else 0
    return Memory(
        weights=sizes.weight_bytes(),
        adapters=sizes.trained * (_TRAINED_BYTES + copies),
        activations=_activations(sizes, layout),
        photos=sizes.stored_photos if photos and sizes.fused else 0.0,
    )


def room_for_photos(sizes: Sizes, layout: Layout, *, free_bytes: float) -> float:
    """Return the bytes that training leaves on a GPU for keeping photos there.

    Args:
        sizes: Model and data.
        layout: How a step is cut.
        free_bytes: Memory of one GPU that is free once the base model is loaded.
    """
    return max(0.0, free_bytes - (1 + SLACK) * peak(sizes, layout).beside_weights)


def answering(sizes: Sizes, bits: float) -> float:
    """Return the bytes a GPU needs to answer about one photo at a time.

    Args:
        sizes: Model and data.
        bits: Bits of each weight of the language model's linear layers.
    """
    lengths, values = sizes.lengths, sizes.bytes_per_value
    cache = lengths.tokens * sum(2 * block.keys for block in sizes.language) * values
    live = max(
        lengths.padded_patches * max((_stock(block, sizes, 0.0) for block in sizes.vision), default=0.0),
        lengths.tokens * max(_stock(block, sizes, lengths.tokens) for block in sizes.language),
    )
    return sizes.weight_bytes(bits) + (1 + SLACK) * (cache + live) + CONTEXT_BYTES


def _activations(sizes: Sizes, layout: Layout) -> float:
    """Return the most that one micro batch takes: what is kept, and one layer's backward pass."""
    lengths, number = sizes.lengths, layout.micro_batch_size
    # All photos of a pass may be mixed; the stock path sees those twice.
    sequences = number * math.ceil(sizes.sequences)
    photos = number if sizes.fused else sequences
    tokens = sequences * lengths.tokens
    patches = photos * (lengths.patches if sizes.fused else lengths.padded_patches)
    images = photos * lengths.image_tokens
    padded = not sizes.fused and lengths.padded_patches > lengths.patches
    woken = "vision" in sizes.regions or (sizes.wakes_vision and not sizes.fused and layout.checkpointed > 0)
    reached = woken or "projector" in sizes.regions
    language = _tower(_behind_first(sizes.language, reached), sizes, layout.checkpointed, span=lengths.tokens)
    vision = _tower(sizes.vision, sizes, layout.checkpointed, span=lengths.padded_patches if padded else 0.0)
    logits = sequences * lengths.answer_tokens * sizes.vocabulary * (sizes.bytes_per_value + 8)
    kept = sequences * lengths.image_tokens * sizes.features * sizes.bytes_per_value
    if sizes.quantized:
        # A product turns its weights back first.
        kept += max(block.width * max(block.hidden, block.queries) for block in sizes.language) * sizes.bytes_per_value
    if woken:
        kept += patches * vision.kept
    if reached:
        kept += images * sum(_projected(block, sizes) for block in sizes.projector)
    return kept + max(tokens * (language.kept + language.live) + logits, patches * vision.live)


@dataclass(frozen=True)
class _Tower:
    """Bytes per token: kept by all layers until the backward pass, and taken besides by the one that is in it."""

    kept: float
    live: float


def _tower(blocks: Sequence[Block], sizes: Sizes, share: float, *, span: float) -> _Tower:
    values = sizes.bytes_per_value
    decoder = bool(blocks) and blocks[-1] is sizes.language[-1]
    each = [_fused(block, sizes, decoder) if sizes.fused else _stock(block, sizes, span, decoder) for block in blocks]
    if sizes.fused and decoder:
        # Behind the keys and values of the last attention there are only the answer's tokens.
        place = max((index for index, block in enumerate(blocks) if block.queries), default=len(blocks) - 1)
        last = blocks[place]
        each[place] = values * (last.width + last.shared + last.queries + 3 * last.keys)
        each[place + 1 :] = [0.0] * (len(blocks) - place - 1)
    forgotten = math.ceil(share * len(blocks) - 1e-9)
    kept = sum(values * block.width for block in blocks[:forgotten]) + sum(each[forgotten:])
    gradients = max((values * (3 * block.hidden + 2 * block.width) for block in blocks), default=0.0)
    return _Tower(kept, gradients + (max(each, default=0.0) if forgotten == len(blocks) else 0.0))


def _behind_first(blocks: Sequence[Block], reached: bool) -> Sequence[Block]:
    """Return the layers that the backward pass goes through: none before the first adapter, unless it goes on."""
    if reached:
        return blocks
    first = next((index for index, block in enumerate(blocks) if block.adapted), len(blocks))
    return blocks[first:]


def _stock(block: Block, sizes: Sizes, span: float, decoder: bool = True) -> float:
    """Return the bytes per token that a layer of the stock path keeps.

    Args:
        block: The layer.
        sizes: Rank, type and dropout.
        span: Length of a sequence whose attention mask is kept; 0 without a mask.
        decoder: Whether keys are repeated for all query heads, as with a mask they are.
    """
    values = sizes.bytes_per_value
    total: float = 2 * 4 * block.width + values * (block.inputs + sizes.rank * block.adapted)
    if sizes.dropped:
        total += block.inputs
    if sizes.extra_outputs:
        total += 2 * values * block.outputs
    if block.queries:
        mixed = 4 * block.queries if decoder else 2 * (block.queries + block.keys)
        if block.stacked and not decoder:
            # The values are a view into query, key and value together, which therefore all stay.
            mixed = 3 * block.queries + 3 * block.keys
        total += values * (mixed + span) + 4 * block.heads
        total += 4 * (block.queries + block.keys) if block.normed else 0
    if block.conv:
        total += values * 5 * block.width
    return total + values * block.hidden * (3 if block.gated else 1)


def _fused(block: Block, sizes: Sizes, decoder: bool) -> float:
    """Return the bytes per token that a layer of the fused path keeps."""
    values = 2 * block.width + block.shared + sizes.rank * block.adapted
    if block.queries:
        values += 2 * block.queries + 2 * block.keys
        if decoder or block.stacked:
            # Rotated queries and keys beside those they were made of.
            values += block.queries + block.keys
    if block.conv:
        values += 3 * block.width
    values += block.hidden * (2 if block.gated else 1)
    return sizes.bytes_per_value * values + 4 * block.heads


def _projected(block: Block, sizes: Sizes) -> float:
    """Return the bytes per image token that a part of the projector keeps."""
    values = sizes.bytes_per_value
    of_norm = values if sizes.fused else 4
    inputs = block.shared if sizes.fused else block.inputs
    return of_norm * block.width + values * (block.hidden + inputs + sizes.rank * block.adapted)
