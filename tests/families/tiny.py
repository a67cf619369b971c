"""A tiny model of every architecture, with weights, and one photo for it: what adapters are tried on."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma4Config,
    InternVLConfig,
    LlavaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    SmolVLMConfig,
)

from tests.models import lfm2_vl_config, qwen3_vl_config

IMAGE = 7
"""Id of the image token."""

_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}


def _qwen2_5_vl() -> PreTrainedConfig:
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
    return Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_parameters": _ROPE},
        vision_config={**vision, "patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1]},
        image_token_id=IMAGE,
    )


def _smolvlm() -> PreTrainedConfig:
    return SmolVLMConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={**_VISION, "image_size": 32, "patch_size": 8},
        scale_factor=2,
        image_token_id=IMAGE,
        pad_token_id=0,
    )


def _gemma3() -> PreTrainedConfig:
    vision = {"model_type": "siglip_vision_model", **_VISION, "image_size": 32, "patch_size": 8}
    return Gemma3Config(
        text_config=_TEXT,
        vision_config={**vision, "vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
    )


def _gemma4() -> PreTrainedConfig:
    text = {
        **_TEXT,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 64,
    }
    vision = {**_VISION, "head_dim": 16, "num_key_value_heads": 2, "patch_size": 8, "pooling_kernel_size": 2}
    return Gemma4Config(
        text_config=text,
        vision_config={"model_type": "gemma4_vision", **vision, "position_embedding_size": 64},
        audio_config=None,
        image_token_id=IMAGE,
    )


def _internvl() -> PreTrainedConfig:
    vision = {"model_type": "internvl_vision", **_VISION, "image_size": [32, 32], "patch_size": [8, 8]}
    return InternVLConfig(
        text_config={"model_type": "qwen2", **_TEXT}, vision_config=vision, image_token_id=IMAGE, image_seq_length=4
    )


def _llava() -> PreTrainedConfig:
    vision = {"model_type": "clip_vision_model", **_VISION, "image_size": 32, "patch_size": 8, "projection_dim": 32}
    return LlavaConfig(text_config={"model_type": "llama", **_TEXT}, vision_config=vision, image_token_index=IMAGE)


TINY = {
    "qwen3_vl": qwen3_vl_config,
    "qwen2_5_vl": _qwen2_5_vl,
    "lfm2_vl": lfm2_vl_config,
    "smolvlm": _smolvlm,
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "internvl": _internvl,
    "llava": _llava,
}
"""Those of the registry, and one that is not in it."""


def tiny_model(name: str) -> PreTrainedModel:
    """The model, with random weights."""
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(TINY[name]()).requires_grad_(False).eval()
    if name == "gemma3":
        # It is made of zeros, through which no gradient comes.
        model.model.multi_modal_projector.mm_input_projection_weight.normal_()
    return model


def photo(model: PreTrainedModel) -> dict[str, Any]:
    """One photo of 32 x 32 pixels and a few words for the model, as its processor would give them."""
    name, config = model.config.model_type, model.config
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    image_id = config.image_token_index if name == "llava" else config.image_token_id
    tokens = 16 if name == "llava" else 4
    ids = torch.tensor([[9, *[image_id] * tokens, 11, 12, 13]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.masked_fill(ids == image_id, -100),
    }
    marks = (ids == image_id).long()
    if name in ("qwen3_vl", "qwen2_5_vl"):
        pixels = {"pixel_values": noise(16, 3 * 2 * 8 * 8), "image_grid_thw": torch.tensor([[1, 4, 4]])}
        return {**inputs, **pixels, "mm_token_type_ids": marks}
    if name == "lfm2_vl":
        mask = torch.ones(1, 16, dtype=torch.long)
        pixels = {"pixel_values": noise(1, 16, 3 * 8 * 8), "pixel_attention_mask": mask}
        return {**inputs, **pixels, "spatial_shapes": torch.tensor([[4, 4]])}
    if name == "gemma4":
        places = torch.tensor([[[x, y] for y in range(4) for x in range(4)]])
        return {
            **inputs,
            "pixel_values": noise(1, 16, 3 * 8 * 8),
            "image_position_ids": places,
            "mm_token_type_ids": marks,
        }
    if name == "smolvlm":
        return {**inputs, "pixel_values": noise(1, 1, 3, 32, 32)}
    if name == "gemma3":
        return {**inputs, "pixel_values": noise(1, 3, 32, 32), "token_type_ids": marks}
    return {**inputs, "pixel_values": noise(1, 3, 32, 32)}
