"""LFM2-VL's forward pass over packed tokens, from the very modules that transformers built.

The arithmetic is that of `Lfm2VlForConditionalGeneration`; what differs is what is not done: no padding of images
or texts, no image loop, no waiting for the GPU, and behind the last attention layer nothing but the tokens that
an answer can still see through the short convolutions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
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

__all__ = ["Lfm2VL"]


class Lfm2VL:
    """The forward pass in two halves: what the images say, and what the answers are.

    Args:
        model: A `Lfm2VlForConditionalGeneration`, bare or with PEFT's layers in it.
        recompute: Which layers are computed again in the backward pass.
    """

    def __init__(self, model: PreTrainedModel, recompute: Recompute) -> None:
        # Versions of transformers differ in whether a `vision_model` holds the tower.
        self._vision = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
        self._language, self._head, self._recompute = model.model.language_model, model.lm_head, recompute
        config = self._language.config
        self._layers = [_TextLayer(layer, config) for layer in self._language.layers]
        self._embed = Stacked(self._vision.embeddings.patch_embedding)
        self._blocks = [_VisionBlock(block) for block in self._vision.encoder.layers]
        self._projector = _Projector(model.model.multi_modal_projector)
        self._last_attention = max(index for index, kind in enumerate(config.layer_types) if kind != "conv")
        self._reach = (len(self._layers) - 1 - self._last_attention) * (config.conv_L_cache - 1)
        self._places: dict[tuple[int, int], Tensor] = {}

    def see(self, pixels: dict[str, Tensor]) -> tuple[Tensor]:
        """Return the images' features.

        Args:
            pixels: `pixel_values` of shape (tiles, patches, values), filled up to the largest tile, and
                `spatial_shapes` of shape (tiles, 2) on the CPU, which says how many patches are real.

        Returns:
            One tensor of shape (image tokens, hidden size), in the tiles' order.
        """
        shapes = [(int(height), int(width)) for height, width in pixels["spatial_shapes"].tolist()]
        # Equal tiles stand together, so that attention is one product for each shape.
        order = sorted(range(len(shapes)), key=shapes.__getitem__)
        counts = Counter(sorted(shapes))
        runs = tuple((count, height * width) for (height, width), count in counts.items())
        patches = torch.cat([pixels["pixel_values"][tile, : shapes[tile][0] * shapes[tile][1]] for tile in order])
        table = torch.cat([self._place(shape).repeat(count, 1) for shape, count in counts.items()])
        x = self._embed(patches.to(table.dtype)) + table
        for index, block in enumerate(self._blocks):
            x = self._recompute(block, index / len(self._blocks), x, runs)
        features, sizes = self._projector(self._vision.post_layernorm(x), counts)
        if order != list(range(len(order))):
            tiles = dict(zip(order, torch.split(features, sizes), strict=True))
            features = torch.cat([tiles[tile] for tile in range(len(order))])
        return (features,)

    def answer_states(self, packed: Packed, features: Sequence[Tensor]) -> Tensor:
        """Return what the head makes logits of, at the rows that are wanted, of shape (rows, hidden size).

        Args:
            packed: The sequences.
            features: What `see` returned for their images, in the same order; nothing where there are none.
        """
        x = self._language.embed_tokens(packed.tokens)
        if features:
            x = x.index_copy(0, packed.image_slots, features[0].to(x.dtype))
        cos, sin = self._language.rotary_emb(x, packed.positions[None])
        runs, seen = packed.runs, packed.tail + self._reach
        where = Where(
            runs=runs,
            cos=cos[0],
            sin=sin[0],
            tail=seen,
            branches=packed.branches,
            kept=packed.kept,
            behind=packed.behind,
        )
        within = _within(runs, x.device)
        for index, layer in enumerate(self._layers):
            last = index == self._last_attention
            x = self._recompute(layer, index / len(self._layers), x, where, within, last)
            if last:
                runs = tuple((count, min(seen, length)) for count, length in runs)
                # The first tokens of a cut sequence miss what came before them, but no answer sees them.
                within, where = _within(runs, x.device), replace(where, runs=runs)
        x = tails(x, runs, packed.tail)[packed.answer_slots]
        norm = self._language.embedding_norm
        return ops.rms_norm(x, norm.weight, norm.variance_epsilon)

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of some of `answer_states`' rows, of shape (rows, vocabulary)."""
        made: Tensor = self._head(states)
        return made

    def _place(self, shape: tuple[int, int]) -> Tensor:
        """Return the position embeddings of a tile's patches, row by row."""
        if shape not in self._places:
            embeddings = self._vision.embeddings
            table, side = embeddings.position_embedding.weight, embeddings.position_embedding_size
            square = table.detach().float().view(1, side, side, -1).permute(0, 3, 1, 2)
            resized = functional.interpolate(square, size=shape, mode="bilinear", antialias=True)[0]
            self._places[shape] = resized.flatten(1).T.to(table.dtype)
        return self._places[shape]


def _within(runs: Runs, device: torch.device) -> Tensor:
    """Return the place of each token in its own sequence."""
    return torch.cat([torch.arange(length, device=device).repeat(count) for count, length in runs])


class _TextLayer:
    def __init__(self, layer: Any, config: Any) -> None:
        self._norms = layer.operator_norm.weight, layer.ffn_norm.weight
        self._eps = config.norm_eps
        self._attention = _attention(layer.self_attn, self._eps) if layer.is_attention_layer else None
        self._conv = None if layer.is_attention_layer else _ShortConv(layer.conv)
        self._mlp = FeedForward(layer.feed_forward.w1, layer.feed_forward.w3, layer.feed_forward.w2)

    def __call__(self, x: Tensor, where: Where, within: Tensor, only_tails: bool) -> Tensor:
        x, normed = ops.add_rms_norm(x, None, self._norms[0], self._eps)
        if self._attention is not None:
            update = self._attention(normed, where, only_tails=only_tails)
        elif self._conv is not None:
            update = self._conv(normed, where, within)
        if only_tails:
            x = tails(x, where.runs, where.tail)
        x, normed = ops.add_rms_norm(x, update, self._norms[1], self._eps)
        return x + self._mlp(normed)


def _attention(attention: Any, eps: float) -> Attention:
    return Attention(
        (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj),
        (attention.q_layernorm.weight, attention.k_layernorm.weight),
        head_width=attention.head_dim,
        eps=eps,
    )


class _ShortConv:
    def __init__(self, conv: Any) -> None:
        self._input, self._output = Stacked(conv.in_proj), Stacked(conv.out_proj)
        self._filters, self._bias = conv.conv.weight, conv.conv.bias

    def __call__(self, x: Tensor, where: Where, within: Tensor) -> Tensor:
        gates = self._input(x)
        if where.kept is not None:
            where.kept[self] = (tails(gates, where.runs, self._filters.shape[-1] - 1),)
        if where.behind is not None:
            mixed = where.behind.convolve(self, gates, self._filters[:, 0])
        else:
            mixed = ops.gated_conv(gates, self._filters[:, 0], within)
        if where.branches is not None:
            ops.gated_conv_of_branches(mixed, gates, self._filters[:, 0], where.runs, where.branches)
        if self._bias is not None:
            _, of_output, _ = torch.chunk(gates, 3, dim=1)
            mixed = mixed + of_output * self._bias
        return self._output(mixed)


class _VisionBlock:
    def __init__(self, block: Any) -> None:
        attention, mlp = block.self_attn, block.mlp
        self._norm1, self._norm2, self._activation = block.layer_norm1, block.layer_norm2, mlp.activation_fn
        self._heads = attention.num_heads
        self._qkv = Stacked(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out, self._fc1, self._fc2 = Stacked(attention.out_proj), Stacked(mlp.fc1), Stacked(mlp.fc2)

    def __call__(self, x: Tensor, runs: Runs) -> Tensor:
        query, key, value = self._qkv(self._norm1(x)).view(len(x), 3, self._heads, -1).unbind(1)
        x = x + self._out(attend(query, key, value, runs, causal=False))
        return x + self._fc2(self._activation(self._fc1(self._norm2(x))))


class _Projector:
    """Squares of neighbouring patches as one token each."""

    def __init__(self, projector: Any) -> None:
        self._side, self._norm, self._activation = projector.factor, projector.layer_norm, projector.act
        self._linear1, self._linear2 = Stacked(projector.linear_1), Stacked(projector.linear_2)

    def __call__(self, x: Tensor, counts: Mapping[tuple[int, int], int]) -> tuple[Tensor, list[int]]:
        """Return the tokens of all tiles, and how many each tile has; patches stand as `counts` says."""
        parts, sizes, at, side = [], [], 0, self._side
        for (height, width), count in counts.items():
            here = x[at : at + count * height * width]
            squares = here.view(count * height // side, side, width // side, side, -1).transpose(1, 2)
            parts.append(squares.reshape(-1, side * side * x.shape[1]))
            sizes += [height * width // side**2] * count
            at += len(here)
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        x = x if self._norm is None else self._norm(x)
        return self._linear2(self._activation(self._linear1(x))), sizes
