from __future__ import annotations

import re

import pytest

from tests.families.architectures import published, skeleton_of
from tests.models import lfm2_vl_config, qwen3_vl_config
from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.families import FAMILIES, linear_names

REGIONS = ("vision", "projector", "language")


@pytest.fixture(scope="module")
def qwen() -> tuple[str, ...]:
    return linear_names(skeleton_of(qwen3_vl_config()))


@pytest.fixture(scope="module")
def lfm2() -> tuple[str, ...]:
    return linear_names(skeleton_of(lfm2_vl_config()))


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


def test_a_projector_without_linear_layers_is_said_to_be_none() -> None:
    assert FAMILIES["gemma3"].regions == ("vision", "language")
    with pytest.raises(AdapterError, match=r"projector would adapt nothing in gemma3.*Leave out what is not there"):
        FAMILIES["gemma3"].parts(REGIONS, ["attention"])


def test_renamed_modules_are_an_error_that_lists_the_names_that_exist(lfm2: tuple[str, ...]) -> None:
    renamed = tuple(name.replace("self_attn.out_proj", "self_attn.o_proj") for name in lfm2)
    with pytest.raises(AdapterError, match=r"3 of 4 linear layers.*layers\.\*\.self_attn\.o_proj") as caught:
        FAMILIES["lfm2_vl"].require(renamed, ["language"], ["attention"])
    assert "\n" not in str(caught.value)


def test_a_layer_that_is_new_in_a_block_is_an_error() -> None:
    names = linear_names(published("gemma4"))
    new = (*names, "model.language_model.layers.3.per_layer_bias")
    assert FAMILIES["gemma4"].require(names, ["language"], ["mlp"])
    with pytest.raises(AdapterError, match=r"150 of 151 linear layers.*per_layer_bias"):
        FAMILIES["gemma4"].require(new, ["language"], ["mlp"])


def test_a_region_hit_nowhere_is_an_error() -> None:
    with pytest.raises(AdapterError, match=r"0 of 0 linear layers.*decoder\.\*\.q_proj"):
        FAMILIES["qwen3_vl"].require(["decoder.0.q_proj"], ["language"], ["attention"])


def test_image_tokens_of_a_family_whose_models_differ_are_left_to_the_processor() -> None:
    with pytest.raises(ModelError, match="smolvlm spends on a photo depends on the model's own settings"):
        FAMILIES["smolvlm"].image_tokens(640, 480)
