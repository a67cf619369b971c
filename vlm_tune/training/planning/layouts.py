"""How an optimizer step is cut into passes that fit the memory, and what would help where none does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from vlm_tune.errors import TrainingError
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.memory import CONTEXT_BYTES, SLACK, Layout, peak
from vlm_tune.training.planning.sizes import Sizes
from vlm_tune.training.planning.work import seconds_per_pass

__all__ = ["choose_layout", "fitting_advice", "smallest"]


def choose_layout(sizes: Sizes, config: TrainConfig, *, free_bytes: float, flops: float, world_size: int = 1) -> Layout:
    """Return the fastest way to cut an optimizer step, of those that fit.

    A slow GPU has time for small passes with little recomputed; a fast one would wait for the processor between them.

    Args:
        sizes: Model and data.
        config: The training configuration; a micro batch or checkpointing that it asks for is kept.
        free_bytes: Memory of one GPU that is free once the base model is loaded.
        flops: Its matrix products, in operations per second.
        world_size: Number of GPUs.

    Raises:
        TrainingError: Nothing fits, and the message says what would.
    """
    fitting = [
        layout
        for layout in _layouts(sizes, config, world_size)
        if (1 + SLACK) * peak(sizes, layout).beside_weights <= free_bytes
    ]
    if not fitting:
        least = smallest(sizes, config, world_size)
        needed = (1 + SLACK) * peak(sizes, least).beside_weights
        room = free_bytes + sizes.weight_bytes()
        raise TrainingError(
            f"training needs at least {needed / 1e9:.1f} GB beside the base model (micro_batch_size="
            f"{least.micro_batch_size}, {least.checkpointed:.0%} of the layers recomputed), and "
            f"{max(free_bytes, 0.0) / 1e9:.1f} GB are free; "
            f"{fitting_advice(sizes, config, room=room, world_size=world_size)}"
        )
    # Of equally fast ones, the first: the largest micro batch.
    return min(fitting, key=lambda layout: seconds_per_pass(sizes, layout, flops) / layout.micro_batch_size)


def smallest(sizes: Sizes, config: TrainConfig, world_size: int = 1) -> Layout:
    """Return the layout that needs the least memory within the configuration."""
    return min(_layouts(sizes, config, world_size), key=lambda layout: peak(sizes, layout).beside_weights)


def fitting_advice(sizes: Sizes, config: TrainConfig, *, room: float, world_size: int = 1) -> str:
    """Return in words what would make training fit.

    Args:
        sizes: Model and data.
        config: The training configuration.
        room: Bytes of one GPU for the base model and everything else but the driver.
        world_size: Number of GPUs.
    """

    def least(changed: Sizes, free: TrainConfig = config) -> float:
        memory = peak(changed, smallest(changed, free, world_size))
        return memory.weights + (1 + SLACK) * memory.beside_weights

    options = []
    automatic = config.model_copy(update={"micro_batch_size": None, "gradient_checkpointing": None})
    if automatic != config and least(sizes, automatic) <= room:
        options.append("leave micro_batch_size and gradient_checkpointing to the plan")
    shares = [
        share for share in (0.5, 0.25, 0.125) if least(replace(sizes, lengths=sizes.lengths.shrunk(share))) <= room
    ]
    if shares:
        pixels = sizes.lengths.pixels * shares[0]
        options.append(f"max_pixels={pixels:.0f} in the task")
    if not sizes.quantized and least(replace(sizes, quantized=True, fused=False)) <= room:
        options.append('VLM(quantization="nf4")')
    options.append(f"a GPU with {math.ceil((least(sizes) + CONTEXT_BYTES) / 1e9)} GB")
    return "what would fit: " + ", or ".join(options)


def _layouts(sizes: Sizes, config: TrainConfig, world_size: int) -> list[Layout]:
    """Return what the configuration leaves open, largest micro batch first and least recomputed first."""
    each = math.ceil(min(config.batch_size, sizes.lengths.examples) / world_size)
    micro = [number for number in range(each, 0, -1) if each % number == 0]
    if config.micro_batch_size is not None:
        micro = [min(config.micro_batch_size, each)]
    depth = max(len(sizes.language), 1)
    shares: Sequence[float] = [step / depth for step in range(depth + 1)] if sizes.fused else [0.0, 1.0]
    if config.gradient_checkpointing is not None:
        shares = [float(config.gradient_checkpointing)]
    return [Layout(number, share) for number in micro for share in shares]
