"""What goes wrong in a batch: numbers, photos, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import COLOURS, photo
from tests.training.running.faults import SHORT, STEPS, at_call, checkpoints, digest
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError, TrainingError
from vlm_tune.training import Adapter, LoRATrainer
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.steps import Row
from vlm_tune.training.running.stock import Stock
from vlm_tune.vlm import VLM

CLIPPING = "torch.nn.utils.clip_grad_norm_"
"""What is called once a step when its gradients are there."""


@pytest.fixture(scope="module")
def unbroken(tiny_qwen3_vl: Path, colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return LoRATrainer(VLM(tiny_qwen3_vl), SHORT).fit(colours, run_dir=tmp_path_factory.mktemp("unbroken"))


def adapters(trainer: LoRATrainer) -> list[torch.nn.Parameter]:
    return [parameter for parameter in trainer.base.load().model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("weight", r"the loss is nan at step 4, with (\w+/\d, ){3}\w+/\d: lower the learning rate \(now 0\.005\)"),
        ("gradient", r"the weights are not finite after step 4, though its loss was: lower the learning rate"),
    ],
    ids=["weight", "gradient"],
)
def test_numbers_that_are_none_stop_it_and_the_checkpoint_before_is_sound(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, unbroken: Adapter, broken: str, told: str
) -> None:
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), SHORT)

    def poison(*args: Any, **kwargs: Any) -> None:
        parameter = adapters(trainer)[-1]
        where = parameter if broken == "weight" else parameter.grad
        with torch.no_grad():
            where.fill_(math.nan)

    with at_call(STEPS if broken == "weight" else CLIPPING, 4, poison), pytest.raises(TrainingError, match=told):
        trainer.fit(colours, run_dir=tmp_path)
    assert checkpoints(tmp_path) == {"checkpoint-2": True}
    [saved] = tmp_path.glob("checkpoints/*/checkpoint-2/adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_file(saved).values())
    resumed = trainer.fit(colours, run_dir=tmp_path)
    assert (resumed.training.resumed_from, digest(resumed)) == (2, digest(unbroken))


def test_weights_broken_by_the_last_step_do_not_become_the_adapter(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path
) -> None:
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), SHORT.model_copy(update={"save_every": 5}))

    def poison(*args: Any, **kwargs: Any) -> None:
        adapters(trainer)[0].grad.fill_(math.inf)

    with at_call(CLIPPING, 9, poison), pytest.raises(TrainingError, match="not finite after step 9"):
        trainer.fit(colours, run_dir=tmp_path)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("fast", [True, False])
def test_a_photo_that_breaks_in_the_second_epoch_is_named_and_mended(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    # No photo is kept in memory, nor was any by a training before.
    VLM(tiny_qwen3_vl).load().kept.clear()
    for module in ("store", "batches"):
        monkeypatch.setattr(f"vlm_tune.training.running.{module}.memory_bytes", lambda: 0)
    for place in range(12):
        file = tmp_path / "photos" / COLOURS[place % 3] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(COLOURS[place % 3], place))
    data = Dataset.from_folder(tmp_path / "photos", task=colours.task)
    config = SHORT.model_copy(update={"epochs": 2.0, "save_every": 3, "fast": fast})
    unbroken = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(data, run_dir=tmp_path / "unbroken")

    sound = file.read_bytes()
    # The fast way reads the photos of the next steps ahead.
    breaking = at_call(STEPS, 3 if fast else 4, lambda *args: file.write_bytes(sound[:200]))
    with breaking, pytest.raises(ImageError, match=file.name) as raised:
        LoRATrainer(VLM(tiny_qwen3_vl), config).fit(data, run_dir=tmp_path / "run")
    assert str(raised.value.image) == str(file)
    assert checkpoints(tmp_path / "run") == {"checkpoint-3": True}

    file.write_bytes(sound)
    again = Dataset.from_folder(tmp_path / "photos", task=colours.task)
    resumed = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(again, run_dir=tmp_path / "run")
    assert (resumed.training.resumed_from, digest(resumed)) == (3, digest(unbroken))


def small_memory(monkeypatch: pytest.MonkeyPatch, way: type, most: int, error: RuntimeError) -> list[int]:
    """Let a forward pass fail for more than some examples; returns how many come at a time."""
    asked: list[int] = []
    before: Callable[..., Any] = way.answers

    def answers(self: Any, model: Any, rows: Sequence[Row]) -> Any:
        asked.append(len(rows))
        made = before(self, model, rows)
        if len(rows) > most:
            raise error
        return made

    monkeypatch.setattr(way, "answers", answers)
    return asked


@pytest.mark.parametrize(
    ("way", "error"),
    [
        (Fast, torch.OutOfMemoryError("CUDA out of memory")),
        (Stock, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")),
    ],
    ids=["fast", "stock"],
)
def test_with_too_little_memory_it_goes_on_in_smaller_parts(
    tiny_qwen3_vl: Path,
    colours: Dataset,
    tmp_path: Path,
    unbroken: Adapter,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    way: type,
    error: RuntimeError,
) -> None:
    asked = small_memory(monkeypatch, way, 2, error)
    config = SHORT.model_copy(update={"fast": way is Fast})
    adapter = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(colours, run_dir=tmp_path)
    assert [count for count in asked if count > 1] == [4] + [2] * 18
    assert capfd.readouterr().err.count("going on with 2 examples at a time, still 4 a step") == 1
    assert adapter.training.losses == pytest.approx(unbroken.training.losses, abs=1e-5)
    mine, whole = (load_file(one.path / "adapter_model.safetensors") for one in (adapter, unbroken))
    assert all(torch.allclose(mine[name], whole[name], atol=1e-5, rtol=0) for name in whole)


def test_with_settings_that_need_less_it_goes_on_from_its_checkpoint(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, unbroken: Adapter
) -> None:
    def fail(*args: Any) -> None:
        raise TrainingError("out of memory")

    with at_call(STEPS, 6, fail), pytest.raises(TrainingError):
        LoRATrainer(VLM(tiny_qwen3_vl), SHORT).fit(colours, run_dir=tmp_path)
    smaller = SHORT.model_copy(update={"micro_batch_size": 1, "gradient_checkpointing": True})
    adapter = LoRATrainer(VLM(tiny_qwen3_vl), smaller).fit(colours, run_dir=tmp_path)
    assert adapter.training.resumed_from == 4
    assert adapter.training.losses == pytest.approx(unbroken.training.losses, abs=1e-5)


def test_if_one_example_is_too_much_it_says_what_needs_less(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, Stock, 0, torch.OutOfMemoryError("CUDA out of memory"))
    config = SHORT.model_copy(update={"fast": False})
    told = r"ran out of memory with micro_batch_size=1; try TrainConfig\(gradient_checkpointing=True\)"
    with pytest.raises(TrainingError, match=told):
        LoRATrainer(VLM(tiny_qwen3_vl), config).fit(colours, run_dir=tmp_path)
    assert not VLM(tiny_qwen3_vl).load().adapted_now
