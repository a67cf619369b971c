"""Qwen3-VL's forward pass over packed tokens, from the very modules that transformers built.

The arithmetic is that of `Qwen3VLForConditionalGeneration`; what differs is what is not done: no padding, no
logits but the answers', no products of the last layer but at the answers, no image loop, no waiting for the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from vlm_tune.vlm.fused import ops
from vlm_tune.vlm.fused.blocks import Attention, FeedForward, Where
from vlm_tune.vlm.fused.lora import Stacked
from vlm_tune.vlm.fused.packing import Packed, Runs, attend, tails
from vlm_tune.vlm.fused.recompute import Recompute

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["Qwen3VL"]

_ROTARY_BASE = 10_000.0
"""Of the vision tower; the language model's is in its configuration."""


class Qwen3VL:
    """The forward pass in two halves: what the images say, and what the answers are.

    Args:
        model: A `Qwen3VLForConditionalGeneration`, bare or with PEFT's layers in it.
        recompute: Which layers are computed again in the backward pass.
    """

    def __init__(self, model: PreTrainedModel, recompute: Recompute) -> None:
        self._visual, self._language, self._head = model.model.visual, model.model.language_model, model.lm_head
        self._recompute = recompute
        self._merge = model.config.vision_config.spatial_merge_size
        self._layers = [_TextLayer(layer, self._language.config) for layer in self._language.layers]
        self._blocks = [_VisionBlock(block) for block in self._visual.blocks]
        self._mergers = [_Merger(merger) for merger in (self._visual.merger, *self._visual.deepstack_merger_list)]
        self._places: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def see(self, pixels: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the images' features, one tensor for the first layer and one for each that is told more.

        Args:
            pixels: `pixel_values` of shape (patches, values), and `image_grid_thw` of shape (images, 3) on the CPU.

        Returns:
            Tensors of shape (image tokens, hidden size).
        """
        grids = [(int(height), int(width)) for _, height, width in pixels["image_grid_thw"].tolist()]
        table, cos, sin = (torch.cat(parts) for parts in zip(*map(self._place, grids), strict=True))
        runs = _runs_of([height * width for height, width in grids])
        embed = self._visual.patch_embed.proj
        x = functional.linear(pixels["pixel_values"], embed.weight.flatten(1), embed.bias) + table
        deep = []
        for index, block in enumerate(self._blocks):
            x = self._recompute(block, index / len(self._blocks), x, cos, sin, runs)
            if index in self._visual.deepstack_visual_indexes:
                deep.append(self._mergers[1 + self._visual.deepstack_visual_indexes.index(index)](x))
        return self._mergers[0](x), *deep

    def answer_states(self, packed: Packed, features: Sequence[Tensor]) -> Tensor:
        """Return what the head makes logits of, at the rows that are wanted, of shape (rows, hidden size).

        Args:
            packed: The sequences.
            features: What `see` returned for their images, in the same order; nothing where there are none.
        """
        x = self._language.embed_tokens(packed.tokens)
        if features:
            x = x.index_copy(0, packed.image_slots, features[0].to(x.dtype))
        cos, sin = self._language.rotary_emb(x, packed.positions[:, None])
        where = Where(
            runs=packed.runs,
            cos=cos[0],
            sin=sin[0],
            tail=packed.tail,
            branches=packed.branches,
            kept=packed.kept,
            behind=packed.behind,
        )
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            x = self._recompute(layer, index / len(self._layers), x, where, index == last)
            # Behind the last layer no answer would see it.
            if index + 1 < len(features) and index != last:
                x = x.index_add(0, packed.image_slots, features[index + 1].to(x.dtype))
        return ops.rms_norm(x[packed.answer_slots], self._language.norm.weight, self._language.norm.variance_epsilon)

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of some of `answer_states`' rows, of shape (rows, vocabulary)."""
        made: Tensor = self._head(states)
        return made

    def _place(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return a grid's position embeddings, cosines and sines, patches in the order in which they are merged."""
        if grid not in self._places:
            rows, columns = (self._merged(one) for one in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
            table = self._visual.pos_embed.weight
            side = self._visual.num_grid_per_side
            square = table.detach().float().view(1, side, side, -1).permute(0, 3, 1, 2)
            resized = functional.interpolate(square, size=grid, mode="bilinear", align_corners=True)[0]
            order = (rows * grid[1] + columns).to(table.device)
            width = self._blocks_head_width // 2
            frequency = _ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float) / width)
            angles = torch.cat([rows[:, None] * frequency, columns[:, None] * frequency], dim=-1).to(table.device)
            angles = torch.cat([angles, angles], dim=-1)
            self._places[grid] = resized.flatten(1).T[order].to(table.dtype), angles.cos(), angles.sin()
        return self._places[grid]

    def _merged(self, places: Tensor) -> Tensor:
        height, width = places.shape
        blocks = places.view(height // self._merge, self._merge, width // self._merge, self._merge)
        return blocks.transpose(1, 2).flatten()

    @property
    def _blocks_head_width(self) -> int:
        config = self._visual.config
        return int(config.hidden_size // config.num_heads)


def _runs_of(lengths: Sequence[int]) -> Runs:
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return tuple(runs)


class _TextLayer:
    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self._eps = config.rms_norm_eps
        self._attention = Attention(
            (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            (attention.q_norm.weight, attention.k_norm.weight),
            head_width=attention.head_dim,
            eps=self._eps,
        )
        self._mlp = FeedForward(mlp.gate_proj, mlp.up_proj, mlp.down_proj)

    def __call__(self, x: Tensor, where: Where, only_tails: bool) -> Tensor:
        x, normed = ops.add_rms_norm(x, None, self._norms[0], self._eps)
        update = self._attention(normed, where, only_tails=only_tails)
        if only_tails:
            x = tails(x, where.runs, where.tail)
        x, normed = ops.add_rms_norm(x, update, self._norms[1], self._eps)
        return x + self._mlp(normed)


class _VisionBlock:
    def __init__(self, block: Any) -> None:
        self._norm1, self._norm2 = block.norm1, block.norm2
        self._heads = block.attn.num_heads
        self._qkv, self._proj = Stacked(block.attn.qkv), Stacked(block.attn.proj)
        self._fc1, self._fc2 = Stacked(block.mlp.linear_fc1), Stacked(block.mlp.linear_fc2)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, runs: Runs) -> Tensor:
        query, key, value = ops.heads(self._qkv(self._norm1(x)), cos, sin, counts=[self._heads] * 3)
        x = x + self._proj(attend(query, key, value, runs, causal=False))
        inner = functional.gelu(self._fc1(self._norm2(x)), approximate="tanh")
        return x + self._fc2(inner)


class _Merger:
    def __init__(self, merger: Any) -> None:
        self._norm, self._width = merger.norm, merger.hidden_size
        self._after = merger.use_postshuffle_norm
        self._fc1, self._fc2 = Stacked(merger.linear_fc1), Stacked(merger.linear_fc2)

    def __call__(self, x: Tensor) -> Tensor:
        x = self._norm(x.view(-1, self._width)) if self._after else self._norm(x).view(-1, self._width)
        return self._fc2(functional.gelu(self._fc1(x)))
