"""The image budget on a server: what its processor must be told so that photos become the patches of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlm_tune.vlm.prompts import prompt_text

if TYPE_CHECKING:
    from pydantic import JsonValue
    from transformers import ProcessorMixin

    from vlm_tune.task import Task

__all__ = ["longest_prompt", "processor_settings"]

_RATIO = 200
"""Longest photos that processors with a pixel budget take, as long side to short side."""
_SHAPES = (1.0, 1.5, 4.0)
"""Sides of the photos that are tried for the longest prompt: tiles depend on the shape."""


def processor_settings(processor: ProcessorMixin, max_pixels: int) -> dict[str, JsonValue]:
    """Return what an image processor must be told beyond its own settings to bound photos of any size.

    Only processors that bound a photo's whole area can be told (Qwen-VL's `size`); empty for the others, and where
    their own bound is as low. Photos within the budget are resized as without the setting: their sides are rounded to
    whole patches, which may take them over the budget, so there is room for that.

    Args:
        processor: The model's own processor.
        max_pixels: The budget; see `Task.max_pixels`.
    """
    images: Any = processor.image_processor
    size = dict(getattr(images, "size", None) or {})
    if not hasattr(images, "merge_size") or not {"shortest_edge", "longest_edge"} <= size.keys():
        return {}
    low, high = int(size["shortest_edge"]), int(size["longest_edge"])
    unit = int(images.patch_size) * int(images.merge_size)
    # The longest photo has the longest sides, and each is rounded by up to half a patch.
    sides = math.sqrt(max_pixels * _RATIO) + math.sqrt(max_pixels / _RATIO)
    room = max(low, math.ceil(max_pixels + unit / 2 * sides + unit**2 / 4))
    return {} if high <= room else {"size": {"shortest_edge": low, "longest_edge": room}}


def longest_prompt(processor: ProcessorMixin, task: Task, max_pixels: int, settings: Mapping[str, JsonValue]) -> int:
    """Return the tokens of the longest prompt: the question, and a photo as large as the budget allows.

    Args:
        processor: The model's own processor.
        task: The question.
        max_pixels: The budget.
        settings: What `processor_settings` returned.

    Raises:
        ModelError: The processor has no chat template.
    """
    from PIL import Image

    text = prompt_text(processor, task)
    lengths = []
    for ratio in (*_SHAPES, *(1 / shape for shape in _SHAPES[1:])):
        width = max(1, math.floor(math.sqrt(max_pixels * ratio)))
        photo = Image.new("RGB", (width, max(1, max_pixels // width)))
        inputs = processor(images=[[photo]], text=[text], return_tensors="pt", **settings)
        lengths.append(int(inputs["input_ids"].shape[1]))
    return max(lengths)
