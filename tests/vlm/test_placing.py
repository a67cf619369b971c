"""Where a photo's tokens stand: what the processor says of the real photo, asked once for each size."""

from __future__ import annotations

import gc
from pathlib import Path
from weakref import ref

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from tests.vlm.conftest import SIZES
from vlm_tune.task import Task
from vlm_tune.vlm import placing
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.placing import Placing
from vlm_tune.vlm.positions import token_positions
from vlm_tune.vlm.prompts import prompt_text

Loaded = tuple[PreTrainedModel, ProcessorMixin]


def prompt_of(processor: ProcessorMixin) -> str:
    return prompt_text(processor, Task(prompt="What is it?", classes=("a", "b")))


def test_a_blank_photo_stands_where_a_real_one_of_its_size_does(
    model_and_processor: Loaded, photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    found = Placing(model, processor, prompt_of(processor))
    found.learn([(height, width) for width, height in SIZES])
    for photo, (width, height) in zip(photos, SIZES, strict=True):
        inputs = prepare(processor, [photo], [prompt_of(processor)])
        placed = found[height, width]
        assert torch.equal(placed.tokens, inputs["input_ids"][0])
        assert torch.equal(placed.positions, token_positions(model, inputs)[..., 0, :])
        image = inputs["input_ids"][0] == model.config.image_token_id
        assert placed.image_places.tolist() == image.nonzero()[:, 0].tolist()


def test_a_size_is_asked_about_once(model_and_processor: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = model_and_processor
    asked: list[int] = []

    def counted(processor: ProcessorMixin, blanks: list[torch.Tensor], *rest: object, **more: object) -> object:
        asked.append(len(blanks))
        return prepare(processor, blanks, *rest, **more)

    monkeypatch.setattr(placing, "prepare", counted)
    found = Placing(model, processor, prompt_of(processor))
    found.learn([(64, 64), (40, 96), (64, 64)])
    found.learn([(40, 96)])
    assert found[64, 64] is found[64, 64]
    assert asked == [2]
    _ = found[96, 40]
    assert asked == [2, 1]


def test_what_follows_counts_on_from_the_prompt(model_and_processor: Loaded) -> None:
    model, processor = model_and_processor
    placed = Placing(model, processor, prompt_of(processor))[64, 64]
    longer = placed.followed_by([5, 6, 7], [1, 2, 2])
    assert longer.tokens.tolist() == [*placed.tokens.tolist(), 5, 6, 7]
    behind = longer.positions[..., -3:] - placed.positions[..., -1:]
    assert behind.expand(3, -1).tolist() == [[1, 2, 2]] * 3
    assert torch.equal(longer.image_places, placed.image_places)


def test_sizes_are_remembered_for_the_last_prompt_and_forgotten_with_the_model(tiny_vlm: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    model = AutoModelForImageTextToText.from_pretrained(tiny_vlm)
    prompt = prompt_of(processor)
    known = placing.placing(model, processor, prompt)
    assert placing.placing(model, processor, prompt) is known
    assert placing.placing(model, processor, f"{prompt} ") is not known
    assert placing.placing(model, processor, prompt) is not known
    gone = ref(model)
    del model
    gc.collect()
    assert gone() is None
