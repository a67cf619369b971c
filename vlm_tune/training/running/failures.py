"""What a training run fails of, in words that say what to do: memory and disk."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_tune import _files
from vlm_tune.errors import TrainingError
from vlm_tune.training.config import TrainConfig

__all__ = ["explained", "out_of_memory", "storing"]

_FULL_DISK = ("failed writing file", "unexpected pos", "No space left")
"""What torch says, in a RuntimeError, when it cannot write."""


@contextmanager
def explained(config: TrainConfig, device: str) -> Iterator[None]:
    """Turn what torch raises inside the block when memory runs out into an error that says what to do.

    Args:
        config: The training configuration, to propose one that needs less memory.
        device: Where the model is.

    Raises:
        TrainingError: Memory ran out; the message proposes settings.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(_needs_less(config, device)) from error


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error of torch says that memory ran out."""
    import torch

    # On a processor torch has no class of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what torch and safetensors raise inside the block when they cannot write into one error that says why.

    Args:
        path: What is being written.

    Raises:
        StorageError: The disk is full, or the path cannot be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise _files.storage_error(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _FULL_DISK):
            raise
        raise _files.storage_error(path, OSError(errno.ENOSPC, str(error))) from error
    except OSError as error:
        raise _files.storage_error(path, error) from error


def _needs_less(config: TrainConfig, device: str) -> str:
    """Return what to try when memory has run out, the same number of examples per optimizer step kept."""
    proposals = []
    micro = config.micro_batch_size or config.batch_size
    if micro > 1:
        proposals.append(f"TrainConfig(micro_batch_size={micro // 2})")
    if not config.gradient_checkpointing:
        proposals.append("TrainConfig(gradient_checkpointing=True)")
    if not proposals:
        proposals.append('fewer regions, a smaller max_pixels in the task, or VLM(quantization="nf4")')
    return (
        f"{device} ran out of memory with micro_batch_size={micro}; try {', or '.join(proposals)}. "
        "LoRATrainer.plan estimates what each needs"
    )
