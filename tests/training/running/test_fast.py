"""The fast way through a model: taken only while it agrees, and right for photos of any size."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import COLOURS, photo
from tests.training.running.faults import SHORT
from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.records import Example
from vlm_tune.training import LoRATrainer
from vlm_tune.training.planning.fitting import fit_to_memory
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.loop import Job
from vlm_tune.vlm import VLM
from vlm_tune.vlm.fused import lora

STOCK = SHORT.model_copy(update={"fast": False})


def test_where_it_does_not_agree_the_stock_way_is_taken_with_a_word_and_all_memory(
    tiny_vlm: Path,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    alive: dict[bool, int] = {}

    def fitted(job: Job, *, fused: bool) -> Any:
        alive[fused] = sum(isinstance(one, Fast) for one in gc.get_objects())
        return fit_to_memory(job, fused=fused)

    monkeypatch.setattr("vlm_tune.training.running.loop.fit_to_memory", fitted)
    monkeypatch.setattr(Fast, "difference", lambda *args: 0.5)
    losses = LoRATrainer(VLM(tiny_vlm), SHORT).fit(colours, run_dir=tmp_path / "fast").training.losses
    assert capfd.readouterr().err.count("differs from the stock one by 50 %") == 1
    assert alive == {True: 0, False: 0}
    assert losses == LoRATrainer(VLM(tiny_vlm), STOCK).fit(colours, run_dir=tmp_path / "stock").training.losses


def test_memory_that_photos_took_is_given_back_when_the_comparison_fails(
    tiny_vlm: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    closed: list[Fast] = []
    monkeypatch.setattr(Fast, "difference", full)
    monkeypatch.setattr(Fast, "close", lambda fast: closed.append(fast))
    with pytest.raises(TrainingError, match="ran out of memory"):
        LoRATrainer(VLM(tiny_vlm), SHORT).fit(colours, run_dir=tmp_path)
    assert len(closed) == 1


def test_adapters_that_are_too_strong_are_noticed_before_they_have_learnt_anything(
    tiny_vlm: Path,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    right = lora._lora

    def wrong(layer: Any) -> Any:
        found = right(layer)
        return found and (*found[:2], 3 * found[2])

    monkeypatch.setattr(lora, "_lora", wrong)
    losses = LoRATrainer(VLM(tiny_vlm), SHORT).fit(colours, run_dir=tmp_path / "fast").training.losses
    assert "differs from the stock one" in capfd.readouterr().err
    assert losses == LoRATrainer(VLM(tiny_vlm), STOCK).fit(colours, run_dir=tmp_path / "stock").training.losses


def test_photos_of_any_size_train_as_on_the_stock_way(tiny_vlm: Path, colours: Dataset, tmp_path: Path) -> None:
    examples = [
        Example(id=f"{index}", image=photo(label, index, width=40 + 7 * index, height=150 - 9 * index), label=label)
        for index, label in enumerate(COLOURS * 4)
    ]
    data = Dataset(examples, task=colours.task)
    fast, stock = (
        LoRATrainer(VLM(tiny_vlm), config).fit(data, run_dir=tmp_path / str(config.fast)).training.losses
        for config in (SHORT, STOCK)
    )
    assert fast == pytest.approx(stock, abs=1e-5)
