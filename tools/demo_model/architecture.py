"""The shape of the demo model: a real Qwen3-VL with small numbers, its processor, and the folder they are saved to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo_model.tokenizer import END_OF_TURN, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

MIN_PIXELS = 128 * 128
MAX_PIXELS = 140 * 140
"""What a photo is brought to. Pretraining draws smaller pictures and the position embeddings are interpolated; at
this size the thin lines of a photo survive, which is worth several points of accuracy after fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The numbers that decide how large the model is."""

    vocab: int = 1536
    text_hidden: int = 192
    text_layers: int = 5
    text_mlp: int = 448
    vision_hidden: int = 112
    vision_layers: int = 6
    vision_mlp: int = 336
    patch: int = 8


TINY = Size(vocab=512, text_hidden=64, text_layers=2, text_mlp=64, vision_hidden=32, vision_layers=3, vision_mlp=32)


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Builds the model with random float32 weights; seed torch first."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": size.vocab,
            "hidden_size": size.text_hidden,
            "intermediate_size": size.text_mlp,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text_hidden // 32,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "pad_token_id": ids(PAD),
            "eos_token_id": ids(END_OF_TURN),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_hidden // 16,
            "patch_size": size.patch,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": size.text_hidden,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [size.vision_layers // 3 - 1, 2 * size.vision_layers // 3 - 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids(END_OF_TURN)
    model.generation_config.pad_token_id = ids(PAD)
    return model


def build_processor(size: Size, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Builds the processor that brings any photo to about 136 x 136 pixels, aspect ratio kept."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    shared = {
        "patch_size": size.patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shared),
        chat_template=tokenizer.chat_template,
    )


def save(model: Qwen3VLForConditionalGeneration, processor: Qwen3VLProcessor, folder: Path, *, card: str) -> None:
    """Saves weights (bfloat16), configuration, processor and model card the ordinary way."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    (folder / "README.md").write_text(card, encoding="utf-8")
