"""The image budget on a server: the same patches for photos within it, and a bound for all others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from vlm_tune.images import encode
from vlm_tune.serving.budget import longest_prompt, processor_settings
from vlm_tune.task import Task

OWN = {"shortest_edge": 65_536, "longest_edge": 16_777_216}


class Processor:
    """As much of a processor as has a bound on the area."""

    def __init__(self, patch_size: int) -> None:
        self.image_processor = Qwen2VLImageProcessor(patch_size=patch_size, merge_size=2, size=OWN)


def resized(width: int, height: int, unit: int, size: dict[str, int]) -> tuple[int, int]:
    return smart_resize(height, width, unit, size["shortest_edge"], size["longest_edge"])


@given(
    patch_size=st.sampled_from([14, 16]),
    budget=st.integers(10_000, 4_000_000),
    ratio=st.floats(1 / 200, 200),
    share=st.floats(0.01, 1),
)
def test_photos_within_the_budget_become_the_same_patches(
    patch_size: int, budget: int, ratio: float, share: float
) -> None:
    settings = processor_settings(Processor(patch_size), budget)  # type: ignore[arg-type]
    width = max(1, math.floor(math.sqrt(budget * share * ratio)))
    height = max(1, math.floor(budget * share / width))
    if max(width, height) > 200 * min(width, height):
        return
    unit = 2 * patch_size
    assert resized(width, height, unit, settings["size"]) == resized(width, height, unit, OWN)  # type: ignore[arg-type]


@given(budget=st.integers(100_000, 4_000_000), width=st.integers(1000, 9000), height=st.integers(1000, 9000))
def test_larger_photos_are_bounded(budget: int, width: int, height: int) -> None:
    size = processor_settings(Processor(16), budget)["size"]  # type: ignore[arg-type]
    assert math.prod(resized(width, height, 32, size)) <= size["longest_edge"]  # type: ignore[arg-type, index]
    assert budget < size["longest_edge"] < 1.5 * budget + 100_000  # type: ignore[index, operator]


def test_a_bound_that_is_as_low_is_left_alone() -> None:
    assert processor_settings(Processor(16), 16_777_216) == {}  # type: ignore[arg-type]


def test_the_processor_takes_the_setting_and_the_longest_prompt_is_counted(tiny_qwen3_vl: Path) -> None:
    processor = AutoProcessor.from_pretrained(tiny_qwen3_vl)
    task = Task(prompt="Which colour?", classes=("red", "green"), max_pixels=1500)
    settings = processor_settings(processor, task.max_pixels)
    grids = []
    for width, height in ((30, 40), (200, 100), (90, 16)):
        photo = Image.new("RGB", (width, height))
        small = Image.open(encode_to(photo, task.max_pixels))
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}]}], tokenize=False, add_generation_prompt=True
        )
        calls = [processor(images=[[small]], text=[text], **each) for each in ({}, settings)]
        grids.append([call["image_grid_thw"].tolist() for call in calls])
    assert all(own == told for own, told in grids)
    longest = longest_prompt(processor, task, task.max_pixels, settings)
    words = longest_prompt(processor, task, 1024, settings)
    assert words <= longest <= words + 1500 // 256 + 6


def encode_to(photo: Image.Image, max_pixels: int) -> object:
    import io

    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return io.BytesIO(encode(buffer.getvalue(), max_pixels=max_pixels).data)


@pytest.mark.parametrize("max_pixels", [1024, 1_048_576])
def test_tiles_have_bounds_of_their_own(tiny_lfm2_vl: Path, max_pixels: int) -> None:
    assert processor_settings(AutoProcessor.from_pretrained(tiny_lfm2_vl), max_pixels) == {}
