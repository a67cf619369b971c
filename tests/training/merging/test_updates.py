"""Every kind of adapter against PEFT's own merge, and adapters that are broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

from tests.training.merging.made import difference, in_bfloat16, loaded, merged_by_peft, parts, random_adapter
from vlm_tune.errors import MergeError
from vlm_tune.training.merging.merge import merge
from vlm_tune.training.merging.updates import LowRank, Whole, read_updates

ATTENTION = r"model\.language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_alpha": 6},
    "rsLoRA": {"r": 3, "use_rslora": True},
    "DoRA": {"use_dora": True},
    "DoRA of rsLoRA": {"use_dora": True, "use_rslora": True, "r": 4},
    "ranks by layer": {"rank_pattern": {"q_proj": 5, r"layers\.1\.self_attn\.v_proj": 3}},
    "scales by layer": {"alpha_pattern": {"o_proj": 30, r"layers\.0\.self_attn\.q_proj": 1}},
    "both, rsLoRA": {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {"q_proj": 7}, "use_rslora": True},
    "in full": {"modules_to_save": ["model.visual.merger", "model.visual.patch_embed"]},
    "DoRA and in full": {"use_dora": True, "modules_to_save": ["model.visual.merger"]},
    "a start that keeps the base": {"init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_merged_as_peft_does(kind: str, tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_qwen3_vl, tmp_path / "adapter", target_modules=ATTENTION, **KINDS[kind])
    report = merge(parts(tiny_qwen3_vl, adapter), tmp_path / "merged", probe=[])
    assert difference(tmp_path / "merged", merged_by_peft(tiny_qwen3_vl, adapter)) < 1e-5
    assert difference(tmp_path / "merged", loaded(tiny_qwen3_vl).state_dict()) > 0.01
    assert report.max_ulps <= 0.501


def test_an_output_head_with_weights_of_its_own_is_merged_in_full(tmp_path: Path, tiny_qwen3_vl: Path) -> None:
    config = loaded(tiny_qwen3_vl).config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(tmp_path / "base")
    adapter = random_adapter(
        tmp_path / "base",
        tmp_path / "adapter",
        target_modules=ATTENTION,
        modules_to_save=["lm_head", "model.language_model.embed_tokens"],
    )
    report = merge(parts(tmp_path / "base", adapter), tmp_path / "merged", probe=[])
    assert {"lm_head", "model.language_model.embed_tokens"} <= set(report.changed)
    assert difference(tmp_path / "merged", merged_by_peft(tmp_path / "base", adapter)) < 1e-6


def test_weights_in_bfloat16_are_rounded_once(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    settings = {"use_dora": True, "modules_to_save": ["model.visual.merger"]}
    (tmp_path / "base").mkdir()
    for path in tiny_qwen3_vl.iterdir():
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    base = in_bfloat16(tmp_path / "base")
    adapter = random_adapter(base, tmp_path / "adapter", target_modules=ATTENTION, **settings)
    report = merge(parts(base, adapter), tmp_path / "merged", probe=[])
    assert 0.4 < report.max_ulps <= 0.501

    stored, after = load_file(base / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    own = load_file(adapter / "adapter_model.safetensors")
    name = "model.language_model.layers.1.self_attn.q_proj"
    a, b = (own[f"base_model.model.{name}.{matrix}.weight"].double() for matrix in ("lora_A", "lora_B"))
    lengths = own[f"base_model.model.{name}.lora_magnitude_vector"].double()
    direction = stored[f"{name}.weight"].double() + 4 * b @ a
    exact = lengths[:, None] * direction / direction.square().sum(1, keepdim=True).sqrt()
    assert torch.equal(after[f"{name}.weight"], exact.bfloat16())
    whole = "model.visual.merger.linear_fc1.bias"
    assert torch.equal(after[whole], own[f"base_model.model.{whole}"].bfloat16())


@pytest.fixture
def adapter(tiny_qwen3_vl: Path, tmp_path: Path) -> Path:
    return random_adapter(
        tiny_qwen3_vl, tmp_path / "adapter", target_modules=ATTENTION, modules_to_save=["model.visual.merger"]
    )


def test_updates_have_their_names_in_memory(adapter: Path) -> None:
    updates = read_updates([(adapter, 1.0)])
    assert isinstance(updates["model.language_model.layers.0.self_attn.k_proj.weight"], LowRank)
    assert isinstance(updates["model.visual.merger.norm.bias"], Whole)
    assert updates["model.language_model.layers.0.self_attn.k_proj.weight"].shape == (16, 32)


def change(adapter: Path, **tensors: torch.Tensor | None) -> None:
    """Replace tensors of an adapter; None takes one out."""
    path = adapter / "adapter_model.safetensors"
    stored = {**load_file(path), **{f"base_model.model.{name}": value for name, value in tensors.items()}}
    save_file({name: value for name, value in stored.items() if value is not None}, path)


Q = "model.language_model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [f"{Q}.lora_B.weight", "model.visual.merger.norm.weight"])
def test_values_that_are_no_numbers_are_named_before_anything_is_written(
    name: str, value: float, adapter: Path, tiny_qwen3_vl: Path, tmp_path: Path
) -> None:
    tensor = load_file(adapter / "adapter_model.safetensors")[f"base_model.model.{name}"]
    tensor.flatten()[1] = value
    change(adapter, **{name: tensor})
    with pytest.raises(MergeError, match=rf"{name} that are not finite numbers.*learning rate"):
        merge(parts(tiny_qwen3_vl, adapter), tmp_path / "here" / "merged", probe=[])
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({f"{Q}.lora_B.weight": None}, f"not all matrices of {Q}"),
        ({f"{Q}.lora_magnitude_vector": torch.ones(32)}, f"not all matrices of {Q}"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 32, 1, 1)}, "linear layers are merged"),
        ({f"{Q}.lora_A.weight": torch.ones(3, 32)}, "linear layers are merged"),
        ({f"{Q}.lora_A.weight": torch.ones(3, 32), f"{Q}.lora_B.weight": torch.ones(32, 3)}, "of rank 3.*say 2"),
        ({"lm_head.lora_embedding_A": torch.ones(2, 3)}, "lora_embedding_A, which belongs to no linear layer"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 31)}, r"for a weight of \(32, 31\).*one of \(32, 32\)"),
    ],
)
def test_an_adapter_with_other_tensors_is_refused(
    tensors: dict[str, torch.Tensor | None], reason: str, adapter: Path, tiny_qwen3_vl: Path, tmp_path: Path
) -> None:
    change(adapter, **tensors)
    with pytest.raises(MergeError, match=reason):
        merge(parts(tiny_qwen3_vl, adapter), tmp_path / "merged", probe=[])
    assert not (tmp_path / "merged").exists()


def test_an_adapter_without_tensors_or_settings_is_refused(adapter: Path) -> None:
    save_file({}, adapter / "adapter_model.safetensors")
    with pytest.raises(MergeError, match="holds no tensors"):
        read_updates([(adapter, 1.0)])
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(MergeError, match=r"adapter_config\.json cannot be read"):
        read_updates([(adapter, 1.0)])
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    with pytest.raises(MergeError, match="cannot be read as a safetensors file"):
        read_updates([(adapter, 1.0)])
