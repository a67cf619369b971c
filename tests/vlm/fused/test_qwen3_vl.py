"""The fused forward pass against `Qwen3VLForConditionalGeneration`, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin

from tests.vlm.fused import helpers

MakeBatch = Callable[..., helpers.Batch]
LANGUAGE = r"model\.language_model\..*\.[qkvo]_proj"
ATTENTION = rf"{LANGUAGE}|model\.visual\..*(qkv|attn\.proj)|model\.visual\..*merger.*linear_fc\d"
EVERYTHING = rf"{ATTENTION}|.*(gate|up|down)_proj|.*mlp\.linear_fc\d"


@pytest.fixture
def model(tiny_qwen3_vl: Path) -> PreTrainedModel:
    return helpers.load(tiny_qwen3_vl)


@pytest.fixture(scope="module")
def processor(tiny_qwen3_vl: Path) -> ProcessorMixin:
    return AutoProcessor.from_pretrained(tiny_qwen3_vl)


@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_images_say_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(model, processor, *case)
    with torch.no_grad():
        stock = model.model.get_image_features(batch.stock["pixel_values"], batch.stock["image_grid_thw"])
        first, *deep = helpers.forward_of(model).see(helpers.pixels_of(batch))
    assert helpers.relative_error(first, torch.cat(stock.pooler_output)) < 1e-5
    for ours, theirs in zip(deep, stock.deepstack_features, strict=True):
        assert helpers.relative_error(ours, torch.cat(theirs)) < 1e-5


@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_answers_are_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    helpers.assert_same_logits(model, make_batch(model, processor, *case))


@pytest.mark.parametrize("targets", [LANGUAGE, ATTENTION, EVERYTHING], ids=["language", "default", "everything"])
@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_gradients_are_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    targets: str,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    adapted = helpers.adapt(model, targets)
    batch = make_batch(model, processor, *case)
    helpers.assert_same_logits(adapted, batch)
    helpers.assert_same_gradients(adapted, batch)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_gradients_are_the_same_when_layers_are_computed_again(
    share: float, model: PreTrainedModel, processor: ProcessorMixin, make_batch: MakeBatch
) -> None:
    batch = make_batch(model, processor, *helpers.CASES["many sizes, tilings and answers"])
    helpers.assert_same_gradients(helpers.adapt(model, EVERYTHING), batch, share)
