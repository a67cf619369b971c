"""The tiny models loaded once, and photos of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

SIZES = [(32, 32), (96, 40), (40, 96), (64, 64), (150, 110), (33, 60)]


@pytest.fixture(scope="session")
def loaded() -> dict[Path, tuple[PreTrainedModel, ProcessorMixin]]:
    return {}


@pytest.fixture
def model_and_processor(
    tiny_vlm: Path, loaded: dict[Path, tuple[PreTrainedModel, ProcessorMixin]]
) -> tuple[PreTrainedModel, ProcessorMixin]:
    if tiny_vlm not in loaded:
        model = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32, attn_implementation="sdpa")
        loaded[tiny_vlm] = model.eval(), AutoProcessor.from_pretrained(tiny_vlm)
    return loaded[tiny_vlm]


@pytest.fixture(scope="session")
def photos(noise_png: Callable[..., bytes]) -> list[bytes]:
    return [noise_png(width, height, seed) for seed, (width, height) in enumerate(SIZES)]
