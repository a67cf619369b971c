"""Tokens that follow sequences which went through the model before: each sequence has a tree of its own behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from vlm_tune.vlm.fused import ops
from vlm_tune.vlm.fused.packing import attend_to

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Behind", "Kept"]

Kept = dict[object, tuple["Tensor", ...]]
"""What each layer keeps of a batch for the tokens to come: keys and values, or what its convolution was fed last."""


@dataclass(frozen=True)
class Behind:
    """Trees of as many tokens each, filled up where they have fewer.

    Attributes:
        kept: What the layers kept of the sequences.
        sequences: Which sequence each tree follows, of shape (trees,).
        rows: The tokens of that sequence in the row of all, of shape (trees, longest); shorter ones are filled up.
        seen: What each node sees of these tokens, and of its tree, of shape (trees, 1, nodes, longest + nodes).
        parents: The node before each node in its tree, -1 where the sequence is, of shape (trees, nodes).
    """

    kept: Kept
    sequences: Tensor
    rows: Tensor
    seen: Tensor
    parents: Tensor
    _places: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def attend(self, layer: object, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the attention of the nodes to their sequence and their tree.

        Args:
            layer: Who kept keys and values of the sequences.
            query: Of shape (trees * nodes, heads, width).
            key: Of shape (trees * nodes, key heads, width).
            value: As the key.

        Returns:
            Tensor of shape (trees * nodes, heads * width).
        """
        trees = len(self.rows)
        whole = [
            torch.cat([old[self.rows], new.view(trees, -1, *new.shape[1:])], dim=1)
            for old, new in zip(self.kept[layer], (key, value), strict=True)
        ]
        return attend_to(query, *whole, seen=self.seen)

    def convolve(self, layer: object, gates: Tensor, weight: Tensor) -> Tensor:
        """Return LFM2's short convolution of the trees; see `ops.gated_conv`.

        Args:
            layer: Who kept what its convolution was fed last, of shape (sequences * (taps - 1), 3 * width).
            gates: b, c and x behind one another, of shape (trees * nodes, 3 * width).
            weight: One causal filter a channel, of shape (width, taps).
        """
        (fed,), trees, reach = self.kept[layer], len(self.parents), weight.shape[-1] - 1
        before = fed.view(-1, reach, gates.shape[1])[self.sequences]
        whole = torch.cat([before, gates.view(trees, -1, gates.shape[1])], dim=1)
        if reach not in self._places:
            self._places[reach] = self._before(reach)
        return ops.gated_conv_at(whole.flatten(0, 1), weight, self._places[reach])

    def _before(self, reach: int) -> Tensor:
        """Return where each node, the one before it, and so on stand, with `reach` tokens kept before every tree."""
        trees, nodes = self.parents.shape
        own = torch.arange(nodes, device=self.parents.device).expand(trees, nodes)
        steps = [own + reach]
        # Above every tree stand the last tokens of its sequence, which follow one another.
        above = torch.arange(-1, reach - 1, device=own.device).expand(trees, reach)
        before = torch.cat([above, self.parents + reach], dim=1)
        while len(steps) <= reach:
            steps.append(before.gather(1, steps[-1]))
        starts = torch.arange(trees, device=own.device)[:, None] * (reach + nodes)
        return torch.stack([(step + starts).flatten() for step in steps])
