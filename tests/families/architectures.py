"""Configurations of every registered architecture, at the dimensions of a published model where they are known."""

from __future__ import annotations

from functools import cache

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma4Config,
    Idefics3Config,
    InternVLConfig,
    Lfm2VlConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
"""SigLIP's shape-optimised tower of 400 million parameters, which several families have."""

_ATTENTION_LAYERS = {2, 6, 10, 14, 17, 21, 24, 27}


def qwen3_vl_8b() -> PreTrainedConfig:
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        vision_config={
            "depth": 27,
            "hidden_size": 1152,
            "num_heads": 16,
            "intermediate_size": 4304,
            "out_hidden_size": 4096,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        tie_word_embeddings=False,
    )


def qwen2_5_vl_7b() -> PreTrainedConfig:
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )


def lfm2_vl_3b() -> PreTrainedConfig:
    return Lfm2VlConfig(
        text_config={
            "vocab_size": 65536,
            "hidden_size": 2048,
            "intermediate_size": 10752,
            "block_auto_adjust_ff_dim": False,
            "num_hidden_layers": 30,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "layer_types": ["full_attention" if layer in _ATTENTION_LAYERS else "conv" for layer in range(30)],
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            **_SO400M,
            "num_patches": 256,
            "patch_size": 16,
            "vision_use_head": False,
        },
        projector_hidden_size=2560,
    )


def _smollm2(vocab_size: int) -> dict[str, object]:
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }


def smolvlm2_2b() -> PreTrainedConfig:
    vision = {**_SO400M, "image_size": 384, "patch_size": 14}
    return SmolVLMConfig(text_config=_smollm2(49280), vision_config=vision, scale_factor=3, tie_word_embeddings=False)


def smolvlm_2b() -> PreTrainedConfig:
    """The first SmolVLM is an Idefics 3."""
    vision = {**_SO400M, "image_size": 384, "patch_size": 14}
    return Idefics3Config(text_config=_smollm2(49155), vision_config=vision, scale_factor=3, tie_word_embeddings=False)


def gemma3_4b() -> PreTrainedConfig:
    return Gemma3Config(
        text_config={
            "vocab_size": 262208,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            **_SO400M,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
    )


def gemma4() -> PreTrainedConfig:
    """As transformers has it by default, where it has neither vision nor sharing of keys and values."""
    return Gemma4Config(
        vision_config={"model_type": "gemma4_vision"}, audio_config=None, text_config={"num_kv_shared_layers": 10}
    )


def gemma4_of_experts() -> PreTrainedConfig:
    """With experts beside the mlp of each layer, and keys that are the values too; with ears."""
    return Gemma4Config(
        vision_config={"model_type": "gemma4_vision"},
        audio_config={"model_type": "gemma4_audio"},
        text_config={
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 64,
            "hidden_size_per_layer_input": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 2,
        },
    )


def internvl3_8b() -> PreTrainedConfig:
    return InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 151674,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        vision_config={
            "model_type": "internvl_vision",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
            "patch_size": [14, 14],
        },
        tie_word_embeddings=False,
    )


PUBLISHED = {
    make.__name__: make
    for make in (
        qwen3_vl_8b,
        qwen2_5_vl_7b,
        lfm2_vl_3b,
        smolvlm2_2b,
        smolvlm_2b,
        gemma3_4b,
        gemma4,
        gemma4_of_experts,
        internvl3_8b,
    )
}
"""All of them, by name."""


def skeleton_of(config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a configuration on the meta device."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@cache
def published(name: str) -> PreTrainedModel:
    """The skeleton of one of `PUBLISHED`."""
    return skeleton_of(PUBLISHED[name]())
