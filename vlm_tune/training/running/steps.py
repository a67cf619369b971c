"""Which examples each optimizer step takes, on any number of GPUs: a matter of seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Row", "Step", "Steps", "chunks"]


@dataclass(frozen=True)
class Row:
    """One example's part in a step.

    Attributes:
        index: Which example.
        weight: How much its loss counts; 0 for one that only keeps a GPU busy.
    """

    index: int
    weight: float


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        rows: What this process does.
        everyone: What all processes do together.
    """

    rows: Sequence[Row]
    everyone: Sequence[Row]


class Steps:
    """The optimizer steps of an epoch, as a batch sampler whose batches are one `Step` each.

    The examples of a step do not depend on how many processes share it, so a run can go on with more or fewer.

    Args:
        order: Returns the order of the examples in an epoch.
        weights: How much each example's loss counts.
        batch_size: Examples of a step, over all processes.
        rank: Which process this is.
        world_size: How many there are.
        even: Whether all must do equally many examples, if need be some that do not count.
    """

    def __init__(
        self,
        order: Callable[[int], Sequence[int]],
        weights: Sequence[float],
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        even: bool = False,
    ) -> None:
        self._order, self._weights = order, weights
        self._batch_size, self._rank, self._world_size, self._even = batch_size, rank, world_size, even
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self._order(self.epoch)) / self._batch_size)

    def __iter__(self) -> Iterator[list[Step]]:
        order = self._order(self.epoch)
        for start in range(0, len(order), self._batch_size):
            everyone = [Row(index, self._weights[index]) for index in order[start : start + self._batch_size]]
            # Every process takes part in every step, if need be with an example that does not count.
            mine = everyone[self._rank :: self._world_size]
            least = -(-len(everyone) // self._world_size) if self._even else 1
            mine += [Row(everyone[0].index, 0.0)] * (least - len(mine))
            yield [Step(rows=mine, everyone=everyone)]


def chunks(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Return the rows in parts of at most `size`.

    Examples:
        >>> len(chunks([Row(0, 1.0)] * 5, 2))
        3
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]
