"""The two jobs that were measured on an H200, as sizes: models of true dimensions, without weights."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from transformers import Lfm2VlConfig, PreTrainedModel, Qwen3VLConfig

from vlm_tune.families import family_in
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.sizes import Lengths, Sizes, sizes_of
from vlm_tune.vlm.loading import skeleton

PHOTOS = Lengths(
    tokens=828,
    image_tokens=713,
    answer_tokens=7,
    patches=2852,
    padded_patches=2852,
    patch_values=1536,
    pixels=750_000,
    examples=319,
)
"""Photos of 1000 x 750, a prompt of about 60 tokens."""

CIFAR = Lengths(
    tokens=174,
    image_tokens=64,
    answer_tokens=6,
    patches=256,
    padded_patches=1024,
    patch_values=768,
    pixels=1024,
    examples=50_000,
)
"""Photos of 32 x 32, made larger and padded by the processor, and a prompt whose every byte was a token."""


@lru_cache
def qwen3_vl_8b() -> PreTrainedModel:
    return skeleton(
        Qwen3VLConfig(
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
    )


@lru_cache
def lfm2_vl_3b() -> PreTrainedModel:
    attention = {2, 6, 10, 14, 17, 21, 24, 27}
    return skeleton(
        Lfm2VlConfig(
            text_config={
                "vocab_size": 65536,
                "hidden_size": 2048,
                "intermediate_size": 10752,
                "block_auto_adjust_ff_dim": False,
                "num_hidden_layers": 30,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "layer_types": ["full_attention" if layer in attention else "conv" for layer in range(30)],
            },
            vision_config={
                "model_type": "siglip2_vision_model",
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "num_patches": 256,
                "patch_size": 16,
                "vision_use_head": False,
            },
            projector_hidden_size=2560,
        )
    )


def damage(config: TrainConfig, *, examples: int = 319) -> Sizes:
    """Qwen3-VL-8B on photos of damage."""
    trained = 61_300_000 if config.regions == ("language",) else 77_900_000
    model = qwen3_vl_8b()
    return sizes_of(model, family_in(model), config, lengths=replace(PHOTOS, examples=examples), trained=trained)


def cifar(config: TrainConfig) -> Sizes:
    """LFM2-VL-3B on CIFAR-sized photos; the model that was measured had an output head of its own."""
    trained = 6_800_000 if config.kinds == ("attention",) else 97_800_000
    model = lfm2_vl_3b()
    sizes = sizes_of(model, family_in(model), config, lengths=CIFAR, trained=trained)
    return replace(sizes, parameters=sizes.parameters + 65536 * 2048)
