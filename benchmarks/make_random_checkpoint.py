"""Write Qwen3-VL-8B, Qwen3-VL-32B or LFM2-VL-3B at true dimensions with random weights and a small tokenizer.

Speed, memory, file layout and code paths are those of the real model; the answers are noise. Tensors are drawn one by
one and go straight to disk: the main memory holds a few at a time. For machines that cannot download weights:

    python benchmarks/make_random_checkpoint.py qwen3-vl-8b /tmp/qwen3-vl-8b
    python benchmarks/make_random_checkpoint.py lfm2-vl-3b /tmp/lfm2-vl-3b --tiny
"""

from __future__ import annotations

import argparse
import json
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
    PreTrainedModel,
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
    return _qwen3_vl(layers=36, width=4096, inner=12_288, heads=32, tiny=tiny)


def qwen3_vl_32b(*, tiny: bool) -> tuple[PreTrainedConfig, ProcessorMixin]:
    """Return configuration and processor of Qwen3-VL-32B: 64 text layers behind the same vision tower."""
    return _qwen3_vl(layers=64, width=5120, inner=25_600, heads=64, tiny=tiny)


def _qwen3_vl(
    *, layers: int, width: int, inner: int, heads: int, tiny: bool
) -> tuple[PreTrainedConfig, ProcessorMixin]:
    processor = AutoProcessor.from_pretrained(demo.model_path())
    for part in (processor.image_processor, processor.video_processor):
        part.patch_size = 16
        part.size = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
    ids = processor.tokenizer.get_vocab()
    text: dict[str, Any] = dict(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
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
        out_hidden_size=width,
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


MODELS: Mapping[str, Callable[..., tuple[PreTrainedConfig, ProcessorMixin]]] = {
    "qwen3-vl-8b": qwen3_vl_8b,
    "qwen3-vl-32b": qwen3_vl_32b,
    "lfm2-vl-3b": lfm2_vl_3b,
}
_SHARD_BYTES = 5_000_000_000
_WRITERS = 4
Shapes = dict[str, tuple[int, ...]]


def write(name: str, folder: Path, *, tiny: bool = False, device: str | None = None, seed: int = 0) -> int:
    """Write the checkpoint in bfloat16 and return its number of parameters.

    Norms are 1, biases 0, all else is normal with the standard deviation that the language model is initialised with.
    The same seed gives the same values on the same kind of device.
    """
    config, processor = MODELS[name](tiny=tiny)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    end_of_turn = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    GenerationConfig(eos_token_id=end_of_turn, pad_token_id=processor.tokenizer.pad_token_id).save_pretrained(folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    _write_weights(model, folder, device or ("cuda" if torch.cuda.is_available() else "cpu"), seed)
    return sum(parameter.numel() for parameter in model.parameters())


def _write_weights(model: PreTrainedModel, folder: Path, device: str, seed: int) -> None:
    # Tied weights are one parameter under its first name, as save_pretrained writes them.
    shapes: Shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    shards: list[Shapes] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and _bytes(shards[-1]) + _bytes({name: shape}) > _SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": _bytes(shapes)}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    std = model.config.get_text_config().initializer_range

    def write_shard(number: int) -> None:
        draw = torch.Generator(device).manual_seed(seed * 1000 + number)
        with (folder / files[number]).open("wb") as file:
            file.write(_header(shards[number]))
            for name, shape in shards[number].items():
                tensor = torch.empty(shape, dtype=torch.bfloat16, device=device)
                if name.endswith("bias"):
                    tensor.zero_()
                elif len(shape) == 1:
                    tensor.fill_(1.0)
                else:
                    tensor.normal_(0.0, std, generator=draw)
                file.write(memoryview(tensor.cpu().view(torch.uint8).numpy()).cast("B"))

    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(write_shard, range(len(shards))))


def _header(shapes: Shapes) -> bytes:
    """Return what a safetensors file begins with: the length of a JSON object, and the object."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + _bytes({name: shape})
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(shapes: Shapes) -> int:
    return sum(2 * torch.Size(shape).numel() for shape in shapes.values())


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
