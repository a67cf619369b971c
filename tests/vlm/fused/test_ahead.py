"""Everything that training and answering will run is run ahead, and none of it fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from vlm_tune.vlm.fused import ahead


def test_every_operation_of_an_architecture_runs(tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    threads = ahead.warm_up(AutoConfig.from_pretrained(tiny_vlm), torch.float32, torch.device("cpu"))
    for thread in threads:
        thread.join(60)
    assert len(threads) == 2
    assert not any(thread.is_alive() for thread in threads)
    assert not failed
