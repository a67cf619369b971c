from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_tune.errors import ImageError
from vlm_tune.images import decode
from vlm_tune.task import Task
from vlm_tune.vlm.pixels import image_tensors, prepare, to_model, to_tensor
from vlm_tune.vlm.prompts import prompt_text

TASK = Task(prompt="What is it?", classes=("crack", "dent"))
Png = Callable[..., bytes]


def test_padding_is_on_the_side_asked_for_whatever_the_tokenizer_says(tiny_vlm: Path, noise_png: Png) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    photos = [noise_png(32, 32), noise_png(96, 96)]
    for own in ("left", "right"):
        processor.tokenizer.padding_side = own
        for side, column in (("left", -1), ("right", 0)):
            inputs = prepare(processor, photos, [prompt_text(processor, TASK)] * 2, padding_side=side)
            assert inputs["attention_mask"][:, column].tolist() == [1, 1]
            lengths = inputs["attention_mask"].sum(1)
            assert lengths[0] < lengths[1] == inputs["input_ids"].shape[1]


def test_first_token_is_not_doubled(tiny_lfm2_vl: Path, noise_png: Png) -> None:
    processor = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    inputs = prepare(processor, [noise_png(32, 32)], [prompt_text(processor, TASK)])
    assert (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum() == 1


def test_empty_patches_are_cut_without_changing_the_model(tiny_lfm2_vl: Path, noise_png: Png) -> None:
    processor = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    model = AutoModelForImageTextToText.from_pretrained(tiny_lfm2_vl, dtype=torch.float32).eval()
    texts = [prompt_text(processor, TASK)] * 2
    photos = [noise_png(32, 32), noise_png(48, 32)]
    inputs = prepare(processor, photos, texts)
    patches = inputs["spatial_shapes"].prod(-1)
    assert inputs["pixel_values"].shape[1] == patches.max() < 64
    assert inputs["pixel_attention_mask"].sum(1).tolist() == patches.tolist()

    filled = dict(inputs)
    for name in ("pixel_values", "pixel_attention_mask"):
        empty = inputs[name].new_zeros(2, 64 - inputs[name].shape[1], *inputs[name].shape[2:])
        filled[name] = torch.cat([inputs[name], empty], dim=1)
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, model(**filled).logits, atol=1e-4)


def test_a_photo_that_cannot_be_decoded_raises(tiny_vlm: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    with pytest.raises(ImageError):
        prepare(processor, [b"not an image"], [prompt_text(processor, TASK)])


def test_only_pixels_take_the_type_of_the_model(tiny_vlm: Path, noise_png: Png) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    model = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.bfloat16)
    inputs = to_model(prepare(processor, [noise_png(32, 32)], [prompt_text(processor, TASK)]), model)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert inputs["input_ids"].dtype == torch.int64


@pytest.mark.parametrize("size", [(40, 30), (200, 150)], ids=["small", "large"])
def test_photos_of_one_size_become_the_same_patches_together_and_alone(
    tiny_vlm: Path, noise_png: Png, size: tuple[int, int]
) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    photos = [to_tensor(decode(noise_png(*size, seed))) for seed in range(3)]
    together = image_tensors(processor, photos)
    alone = [image_tensors(processor, [photo]) for photo in photos]
    for name, values in together.items():
        assert torch.equal(values, torch.cat([one[name] for one in alone])), name


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("stack expects each tensor to be equal size"), ValueError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
    ],
    ids=["shapes", "memory", "memory of a GPU"],
)
def test_only_an_error_of_shapes_is_a_refusal(
    error: RuntimeError, raised: type[Exception], tiny_vlm: Path, noise_png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise error

    processor = AutoProcessor.from_pretrained(tiny_vlm)
    monkeypatch.setattr(type(processor.image_processor), "__call__", fails)
    with pytest.raises(raised) as caught:
        image_tensors(processor, [to_tensor(decode(noise_png(32, 32)))])
    assert type(caught.value) is raised
    with pytest.raises(raised):
        prepare(processor, [noise_png(32, 32)], [prompt_text(processor, TASK)])
