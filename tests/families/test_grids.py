from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma4ImageProcessor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    Qwen2VLImageProcessor,
)
from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from vlm_tune.families import FAMILIES, CropGrid, PatchGrid, PooledGrid, TileGrid

SIZES = [
    (1, 1), (32, 32), (15, 2900), (31, 33), (200, 200), (255, 257), (348, 348), (512, 512), (640, 480), (480, 640),
    (724, 724), (725, 725), (1024, 768), (1024, 1024), (1182, 886), (300, 3000), (2048, 40), (1600, 1000), (1280, 512),
]  # fmt: skip


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "grey")


def real_tokens(processor: Lfm2VlProcessor | Qwen2VLImageProcessor, width: int, height: int) -> int:
    """Count what the real processor makes of a grey photo."""
    photo = grey(width, height)
    if isinstance(processor, Lfm2VlProcessor):
        inputs = processor(images=[[photo]], text=["<image>"])
        return inputs["input_ids"][0].count(processor.image_token_id)
    grid = processor(images=[photo], return_tensors="pt")["image_grid_thw"]
    return int(grid.prod()) // processor.merge_size**2


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_image_tokens_are_those_of_qwen3_vl(width: int, height: int) -> None:
    # The settings of every published Qwen3-VL.
    size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    processor = Qwen2VLImageProcessor(patch_size=16, merge_size=2, size=size)
    assert FAMILIES["qwen3_vl"].image_tokens(width, height) == real_tokens(processor, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_image_tokens_are_those_of_qwen2_5_vl(width: int, height: int) -> None:
    # The settings of every published Qwen2.5-VL.
    size = {"shortest_edge": 3_136, "longest_edge": 12_845_056}
    processor = Qwen2VLImageProcessor(patch_size=14, merge_size=2, size=size)
    assert FAMILIES["qwen2_5_vl"].image_tokens(width, height) == real_tokens(processor, width, height)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_image_tokens_are_those_of_internvl(width: int, height: int) -> None:
    # The model's processor crops whatever its image processor's own default is.
    assert InternVLProcessor.images_kwargs == {"crop_to_patches": True}
    size = {"height": 448, "width": 448}
    processor = GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=12)
    crops = int(processor(images=[grey(width, height)], return_tensors="pt")["num_patches"][0])
    assert FAMILIES["internvl"].image_tokens(width, height) == InternVLConfig().image_seq_length * crops


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_image_tokens_are_those_of_gemma(width: int, height: int) -> None:
    photo = grey(width, height)
    assert list(Gemma3ImageProcessor()(images=[photo], return_tensors="pt")["num_crops"]) == [0]
    assert FAMILIES["gemma3"].image_tokens(width, height) == Gemma3Config().mm_tokens_per_image
    inputs = Gemma4ImageProcessor()(images=[photo], return_tensors="pt")
    assert FAMILIES["gemma4"].image_tokens(width, height) == int(inputs["num_soft_tokens_per_image"][0])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_image_tokens_are_those_of_lfm2_vl(width: int, height: int, tiny_lfm2_vl: Path) -> None:
    tiny = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    # Up to ten tiles are numbered in the text; the tiny tokenizer knows fewer numbers, which count as words.
    processor = Lfm2VlProcessor(Lfm2VlImageProcessor(), tiny.tokenizer)
    assert FAMILIES["lfm2_vl"].image_tokens(width, height) == real_tokens(processor, width, height)


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_image_tokens_at_any_size(width: int, height: int) -> None:
    budget = {"min_pixels": 65_536, "max_pixels": 16_777_216}
    ours = FAMILIES["qwen3_vl"].image_tokens(width, height)
    if max(width, height) / min(width, height) > 200:
        assert ours is None
    else:
        resized = smart_resize(height, width, 32, **budget)
        assert ours == resized[0] * resized[1] // 32**2
    real = Lfm2VlImageProcessor()
    limits = {"max_image_tokens": 256, "encoder_patch_size": 16, "downsample_factor": 2}
    small_width, small_height = real.smart_resize(height, width, min_image_tokens=64, **limits)
    expected = small_width * small_height // 32**2
    if real._is_image_too_large(height, width, max_pixels_tolerance=2.0, **limits):
        expected += 256 * real._get_grid_layout(height, width, min_tiles=2, max_tiles=10, tile_size=512)[-1]
    assert FAMILIES["lfm2_vl"].image_tokens(width, height) == expected


@given(st.integers(1, 6000), st.integers(1, 6000))
def test_image_tokens_of_the_others_at_any_size(width: int, height: int) -> None:
    fitted = get_aspect_ratio_preserving_size(height, width, patch_size=16, max_patches=2520, pooling_kernel_size=3)
    assert FAMILIES["gemma4"].image_tokens(width, height) == fitted[0] * fitted[1] // 48**2
    crops = GotOcr2ImageProcessor(size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12)
    assert FAMILIES["internvl"].image_tokens(width, height) == 256 * crops.get_number_of_image_patches(height, width)


def test_other_settings_are_counted_too(tiny_qwen3_vl: Path, tiny_lfm2_vl: Path) -> None:
    qwen = AutoProcessor.from_pretrained(tiny_qwen3_vl).image_processor
    lfm2 = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    patches = PatchGrid(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96)
    tiles = TileGrid(patch_size=8, min_tokens=4, max_tokens=16, tile_size=64, max_tiles=4)
    for width, height in ((10, 10), (40, 30), (64, 64), (100, 100), (130, 90), (90, 200), (400, 300)):
        assert patches.tokens(width, height) == real_tokens(qwen, width, height)
        assert tiles.tokens(width, height) == real_tokens(lfm2, width, height)
    crops = GotOcr2ImageProcessor(size={"height": 64, "width": 64}, crop_to_patches=True, max_patches=6)
    pooled = Gemma4ImageProcessor(max_soft_tokens=70)
    for width, height in ((10, 10), (400, 300), (90, 700), (4000, 10)):
        cut = int(crops(images=[grey(width, height)], return_tensors="pt")["num_patches"][0])
        assert CropGrid(tokens_per_crop=16, crop_size=64, max_crops=6).tokens(width, height) == 16 * cut
        inputs = pooled(images=[grey(width, height)], return_tensors="pt")
        assert PooledGrid(max_tokens=70).tokens(width, height) == int(inputs["num_soft_tokens_per_image"][0])
