from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertConfig, PreTrainedModel

from tests.families.architectures import published, skeleton_of
from tests.models import lfm2_vl_config, qwen3_vl_config
from vlm_tune.errors import ModelError
from vlm_tune.families import FAMILIES, family_in, family_of, linear_names, shapes

COUNTS = {
    # vision attention and mlp, projector, language attention and mlp, and convolution where there is one.
    "qwen3_vl_8b": (54, 54, 8, 144, 108),
    "qwen2_5_vl_7b": (64, 96, 2, 112, 84),
    "lfm2_vl_3b": (108, 54, 2, 32, 90, 44),
    "smolvlm2_2b": (108, 54, 1, 96, 72),
    "smolvlm_2b": (108, 54, 1, 96, 72),
    "gemma3_4b": (108, 54, None, 136, 102),
    # 16 vision layers; of 30 text layers 10 take the keys and values of others; 2 more linear layers in each mlp.
    "gemma4": (64, 48, 1, 100, 150),
    # Every sixth of 30 text layers takes its keys for values.
    "gemma4_of_experts": (64, 48, 1, 115, 90),
    "internvl3_8b": (96, 48, 2, 112, 84),
}
PARTS = (
    ("vision", "attention"),
    ("vision", "mlp"),
    ("projector", "attention"),
    ("language", "attention"),
    ("language", "mlp"),
    ("language", "conv"),
)
BILLIONS = {
    "qwen3_vl_8b": 8.767,
    "qwen2_5_vl_7b": 8.292,
    "lfm2_vl_3b": 2.999,
    "smolvlm2_2b": 2.247,
    "gemma3_4b": 4.300,
    "internvl3_8b": 7.944,
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_layer_of_every_part_is_reached(name: str) -> None:
    skeleton = published(name)
    family = family_of(skeleton.config)
    assert family.registered
    coverage = family.require(linear_names(skeleton), family.regions, family.kinds)
    expected = {part: (n, n) for part, n in zip(PARTS, COUNTS[name], strict=False) if n is not None}
    assert {part: (len(found.hit), len(found.total)) for part, found in coverage.items()} == expected


@pytest.mark.parametrize("name", BILLIONS)
def test_the_dimensions_are_those_of_the_published_model(name: str) -> None:
    assert sum(p.numel() for p in published(name).parameters()) == pytest.approx(BILLIONS[name] * 1e9, rel=1e-3)


def test_no_layer_is_in_two_parts_and_only_known_ones_in_none(skeleton: PreTrainedModel) -> None:
    names, family = linear_names(skeleton), family_in(skeleton)
    parts = family.modules(names, family.regions, family.kinds)
    hits = [name for part in parts.values() for name in part.hit]
    assert len(hits) == len(set(hits))
    left = family.left_out(names)
    assert sorted([*hits, *left]) == sorted(names)
    assert {shape for shape in shapes(left) if "audio" not in shape} <= {
        "lm_head",
        "model.vision_tower.embeddings.patch_embedding",
        "model.vision_tower.patch_embedder.input_proj",
        "model.language_model.per_layer_model_projection",
        "model.language_model.layers.*.router.proj",
    }
    assert all(family.part_of(name) == part for part, found in parts.items() for name in found.hit)
    assert all(family.part_of(name) is None for name in left)


def test_tiny_models_are_counted_as_the_architecture_has_them() -> None:
    def counts(config: object) -> dict[tuple[str, str], int]:
        skeleton = skeleton_of(config)
        family = family_in(skeleton)
        found = family.require(linear_names(skeleton), family.regions, family.kinds)
        return {part: len(coverage.hit) for part, coverage in found.items()}

    # 3 vision blocks, 1 merger and 2 deepstack mergers, 3 text layers.
    assert counts(qwen3_vl_config()) == dict(zip(PARTS, (6, 6, 6, 12, 9), strict=False))
    # 2 vision layers, a projector of 2, text layers conv, conv, attention, conv.
    assert counts(lfm2_vl_config()) == dict(zip(PARTS, (8, 4, 2, 4, 12, 6), strict=False))


def test_the_table_of_the_guide_has_these_numbers() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`.*?\| .*? \| (\d+), (\d+) \| (\d+) \| (\d+), (\d+), (\d+) \|$", guide, flags=re.M)
    written = {name: tuple(map(int, numbers)) for name, *numbers in rows}
    shown = {name: counts for name, counts in COUNTS.items() if name != "gemma4_of_experts"}
    counted = {published(name).config.model_type: (*counts, 0)[:6] for name, counts in shown.items()}
    assert written == {name: tuple(n or 0 for n in counted[name]) for name in FAMILIES}


def test_an_architecture_that_is_not_registered_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ModelError, match=r"'bert'.*qwen3_vl, qwen2_5_vl, lfm2_vl.*family_in"):
        family_of(BertConfig())


def test_every_family_has_a_configuration_here() -> None:
    assert {published(name).config.model_type for name in COUNTS} == {
        model_type for family in FAMILIES.values() for model_type in family.model_types
    }


def test_importing_families_loads_no_torch() -> None:
    code = "import sys, vlm_tune.families; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
