"""Which examples each optimizer step takes, on any number of GPUs: a matter of seed and epoch alone."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vlm_tune.training.augmenting.drawing import AS_IT_IS, View, Views
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.sampling import epoch_order, example_weights

__all__ = ["Row", "Step", "Steps", "chunks", "steps_of"]

_KNOWN_AHEAD = 64
"""Examples whose photos may be made ready before their step comes."""


@dataclass(frozen=True)
class Row:
    """One example's part in a step.

    Attributes:
        index: Which example.
        weight: How much its loss counts; 0 for one that only keeps a GPU busy.
        view: How its photo is seen.
    """

    index: int
    weight: float
    view: View = AS_IT_IS

    @property
    def examples(self) -> tuple[int, ...]:
        """The examples whose photos are seen."""
        return (self.index,) if self.view.mix is None else (self.index, self.view.mix.index)


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

    Attributes:
        epoch: Number of the pass that comes.
        coming: Is told what this process will do, some steps before it comes.

    Args:
        order: Returns the order of the examples in an epoch.
        weights: How much each example's loss counts.
        batch_size: Examples of a step, over all processes.
        rank: Which process this is.
        world_size: How many there are.
        even: Whether all must do equally many examples, if need be some that do not count.
        views: Draws how photos are seen; None as they are.
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
        views: Views | None = None,
    ) -> None:
        self._order, self._weights, self._views = order, weights, views
        self._batch_size, self._rank, self._world_size, self._even = batch_size, rank, world_size, even
        self.epoch = 0
        self.coming: Callable[[Sequence[Row]], None] = lambda rows: None

    def __len__(self) -> int:
        return math.ceil(len(self._order(self.epoch)) / self._batch_size)

    def __iter__(self) -> Iterator[list[Step]]:
        known: deque[Step] = deque()
        for step in self._of_epoch():
            self.coming(step.rows)
            known.append(step)
            if (len(known) - 1) * self._batch_size >= _KNOWN_AHEAD:
                yield [known.popleft()]
        while known:
            yield [known.popleft()]

    def _of_epoch(self) -> Iterator[Step]:
        order, epoch, times = self._order(self.epoch), self.epoch, Counter[int]()
        for start in range(0, len(order), self._batch_size):
            everyone = []
            for index in order[start : start + self._batch_size]:
                drawn = self._views and self._views.view(index, epoch=epoch, time=times[index], order=order)
                everyone.append(Row(index, self._weights[index], drawn or AS_IT_IS))
                times[index] += 1
            # Every process takes part in every step, if need be with an example that does not count.
            mine = everyone[self._rank :: self._world_size]
            least = -(-len(everyone) // self._world_size) if self._even else 1
            mine += [Row(everyone[0].index, 0.0)] * (least - len(mine))
            yield Step(rows=mine, everyone=everyone)


def steps_of(
    config: TrainConfig, labels: Sequence[str], *, rank: int = 0, world_size: int = 1, even: bool = False
) -> Steps:
    """Return the steps that a configuration asks for.

    Args:
        config: The training configuration.
        labels: Label of each example.
        rank: As in `Steps`.
        world_size: As there.
        even: As there.
    """
    weights = example_weights(labels, config.class_weights)
    return Steps(
        lambda epoch: epoch_order(labels, sampling=config.sampling, seed=config.seed, epoch=epoch),
        weights,
        batch_size=config.batch_size,
        rank=rank,
        world_size=world_size,
        even=even,
        views=Views(config.augment, weights, seed=config.seed) if config.augment else None,
    )


def chunks(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """Return the rows in parts of at most `size`.

    Examples:
        >>> len(chunks([Row(0, 1.0)] * 5, 2))
        3
    """
    return [rows[start : start + size] for start in range(0, len(rows), size)]
