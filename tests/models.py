"""Tiny real models with random weights, saved the ordinary way, for tests that run on a CPU in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    PreTrainedModel,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import vlm_tune

TOKENIZER = Path(vlm_tune.__file__).parent / "demo" / "tiny-qwen3-vl"

LFM2_TEMPLATE = """\
{{- '<|startoftext|>' -}}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- for part in message.content -%}
{{- '<image>' if part.type == 'image' else part.text -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def qwen3_vl_config(*, num_layers: int = 3) -> Qwen3VLConfig:
    """Three text layers, three vision blocks, two deepstack mergers.

    With two text layers the second merger's output, added behind the last one, could reach no answer.
    """
    ids = AutoTokenizer.from_pretrained(TOKENIZER).convert_tokens_to_ids
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 1536,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "pad_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def lfm2_vl_config(*, vocab_size: int = 1600, image_token_id: int = 7) -> Lfm2VlConfig:
    """Three convolution layers around one attention layer, two vision layers."""
    return Lfm2VlConfig(
        text_config={
            "model_type": "lfm2",
            "vocab_size": vocab_size,
            "hidden_size": 32,
            "intermediate_size": 48,
            "block_auto_adjust_ff_dim": False,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "layer_types": ["conv", "conv", "full_attention", "conv"],
            "eos_token_id": 2,
            "pad_token_id": 0,
            "tie_word_embeddings": True,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
            "num_patches": 64,
            "vision_use_head": False,
        },
        image_token_id=image_token_id,
        projector_hidden_size=32,
        downsample_factor=2,
        tie_word_embeddings=True,
    )


def tiny_qwen3_vl(folder: Path, *, seed: int = 0, num_layers: int = 3) -> Path:
    """Save a tiny Qwen3-VL with its real processor; photos become 4 to 36 tokens, by their size."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    shared = {
        "patch_size": 8,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
    }
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shared),
        chat_template=tokenizer.chat_template,
    )
    torch.manual_seed(seed)
    return _save(Qwen3VLForConditionalGeneration(qwen3_vl_config(num_layers=num_layers)), processor, folder)


def tiny_lfm2_vl(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny LFM2-VL with its real processor; photos become 4 to 16 tokens, large ones several tiles."""
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    rows_and_columns = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer.add_special_tokens(
        {
            "bos_token": "<|startoftext|>",
            "additional_special_tokens": [
                *tokenizer.extra_special_tokens,
                "<image>",
                "<|image_start|>",
                "<|image_end|>",
                "<|img_thumbnail|>",
                *rows_and_columns,
            ],
        }
    )
    image_processor = Lfm2VlImageProcessor(
        encoder_patch_size=8,
        downsample_factor=2,
        min_image_tokens=4,
        max_image_tokens=16,
        tile_size=64,
        min_tiles=2,
        max_tiles=4,
        size={"height": 64, "width": 64},
    )
    processor = Lfm2VlProcessor(image_processor, tokenizer, chat_template=LFM2_TEMPLATE)
    config = lfm2_vl_config(vocab_size=len(tokenizer), image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    torch.manual_seed(seed)
    return _save(Lfm2VlForConditionalGeneration(config), processor, folder)


def _save(model: PreTrainedModel, processor: Qwen3VLProcessor | Lfm2VlProcessor, folder: Path) -> Path:
    # Initialised as usual, a tiny model hardly looks at the photo; larger weights make every input matter.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
