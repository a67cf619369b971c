import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from vlm_tune.errors import StorageError, TrainingError
from vlm_tune.training import TrainConfig
from vlm_tune.training.failures import explained


@pytest.mark.parametrize(
    ("settings", "proposal"),
    [
        ({}, r"batch_size=2, gradient_accumulation=2\), or TrainConfig\(gradient_checkpointing=True\)"),
        ({"batch_size": 3, "gradient_accumulation": 2}, r"batch_size=1, gradient_accumulation=6\)"),
        ({"batch_size": 1}, r"try TrainConfig\(gradient_checkpointing=True\)"),
        ({"batch_size": 1, "gradient_checkpointing": True}, "fewer regions, or a smaller max_pixels"),
    ],
)
@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_proposes_what_needs_less(
    settings: dict[str, int], proposal: str, raised: RuntimeError, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=proposal), explained(TrainConfig(**settings), "cuda:0", tmp_path):
        raise raised


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told(raised: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no space left"), explained(TrainConfig(), "cpu", tmp_path):
        raise raised


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(TrainConfig(), "cpu", Path()):
        raise RuntimeError("shapes cannot be multiplied")
