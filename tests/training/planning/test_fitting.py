"""Where nothing is known of a model's memory, the configuration alone says how steps are cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.fitting import fit_to_memory, free_bytes
from vlm_tune.training.planning.memory import Layout


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        ({}, Layout(8, 0.0)),
        ({"micro_batch_size": 2}, Layout(2, 0.0)),
        ({"gradient_checkpointing": True}, Layout(8, 1.0)),
    ],
)
def test_without_a_skeleton_the_configuration_decides(settings: dict[str, Any], layout: Layout) -> None:
    job = SimpleNamespace(config=TrainConfig(batch_size=8, **settings), resident=None, skeleton=None)
    assert fit_to_memory(job, fused=True) == (layout, 0.0)  # type: ignore[arg-type]


def test_processes_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = free_bytes(torch.device("cpu"))
    assert alone > 2**28
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert free_bytes(torch.device("cpu")) == alone // 2
