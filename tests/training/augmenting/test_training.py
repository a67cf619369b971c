"""Training on changed and mixed photos: the loss is the one that is documented, on both ways through the model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import photo
from tests.training.running.faults import SHORT, STEPS, at_call, digest, signalled
from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError, StoppedError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training import Augment, LoRATrainer, TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.loop import History, Job, train
from vlm_tune.training.running.steps import steps_of
from vlm_tune.vlm import VLM
from vlm_tune.vlm.scoring import score_labels

CLASSES = ("red", "green as the grass in spring", "blue")
MIXES = [Augment(mixup=1.0), Augment(cutmix=1.0), Augment(mixup=1.0, cutmix=1.0, flip=True, mix_share=0.7)]
EVERYTHING = Augment(crop=(0.6, 1.0), flip=True, rand_augment=1, colour=0.2, blur=0.02, mixup=0.4, cutmix=1.0)


@pytest.fixture(scope="module")
def uneven() -> Dataset:
    """Photos of two sizes, labels of several lengths and numbers."""
    task = Task(prompt="Which colour?", classes=CLASSES)
    labels = ("red", "green", "blue", "red", "red", "green", "red", "blue")
    examples = [
        Example(
            id=f"{place}",
            image=photo(label, place, width=64 if place % 3 else 48, height=48),
            label=CLASSES[("red", "green", "blue").index(label)],
        )
        for place, label in enumerate(labels)
    ]
    return Dataset(examples, task=task)


def run(folder: Path, data: Dataset, config: TrainConfig, **settings: object) -> History:
    resident = VLM(folder).load()
    batches = Batches(data.examples, processor=resident.processor, task=data.task, dtype=resident.dtype)
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        job = {"title": "Testing", **settings}
        return train(Job(resident=resident, wrapped=wrapped, batches=batches, config=config, **job))


def pixels(data: Dataset, index: int, *, mirrored: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    encoded = images.encode(data.examples[index].image, max_pixels=data.task.max_pixels)
    image = Image.open(io.BytesIO(encoded.data)).convert("RGB")
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR) if size and size != image.size else image, float)


def expected_loss(folder: Path, data: Dataset, config: TrainConfig, weights: dict[str, float]) -> float:
    """Return the first step's loss by its definition: two plain forwards a photo, put together in numpy."""
    resident = VLM(folder).load()
    batches = Batches(data.examples, processor=resident.processor, task=data.task, dtype=resident.dtype)
    (step,) = next(iter(steps_of(config, [example.label for example in data])))
    loss = tokens = 0.0
    for row in step.everyone:
        whole, mix = pixels(data, row.index, mirrored=bool(row.view.changes)), row.view.mix
        share, labels = 1.0, [data.examples[row.index].label] * 2
        if mix is not None:
            labels[1] = data.examples[mix.index].label
            height, width, _ = whole.shape
            other = pixels(data, mix.index, mirrored=bool(mix.changes), size=(width, height))
            if mix.centre is None:
                share = mix.drawn
                # In the same precision: hundredths of whole numbers often lie half-way between two.
                part = np.float32(share)
                whole = np.rint(whole.astype(np.float32) * part + other.astype(np.float32) * (1 - part))
            else:
                left, top, right, bottom = mix.box(width, height)
                inside = np.zeros((height, width, 1), bool)
                inside[top:bottom, left:right] = True
                whole, share = np.where(inside, other, whole), 1 - inside.mean()
        buffer = io.BytesIO()
        Image.fromarray(whole.astype(np.uint8)).save(buffer, "PNG")
        said = score_labels(resident.model, resident.processor, [buffer.getvalue()], data.task)[0]
        for label, part in zip(labels, (share, 1 - share), strict=True):
            loss -= part * weights[label] * float(said[CLASSES.index(label)])
            tokens += part * len(batches.answer(label))
    return loss / tokens


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("augment", MIXES)
def test_a_mixed_photo_costs_both_answers_by_their_shares(
    tiny_vlm: Path, uneven: Dataset, augment: Augment, fast: bool
) -> None:
    config = TrainConfig(r=4, batch_size=6, augment=augment, fast=fast, seed=2)
    history = run(tiny_vlm, uneven, config, max_steps=1)
    expected = expected_loss(tiny_vlm, uneven, config, dict.fromkeys(CLASSES, 1.0))
    assert history.losses[0] == pytest.approx(expected, rel=2e-5)
    if not fast:
        return
    plain = run(tiny_vlm, uneven, config.model_copy(update={"augment": None}), max_steps=1)
    assert history.losses[0] != pytest.approx(plain.losses[0], rel=2e-4)


def test_each_answer_has_its_own_class_weight(tiny_qwen3_vl: Path, uneven: Dataset) -> None:
    config = TrainConfig(r=4, batch_size=8, augment=MIXES[0], class_weights={"blue": 5.0}, seed=1)
    mean = (4 * 1 + 2 * 1 + 2 * 5) / 8
    expected = expected_loss(
        tiny_qwen3_vl, uneven, config, {CLASSES[0]: 1 / mean, CLASSES[1]: 1 / mean, "blue": 5 / mean}
    )
    assert run(tiny_qwen3_vl, uneven, config, max_steps=1).losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("regions", [("vision", "projector", "language"), ("language",)])
def test_both_ways_through_the_model_train_alike(
    tiny_vlm: Path, uneven: Dataset, tmp_path: Path, regions: tuple[str, ...]
) -> None:
    config = SHORT.model_copy(
        update={
            "augment": EVERYTHING,
            "regions": regions,
            "label_smoothing": 0.1,
            "sampling": "balanced",
            "class_weights": {"blue": 2.0},
            "epochs": 4.0,
        }
    )
    fast, stock = (
        LoRATrainer(VLM(tiny_vlm), config.model_copy(update={"fast": way}))
        .fit(uneven, run_dir=tmp_path / f"{way}")
        .training.losses
        for way in (True, False)
    )
    assert len(fast) == 8 and fast == pytest.approx(stock, abs=1e-5)


def test_parts_of_a_step_add_up_and_recomputing_changes_nothing(tiny_vlm: Path, uneven: Dataset) -> None:
    config = SHORT.model_copy(update={"augment": EVERYTHING, "batch_size": 4})
    whole = run(tiny_vlm, uneven, config)
    parts = run(tiny_vlm, uneven, config.model_copy(update={"micro_batch_size": 1, "gradient_checkpointing": True}))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


def test_a_run_that_goes_on_sees_the_same_photos(tiny_qwen3_vl: Path, uneven: Dataset, tmp_path: Path) -> None:
    config = SHORT.model_copy(update={"augment": EVERYTHING, "batch_size": 2, "epochs": 2.0, "save_every": 3})
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
    unbroken = trainer.fit(uneven, run_dir=tmp_path / "unbroken")
    for number in (2, 4):
        with at_call(STEPS, number, signalled(15)), pytest.raises(StoppedError):
            trainer.fit(uneven, run_dir=tmp_path / "broken")
    gone_on = trainer.fit(uneven, run_dir=tmp_path / "broken")
    assert gone_on.training.resumed_from > 4
    assert gone_on.training.losses == unbroken.training.losses
    assert digest(gone_on) == digest(unbroken)


def test_several_classes_on_one_photo_are_mixed_like_any_answers(
    tiny_vlm: Path, mixtures: Dataset, tmp_path: Path
) -> None:
    config = SHORT.model_copy(update={"augment": Augment(mixup=0.4, cutmix=1.0), "epochs": 0.5})
    fast, stock = (
        LoRATrainer(VLM(tiny_vlm), config.model_copy(update={"fast": way}))
        .fit(mixtures, run_dir=tmp_path / f"{way}")
        .training.losses
        for way in (True, False)
    )
    assert fast == pytest.approx(stock, abs=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_a_photo_that_cannot_be_read_is_named_even_if_it_is_only_mixed_in(
    tiny_qwen3_vl: Path, uneven: Dataset, tmp_path: Path, fast: bool
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(uneven.examples[7].image)
    data = Dataset([*uneven.examples[:7], uneven.examples[7].model_copy(update={"image": broken})], task=uneven.task)
    config = SHORT.model_copy(update={"augment": Augment(mixup=1.0), "fast": fast})
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
    _ = [example.content_hash for example in data]
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        trainer.fit(data, run_dir=tmp_path / "run")


def test_the_overfit_gate_and_validation_see_photos_as_they_are(
    bold_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(r=8, lora_alpha=32, learning_rate=5e-3, epochs=1, augment=Augment(rand_augment=2, mixup=1.0))
    plain = config.model_copy(update={"augment": None})
    reports = [
        LoRATrainer(VLM(bold_qwen3_vl), one).overfit(colours, num_examples=4, max_steps=6) for one in (config, plain)
    ]
    assert reports[0].losses == reports[1].losses
    parts = Dataset(colours.examples, task=colours.task).split(test=0.0, validation=0.25, seed=0)
    still = config.model_copy(update={"learning_rate": 1e-12, "epochs": 2.0})
    log = (
        LoRATrainer(VLM(bold_qwen3_vl), still).fit(parts.train, validation=parts.validation, run_dir=tmp_path).training
    )
    said = LoRATrainer(VLM(bold_qwen3_vl), still.model_copy(update={"augment": None})).fit(
        parts.train, validation=parts.validation, run_dir=tmp_path / "plain"
    )
    assert [one.loss for one in log.validation] == pytest.approx([one.loss for one in said.training.validation])
    assert log.losses != pytest.approx(said.training.losses, rel=1e-3)
