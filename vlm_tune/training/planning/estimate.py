"""Memory, time and dollars of a training run from arithmetic, before anything is loaded or paid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from vlm_tune.cost import Card, GpuPrice, card_of, cards, gpu_cost, gpu_price_of
from vlm_tune.errors import ModelError, TrainingError
from vlm_tune.records import Money, Record
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.layouts import choose_layout, fitting_advice, smallest
from vlm_tune.training.planning.memory import CONTEXT_BYTES, SLACK, Layout, peak, room_for_photos
from vlm_tune.training.planning.sizes import Sizes
from vlm_tune.training.planning.work import efficiency, seconds_per_pass, work
from vlm_tune.training.running.batches import memory_bytes

__all__ = ["Device", "Estimates", "device_of", "estimate", "pick_device", "this_device"]

_PREPARE_S = {True: 0.006, False: 0.02}
"""Seconds to decode a photo of 0.75 megapixels and cut it into patches, fused and stock path. Measured: 2 s for 319
on 16 cores beside the GPU, and 1.75 s for 98 on one core."""

_PREPARED_PIXELS = 0.75e6

_LARGE = 1e9
"""From so many parameters on, nobody trains on a processor."""

_CORE_FLOPS = 30e9
"""Matrix products of one core, in operations per second."""

_USUAL = "H200"
"""The card that a large model is planned for where there is none."""


@dataclass(frozen=True)
class Device:
    """Where training runs.

    Attributes:
        name: What it is called.
        flops: Matrix products, in operations per second.
        memory_gb: Its memory in 1e9 bytes.
        is_gpu: Whether a driver takes its part of the memory.
        rent: What an hour costs; None for one's own, and where no price is known.
    """

    name: str
    flops: float
    memory_gb: float
    is_gpu: bool = True
    rent: GpuPrice | None = None

    def cost(self, seconds: float) -> Money | None:
        """Return what some time on it costs; None where no price is known."""
        if self.rent is None:
            return None
        return gpu_cost(seconds, self.rent.usd_per_hour, f"{self.rent.provider}: {self.rent.provenance}")

    def free_bytes(self, sizes: Sizes) -> float:
        """Return what is left for training once the base model is loaded; negative where that does not fit."""
        return self.memory_gb * 1e9 - sizes.weight_bytes() - (CONTEXT_BYTES if self.is_gpu else 0.0)


class Estimates(Record):
    """What a training run will take; all of it arithmetic, none of it measured."""

    device: str
    """The device assumed, and why."""
    device_gb: PositiveFloat
    """Its memory, in 1e9 bytes."""
    layout: Layout
    """How an optimizer step is cut into passes; the one that needs least where none fits."""
    memory_gb: NonNegativeFloat
    """Peak memory, in 1e9 bytes: the sum of the parts below."""
    weights_gb: NonNegativeFloat
    """Base model's part of it."""
    adapter_gb: NonNegativeFloat
    """Part of what is trained, its gradients and the optimizer."""
    activations_gb: NonNegativeFloat
    """Part of it that is kept for the backward pass; grows with the micro batch."""
    photos_gb: NonNegativeFloat
    """Part of all photos, looked at or cut into patches; 0 where they are kept elsewhere or not at all."""
    overhead_gb: NonNegativeFloat
    """The driver's part, and what the allocator wastes."""
    tflop_per_example: NonNegativeFloat
    """1e12 floating-point operations for one example in one epoch."""
    seconds: NonNegativeFloat
    """Time of the training with preparation of the photos, without loading the model."""
    preparation_s: NonNegativeFloat
    """Part of it before the first step: photos are decoded and, by a frozen tower, looked at."""
    steps: PositiveInt
    """Optimizer steps."""
    rent: GpuPrice | None = None
    """What an hour of the device costs; None for one's own, and where no price is known."""
    advice: str = ""
    """What would make it fit; empty where it does."""

    @property
    def fits(self) -> bool:
        """Whether the memory estimate is within the device."""
        return not self.advice

    @property
    def cost(self) -> Money | None:
        """Rent of the device for that time; None without a price."""
        if self.rent is None:
            return None
        return gpu_cost(self.seconds, self.rent.usd_per_hour, f"{self.rent.provider}: {self.rent.provenance}")


def estimate(sizes: Sizes, config: TrainConfig, device: Device, *, reason: str = "") -> Estimates:
    """Return memory, time and dollars of a run.

    Args:
        sizes: Model and data.
        config: The training configuration.
        device: Where it would run.
        reason: Added to the device's name.
    """
    room = device.memory_gb * 1e9 - (CONTEXT_BYTES if device.is_gpu else 0.0)
    try:
        free = device.free_bytes(sizes)
        layout, advice = choose_layout(sizes, config, free_bytes=free, flops=device.flops), ""
    except TrainingError:
        layout, advice = smallest(sizes, config), fitting_advice(sizes, config, room=room)
    spare = room_for_photos(sizes, layout, free_bytes=device.free_bytes(sizes))
    memory = peak(sizes, layout, photos=device.is_gpu and (1 + SLACK) * sizes.stored_photos <= spare)
    overhead = SLACK * memory.beside_weights + (CONTEXT_BYTES if device.is_gpu else 0.0)
    todo = work(sizes, layout)
    passes = config.epochs * sizes.lengths.examples / layout.micro_batch_size
    looking = todo.once * sizes.lengths.examples / (device.flops * efficiency(sizes))
    preparing = looking + _PREPARE_S[sizes.fused] * sizes.lengths.examples * sizes.lengths.pixels / _PREPARED_PIXELS
    return Estimates(
        device=f"{device.name} ({reason})" if reason else device.name,
        device_gb=device.memory_gb,
        layout=layout,
        memory_gb=(memory.allocated + overhead) / 1e9,
        weights_gb=memory.weights / 1e9,
        adapter_gb=memory.adapters / 1e9,
        activations_gb=memory.activations / 1e9,
        photos_gb=memory.photos / 1e9,
        overhead_gb=overhead / 1e9,
        tflop_per_example=todo.each / 1e12,
        seconds=preparing + passes * seconds_per_pass(sizes, layout, device.flops),
        preparation_s=preparing,
        steps=config.num_steps(sizes.lengths.examples),
        rent=device.rent,
        advice=advice,
    )


def pick_device(kind: str, parameters: int, *, name: str | None = None) -> tuple[Device, str]:
    """Return the device to plan for, and in words why that one.

    Args:
        kind: Where the model would be loaded: `auto`, or a torch device.
        parameters: Of the base model; one of 1e9 and more is not planned for a processor unless that is asked
            for.
        name: A card that is asked for, e.g. `H200`.

    Raises:
        ModelError: No figures are known for that card.
    """
    import torch

    if name is not None:
        card = card_of(name)
        if card is None:
            raise ModelError(f"no figures for {name!r}; known are {', '.join(card.gpu for card in cards())}")
        return device_of(card, _rent(card)), "asked for"
    if torch.cuda.is_available() and kind.startswith(("auto", "cuda")):
        return this_device("cuda"), ""
    usual = card_of(_USUAL)
    if parameters >= _LARGE and kind == "auto" and usual is not None:
        return device_of(usual, _rent(usual)), "assumed: this machine has no GPU"
    return this_device("cpu"), ""


def device_of(card: Card, rent: GpuPrice | None) -> Device:
    """Return a card as a device, at a price."""
    return Device(f"NVIDIA {card.gpu}", card.matmul_flops, card.memory_gb, rent=rent)


def this_device(kind: str) -> Device:
    """Return the figures of the GPU at hand, or of this processor.

    A GPU without known figures counts as fast as the slowest that has some, so that no time is flattered. Its memory is
    the part that this process may have, see `torch.cuda.set_per_process_memory_fraction`.

    Args:
        kind: The torch device type, `cuda` or anything else.
    """
    import torch

    if kind == "cuda":
        properties = torch.cuda.get_device_properties(0)
        card = card_of(properties.name)
        flops = card.matmul_flops if card else min(other.matmul_flops for other in cards())
        memory = properties.total_memory * torch.cuda.get_per_process_memory_fraction(0)
        return Device(properties.name, flops, memory / 1e9, rent=_rent(card) if card else None)
    cores = torch.get_num_threads()
    name = f"CPU, {cores} {'core' if cores == 1 else 'cores'} at {_CORE_FLOPS / 1e9:.0f} GFLOP/s each"
    return Device(name, _CORE_FLOPS * cores, memory_bytes() / 1e9, is_gpu=False)


def _rent(card: Card) -> GpuPrice | None:
    return gpu_price_of(card.gpu, on=date.today())
