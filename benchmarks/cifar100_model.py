"""A small LFM2-VL: the architecture of the released models with small numbers, its tokenizer, and a batched forward.

Images of 32x32 become 64x64, 64 patches and 16 image tokens. The model is a stock `Lfm2VlForConditionalGeneration`,
saved the ordinary way; `Forward` runs its very modules over equal images at once, which transformers does one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

SIDE, PATCH, MERGE = 64, 8, 2
IMAGE_TOKENS = (SIDE // PATCH // MERGE) ** 2
PAD, START, END = "<|pad|>", "<|startoftext|>", "<|im_end|>"
_MORE = ("<|im_start|>", "<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
_TEMPLATE = (
    "{{ '<|startoftext|>' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A mark takes the space behind it and a word the one before it: in "one of: bee, oak_tree" every class is cut exactly
# as where it stands alone as the answer.
_SPLIT = r"_\p{L}+|[^\s\p{L}\p{N}_]+ ?| ?\p{L}+| ?\p{N}|_|\s+"


@dataclass(frozen=True)
class Size:
    """What decides how large the model is; the usual one has 20 M parameters."""

    vision: int = 384
    vision_layers: int = 8
    text: int = 256
    text_layers: int = 6


TINY = Size(vision=64, vision_layers=2, text=64, text_layers=3)


def make_tokenizer(texts: Iterable[str], *, vocabulary: int = 1024) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on some texts; it can write any other text too."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END, *_MORE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(_MORE),
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> Lfm2VlProcessor:
    """Return the processor that brings any square image to 16 tokens."""
    images = Lfm2VlImageProcessor(
        encoder_patch_size=PATCH,
        downsample_factor=MERGE,
        min_image_tokens=IMAGE_TOKENS,
        max_image_tokens=IMAGE_TOKENS,
        do_image_splitting=False,
        size={"height": SIDE, "width": SIDE},
    )
    return Lfm2VlProcessor(images, tokenizer, chat_template=_TEMPLATE)


def make_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> Lfm2VlForConditionalGeneration:
    """Return the model with random float32 weights; seed torch first."""
    ids = tokenizer.convert_tokens_to_ids
    config = Lfm2VlConfig(
        text_config={
            "model_type": "lfm2",
            "vocab_size": len(tokenizer),
            "hidden_size": size.text,
            "intermediate_size": 3 * size.text,
            "block_auto_adjust_ff_dim": False,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.text // 64 or 1,
            "num_key_value_heads": size.text // 64 or 1,
            "layer_types": ["full_attention" if index % 2 else "conv" for index in range(size.text_layers)],
            "bos_token_id": ids(START),
            "eos_token_id": ids(END),
            "pad_token_id": ids(PAD),
            "tie_word_embeddings": True,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": size.vision,
            "intermediate_size": 4 * size.vision,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision // 64 or 1,
            "patch_size": PATCH,
            "num_patches": (SIDE // PATCH) ** 2,
            "vision_use_head": False,
        },
        image_token_id=ids("<image>"),
        projector_hidden_size=2 * size.text,
        downsample_factor=MERGE,
        tie_word_embeddings=True,
    )
    model = Lfm2VlForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids(END)
    model.generation_config.pad_token_id = ids(PAD)
    return model


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: Path, *, card: str) -> None:
    """Save weights (bfloat16), configuration, processor and model card the ordinary way."""
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


class Forward:
    """The model's forward pass over equal images at once; each layer is compiled on a GPU.

    Args:
        model: The model.
        drop: Share of the vision layers' updates that is left out while training (stochastic depth).
    """

    def __init__(self, model: Lfm2VlForConditionalGeneration, *, drop: float = 0.0) -> None:
        self.model, self.drop = model, drop
        self.width = model.config.vision_config.hidden_size
        tower = model.model.vision_tower
        # Versions of transformers differ in whether a `vision_model` holds the tower.
        self._vision = getattr(tower, "vision_model", tower)
        self._block, self._attend, self._convolve = _vision_block, _attention_block, _convolution_block
        if model.device.type == "cuda":
            self._block = torch.compile(_vision_block)
            self._attend = torch.compile(_attention_block, dynamic=True)
            self._convolve = torch.compile(_convolution_block, dynamic=True)

    def see(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images of shape (n, 3, 64, 64), values -1 to 1.

        Returns:
            Image tokens of shape (n, 16, text width), and the mean over the patches of shape (n, vision width).
        """
        count, grid = len(images), SIDE // PATCH
        patches = images.view(count, 3, grid, PATCH, grid, PATCH).permute(0, 2, 4, 3, 5, 1)
        embeddings = self._vision.embeddings
        x = embeddings.patch_embedding(patches.reshape(count, grid * grid, -1)) + embeddings.position_embedding.weight
        for layer in self._vision.encoder.layers:
            keep = torch.ones((2, count, 1, 1), device=x.device)
            if self.drop and self.model.training:
                keep = (torch.rand_like(keep) >= self.drop) / (1 - self.drop)
            x = self._block(layer, x, keep)
        x = self._vision.post_layernorm(x)
        tokens = self.model.model.multi_modal_projector(x.view(count, grid, grid, -1))
        return tokens.reshape(count, IMAGE_TOKENS, -1), x.mean(1)

    def losses(self, prefix: Tensor, tokens: Tensor, ids: Tensor, answers: Tensor) -> Tensor:
        """Return the loss of every answer token, a flat tensor in nats.

        Args:
            prefix: Token ids before every image.
            tokens: Image tokens, one image a row.
            ids: Token ids behind the image, rows x length, padded on the right.
            answers: Which of `ids` belong to the answer.
        """
        language = self.model.model.language_model
        lead = language.embed_tokens(prefix).expand(len(ids), -1, -1)
        x = torch.cat([lead, tokens.to(lead.dtype), language.embed_tokens(ids)], 1)
        cos, sin = language.rotary_emb(x, torch.arange(x.shape[1], device=x.device)[None])
        # Padding is on the right, where no answer sees it: plain causal layers are exact.
        for layer in language.layers:
            x = self._attend(layer, x, cos, sin) if layer.is_attention_layer else self._convolve(layer, x)
        hidden = language.embedding_norm(x)[:, -ids.shape[1] - 1 : -1]
        logits = self.model.lm_head(hidden[answers]).float()
        return functional.cross_entropy(logits, ids[answers], reduction="none")


def _vision_block(layer: Any, x: Tensor, keep: Tensor) -> Tensor:
    attention, mlp, normed = layer.self_attn, layer.mlp, layer.layer_norm1(x)
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + keep[0] * attention.out_proj(mixed)
    return x + keep[1] * mlp.fc2(mlp.activation_fn(mlp.fc1(layer.layer_norm2(x))))


def _attention_block(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    attention, normed = layer.self_attn, layer.operator_norm(x)
    query, key, value = (
        project(normed).unflatten(-1, (-1, attention.head_dim))
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query = _turned(attention.q_layernorm(query).transpose(1, 2), cos, sin).to(value.dtype)
    key = _turned(attention.k_layernorm(key).transpose(1, 2), cos, sin).to(value.dtype)
    mixed = functional.scaled_dot_product_attention(query, key, value.transpose(1, 2), is_causal=True)
    return _fed(layer, x + attention.out_proj(mixed.transpose(1, 2).flatten(2)))


def _convolution_block(layer: Any, x: Tensor) -> Tensor:
    conv = layer.conv
    before, after, values = conv.in_proj(layer.operator_norm(x)).chunk(3, dim=-1)
    gated, taps = before * values, conv.conv.weight[:, 0]
    reach = taps.shape[1] - 1
    padded = functional.pad(gated, (0, 0, reach, 0))
    mixed = sum(taps[:, tap] * padded[:, tap : tap + x.shape[1]] for tap in range(reach + 1))
    return _fed(layer, x + conv.out_proj(after * mixed))


def _fed(layer: Any, x: Tensor) -> Tensor:
    mlp, normed = layer.feed_forward, layer.ffn_norm(x)
    return x + mlp.w2(functional.silu(mlp.w1(normed)) * mlp.w3(normed))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
