"""All answers as one tree of tokens, so that what they begin with alike is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AnswerTree"]


@dataclass(frozen=True)
class AnswerTree:
    """Every beginning of an answer is a node; node 0 is the empty one, where the prompt ends.

    Attributes:
        tokens: The last token of each node but the first.
        parents: The node that each node continues; -1 for the first. Parents stand before their children.
        steps: What is asked: for each a node and a token that may follow it.
        paths: For each answer, its steps.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        """Return the tree of some answers, each of one token or more.

        Examples:
            >>> tree = AnswerTree.of([(5, 2), (5, 6, 2)])
            >>> tree.tokens, tree.parents
            ((5, 6), (-1, 0, 1))
            >>> tree.steps, tree.paths
            (((0, 5), (1, 2), (1, 6), (2, 2)), ((0, 1), (0, 2, 3)))
        """
        nodes: dict[tuple[int, ...], int] = {(): 0}
        parents = [-1]
        steps: dict[tuple[int, int], int] = {}
        paths = []
        for answer in answers:
            path = []
            for place, token in enumerate(answer):
                before = tuple(answer[:place])
                if before not in nodes:
                    nodes[before] = len(nodes)
                    parents.append(nodes[before[:-1]])
                path.append(steps.setdefault((nodes[before], token), len(steps)))
            paths.append(tuple(path))
        tokens = tuple(node[-1] for node in nodes if node)
        return cls(tokens=tokens, parents=tuple(parents), steps=tuple(steps), paths=tuple(paths))

    @property
    def depths(self) -> tuple[int, ...]:
        """How many tokens of an answer each node is.

        Examples:
            >>> AnswerTree.of([(5, 2), (5, 6, 2)]).depths
            (0, 1, 2)
        """
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)
