"""Write Qwen3-VL-8B or LFM2-VL-3B at its true dimensions with random weights and the demo's small tokenizer.

Speed, memory, file layout and code paths are those of the real model; the answers are noise. For machines
that cannot download weights:

    python benchmarks/make_random_checkpoint.py qwen3-vl-8b /tmp/qwen3-vl-8b
    python benchmarks/make_random_checkpoint.py lfm2-vl-3b /tmp/lfm2-vl-3b --tiny
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    Lfm2VlConfig,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    PreTrainedConfig,
    ProcessorMixin,
    Qwen3VLConfig,
)

from vlm_tune import demo

# The released LFM2 interleaves eight attention layers with twenty-two short convolutions.
_LFM2_ATTENTION = (2, 5, 8, 11, 14, 17, 20, 23)
_LFM2_SPECIALS = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
_LFM2_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen3_vl_8b(*, tiny: bool) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Return configuration and processor of Qwen3-VL-8B: 36 text layers, 27 vision blocks, 4 mergers."""
    processor = AutoProcessor.from_pretrained(demo.model_path())
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size = 16
        part.size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    ids = processor.tokenizer.get_vocab()
    text: dict[str, Any] = dict(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=262_144,
        rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20], mrope_interleaved=True),
    )
    vision: dict[str, Any] = dict(
        depth=27,
        hidden_size=1152,
        num_heads=16,
        intermediate_size=4304,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=4096,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[8, 16, 24],
    )
    if tiny:
        text |= dict(
            vocab_size=2048,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[4, 2, 2], mrope_interleaved=True),
        )
        vision |= dict(
            depth=4,
            hidden_size=48,
            num_heads=4,
            intermediate_size=80,
            out_hidden_size=64,
            deepstack_visual_indexes=[0, 1, 2],
        )
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return config, processor


def lfm2_vl_3b(*, tiny: bool) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Return configuration and processor of LFM2-VL-3B: 30 text layers, 27 SigLIP2 layers, a projector."""
    tokenizer = AutoTokenizer.from_pretrained(demo.model_path())
    tokenizer.add_special_tokens({"additional_special_tokens": _LFM2_SPECIALS})
    text: dict[str, Any] = dict(
        vocab_size=65_536,
        hidden_size=2048,
        intermediate_size=10_752,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=30,
        num_attention_heads=32,
        num_key_value_heads=8,
        layer_types=["full_attention" if layer in _LFM2_ATTENTION else "conv" for layer in range(30)],
    )
    vision: dict[str, Any] = dict(
        model_type="siglip2_vision_model",
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        num_patches=256,
        patch_size=16,
        vision_use_head=False,
    )
    if tiny:
        text |= dict(
            vocab_size=2048,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            layer_types=["conv", "full_attention", "conv", "full_attention"],
        )
        vision |= dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    config = Lfm2VlConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=64 if tiny else 2560,
    )
    tokenizer.image_token = "<image>"
    return config, Lfm2VlProcessor(Lfm2VlImageProcessor(), tokenizer, chat_template=_LFM2_TEMPLATE)


MODELS = {"qwen3-vl-8b": qwen3_vl_8b, "lfm2-vl-3b": lfm2_vl_3b}


def write(name: str, folder: Path, *, tiny: bool = False, device: str | None = None, seed: int = 0) -> int:
    """Write the checkpoint in bfloat16 and return its number of parameters."""
    config, processor = MODELS[name](tiny=tiny)
    torch.manual_seed(seed)
    with torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    end_of_turn = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config = GenerationConfig(eos_token_id=end_of_turn, pad_token_id=processor.tokenizer.pad_token_id)
    model.save_pretrained(folder, max_shard_size="5GB")
    processor.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Read the command line and write one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true", help="the same architecture with small numbers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    count = write(arguments.model, arguments.folder, tiny=arguments.tiny, seed=arguments.seed)
    print(f"{arguments.folder}: {count / 1e9:.3f} B parameters in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
