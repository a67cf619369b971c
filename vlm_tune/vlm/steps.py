"""From the states of an answer tree's nodes to the answers' log-probabilities."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vlm_tune.vlm.fused import Fused

__all__ = ["Steps"]

_LOGITS_AT_ONCE = 2**27
"""Logits made at once: half a gigabyte in float32."""


class Steps:
    """The steps of a tree by node, so that those of some rows stand together.

    Args:
        tree: The answers.
        vocabulary: How many logits a state has.
        device: Where the model is.

    Attributes:
        nodes: The node of each step, ascending.
        tokens: The token that may follow it.
    """

    def __init__(self, tree: AnswerTree, *, vocabulary: int, device: torch.device) -> None:
        import torch

        order = sorted(range(len(tree.steps)), key=tree.steps.__getitem__)
        place = {step: at for at, step in enumerate(order)}
        self.nodes = [tree.steps[step][0] for step in order]
        self.tokens = [tree.steps[step][1] for step in order]
        self._rows, self._tokens = torch.tensor(self.nodes, device=device), torch.tensor(self.tokens, device=device)
        longest = max(map(len, tree.paths))
        # What is missing in a short path is a step behind the last one, which costs nothing.
        paths = [[*(place[step] for step in path), *[len(order)] * (longest - len(path))] for path in tree.paths]
        self._paths = torch.tensor(paths, device=device)
        self._size, self._vocabulary = len(tree.parents), vocabulary

    def __len__(self) -> int:
        return len(self.nodes)

    def scores(self, states: Tensor, forward: Fused) -> Tensor:
        """Return the answers' log-probabilities, of shape (photos, answers).

        Args:
            states: Of whole trees, of shape (photos * nodes, hidden size).
            forward: Makes logits of them.
        """
        import torch

        photos = len(states) // self._size
        starts = torch.arange(photos, device=states.device)[:, None]
        rows, tokens = (starts * self._size + self._rows).flatten(), self._tokens.repeat(photos)
        found = self.log_probabilities(states, forward, rows=rows, tokens=tokens, before=self._asked_before)
        return self.total(found.view(photos, len(self)))

    def log_probabilities(
        self, states: Tensor, forward: Fused, *, rows: Tensor, tokens: Tensor, before: Callable[[int], int]
    ) -> Tensor:
        """Return the log-probabilities of some tokens, in float32; logits are made a part at a time.

        Args:
            states: Of shape (rows, hidden size).
            forward: Makes logits of them.
            rows: Behind which state each token comes, ascending.
            tokens: The tokens.
            before: How many of them come behind the states before a row.
        """
        import torch

        found, at_once = torch.empty(len(tokens), device=states.device), max(1, _LOGITS_AT_ONCE // self._vocabulary)
        for begin in range(0, len(states), at_once):
            end = min(len(states), begin + at_once)
            logits = forward.logits(states[begin:end]).float()
            here = slice(before(begin), before(end))
            at = rows[here] - begin
            found[here] = logits[at, tokens[here]] - logits.logsumexp(-1)[at]
        return found

    def total(self, steps: Tensor) -> Tensor:
        """Return the answers' log-probabilities, of shape (photos, answers), from those of all steps in turn."""
        from torch.nn import functional

        return functional.pad(steps, (0, 1))[:, self._paths].sum(-1)

    def _asked_before(self, row: int) -> int:
        photo, node = divmod(row, self._size)
        return photo * len(self) + bisect_left(self.nodes, node)
