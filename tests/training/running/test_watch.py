"""What is told and counted while a model trains."""

from __future__ import annotations

import signal
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.training.running.faults import SHORT, STEPS, at_call, signalled
from vlm_tune import _processes
from vlm_tune.cost import gpu_price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import StoppedError
from vlm_tune.training import LoRATrainer
from vlm_tune.training.planning.estimate import Device
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.tape import Tape
from vlm_tune.training.running.watch import _foretold
from vlm_tune.vlm import VLM


class OnItsWay:
    """What a GPU says of a loss that it has not worked out yet."""

    def synchronize(self) -> None:
        pass


def test_one_process_ends_behind_the_step_in_which_it_was_asked_though_losses_come_later(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Tape.put

    def put_as_a_gpu_does(tape: Tape, *args: Any, **kwargs: Any) -> None:
        put(tape, *args, **kwargs)
        number, step, value, _, learning_rate = tape._waiting.pop()
        tape._waiting.append((number, step, value, OnItsWay(), learning_rate))

    monkeypatch.setattr(Tape, "put", put_as_a_gpu_does)
    with at_call(STEPS, 3, signalled(signal.SIGTERM)), pytest.raises(StoppedError) as stopped:
        LoRATrainer(VLM(tiny_qwen3_vl), SHORT).fit(colours, run_dir=tmp_path)
    assert stopped.value.step == 3


def test_reading_photos_is_time_too(tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"epochs": 0.1})
    with at_call(f"{Fast.__module__}.Fast.read", 1, lambda *args: time.sleep(3)):
        log = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(colours, run_dir=tmp_path).training
    assert log.num_steps == 1
    assert 3 <= log.seconds < 6


def test_every_gpu_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("some card", flops=1.0, memory_gb=1.0, rent=gpu_price_of("H200", on=date(2026, 11, 1)))
    alone = device.cost(3600)
    assert alone is not None
    assert f"training takes 60.0 min and {alone} (" in _foretold(3600, device)
    monkeypatch.setattr(_processes, "world_size", lambda: 4)
    assert f"training takes 60.0 min and {device.cost(4 * 3600)} (" in _foretold(3600, device)
