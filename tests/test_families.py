from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BertConfig,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    PreTrainedConfig,
    Qwen2VLImageProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from tests.models import lfm2_vl_config, qwen3_vl_config
from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.families import FAMILIES, PatchGrid, TileGrid, family_of, linear_names

REGIONS = ("vision", "projector", "language")


def names_of(config: PreTrainedConfig) -> tuple[str, ...]:
    with torch.device("meta"):
        return linear_names(AutoModelForImageTextToText.from_config(config))


@pytest.fixture(scope="module")
def qwen() -> tuple[str, ...]:
    return names_of(qwen3_vl_config())


@pytest.fixture(scope="module")
def lfm2() -> tuple[str, ...]:
    return names_of(lfm2_vl_config())


def counts(family: str, names: tuple[str, ...], kinds: tuple[str, ...]) -> dict[tuple[str, str], tuple[int, int]]:
    coverage = FAMILIES[family].require(names, REGIONS, kinds)  # type: ignore[arg-type]
    return {part: (len(found.hit), len(found.total)) for part, found in coverage.items()}


def test_qwen3_vl_modules_are_counted_as_the_architecture_has_them(qwen: tuple[str, ...]) -> None:
    # 3 vision blocks, 1 merger and 2 deepstack mergers, 3 text layers.
    assert counts("qwen3_vl", qwen, ("attention", "mlp")) == {
        ("vision", "attention"): (6, 6),
        ("vision", "mlp"): (6, 6),
        ("projector", "attention"): (6, 6),
        ("language", "attention"): (12, 12),
        ("language", "mlp"): (9, 9),
    }


def test_lfm2_vl_modules_are_counted_as_the_architecture_has_them(lfm2: tuple[str, ...]) -> None:
    # 2 vision layers, a projector of 2, text layers conv, conv, attention, conv.
    assert counts("lfm2_vl", lfm2, ("attention", "mlp", "conv")) == {
        ("vision", "attention"): (8, 8),
        ("vision", "mlp"): (4, 4),
        ("projector", "attention"): (2, 2),
        ("language", "attention"): (4, 4),
        ("language", "mlp"): (12, 12),
        ("language", "conv"): (6, 6),
    }


@pytest.mark.parametrize("family", ["qwen3_vl", "lfm2_vl"])
def test_parts_cover_every_linear_but_embedding_and_head_once(family: str, request: pytest.FixtureRequest) -> None:
    names = request.getfixturevalue("qwen" if family == "qwen3_vl" else "lfm2")
    parts = FAMILIES[family].modules(names, REGIONS, {kind for _, kind in FAMILIES[family].layers})
    hits = [name for part in parts.values() for name in part.hit]
    assert len(hits) == len(set(hits))
    left = set(names) - set(hits)
    assert left <= {"lm_head", "model.vision_tower.embeddings.patch_embedding"}, left


def test_attention_everywhere_is_one_pattern_for_peft(qwen: tuple[str, ...]) -> None:
    pattern = FAMILIES["qwen3_vl"].target_modules(REGIONS, ["attention"])
    chosen = {name for name in qwen if re.fullmatch(pattern, name)}
    ends = {name.rsplit(".", 1)[1] for name in chosen}
    assert ends == {"qkv", "proj", "linear_fc1", "linear_fc2", "q_proj", "k_proj", "v_proj", "o_proj"}
    assert not any(".mlp." in name for name in chosen)
    assert len(chosen) == 6 + 6 + 12


def test_a_region_without_the_kind_is_left_out_if_others_have_it(qwen: tuple[str, ...]) -> None:
    assert set(FAMILIES["qwen3_vl"].require(qwen, REGIONS, ["attention", "mlp"])) == set(FAMILIES["qwen3_vl"].layers)
    with pytest.raises(AdapterError, match="conv would adapt nothing in qwen3_vl"):
        FAMILIES["qwen3_vl"].parts(REGIONS, ["attention", "conv"])
    with pytest.raises(AdapterError, match="projector would adapt nothing"):
        FAMILIES["lfm2_vl"].parts(["projector", "language"], ["mlp"])


def test_renamed_modules_are_an_error_that_lists_the_names_that_exist(lfm2: tuple[str, ...]) -> None:
    renamed = tuple(name.replace("self_attn.out_proj", "self_attn.o_proj") for name in lfm2)
    with pytest.raises(AdapterError, match=r"3 of 4 linear layers.*layers\.\*\.self_attn\.o_proj") as caught:
        FAMILIES["lfm2_vl"].require(renamed, ["language"], ["attention"])
    assert "\n" not in str(caught.value)


def test_a_region_hit_nowhere_is_an_error() -> None:
    with pytest.raises(AdapterError, match=r"0 of 0 linear layers.*decoder\.\*\.q_proj"):
        FAMILIES["qwen3_vl"].require(["decoder.0.q_proj"], ["language"], ["attention"])


def test_family_follows_the_configuration() -> None:
    assert family_of(qwen3_vl_config()).name == "qwen3_vl"
    assert family_of(lfm2_vl_config()).name == "lfm2_vl"


def test_an_unknown_architecture_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"'bert'.*qwen3_vl, lfm2_vl.*target_modules are not supported"):
        family_of(BertConfig())


def test_importing_families_loads_no_torch() -> None:
    code = "import sys, vlm_tune.families; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SIZES = [
    (1, 1), (32, 32), (15, 2900), (31, 33), (200, 200), (255, 257), (348, 348), (512, 512), (640, 480), (480, 640),
    (724, 724), (725, 725), (1024, 768), (1024, 1024), (1182, 886), (300, 3000), (2048, 40), (1600, 1000), (1280, 512),
]  # fmt: skip


def real_tokens(processor: Lfm2VlProcessor | Qwen2VLImageProcessor, width: int, height: int) -> int:
    """Count what the real processor makes of a grey photo."""
    photo = Image.new("RGB", (width, height), "grey")
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


def test_other_settings_are_counted_too(tiny_qwen3_vl: Path, tiny_lfm2_vl: Path) -> None:
    qwen = AutoProcessor.from_pretrained(tiny_qwen3_vl).image_processor
    lfm2 = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    patches = PatchGrid(patch_size=8, min_pixels=32 * 32, max_pixels=96 * 96)
    tiles = TileGrid(patch_size=8, min_tokens=4, max_tokens=16, tile_size=64, max_tiles=4)
    for width, height in ((10, 10), (40, 30), (64, 64), (100, 100), (130, 90), (90, 200), (400, 300)):
        assert patches.tokens(width, height) == real_tokens(qwen, width, height)
        assert tiles.tokens(width, height) == real_tokens(lfm2, width, height)
