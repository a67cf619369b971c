"""A tree of tokens behind a prompt: each node sees the prompt and the nodes that lead to it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Branches"]

_LENGTHS_KEPT = 16
"""For how many lengths of sequences it is remembered what is seen: all layers ask."""


class Branches:
    """The last tokens of every sequence of a batch, the same tree in each.

    Args:
        parents: The node that each node continues, -1 for the first, which follows the prompt.
        device: Where the model is.
    """

    def __init__(self, parents: Sequence[int], device: torch.device) -> None:
        self._parents, self._device = tuple(parents), device
        ancestors = torch.eye(len(parents), dtype=torch.bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        self._ancestors = ancestors.to(device)
        self._before: dict[int, Tensor] = {}
        self._seen: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def seen(self, asking: int, length: int) -> Tensor:
        """Return what the last tokens of a sequence see.

        Args:
            asking: How many tokens ask: the tree, and those right before it.
            length: How many tokens the sequence has.

        Returns:
            Truth values of shape (asking, length).
        """
        if (asking, length) not in self._seen:
            if len(self._seen) >= _LENGTHS_KEPT:
                self._seen.clear()
            places = torch.arange(length, device=self._device)
            causal = places[: length - len(self)] <= places[length - asking :, None]
            tree = functional.pad(self._ancestors, (0, 0, asking - len(self), 0))
            self._seen[asking, length] = torch.cat([causal, tree], dim=1)
        return self._seen[asking, length]

    def before(self, steps: int) -> Tensor:
        """Return the places of the nodes and their ancestors, counted from the first node's.

        Args:
            steps: How many to return of each node: itself, the one before it, and so on; those before the first node
                are in the prompt, and negative.

        Returns:
            Whole numbers of shape (steps, nodes).
        """
        if steps not in self._before:
            rows = [list(range(len(self)))]
            while len(rows) < steps:
                rows.append([self._parents[node] if node > 0 else node - 1 for node in rows[-1]])
            self._before[steps] = torch.tensor(rows, device=self._device)
        return self._before[steps]
