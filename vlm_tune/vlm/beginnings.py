"""Which answers are followed up, by what they begin with, and their part of the answers' tree as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Beginnings"]

TOLERANCE = 1e-4
"""Most that answers which are not followed up may be as probable as those that are."""


class Beginnings:
    """The answers' tree as arrays.

    Args:
        tree: The answers.
        beginnings: Their first tokens, ascending.

    Attributes:
        tokens: The token of each node; 0 for the first, which is none.
        depths: How far behind the prompt each node is.
        parents: The node before each, -1 for the first.
        sizes: How many nodes each beginning leads to, itself included.
    """

    def __init__(self, tree: AnswerTree, beginnings: Sequence[int]) -> None:
        place = {token: at for at, token in enumerate(beginnings)}
        self.tokens = np.array([0, *tree.tokens])
        self.depths, self.parents = np.array(tree.depths), np.array(tree.parents)
        belongs = [-1]
        for token, parent in zip(tree.tokens, tree.parents[1:], strict=True):
            belongs.append(belongs[parent] if parent else place[token])
        self._belongs = np.array(belongs[1:])
        self._begins = np.array([place[tree.steps[path[0]][1]] for path in tree.paths])
        self._known = np.array([len(path) == 1 for path in tree.paths])
        self.sizes = np.bincount(self._belongs, minlength=len(beginnings))
        self._open = np.bincount(self._begins, weights=~self._known, minlength=len(beginnings))
        self._ancestors = np.eye(len(self.parents), dtype=bool)
        for node, parent in enumerate(tree.parents):
            if parent > 0:
                self._ancestors[node] |= self._ancestors[parent]

    def choose(self, firsts: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return with which tokens answers begin that must be followed up, of shape (photos, beginnings).

        Args:
            firsts: The log-probabilities of all first tokens, of that shape.
        """
        probable = np.exp(firsts - firsts.max(axis=1, keepdims=True))
        at_stake = probable * self._open
        order = np.argsort(-at_stake, axis=1)
        at_stake, probable = (np.take_along_axis(one, order, axis=1) for one in (at_stake, probable))
        left = np.flip(np.cumsum(np.flip(at_stake, axis=1), axis=1), axis=1)
        # Half of it, so that the other tokens of likely answers need not be certain.
        enough = left[:, 1:] <= TOLERANCE / 2 * np.cumsum(probable, axis=1)[:, :-1]
        # All together are always enough.
        last = np.pad(enough, [(0, 0), (0, 1)], constant_values=True).argmax(axis=1)
        chosen = np.zeros(firsts.shape, dtype=bool)
        np.put_along_axis(chosen, order, np.arange(len(self._open)) <= last[:, None], axis=1)
        return chosen

    def short(self, scores: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for which photos too much is left over.

        Args:
            scores: The answers' log-probabilities, and for those that do not begin as chosen a bound.
            chosen: What `choose` returned.
        """
        probable = np.exp(scores - scores.max(axis=1, keepdims=True))
        bound = ~chosen[:, self._begins] & ~self._known
        too_much = ~((probable * bound).sum(axis=1) <= TOLERANCE * (probable * ~bound).sum(axis=1))
        return np.asarray(too_much & bound.any(axis=1))

    def nodes(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the nodes that some photos' choices lead to, filled up to the most that one has with 0."""
        wanted = chosen[:, self._belongs]
        order = np.argsort(~wanted, axis=1, kind="stable")[:, : wanted.sum(axis=1).max()]
        return np.where(np.take_along_axis(wanted, order, axis=1), order + 1, 0)

    def seen(self, nodes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return which nodes of its own tree each node sees, of shape (trees, nodes, nodes)."""
        return np.asarray(self._ancestors[nodes[:, :, None], nodes[:, None, :]])

    def parents_in(self, nodes: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where the node before each node stands in its own tree, -1 where the prompt is."""
        trees = np.arange(len(nodes))[:, None]
        place = np.full((len(nodes), len(self.parents)), -1)
        place[trees, nodes] = np.arange(nodes.shape[1])
        # Nothing that is asked for comes behind what only fills up.
        place[:, 0] = -1
        return np.where(nodes > 0, place[trees, self.parents[nodes]], -1)
