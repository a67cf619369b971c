"""How a training run is cut to the memory that is free."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlm_tune import _processes
from vlm_tune.training.planning.estimate import this_device
from vlm_tune.training.planning.layouts import choose_layout
from vlm_tune.training.planning.memory import CONTEXT_BYTES, Layout, room_for_photos
from vlm_tune.training.planning.sizes import lengths_of, sizes_of
from vlm_tune.training.running.batches import memory_bytes
from vlm_tune.training.running.store import on_gpu

if TYPE_CHECKING:
    import torch

    from vlm_tune.training.running.loop import Job

__all__ = ["fit_to_memory", "free_bytes"]


def fit_to_memory(job: Job, *, fused: bool) -> tuple[Layout, float]:
    """Return how to cut each step, and how many bytes of a GPU are left to keep photos in.

    Args:
        job: The training run, its adapters attached.
        fused: Whether the model is gone through by the fast way.

    Raises:
        TrainingError: Nothing fits; the message says what would.
    """
    config, resident = job.config, job.resident
    if job.skeleton is None:
        return Layout(config.micro_batch_size or config.batch_size, float(config.gradient_checkpointing or False)), 0.0
    sizes = sizes_of(
        job.skeleton,
        resident.family,
        config,
        lengths=lengths_of(job.batches, resident.model.config),
        trained=job.wrapped.get_nb_trainable_parameters()[0],
        bytes_per_value=resident.dtype.itemsize,
        quantized=resident.quantization is not None,
    )
    sizes = replace(sizes, fused=fused)
    # What the training before has left there makes way.
    free = free_bytes(resident.device) + on_gpu(job.batches.kept)
    flops = this_device(resident.device.type).flops
    layout = choose_layout(sizes, config, free_bytes=free, flops=flops, world_size=_processes.world_size())
    return layout, room_for_photos(sizes, layout, free_bytes=free)


def free_bytes(device: torch.device) -> float:
    """Return the memory of a device that this process may still take, what its allocator holds unused included."""
    import torch

    if device.type != "cuda":
        return float(memory_bytes())
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + held
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total - CONTEXT_BYTES
    return float(min(free, allowed - torch.cuda.memory_allocated(device)))
