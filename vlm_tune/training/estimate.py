"""Memory, time and dollars of a LoRA training run from arithmetic, before anything is loaded or paid.

Floating-point operations count a multiplication and an addition as two. The adapters' products and the last
layer's logits on the answer's few tokens are left out: together they stay under 2 % of the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from vlm_tune.cost import gpu_cost
from vlm_tune.errors import ModelError
from vlm_tune.families import Region
from vlm_tune.records import Money, Record
from vlm_tune.training.batches import memory_bytes
from vlm_tune.training.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEVICES", "Device", "Estimates", "Sizes", "Stack", "estimate", "pick_device", "this_device"]

_ADAPTER_BYTES = 16
"""Bytes per trained parameter: value, gradient and AdamW's two moments, each in float32."""

_KEPT_OUTPUTS = {"language": {"qwen3_vl": 2.6, "lfm2_vl": 4.6}, "vision": {"qwen3_vl": 1.9, "lfm2_vl": 1.9}}
"""Activations kept for the backward pass, in multiples of what the layers' linear modules put out.

Fitted to peaks of TRL 1.16 on transformers 5.23, one NVIDIA H200: Qwen3-VL-8B with 828 tokens an example
peaks at 42, 66 and 114 GB with batch 4, 8 and 16 (vision frozen) and at 90 GB with batch 8 (vision adapted);
LFM2-VL-3B with 150 tokens at 51 and 95 GB with batch 32 and 64.
"""

_EFFICIENCY = {"qwen3_vl": 0.30, "lfm2_vl": 0.13}
"""Share of the matrix-product rate that stock training reaches, from the same runs: 0.26 to 0.39 and 0.15."""

_PREPARE_S = 0.02
"""Seconds to decode a one-megapixel photo and cut it into patches on one core (measured: 1.75 s for 98)."""

_BIG = 1e9
"""From so many parameters on, nobody trains on a processor."""

_CONTEXT_GB = 0.6
"""What the driver and its libraries take."""

_RENT_SOURCE = "middle of the specialised clouds' range, mercatus-ai.com/blog/cloud-gpu-pricing, May 2026"


@dataclass(frozen=True)
class Device:
    """Where training runs: its matrix-product rate, memory and rent."""

    name: str
    flops: float
    memory_gb: float
    usd_per_hour: float
    source: str

    @property
    def rented(self) -> bool:
        """Whether its time costs money."""
        return self.usd_per_hour > 0


DEVICES = (
    # 777 TFLOP/s in bfloat16 is measured on an H200; the others have the same share of their vendor's peak.
    Device("NVIDIA H200", 777e12, 141.0, 4.0, _RENT_SOURCE),
    Device("NVIDIA H100", 777e12, 80.0, 3.0, _RENT_SOURCE),
    Device("NVIDIA A100", 245e12, 80.0, 1.3, _RENT_SOURCE),
)
"""Cards with known figures; plans name the one they assume."""


@dataclass(frozen=True)
class Stack:
    """The repeated layers of one region, as the arithmetic needs them.

    Attributes:
        weights: Parameters of its linear modules.
        outputs: Sum of their output widths, over all layers.
        width: Width of the stream between layers.
        depth: Number of layers.
        mixing: Sum over attention layers of heads x head width.
    """

    weights: int
    outputs: int
    width: int
    depth: int
    mixing: int


@dataclass(frozen=True)
class Sizes:
    """Everything the estimate depends on.

    Attributes:
        family: Name of the architecture's family.
        stacks: The layers of each region.
        parameters: Of the whole base model.
        trained: Of the adapters.
        regions: Regions that get adapters.
        tokens: Tokens of one example, image and answer included, on average.
        patches: Image patches of one example, on average.
        examples: Number of training examples.
        bytes_per_weight: 2 for bfloat16 and float16, 4 for float32.
    """

    family: str
    stacks: dict[Region, Stack]
    parameters: int
    trained: int
    regions: tuple[Region, ...]
    tokens: float
    patches: float
    examples: int
    bytes_per_weight: int


class Estimates(Record):
    """What a training run will take; all of it arithmetic, none of it measured."""

    device: str
    """The device assumed, and why."""
    memory_gb: NonNegativeFloat
    """Peak memory, in 1e9 bytes."""
    weights_gb: NonNegativeFloat
    """Base model's part of it."""
    adapter_gb: NonNegativeFloat
    """Adapters', gradients' and optimizer's part of it."""
    activations_gb: NonNegativeFloat
    """Part of it that is kept for the backward pass; grows with the batch size."""
    device_gb: PositiveFloat
    """Memory of the device."""
    tflop_per_example: NonNegativeFloat
    """1e12 floating-point operations for one example once."""
    seconds: NonNegativeFloat
    """Time of the training, without loading the model."""
    steps: PositiveInt
    """Optimizer steps."""
    cost: Money | None
    """Rent of the device for that time; None for one's own processor."""

    @property
    def fits(self) -> bool:
        """Whether the memory estimate is within the device."""
        return self.memory_gb <= self.device_gb


def estimate(sizes: Sizes, config: TrainConfig, device: Device, *, reason: str = "") -> Estimates:
    """Return memory, time and dollars of a run.

    Memory is the weights, 16 bytes per trained parameter and the activations of one batch. A frozen model
    still needs the gradient of every activation behind the first adapter, but no gradients of its weights:
    the backward pass costs as much as the forward pass, not twice as much (2N and 2N operations per token, N
    the parameters it goes through). Gradient checkpointing adds one more forward pass.

    Args:
        sizes: Model and data.
        config: The training configuration.
        device: Where it would run.
        reason: Added to the device's name.
    """
    weights = sizes.parameters * sizes.bytes_per_weight / 1e9
    adapter = sizes.trained * _ADAPTER_BYTES / 1e9
    activations = config.batch_size * _activation_bytes(sizes, config.gradient_checkpointing) / 1e9
    work = _flops(sizes, config.gradient_checkpointing)
    training_s = work * sizes.examples * config.epochs / (device.flops * _EFFICIENCY[sizes.family])
    seconds = training_s + _PREPARE_S * sizes.examples * min(1.0, sizes.patches / 2852)
    return Estimates(
        device=f"{device.name} ({reason})" if reason else device.name,
        memory_gb=weights + adapter + activations + (_CONTEXT_GB if device.rented else 0.0),
        weights_gb=weights,
        adapter_gb=adapter,
        activations_gb=activations,
        device_gb=device.memory_gb,
        tflop_per_example=work / 1e12,
        seconds=seconds,
        steps=config.num_steps(sizes.examples),
        cost=gpu_cost(seconds, device.usd_per_hour, device.source) if device.rented else None,
    )


def pick_device(kind: str, parameters: int, *, name: str | None = None) -> tuple[Device, str]:
    """Return the device to plan for, and in words why that one.

    Args:
        kind: Where the model would be loaded: `auto`, or a torch device.
        parameters: Of the base model; one of 1e9 and more is not planned for a processor unless that is asked
            for.
        name: A card of `DEVICES` that is asked for, e.g. `H200`.

    Raises:
        ModelError: No figures are known for that card.
    """
    import torch

    if name is not None:
        known = next((card for card in DEVICES if name.casefold() in card.name.casefold()), None)
        if known is None:
            raise ModelError(f"no figures for {name!r}; known are {', '.join(card.name for card in DEVICES)}")
        return known, "asked for"
    if torch.cuda.is_available() and kind.startswith(("auto", "cuda")):
        return this_device("cuda"), ""
    if parameters >= _BIG and kind == "auto":
        return DEVICES[0], "assumed: this machine has no GPU"
    return this_device("cpu"), ""


def this_device(kind: str) -> Device:
    """Return the figures of the GPU at hand, or of this processor.

    Args:
        kind: The torch device type, `cuda` or anything else.
    """
    import torch

    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        known = next((card for card in DEVICES if properties.name.startswith(card.name)), None)
        if known is not None:
            return known
        source = "no rent known for this card: assumed"
        return Device(properties.name, 150e12, properties.total_memory / 1e9, 1.0, source)
    cores = torch.get_num_threads()
    memory = memory_bytes() / 1e9
    return Device(f"CPU, {cores} cores at 30 GFLOP/s each", 30e9 * cores, memory, 0.0, "")


def _flops(sizes: Sizes, checkpointing: bool) -> float:
    """Return the operations of one example once: forward, backward, and the recomputation if any.

    Attention adds 4 S^2 x (heads x head width) per layer forward, half of it where it is causal, and 2.5
    times that backward (Dao et al. 2022, arXiv 2205.14135).
    """
    vision, language = sizes.stacks["vision"], sizes.stacks["language"]
    projector = sizes.stacks["projector"]
    seen = 2 * vision.weights * sizes.patches
    seen_mixing = 4 * sizes.patches**2 * vision.mixing
    # Four patches become one token before the projector.
    projected = 2 * projector.weights * sizes.patches / 4
    read, read_mixing = 2 * language.weights * sizes.tokens, 2 * sizes.tokens**2 * language.mixing
    total = seen + seen_mixing + projected + (2 * read + 3.5 * read_mixing)
    if "vision" in sizes.regions:
        total += seen + 2.5 * seen_mixing
    if {"vision", "projector"} & set(sizes.regions):
        total += projected
    if checkpointing:
        total += read + read_mixing + (seen + seen_mixing if "vision" in sizes.regions else 0)
    return total


def _activation_bytes(sizes: Sizes, checkpointing: bool) -> float:
    """Return the bytes kept for the backward pass of one example.

    Without checkpointing: a measured multiple of every linear module's output. With it: the stream at every
    layer's entrance, and one layer in full.
    """
    parts: Sequence[tuple[Region, float]] = [("language", sizes.tokens)]
    if "vision" in sizes.regions:
        parts = [*parts, ("vision", sizes.patches)]
    total = 0.0
    for region, length in parts:
        stack = sizes.stacks[region]
        full = _KEPT_OUTPUTS[region][sizes.family] * stack.outputs
        kept = stack.depth * stack.width + full / stack.depth if checkpointing else full
        total += length * kept * sizes.bytes_per_weight
    return total
