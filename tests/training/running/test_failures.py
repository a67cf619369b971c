import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from vlm_tune.errors import StorageError, TrainingError
from vlm_tune.training import TrainConfig
from vlm_tune.training.running.failures import explained, storing


@pytest.mark.parametrize(
    ("settings", "proposal"),
    [
        ({}, r"micro_batch_size=2\), or TrainConfig\(gradient_checkpointing=True\)"),
        ({"batch_size": 6, "micro_batch_size": 3}, r"micro_batch_size=3; try TrainConfig\(micro_batch_size=1\)"),
        ({"batch_size": 1}, r"try TrainConfig\(gradient_checkpointing=True\)"),
        ({"batch_size": 1, "gradient_checkpointing": True}, "fewer regions, a smaller max_pixels"),
        ({"batch_size": 8, "micro_batch_size": 1, "gradient_checkpointing": True}, 'VLM\\(quantization="nf4"\\)'),
    ],
)
@pytest.mark.parametrize(
    "raised",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_proposes_what_needs_less(settings: dict[str, int], proposal: str, raised: RuntimeError) -> None:
    with pytest.raises(TrainingError, match=proposal), explained(TrainConfig(**settings), "cuda:0"):
        raise raised


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told(raised: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"no space left to write {tmp_path}"), storing(tmp_path):
        raise raised


def test_what_else_keeps_from_writing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone: No such file or directory"), storing(tmp_path / "gone"):
        save_file({"a": torch.zeros(1)}, tmp_path / "gone" / "a.safetensors")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(TrainConfig(), "cpu"), storing(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")
    with pytest.raises(SafetensorError, match="header"), storing(tmp_path):
        raise SafetensorError("Error while deserializing header: header too large")
    with pytest.raises(ConnectionError), explained(TrainConfig(), "cpu"):
        raise ConnectionError("a tracker is away")
