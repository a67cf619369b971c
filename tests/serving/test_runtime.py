"""What servers make of an adapter: regions, kinds of adapter, and what its file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from tests.models import lfm2_vl_config, qwen3_vl_config
from vlm_tune.errors import AdapterError
from vlm_tune.serving.runtime import runtime_adapters, trained_parameters
from vlm_tune.vlm.loading import skeleton

LANGUAGE = "model.language_model.layers.0.mlp.up_proj"
VISION = "model.visual.blocks.0.attn.qkv"


@pytest.fixture(scope="module")
def qwen3() -> PreTrainedModel:
    return skeleton(qwen3_vl_config())


def settings(**changes: Any) -> dict[str, Any]:
    return {"r": 8, "target_modules": ["qkv", "up_proj"], **changes}


def test_an_adapter_of_the_language_model_loses_nothing(qwen3: PreTrainedModel) -> None:
    for adapter in runtime_adapters({LANGUAGE: 640}, qwen3, settings()):
        assert (adapter.lost, adapter.lost_share, adapter.kept_by) == ((), 0, None)
        assert adapter.sentence.endswith("puts all of it on.")


def test_shares_are_those_of_the_trained_parameters(qwen3: PreTrainedModel) -> None:
    vllm, sglang = runtime_adapters({LANGUAGE: 750, VISION: 250}, qwen3, settings())
    assert vllm.lost == sglang.lost
    assert (vllm.lost[0].share, vllm.lost[0].layers) == (0.25, ("model.visual.blocks.*.attn.qkv",))
    assert vllm.sentence == (
        "vLLM leaves out vision (1 layers), 25.0 % of what was trained, unless started with "
        "--enable-tower-connector-lora, which is experimental."
    )
    assert sglang.sentence == "SGLang leaves out vision (1 layers), 25.0 % of what was trained."


@pytest.mark.parametrize(
    ("changes", "engine", "words"),
    [
        ({"use_dora": True}, "vllm", "it has DoRA"),
        ({"use_dora": True}, "sglang", "it has DoRA"),
        ({"modules_to_save": ["norm"]}, "vllm", "it has modules trained in full"),
        ({"r": 1024}, "vllm", "its rank 1024 is above 512"),
        ({"rank_pattern": {"q_proj": 600}}, "vllm", "its rank 600 is above 512"),
        ({"target_modules": r"model\..*"}, "sglang", "its target_modules is a pattern"),
    ],
)
def test_kinds_that_a_server_refuses(qwen3: PreTrainedModel, changes: dict[str, Any], engine: str, words: str) -> None:
    by_engine = {one.engine: one for one in runtime_adapters({LANGUAGE: 1}, qwen3, settings(**changes))}
    assert by_engine[engine].refused == (words,)
    assert f"refuses it ({words})." in by_engine[engine].sentence


def test_what_is_computed_otherwise_is_said(qwen3: PreTrainedModel) -> None:
    _, sglang = runtime_adapters({LANGUAGE: 1}, qwen3, settings(use_rslora=True, target_modules="all-linear"))
    assert (sglang.refused, len(sglang.altered)) == ((), 1)
    assert "SGLang scales it by alpha / r" in sglang.sentence
    vllm, sglang = runtime_adapters({LANGUAGE: 1}, qwen3, settings(rank_pattern={"up_proj": 4}))
    assert vllm.sentence == "vLLM puts all of it on."
    assert sglang.sentence == "SGLang takes one rank and alpha for all layers, and these differ."


@pytest.mark.parametrize(
    ("module", "region"),
    [
        ("model.visual.patch_embed", "vision"),
        ("model.visual.merger", "projector"),
        ("model.visual.merger.norm", "projector"),
    ],
)
def test_modules_trained_in_full_belong_where_their_neighbours_are(
    qwen3: PreTrainedModel, module: str, region: str
) -> None:
    vllm, _ = runtime_adapters({LANGUAGE: 1, module: 1}, qwen3, settings())
    assert [part.region for part in vllm.lost] == [region]
    for other in ("model.language_model.norm", "model.language_model.embed_tokens", "lm_head"):
        assert runtime_adapters({LANGUAGE: 1, other: 1}, qwen3, settings())[0].lost == ()


def test_names_alone_give_the_shares_of_one_rank() -> None:
    model = skeleton(lfm2_vl_config())
    vision, language = "model.vision_tower.encoder.layers.0.mlp.fc1", "model.language_model.layers.0.feed_forward.w2"
    known = runtime_adapters({vision: 8 * (32 + 48), language: 8 * (48 + 32)}, model, settings())[0]
    found = runtime_adapters([vision, language], model, {})[0]
    assert (found.lost_share, found.lost[0].parameters) == (known.lost_share, None) == (0.5, None)


def test_parameters_are_counted_from_the_header(tmp_path: Path) -> None:
    whole = "base_model.model.model.visual.merger.norm.weight"
    tensors = {
        f"base_model.model.{VISION}.lora_A.weight": torch.zeros(4, 32),
        f"base_model.model.{VISION}.lora_B.weight": torch.zeros(96, 4),
        f"base_model.model.{VISION}.lora_magnitude_vector": torch.zeros(96),
        whole: torch.zeros(32),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert trained_parameters(tmp_path) == {VISION: 128 + 384 + 96, "model.visual.merger.norm": 32}
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(AdapterError, match=r"cannot read .*adapter_model"):
        trained_parameters(tmp_path)
