from __future__ import annotations

import re
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import (
    Blip2Config,
    DeepseekVLConfig,
    Idefics2Config,
    LlavaConfig,
    MllamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3VLMoeConfig,
)

from tests.families.architectures import published, skeleton_of
from vlm_tune.errors import ModelError
from vlm_tune.families import family_in, find_family, linear_names, shapes
from vlm_tune.vlm import VLM


def hits(skeleton: PreTrainedModel) -> dict[tuple[str, str], int]:
    found = find_family(skeleton)
    coverage = found.require(linear_names(skeleton), found.regions, found.kinds)
    return {part: len(each.hit) for part, each in coverage.items()}


def test_looking_finds_what_the_registry_knows(skeleton: PreTrainedModel) -> None:
    names, known, found = linear_names(skeleton), family_in(skeleton), find_family(skeleton)
    assert known.registered and not found.registered
    assert (found.name, found.grid) == (skeleton.config.model_type, None)
    assert set(found.layers) == set(known.layers)

    def reached(family: object) -> dict[tuple[str, str], set[str]]:
        parts = family.require(names, known.regions, known.kinds)
        return {part: set(coverage.hit) for part, coverage in parts.items()}

    assert reached(found) == reached(known)
    assert found.left_out(names) == known.left_out(names)


def test_llava_is_found_by_looking() -> None:
    skeleton = skeleton_of(
        LlavaConfig(vision_config={"model_type": "clip_vision_model", "num_hidden_layers": 2}, text_config=SMALL)
    )
    family = family_in(skeleton)
    assert (family.name, family.registered) == ("llava", False)
    # Its features are those of the last block but one.
    assert hits(skeleton) == {
        ("vision", "attention"): 4,
        ("vision", "mlp"): 2,
        ("projector", "attention"): 2,
        ("language", "attention"): 8,
        ("language", "mlp"): 6,
    }
    left = family.left_out(linear_names(skeleton))
    assert len(left) == 7 and left[-1] == "lm_head"
    assert all(name.startswith("model.vision_tower.encoder.layers.1.") for name in left[:-1])


SMALL = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2}


@pytest.mark.parametrize(("layer", "blocks"), [(-1, 3), (-2, 2), ([-3, -2], 2), (1, 1), (3, 3)])
def test_vision_blocks_behind_the_features_are_left_out(layer: int | list[int], blocks: int) -> None:
    vision = {"model_type": "clip_vision_model", "num_hidden_layers": 3}
    config = LlavaConfig(vision_config=vision, text_config=SMALL, vision_feature_layer=layer)
    found = hits(skeleton_of(config))
    assert (found["vision", "attention"], found["vision", "mlp"]) == (4 * blocks, 2 * blocks)
    assert found["language", "attention"] == 8


def test_attention_in_a_projector_is_the_projectors() -> None:
    found = hits(skeleton_of(Idefics2Config(vision_config={"num_hidden_layers": 2})))
    # 3 layers of 7 in its perceiver, and 3 before them.
    assert found["projector", "attention"] == 24
    assert found["vision", "attention"] == 8
    # A Q-Former of 12 layers, and one linear layer at the top of the model.
    qformer = skeleton_of(Blip2Config())
    assert find_family(qformer).part_of("language_projection") == ("projector", "attention")
    assert hits(qformer)["projector", "attention"] == 97


def test_heads_that_pool_and_experts_get_no_adapter() -> None:
    pooled = skeleton_of(DeepseekVLConfig())
    assert "model.vision_model.head.mlp.fc1" in find_family(pooled).left_out(linear_names(pooled))
    assert ("language", "mlp") not in hits(skeleton_of(Qwen3VLMoeConfig()))


def test_other_kinds_of_attention_are_attention() -> None:
    found = hits(skeleton_of(Qwen3_5Config()))
    # 8 layers of 4 and 24 of linear attention with 5.
    assert found["language", "attention"] == 8 * 4 + 24 * 5
    crossed = skeleton_of(MllamaConfig())
    assert find_family(crossed).part_of("model.language_model.layers.3.cross_attn.q_proj") == ("language", "attention")


def test_a_model_without_blocks_is_an_error_that_lists_its_layers() -> None:
    class Bare(PreTrainedModel):
        config_class = Qwen2Config
        base_model_prefix = "model"

        def __init__(self) -> None:
            super().__init__(Qwen2Config())
            import torch

            self.reader = torch.nn.Linear(2, 2)

    with pytest.raises(ModelError, match=r"'qwen2' are not known and were not found by looking.*reader"):
        family_in(Bare())


def test_an_adapter_that_is_on_changes_no_name(tiny_lfm2_vl: Path) -> None:
    resident = VLM(tiny_lfm2_vl, device="cpu").load()
    before, found = linear_names(resident.model), find_family(resident.model)
    lora = LoraConfig(
        r=2,
        target_modules=found.target_modules(["vision", "language"], ["attention"]),
        modules_to_save=["model.multi_modal_projector"],
    )
    with resident.adapted(lambda model: get_peft_model(model, lora)):
        assert linear_names(resident.model) == before
        assert find_family(resident.model) == found


def test_patterns_of_found_parts_are_short_and_exact() -> None:
    family = find_family(published("qwen3_vl_8b"))
    pattern = family.layers["vision", "attention"].pattern
    assert pattern == r"model\.visual\.blocks\.\d+\.attn\.qkv|model\.visual\.blocks\.\d+\.attn\.proj"
    assert not re.fullmatch(pattern, "model.visual.blocks.3.attn.qkv.lora_A")
    assert shapes(["a.0.b", "a.1.b", "lm_head"]) == ["a.*.b", "lm_head"]
