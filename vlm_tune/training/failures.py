"""What a training run fails of, in words that say what to do: memory and disk."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_tune import _files
from vlm_tune.errors import TrainingError
from vlm_tune.training.config import TrainConfig

__all__ = ["explained"]

_FULL_DISK = ("failed writing file", "unexpected pos", "No space left")
"""What torch says, in a RuntimeError, when it cannot write."""


@contextmanager
def explained(config: TrainConfig, device: str, folder: Path) -> Iterator[None]:
    """Turn what torch raises inside the block into errors that say what to do.

    Args:
        config: The training configuration, to propose one that needs less memory.
        device: Where the model is.
        folder: Where checkpoints are written.

    Raises:
        TrainingError: Memory ran out; the message proposes settings.
        StorageError: A checkpoint cannot be written.
    """
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_needs_less(config, device)) from error
    except SafetensorError as error:
        raise _files.storage_error(folder, OSError(errno.ENOSPC, str(error))) from error
    except RuntimeError as error:
        # On a CPU torch has no class of its own for it.
        if "can't allocate memory" in str(error):
            raise TrainingError(_needs_less(config, device)) from error
        if any(words in str(error) for words in _FULL_DISK):
            raise _files.storage_error(folder, OSError(errno.ENOSPC, str(error))) from error
        raise
    except OSError as error:
        raise _files.storage_error(folder, error) from error


def _needs_less(config: TrainConfig, device: str) -> str:
    """Return what to try when memory has run out, the same number of examples per optimizer step kept."""
    proposals = []
    if config.batch_size > 1:
        half = config.batch_size // 2
        passes = -(-config.batch_size * config.gradient_accumulation // half)
        proposals.append(f"TrainConfig(batch_size={half}, gradient_accumulation={passes})")
    if not config.gradient_checkpointing:
        proposals.append("TrainConfig(gradient_checkpointing=True)")
    if not proposals:
        proposals.append("fewer regions, or a smaller max_pixels in the task")
    return (
        f"{device} ran out of memory with batch_size={config.batch_size}; try {', or '.join(proposals)}. "
        "LoRATrainer.plan estimates what each needs"
    )
