"""A small Qwen3-VL for the CIFAR-100 experiment, made as the demo's model is (`tools/demo_model`), at other numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from cifar100_model import MERGE, PATCH, SIDE, Size
from torch import Tensor
from torch.nn import functional
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.image_utils import PILImageResampling

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from demo_model.fast import Fast, Seen
from demo_model.tokenizer import END_OF_TURN, PAD, train_tokenizer


def make_tokenizer(texts: Iterable[str], *, vocabulary: int = 1024) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on some texts; it can write any other text too."""
    return train_tokenizer(texts, vocab_size=vocabulary)


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLProcessor:
    """Return the processor that brings any square image to 16 tokens."""
    shared = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        # As pretraining enlarges its views.
        "resample": PILImageResampling.BILINEAR,
        "size": {"shortest_edge": SIDE**2, "longest_edge": SIDE**2},
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**shared),
        chat_template=tokenizer.chat_template,
    )


def make_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Return the model with random float32 weights; seed torch first."""
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.text,
            "intermediate_size": 3 * size.text,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text // 64 or 1,
            "num_key_value_heads": size.text // 64 or 1,
            "head_dim": 64,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
            "pad_token_id": ids(PAD),
            "eos_token_id": ids(END_OF_TURN),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision,
            "intermediate_size": 4 * size.vision,
            "num_heads": size.vision // 64 or 1,
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "spatial_merge_size": MERGE,
            "out_hidden_size": size.text,
            "num_position_embeddings": (SIDE // PATCH) ** 2,
            "deepstack_visual_indexes": [size.vision_layers // 3, 2 * size.vision_layers // 3],
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


class Forward:
    """As `cifar100_model.Forward`; no updates are left out.

    Args:
        model: The model.
        drop: Not used; the other architecture's share of updates that are left out.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration, *, drop: float = 0.0) -> None:
        self.model = model
        self._fast = Fast(model, compiled=model.device.type == "cuda")
        # An image is its tokens and, side by side with them, what deepstack adds to them in the language model.
        self._parts = 1 + len(model.config.vision_config.deepstack_visual_indexes)
        self.width = self._parts * model.config.text_config.hidden_size

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images of shape (n, 3, 64, 64), values -1 to 1; also return the mean of their tokens."""
        seen = self._fast.see(((images + 1) * 127.5).permute(0, 2, 3, 1))
        tokens = torch.cat([seen.tokens, *seen.deep], -1)
        return tokens, tokens.mean(1)

    def losses(self, prefix: Tensor, tokens: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        """Return the loss of every answer token, a flat tensor in nats; see `cifar100_model.Forward.losses`."""
        own, *deep = tokens.chunk(self._parts, dim=-1)
        side = SIDE // PATCH // MERGE
        hidden = self._fast.think(prefix, Seen(own, tuple(deep), side, side), ids)[:, :-1]
        wanted = answers[:, 1:]
        return functional.cross_entropy(self._fast.logits(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
