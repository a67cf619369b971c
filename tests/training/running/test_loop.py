import gc
from pathlib import Path

import pytest
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextMLP

from tests import models
from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, TrainingError
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.loop import History, Job, train
from vlm_tune.vlm import VLM
from vlm_tune.vlm.scoring import score_labels

QUICK = TrainConfig(r=8, lora_alpha=32, learning_rate=5e-3, epochs=1)


def run(folder: Path, data: Dataset, config: TrainConfig = QUICK, **settings: object) -> History:
    resident = VLM(folder).load()
    batches = Batches(data.examples, processor=resident.processor, task=data.task, dtype=resident.dtype)
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(config, targets)) as wrapped:
        job = {"title": "Testing", **settings}
        return train(Job(resident=resident, wrapped=wrapped, batches=batches, config=config, **job))


def test_the_first_loss_is_what_scoring_says(tiny_vlm: Path, colours: Dataset) -> None:
    # Training and scoring must see the same tokens behind the same pixels.
    resident = VLM(tiny_vlm).load()
    photos = [images.encode(example.image, max_pixels=colours.task.max_pixels).data for example in colours]
    scores = score_labels(resident.model, resident.processor, photos, colours.task)
    batches = Batches(colours.examples, processor=resident.processor, task=colours.task, dtype=resident.dtype)
    right = [scores[row, colours.task.classes.index(example.label)] for row, example in enumerate(colours)]
    expected = -sum(right) / sum(batches[row].num_trained for row in range(len(colours)))
    history = run(tiny_vlm, colours, QUICK.model_copy(update={"batch_size": len(colours)}))
    assert history.losses[0] == pytest.approx(float(expected), rel=1e-4)


def test_loss_falls_and_the_same_seed_gives_the_same_losses(tiny_vlm: Path, colours: Dataset) -> None:
    config = QUICK.model_copy(update={"epochs": 3.0})
    first, second = run(tiny_vlm, colours, config), run(tiny_vlm, colours, config)
    assert first.losses == second.losses
    assert len(first.losses) == len(first.learning_rates) == config.num_steps(len(colours))
    assert sum(first.losses[-3:]) < 0.8 * sum(first.losses[:3])
    other = run(tiny_vlm, colours, config.model_copy(update={"seed": 1}))
    assert other.losses != first.losses


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    whole = run(tiny_qwen3_vl, colours)
    parts = run(tiny_qwen3_vl, colours, QUICK.model_copy(update={"micro_batch_size": 2}))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-3)


def test_checkpointing_changes_nothing_and_reaches_the_vision_tower(tiny_vlm: Path, colours: Dataset) -> None:
    # Every adapter gets its gradient, or the run would raise.
    plain = run(tiny_vlm, colours)
    checkpointed = run(tiny_vlm, colours, QUICK.model_copy(update={"gradient_checkpointing": True}))
    assert checkpointed.losses == pytest.approx(plain.losses, rel=1e-4)
    model = VLM(tiny_vlm).load().model
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_a_dead_region_stops_the_training(tmp_path: Path, colours: Dataset) -> None:
    # With two text layers the second deepstack merger writes behind the last one, where no answer looks.
    folder = models.tiny_qwen3_vl(tmp_path / "model", num_layers=2)
    with pytest.raises(AdapterError, match="projector attention 2 of 6"):
        run(folder, colours)


def test_a_loss_that_explodes_stops_the_training(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    config = QUICK.model_copy(update={"learning_rate": 1e30, "epochs": 5.0, "warmup_ratio": 0.0})
    with pytest.raises((TrainingError, AdapterError), match="lower the learning rate"):
        run(tiny_qwen3_vl, colours, config)


def test_enough_ends_it_early(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    history = run(tiny_qwen3_vl, colours, enough=lambda losses: len(losses) == 2)
    assert len(history.losses) == 2


def test_out_of_memory_is_explained_and_leaves_the_base(
    tiny_qwen3_vl: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Batches, "stack", full)
    with pytest.raises(TrainingError, match=r"TrainConfig\(micro_batch_size=2\)"):
        run(tiny_qwen3_vl, colours)
    assert not VLM(tiny_qwen3_vl).load().adapted_now


def test_nothing_is_printed_and_nothing_left_behind(
    tiny_qwen3_vl: Path,
    colours: Dataset,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    # What the tests have frozen is left alone, and would hide what the run leaves frozen.
    gc.unfreeze()
    run(tiny_qwen3_vl, colours)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
    assert gc.get_freeze_count() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_stock_way_drops_and_recomputes(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    # The model comes from answering, in eval mode: nothing would be dropped in it, and nothing recomputed.
    stock = {"fast": False, "epochs": 0.5}
    plain = run(tiny_qwen3_vl, colours, QUICK.model_copy(update=stock))
    dropped = run(tiny_qwen3_vl, colours, QUICK.model_copy(update=stock | {"lora_dropout": 0.5}))
    assert dropped.losses[1:] != plain.losses[1:]
    forward, calls = Qwen3VLTextMLP.forward, []

    def counted(self: Qwen3VLTextMLP, *args: object, **kwargs: object) -> object:
        calls.append(torch.is_grad_enabled())
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen3VLTextMLP, "forward", counted)
        run(tiny_qwen3_vl, colours, QUICK.model_copy(update=stock), max_steps=1)
        once = len(calls)
        calls.clear()
        run(tiny_qwen3_vl, colours, QUICK.model_copy(update=stock | {"gradient_checkpointing": True}), max_steps=1)
    assert len(calls) == 2 * once
