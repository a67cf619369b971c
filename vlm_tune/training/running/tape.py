"""The losses of the steps, read from a GPU without making it wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune.training.running.steps import Step

if TYPE_CHECKING:
    import torch

__all__ = ["Reading", "Tape"]

_BEHIND = 2
"""Steps that may be under way on a GPU before the loss of an older one is waited for."""


@dataclass(frozen=True)
class Reading:
    """A step that is over.

    Attributes:
        number: Which optimizer step, from 1.
        step: Its examples.
        loss: Its loss, over all processes.
        learning_rate: Its learning rate.
        ending: Whether any process had been asked to end.
    """

    number: int
    step: Step
    loss: float
    learning_rate: float
    ending: bool


class Tape:
    """Losses as they are put in, and as they can be read some steps later."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Step, torch.Tensor, Any, float]] = deque()

    def put(self, number: int, step: Step, loss: torch.Tensor, learning_rate: float, *, ending: bool = False) -> None:
        """Note a step whose loss may still be under way.

        Args:
            number: Which optimizer step.
            step: Its examples.
            loss: This process's share of its loss, on the device.
            learning_rate: Its learning rate.
            ending: Whether this process was asked to end. It travels with the loss, so that all processes hear of it
                at the same step, and none waits for one that has stopped.
        """
        import torch

        value = loss.detach().float()
        value = torch.stack([value, torch.full_like(value, float(ending))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(value)
        done = None
        if value.is_cuda:
            value = value.to("cpu", non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        self._waiting.append((number, step, value, done, learning_rate))

    def read(self, *, all_of_them: bool = False) -> Iterator[Reading]:
        """Yield the steps that are far enough behind, in order, waiting for them if need be."""
        while self._waiting and (all_of_them or self._waiting[0][3] is None or len(self._waiting) > _BEHIND):
            number, step, value, done, learning_rate = self._waiting.popleft()
            if done is not None:
                done.synchronize()
            total, asked = value.tolist()
            yield Reading(number=number, step=step, loss=total, learning_rate=learning_rate, ending=asked > 0)
